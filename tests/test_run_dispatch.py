"""Many clips of one file: hashed, scanned and decoded once, whoever does what in whatever order."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from clips import render
from pipeline import assert_same_store, run, run_patched, store_of

import reelbank.store
from reelbank.extract.run import dispatch, todo
from reelbank.extract.run.content import content_hash
from reelbank.extract.run.dispatch import Dispatch, one_after_another
from reelbank.extract.run.messages import ClipJob
from reelbank.extract.video.decode import Video
from reelbank.manifests import Clip as Row

MODEL = "frames:112"
NUM_CLIPS = 10
COUNTED = ("h264-ts", "mpeg1-ps", "mpeg4-avi-b", "vp8-altref")
REREAD = """
import reelbank.extract.video.decode as decode
decode.Video.__init__.__kwdefaults__['kept_bytes'] = 0
"""
ONCE = """
import pathlib
import reelbank.extract.run.opened as opened
import reelbank.extract.video.decode as decode
def counted(owner, name):
    real = getattr(owner, name)
    def call(*arguments, **options):
        with open({log!r}, 'a') as log:
            log.write(name + chr(10))
        return real(*arguments, **options)
    setattr(owner, name, call)
counted(opened, 'content_hash')
counted(decode, 'examine')
"""


def index_of(found: ClipJob | None) -> int | None:
    return None if found is None else found.index


def job(index: int, start: float | None = None, end: float | None = None, path: str = "a.avi") -> ClipJob:
    clip = Row(clip_id=str(index), video=path, start_seconds=start, end_seconds=end)
    return ClipJob(index=index, clip=clip, paths={"video": (Path(path),) if path else ()}, rows=((0, index),))


def write_manifest(folder: Path, name: str, intervals: list[tuple[float, float]]) -> None:
    rows = [f"c{i:02d},{name},train,x,{start:.3f},{end:.3f}" for i, (start, end) in enumerate(intervals)]
    header = "clip_id,video,split,label,start_seconds,end_seconds"
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")


def intervals_of(path: Path) -> list[tuple[float, float]]:
    with Video(path) as video:
        seconds = video.scan().duration_seconds
    return [(i * seconds / NUM_CLIPS, (i + 0.9) * seconds / NUM_CLIPS) for i in range(NUM_CLIPS)]


@pytest.mark.parametrize("name", [*COUNTED, "h264"])
def test_clips_of_one_file_cost_one_count_and_one_pass(name: str, tmp_path: Path) -> None:
    """Both from disk, as of a file that is too long to be kept."""
    path = render(tmp_path, name)
    intervals = intervals_of(path)
    random.Random(name).shuffle(intervals)
    write_manifest(tmp_path, path.name, intervals)
    log = tmp_path / "log"
    report = run_patched(tmp_path, REREAD + ONCE.format(log=str(log)), model=(MODEL,), workers=2)
    assert report["stores"][0]["failures"] == {}
    if name in COUNTED:
        assert sorted(log.read_text().split()) == ["content_hash", "examine"]
        frames = 40 if name == "vp8-altref" else 60
        assert frames < report["tally"]["frames_decoded"] <= 2 * frames
    else:
        assert len(log.read_text().split()) <= 4  # of two workers


@pytest.mark.parametrize("name", ["mpeg4-avi-b", "h264-ts", "h264-open-gop"])
def test_any_order_and_number_of_workers_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    """Laid beside runs of single clips; overlapping clips, too."""
    found, source = [], render(tmp_path, name)
    for order in ("alone", "together", "shuffled"):
        folder = tmp_path / order
        folder.mkdir()
        path = Path(shutil.copy2(source, folder))
        intervals = intervals_of(path)
        intervals = [*intervals, (0.0, 2.0), *((start, end + 0.5) for start, end in intervals[:-3])]
        names = [f"c{i:02d}" for i in range(len(intervals))]
        lines = [f"{n},{path.name},train,x,{a:.3f},{b:.3f}" for n, (a, b) in zip(names, intervals, strict=True)]
        if order == "shuffled":
            random.Random(1).shuffle(lines)
        header = "clip_id,video,split,label,start_seconds,end_seconds"
        (folder / "manifest.csv").write_text("\n".join([header, *lines]) + "\n")
        for one in names[::4] if order == "alone" else ():
            run(folder, model=(MODEL,), clip=(one,), workers=1)
        run_patched(folder, REREAD, model=(MODEL,), workers=1 if order == "shuffled" else 2)
        found.append(store_of(folder, MODEL))
        assert set(reelbank.store.open(found[-1]).clips.status.tolist()) == {1}
    assert_same_store(found[0], found[1])
    assert_same_store(found[0], found[2])


def test_clips_go_to_the_worker_that_has_their_file() -> None:
    jobs = [job(i, i % 5, i % 5 + 1, path) for i, path in enumerate(["a.avi", "b.avi"] * 5)]
    waiting = Dispatch(jobs)
    first = [waiting.next_for("one"), waiting.next_for("two")]
    assert [one.paths["video"][0].name for one in first if one] == ["a.avi", "b.avi"]
    rest = [waiting.next_for("one") for _ in range(4)]
    starts = [one.clip.start_seconds for one in rest if one]
    assert starts == sorted(starts)
    assert {one.paths["video"][0].name for one in rest if one} == {"a.avi"}
    assert waiting.next_for("one") is None  # nobody knows yet what a second worker would have to do
    waiting.learn(1, True)
    assert waiting.next_for("one") is None
    waiting.learn(1, False)
    assert index_of(waiting.next_for("one")) == 3  # the later half
    assert len(waiting) == 3


def test_clips_of_a_worker_that_is_gone_are_done_first() -> None:
    waiting = Dispatch([job(i, i, i + 1) for i in range(6)])
    begun = [waiting.next_for("one"), waiting.next_for("one")]
    assert waiting.next_for("two") is None
    waiting.take_back("one", [one for one in begun if one])
    assert len(waiting) == 6
    order = [waiting.next_for("two") for _ in range(6)]
    assert [one.index for one in order if one] == list(range(6))
    assert len(waiting) == 0
    assert waiting.next_for("two") is None


def test_long_file_is_shared_however_it_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dispatch.LEAST_SHARED, True, 4)
    waiting = Dispatch([job(i, i, i + 1) for i in range(9)])
    waiting.next_for("one")
    waiting.learn(0, True)
    found: Any = waiting.next_for("two")
    assert found.index == 5
    waiting.take_back("two", [found])
    assert index_of(waiting.next_for("two")) == 5
    waiting.learn(5, True)
    assert index_of(waiting.next_for("three")) == 3


def test_clips_without_files_and_of_several_are_told_apart() -> None:
    waiting = Dispatch([job(0, path=""), job(1, path=""), job(2)])
    assert [index_of(waiting.next_for(worker)) for worker in "abc"] == [0, 1, 2]


def test_overlapping_clips_are_laid_in_few_rows() -> None:
    spans = [(i * 0.5, i * 0.5 + 1) for i in range(20)]  # two at every moment
    order = one_after_another([job(i, *span) for i, span in enumerate(spans)])
    starts = [one.clip.start_seconds or 0.0 for one in order]
    assert sum(b < a for a, b in itertools.pairwise(starts)) == 1
    assert sorted(one.index for one in order) == list(range(20))
    assert [one.index for one in one_after_another([job(0), job(1), job(2, 1, 2)])] == [0, 1, 2]


def test_touched_file_is_hashed_once_for_all_its_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = render(tmp_path, "h264")
    write_manifest(tmp_path, path.name, intervals_of(path))
    run(tmp_path, model=(MODEL,))
    os.utime(path)
    calls = []

    def hashed(paths: Sequence[Path]) -> str:
        calls.append(paths)
        return content_hash(paths)

    monkeypatch.setattr(todo, "content_hash", hashed)
    report = run(tmp_path, model=(MODEL,))
    assert (report.tally.opens, report.stores[0].num_done_before) == (0, NUM_CLIPS)
    assert len(calls) == 1
