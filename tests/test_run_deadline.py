"""Work that goes on is no hang, however long it takes; what is stuck in one call is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clips import Clip, write
from pipeline import run_patched, store_of

import reelbank.store

MODEL = "frames:112"
PARTS = 60
"""Frames of each clip, and blocks of each file."""
PATCH = """
import time, types
import reelbank.extract.run.content as content
import reelbank.extract.video.damage as damage
import reelbank.extract.video.decode as decode
import reelbank.extract.video.plan as plan
import reelbank.extract.run.worker as worker
worker.ALIVE_SECONDS = 0.2
def before(call, seconds, nth=None):
    calls = []
    def late(*arguments, **options):
        calls.append(1)
        if nth is None or len(calls) == nth:
            time.sleep(seconds)
        return call(*arguments, **options)
    return late
decode.Video.__init__.__kwdefaults__['kept_bytes'] = 0
content.CHUNK_BYTES = {block_bytes}
real = content.hashlib.sha256
def sha256():
    digest = real()
    return types.SimpleNamespace(update=before(digest.update, {hash}), hexdigest=digest.hexdigest)
content.hashlib = types.SimpleNamespace(sha256=sha256)
plan._is_start = before(plan._is_start, {walk})
damage.Reports.decode = before(damage.Reports.decode, {decode})
"""
LONG_GOP = {"x264-params": "keyint=60:min-keyint=60:scenecut=0:bframes=0:threads=1"}
CLIPS = {".avi": Clip(suffix=".avi", codec="mpeg4", options={"g": "12"}), ".mp4": Clip(options=LONG_GOP)}


def run_with(folder: Path, suffix: str, **seconds: str) -> dict[str, Any]:
    """A run of one clip near the end of a file, whose parts take so many seconds each."""
    path = folder / f"clip{suffix}"
    write(path, CLIPS[suffix])
    (folder / "manifest.csv").write_text(
        f"clip_id,video,split,label,start_seconds,end_seconds\na,{path.name},train,x,2.2,2.4\n"
    )
    patch = PATCH.format(
        **{"hash": "0", "walk": "0", "decode": "0"} | seconds, block_bytes=path.stat().st_size // PARTS
    )
    found: dict[str, Any] = run_patched(folder, patch, model=(MODEL,), deadline_seconds=2.0, workers=1)["stores"][0]
    return found


@pytest.mark.parametrize(
    ("suffix", "step"), [(".avi", "hash"), (".avi", "decode"), (".mp4", "walk"), (".mp4", "decode")]
)
def test_step_that_goes_on_reaches_no_deadline(suffix: str, step: str, tmp_path: Path) -> None:
    """An AVI is decoded to be counted, and once more up to the frames that are wanted."""
    found = run_with(tmp_path, suffix, **{step: "0.07"})
    assert found["failures"] == {}
    assert reelbank.store.open(store_of(tmp_path, MODEL)).clips.status.tolist() == [1]


@pytest.mark.parametrize(("suffix", "step"), [(".avi", "hash"), (".avi", "decode"), (".mp4", "walk")])
def test_one_call_that_never_returns_reaches_the_deadline(suffix: str, step: str, tmp_path: Path) -> None:
    found = run_with(tmp_path, suffix, **{step: "600, nth=30"})
    assert found["failures"] == {"a": "deadline: no new frame for 2 s; the worker was stopped"}
