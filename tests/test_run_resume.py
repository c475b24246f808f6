"""However the work is cut, the store holds the same bits, and nothing finished is done twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pipeline import assert_same_store, copy_set, read_lines, run, store_of, write_lines

import reelbank.store
from reelbank.store import SpecMismatch, layout, verify
from reelbank.store.staging import staged_rows


@pytest.fixture(scope="module")
def small_units() -> Iterator[None]:
    """Units of five clips: several units, and a last one that is partly filled."""
    patch = pytest.MonkeyPatch()
    patch.setattr(layout, "MAX_UNIT_CLIPS", 5)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def whole(synth_set: Path, tmp_path_factory: pytest.TempPathFactory, small_units: None) -> Path:
    """A store extracted in one go with two workers."""
    folder = copy_set(synth_set, tmp_path_factory.mktemp("whole"))
    report = run(folder)
    assert not report.has_failures
    assert report.tally.opens == 24
    return store_of(folder)


def test_whole_run_is_sound(whole: Path) -> None:
    found = verify(whole)
    assert found.problems == ()
    assert found.counts == {"done": 24, "failed": 0, "missing": 0, "left_manifest": 0}
    store = reelbank.store.open(whole)
    assert store.geometry.unit_clips == 5
    assert (store.num_steps == 4).all()
    assert store.thumbnail(7).std() > 0


def test_one_worker_gives_the_same_bits(whole: Path, synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "one")
    run(folder, workers=1)
    assert_same_store(whole, store_of(folder))


def test_split_first_then_all_then_nothing_to_do(whole: Path, synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "split")
    first = run(folder, split=("train",))
    assert first.stores[0].num_extracted == 8
    assert reelbank.store.open(store_of(folder)).num_clips == 24
    second = run(folder)
    assert (second.stores[0].num_extracted, second.stores[0].num_done_before) == (16, 8)
    assert_same_store(whole, store_of(folder))
    third = run(folder)
    assert (third.stores[0].num_extracted, third.tally.opens) == (0, 0)


def test_growing_manifest_fills_the_last_unit(whole: Path, synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "grow", slice(0, 7))
    run(folder)
    header, rows = read_lines(synth_set)
    write_lines(folder, header, rows)
    report = run(folder, workers=1)
    assert (report.stores[0].num_extracted, report.stores[0].num_done_before) == (17, 7)
    assert_same_store(whole, store_of(folder))
    assert verify(store_of(folder)).problems == ()


def test_reordered_and_shrunk_manifest_keeps_rows(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "order", slice(0, 8))
    run(folder)
    before = reelbank.store.open(store_of(folder))
    header, rows = read_lines(folder)
    write_lines(folder, header, rows[5:0:-1])
    report = run(folder)
    after = reelbank.store.open(store_of(folder))
    assert report.tally.opens == 0
    assert after.column("clip_id").tolist() == before.column("clip_id").tolist()
    assert after.clips.in_manifest.tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert after.done_rows().tolist() == [1, 2, 3, 4, 5]


def test_label_edit_rewrites_the_manifest_columns_only(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "label", slice(0, 6))
    run(folder)
    label = reelbank.store.open(store_of(folder)).column("label")[0]
    header, rows = read_lines(folder)
    write_lines(folder, header, [row.replace(str(label), "renamed") for row in rows])
    assert run(folder).tally.opens == 0
    assert reelbank.store.open(store_of(folder)).column("label")[0] == "renamed"


def test_changed_video_is_done_again_and_a_touched_one_is_not(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "content", slice(0, 6))
    run(folder)
    before = reelbank.store.open(store_of(folder))
    videos = [folder / str(video) for video in before.column("video")]
    os.utime(videos[1])
    videos[2].write_bytes(videos[3].read_bytes())
    assert run(folder).stores[0].num_extracted == 1
    after = reelbank.store.open(store_of(folder))
    assert after.clips.content_hash[2] == before.clips.content_hash[3]
    np.testing.assert_array_equal(after.read("hof", 2), before.read("hof", 3))
    np.testing.assert_array_equal(after.read("hof", 1), before.read("hof", 1))
    assert verify(store_of(folder)).problems == ()
    assert run(folder).tally.opens == 0


def test_changed_interval_is_done_again(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "interval", slice(0, 3))
    run(folder)
    header, rows = read_lines(folder)
    write_lines(folder, f"{header},end_seconds", [f"{row},{'0.6' if i == 1 else ''}" for i, row in enumerate(rows)])
    assert run(folder).stores[0].num_extracted == 1
    after = reelbank.store.open(store_of(folder))
    assert after.clips.num_frames[1] == 15
    assert after.frame_index(1).tolist() == [0, 4, 9, 14]


def test_another_sampling_is_refused_and_nothing_changes(whole: Path) -> None:
    with pytest.raises(SpecMismatch, match="sampling: stored 'uniform:4', asked 'uniform:5'"):
        run(whole.parent, sampling=("uniform:5",))
    assert verify(whole).problems == ()


def test_two_writers_are_refused(whole: Path) -> None:
    from reelbank.store.files import only_writer

    with only_writer(whole), pytest.raises(ValueError, match="is being written by another process"):
        run(whole.parent)


def test_kill_9_at_random_moments_loses_nothing(whole: Path, synth_set: Path, tmp_path: Path) -> None:
    """Twenty kills, then a complete run: bit-identical to the run that was never interrupted."""
    folder = copy_set(synth_set, tmp_path / "kill")
    store, script = store_of(folder), Path(__file__).with_name("killed_run.py")
    generator = random.Random(0)
    finished: dict[int, int] = {}
    interrupted = 0
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _wait_for_work(store, process, finished)
        time.sleep(generator.uniform(0, 0.06))
        interrupted += process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)
        _assert_nothing_was_redone(store, finished)
    assert interrupted >= 5, "the kills came too late to test anything"
    already = len(finished)
    report = run(folder)
    assert report.stores[0].num_extracted == 24 - already
    assert_same_store(whole, store)
    assert verify(store).problems == ()
    assert not list(store.rglob("*.partial"))
    committed = [row for record in (store / "commits").glob("0*.json") for r in json.loads(record.read_text())["runs"]
                 for row in r["rows"]]  # fmt: skip
    assert sorted(committed) == list(range(24))


def _wait_for_work(store: Path, process: subprocess.Popen[bytes], finished: dict[int, int]) -> None:
    """Until a worker has begun or finished something new, so that the kill falls into the work."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        rows = {int(f.name) for f in (store / "staging").glob("0*")} if (store / "staging").is_dir() else set()
        if rows - set(finished):
            return
        time.sleep(0.02)


def _assert_nothing_was_redone(store: Path, finished: dict[int, int]) -> None:
    if not (store / "zarr.json").is_file() or not json.loads((store / "zarr.json").read_text())["attributes"]:
        return
    status = reelbank.store.open(store).clips.status
    for folder in (store / "staging").glob("0*"):
        record = folder / "record.json"
        row = int(folder.name)
        if record.is_file():
            stamp = record.stat().st_mtime_ns
            assert finished.setdefault(row, stamp) == stamp, f"row {row} was extracted twice"
    for row in np.flatnonzero(status == layout.DONE).tolist():
        finished.setdefault(row, 0)


def test_stray_unfinished_attempt_is_swept(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "stray", slice(0, 2))
    run(folder)
    (store_of(folder) / "staging" / "000000001").mkdir()
    (store_of(folder) / "staging" / "000000001" / "hof-0.bin").write_bytes(b"part")
    assert staged_rows(store_of(folder), ()) == ({}, [])
    assert run(folder).tally.opens == 0
