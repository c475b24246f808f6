"""No file ends a run: what cannot be read is a failed row with its reason, and the others are done."""

from __future__ import annotations

import csv
import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from attacks import damaged_media
from clips import CLIPS, MORE_CLIPS, cut, damage, picture, render
from PIL import Image
from pipeline import run, store_of

import reelbank.store
from reelbank.extract import FeaturizeConfig
from reelbank.extract.run import content, opened, todo, worker
from reelbank.extract.run.payloads import ClipViews
from reelbank.extract.video.decode import Video
from reelbank.store import merge, verify

MODEL = "frames:112"
OF_EACH_CONTAINER = (
    *("av1", "gif", "h264", "h264-avi", "h264-flv", "h264-fragmented", "h264-mkv", "h264-mov", "hevc-ts"),
    *("mpeg4-avi-b", "mpeg4-mp4-b", "vp8-altref", "vp9", *(name for name in MORE_CLIPS if name != "dv")),
)
COLUMNS = ("clip_id", "video", "split", "rate_fps", "annotations")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def write_manifest(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        writer.writerows({"split": "train"} | row for row in rows)


def test_damaged_files_of_every_format_end_no_run(clip_folder: Path, tmp_path: Path) -> None:
    draw, rows = random.Random(7), []
    for name in OF_EACH_CONTAINER:
        source = render(clip_folder, name)
        data = bytearray(source.read_bytes())
        damaged_media.WAYS[draw.choice(sorted(damaged_media.WAYS))](data, draw)
        (tmp_path / source.name).write_bytes(data)
        rows.append({"clip_id": name, "video": source.name})
    for suffix in damaged_media.PICTURES:
        source = damaged_media.render_picture(tmp_path, suffix)
        data = bytearray(source.read_bytes())
        damaged_media.WAYS["bytes replaced"](data, draw)
        source.write_bytes(data)
        rows.append({"clip_id": suffix, "video": source.name})
    (tmp_path / "frames").mkdir()
    for index in range(5):
        Image.fromarray(picture(index, 96, 64)).save(tmp_path / "frames" / f"{index}.png")
    (tmp_path / "frames" / "4.png").write_bytes((tmp_path / "frames" / "4.png").read_bytes()[:60])
    rows.append({"clip_id": "frames", "video": "frames", "rate_fps": "25"})
    good = [render(clip_folder, "h264-no-b"), render(clip_folder, "mpeg4-avi")]
    for source in good:
        shutil.copy(source, tmp_path)
        rows.insert(draw.randrange(len(rows)), {"clip_id": f"good {source.name}", "video": source.name})
    write_manifest(tmp_path, rows)
    report = run(tmp_path, model=(MODEL,))
    store = reelbank.store.open(store_of(tmp_path, MODEL))
    status = dict(zip(store.column("clip_id").tolist(), store.clips.status.tolist(), strict=True))
    assert set(status.values()) == {1, 2}
    assert all(status[f"good {source.name}"] == 1 for source in good)
    assert status["frames"] == 2
    reasons = [str(store.clips.reason[row]) for row in np.flatnonzero(store.clips.status == 2)]
    assert all(reasons) and len(reasons) == len(report.stores[0].failures)
    assert verify(store.path).problems == ()
    assert run(tmp_path, model=(MODEL,)).tally.opens == 0


def test_damaged_annotations_end_no_run(tmp_path: Path) -> None:
    points = [[1.0, 2.0, 1.0]] * 17
    layout = json.dumps({"layout": "coco17", "rate_fps": 25, "frames": [{"keypoints": points}]})
    table = "frame,nose_x,nose_y\n1,3.5,4.5\n2,4,5\n"
    draw, rows = random.Random(3), []
    for number in range(20):
        for suffix, text in (("json", layout), ("csv", table)):
            data = bytearray(text.encode())
            damaged_media.WAYS[draw.choice(sorted(damaged_media.WAYS))](data, draw)
            (tmp_path / f"{number}.{suffix}").write_bytes(data)
            rows.append({"clip_id": f"{number}.{suffix}", "annotations": f"{number}.{suffix}", "rate_fps": "25"})
    (tmp_path / "good.csv").write_text(table)
    rows.append({"clip_id": "good", "annotations": "good.csv", "rate_fps": "25"})
    write_manifest(tmp_path, rows)
    run(tmp_path, model=("pose",))
    store = reelbank.store.open(store_of(tmp_path, "pose"))
    assert store.clips.status[-1] == 1
    assert set(store.clips.status.tolist()) == {1, 2}


KINDS: tuple[Any, ...] = (
    *(SyntaxError("broken PNG file"), struct.error("unpack"), OverflowError("too large"), MemoryError()),
    *(IndexError("out of range"), EOFError("ran out"), RecursionError(), AssertionError(), ZeroDivisionError()),
    *(Image.DecompressionBombError("bomb"), cv2.error("resize"), av.error.EOFError(5, "end"), RuntimeError("torch")),
    *(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), OSError(5, "input/output error"), Warning("w"), KeyError("k")),
)
STAGES = {
    "hash": (opened, "content_hash"),
    "open": (opened, "open_source"),
    "scan": (Video, "scan"),
    "decode": (Video, "frames"),
    "thumbnail": (worker, "thumbnail"),
    "resize": (ClipViews, "__call__"),
    "sampling": (worker.frame_choice, "choose"),
    "steps": (worker, "plan_steps"),
}


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> damaged_media.OneWorker:
    return damaged_media.OneWorker(tmp_path_factory.mktemp("worker"), "uniform:4")


@pytest.mark.parametrize("stage", STAGES)
def test_whatever_a_library_raises_fails_one_clip(
    stage: str, one_worker: damaged_media.OneWorker, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = render(clip_folder, "h264-no-b")
    for error in KINDS:

        def broken(*arguments: object, what: BaseException = error, **options: object) -> Any:
            raise what

        with monkeypatch.context() as patch:
            patch.setattr(*STAGES[stage], broken)
            assert one_worker(path).reason, repr(error)
        assert one_worker(path).reason == ""


def test_error_of_a_network_is_no_clips_fault(
    one_worker: damaged_media.OneWorker, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would fail every clip: the run must end and say so."""
    from reelbank.extract.run.assembly import Model

    def broken(self: Model, frames: object) -> Any:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(Model, "forward", broken)
    with pytest.raises(RuntimeError, match="no kernel"):
        one_worker(render(clip_folder, "h264-no-b"))


def test_file_that_cannot_be_hashed_in_the_parent_ends_no_run(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(render(clip_folder, "h264-no-b"), tmp_path / "a.mp4")
    write_manifest(tmp_path, [{"clip_id": "a", "video": "a.mp4"}])
    run(tmp_path, model=(MODEL,))

    def broken(paths: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(todo, "content_hash", broken)
    report = run(tmp_path, model=(MODEL,), rehash=True)
    assert (report.has_failures, report.stores[0].num_done_before) == (False, 1)
    assert content.content_hash((tmp_path / "a.mp4",))


def test_reason_that_is_no_text_is_kept_readable(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reelbank.store.staging import stage_failure

    outcome = stage_failure(tmp_path, 0, {"clip_id": "a"}, {"reason": "bad \udcff name"}, None)
    assert outcome.ledger["reason"] == "bad \\udcff name"


def test_damaged_steps_are_kept_on_request_and_marked(clip_folder: Path, tmp_path: Path) -> None:
    for name in ("h264-no-b", "mpeg2-mxf"):
        source = render(clip_folder, name)
        damage(source, tmp_path / source.name)
    shutil.copy(render(clip_folder, "hevc-ts"), tmp_path / "good.ts")
    write_manifest(tmp_path, [{"clip_id": p.name, "video": p.name} for p in sorted(tmp_path.iterdir())])
    options: dict[str, Any] = {"model": (MODEL,), "sampling": ("all",)}
    failed = run(tmp_path, **options)
    assert sorted(failed.stores[0].failures) == ["h264-no-b.mp4", "mpeg2-mxf.mxf"]
    assert all("--damaged keep" in reason for reason in failed.stores[0].failures.values())
    kept = run(tmp_path, **options, damaged="keep", retry_failed=True)
    assert not kept.has_failures
    assert "2 with damaged steps" in kept.text()
    assert "2 where the decoder reports errors" in kept.text()
    assert "1 of files that do not say where they end" in failed.text()
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(render(clip_folder, "h264-no-b"), other / "other.mp4")
    write_manifest(other, [{"clip_id": "other", "video": "other.mp4"}])
    run(other, **options)
    merge(tmp_path / "merged.zarr", [store_of(other, MODEL), store_of(tmp_path, MODEL)])
    for path in (store_of(tmp_path, MODEL), tmp_path / "merged.zarr"):
        store = reelbank.store.open(path)
        rows = {name: row for row, name in enumerate(store.column("clip_id").tolist())}
        marked = {name: int(store.step_damaged(row).sum()) for name, row in rows.items()}
        assert marked["good.ts"] == 0
        assert 0 < marked["h264-no-b.mp4"] < 30
        assert 0 < marked["mpeg2-mxf.mxf"] < 30
        assert store.clips.decode_errors[rows["good.ts"]] == 0
        assert store.clips.decode_errors[rows["mpeg2-mxf.mxf"]] > 0
        assert [int(store.clips.end_known[rows[name]]) for name in ("good.ts", "mpeg2-mxf.mxf")] == [0, 1]
        assert verify(path).problems == ()


def test_damaged_must_be_a_choice() -> None:
    with pytest.raises(ValueError, match="--damaged 'drop' is not one of fail, keep"):
        FeaturizeConfig(model=(MODEL,), damaged="drop")


def test_one_damaged_picture_costs_one_clip(data_root: Path, tmp_path: Path, clip_folder: Path) -> None:
    folder = data_root / "faults" / "damaged-files"
    for name in ("bad_chunk.png", "cut.gif"):
        shutil.copy(folder / name, tmp_path)
    shutil.copy(render(clip_folder, "h264-no-b"), tmp_path / "good.mp4")
    write_manifest(tmp_path, [{"clip_id": p.name, "video": p.name} for p in sorted(tmp_path.iterdir())])
    report = run(tmp_path, model=(MODEL,))
    assert sorted(report.stores[0].failures) == ["bad_chunk.png", "cut.gif"]
    assert report.stores[0].num_extracted == 1


def test_few_attempts_of_the_attack_hold(tmp_path: Path, clip_folder: Path) -> None:
    files = [render(clip_folder, name) for name in OF_EACH_CONTAINER]
    tried = damaged_media.try_mutants(40, 11, tmp_path, files)
    assert tried.not_held == ()
    assert tried.facts["failed with a reason"] > 10
    runner = damaged_media.Runner(tmp_path)
    try:
        for name in damaged_media.CUT_CLIPS:
            assert damaged_media.try_cuts(render(clip_folder, name), 2, 5, tmp_path, runner).not_held == ()
    finally:
        runner.close()


def test_attack_names_every_container_and_can_fail(clip_folder: Path, tmp_path: Path) -> None:
    suffixes = {(CLIPS | MORE_CLIPS)[name].suffix for name in damaged_media.CUT_CLIPS}
    assert {clip.suffix for clip in (CLIPS | MORE_CLIPS).values()} == suffixes
    intact = damaged_media.Result(steps=np.arange(4), frames=(0, 1, 2, 3), seconds=(0.0, 1.0, 2.0, 3.0))
    shorter = damaged_media.Result(steps=np.arange(3), frames=(0, 1, 2), seconds=(0.0, 1.0, 2.0))
    assert damaged_media.judge_cut(shorter, intact)[1]
    assert damaged_media.judge_cut("SyntaxError", intact)[1]
    assert damaged_media.judge_cut(intact, intact) == ("whole", "")
    source = render(clip_folder, "mpeg2-ts")
    cut(source, tmp_path / "bad.ts", source.stat().st_size // 2)
    bad = sorted(damaged_media.reported(tmp_path / "bad.ts") or ())
    assert bad
    other = damaged_media.Result(steps=np.array([0, 9, 2, 3]), frames=(0, bad[0], 2, 3), seconds=intact.seconds)
    assert damaged_media.judge_mutant(other, intact, tmp_path / "bad.ts")[0] == "silent"
    assert damaged_media.judge_mutant("SyntaxError", intact, source)[1]
