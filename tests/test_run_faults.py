"""A clip that cannot be used becomes a row of the ledger with its reason; everything else is done."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from clips import cut, write_sound
from pipeline import copy_set, read_lines, run, run_patched, store_of, write_lines

import reelbank.store
from reelbank.extract.errors import DiskFullError
from reelbank.extract.run.featurize import featurize
from reelbank.extract.run.repeating import retry_config
from reelbank.store import verify
from reelbank.store.description import describe, failure_lines

BAD = {
    "truncated": r"missing|ends|cut|broken|truncated",
    "empty": r"empty|no data|Invalid data|0 bytes",
    "text": r"not a|Invalid data|no video",
    "sound only": r"no video stream",
    "missing": r"no file at",
    "no interval": r"the interval \[1, 1\) s is empty",
    "past the end": r"no frame starts in \[500,",
}


@pytest.fixture(scope="module")
def faulty(synth_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good clips among one of each kind of bad one."""
    folder = copy_set(synth_set, tmp_path_factory.mktemp("faulty"), slice(0, 3))
    videos = folder / "videos"
    good = sorted(videos.iterdir())[0]
    cut(good, videos / "truncated.mp4", good.stat().st_size * 6 // 10)  # its index lists frames, or is lost itself
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("this is no video\n" * 100)
    write_sound(videos / "sound only.mp4")
    header, rows = read_lines(folder)
    columns = header.split(",")

    def line(name: str, video: str, start: str = "", end: str = "") -> str:
        cells = dict.fromkeys(columns, "") | {"clip_id": name, "video": video, "split": "train", "label": "x"}
        return ",".join([*cells.values(), start, end])

    bad = [line(name, f"videos/{name}.mp4") for name in ("truncated", "empty", "text", "sound only", "missing")]
    bad += [
        line("no interval", f"videos/{good.name}", "1", "1"),
        line("past the end", f"videos/{good.name}", "500", "600"),
        line("one frame", f"videos/{good.name}", "0", "0.02"),
    ]
    rows = [f"{row},," for row in rows]
    write_lines(folder, f"{header},start_seconds,end_seconds", [*bad[:4], *rows, *bad[4:]])
    return folder


def test_each_bad_clip_is_a_ledger_row_with_a_reason(faulty: Path) -> None:
    report = run(faulty, model=("flow:dis", "frames"))
    assert report.has_failures
    flow, frames = (reelbank.store.open(s.store) for s in report.stores)
    names = flow.column("clip_id").tolist()
    for name, reason in BAD.items():
        row = names.index(name)
        for store in (flow, frames):
            assert store.clips.status[row] == 2, name
            assert store.clips.attempts[row] == 1
            assert_matches(str(store.clips.reason[row]), reason)
    one = names.index("one frame")
    assert_matches(str(flow.clips.reason[one]), "reads 2 frames per step, the clip has 1")
    assert frames.clips.status[one] == 1
    assert frames.frame_index(one).tolist() == [0, 0, 0, 0]
    assert flow.clips.counts() == {"done": 3, "failed": 8, "missing": 0, "left_manifest": 0}
    assert frames.clips.counts() == {"done": 4, "failed": 7, "missing": 0, "left_manifest": 0}
    assert all(verify(s.store).problems == () for s in report.stores)
    assert report.text().count("  failed: ") == 15  # each reason is of another kind


def test_retry_keeps_the_targets_that_were_named(synth_set: Path, tmp_path: Path) -> None:
    """The column became text: heads found no target any more."""
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 1))
    video = next((folder / "videos").iterdir())
    (folder / "videos/broken.mp4").write_bytes(b"no video")
    lines = [f"good,videos/{video.name},1.5", "bad,videos/broken.mp4,2.5"]
    write_lines(folder, "clip_id,video,score", lines)
    path = run(folder, model=("frames",), target_columns=("score",)).stores[0].store
    (folder / "videos/broken.mp4").write_bytes(video.read_bytes())
    config = retry_config(path)
    assert config is not None
    assert not featurize(config).has_failures
    store = reelbank.store.open(path)
    assert store.target_names == ("score",)
    assert store.column("score").tolist() == [1.5, 2.5]


def test_a_reason_of_many_clips_is_one_line(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 1))
    video = next((folder / "videos").iterdir()).name
    gone = [f"gone {n},gone/{n}.mp4,," for n in range(30)]
    late = [f"late {n},videos/{video},{100 + n},200" for n in range(2)]
    write_lines(folder, "clip_id,video,start_seconds,end_seconds", [*late, *gone, f"good,videos/{video},,"])
    report = run(folder, model=("frames",))
    lines = [line for line in report.text().splitlines() if "failed: " in line]
    assert len(lines) == 2
    assert lines[0].startswith("  failed: 30 clips, 'gone 0', 'gone 1', 'gone 2', ...: no file at")
    assert lines[1].startswith("  failed: 2 clips, 'late 0', 'late 1': no frame starts in [100, 200) s")
    info = describe(report.stores[0].store)
    assert info.failures["late 1"].startswith("no frame starts in [101, 200)")  # the id is not there twice
    assert info.text().count("  failed    ") == 2


def test_reasons_of_many_kinds_are_counted() -> None:
    lines = failure_lines({f"c{n}": "why" + "x" * n for n in range(25)} | {"d": "why 1", "e": "why 2"}, "S --json")
    assert len(lines) == 21
    assert lines[0] == "2 clips, 'd', 'e': why 1"
    assert lines[-1] == "... and for 6 other reasons: reelbank store info S --json"


def test_failed_clips_stay_failed_until_their_file_changes_or_retry(faulty: Path) -> None:
    first = run(faulty)
    again = run(faulty)
    assert again.tally.opens == 0
    assert again.has_failures
    assert len(again.stores[0].failed_before) == 8
    good = sorted((faulty / "videos").glob("*_*.mp4") or (faulty / "videos").glob("*.mp4"))[-1]
    (faulty / "videos" / "missing.mp4").write_bytes(good.read_bytes())
    assert run(faulty).stores[0].num_extracted == 1
    config = retry_config(store_of(faulty), manifest=faulty / "manifest.csv", workers=1)
    assert config is not None
    assert len(config.clip) == 7

    retried = featurize(config)
    assert len(retried.stores[0].failures) == 7
    store = reelbank.store.open(store_of(faulty))
    assert store.clips.attempts[store.column("clip_id").tolist().index("text")] == 2
    assert first.num_clips == 11


def test_clip_that_kills_its_worker_twice_is_failed_as_crashed(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "crash", slice(0, 6))
    victim = Path(read_lines(folder)[1][2].split(",")[1]).name
    report = run_patched(
        folder,
        f"""
import os, reelbank.extract.video.decode as decode
scan = decode.Video.scan
def dying(self):
    if self.path.endswith({victim!r}):
        os._exit(9)
    return scan(self)
decode.Video.scan = dying
""",
    )
    (failure,) = report["stores"][0]["failures"].items()
    assert_matches(failure[1], "crashed: its worker process died 2 times, last with exit code 9")
    assert report["stores"][0]["num_extracted"] == 5
    assert verify(store_of(folder)).problems == ()


KILLING = """
import os, signal, reelbank.extract.video.decode as decode
from pathlib import Path
scan, marks = decode.Video.scan, Path({marks!r})
def dying(self):
    if self.path.endswith({victim!r}):
        mark = marks / str(os.getpid())
        mark.touch()
        if len(list(marks.iterdir())) <= {times}:
            os.kill(os.getpid(), signal.{name})
    return scan(self)
decode.Video.scan = dying
"""


@pytest.mark.parametrize(("name", "forward"), [("SIGKILL", "worker"), ("SIGBUS", "parent")])
def test_a_worker_that_is_killed_is_no_fault_of_its_clip(
    name: str, forward: str, synth_set: Path, tmp_path: Path
) -> None:
    """By whom memory ran out for: the clip is tried alone."""
    folder = copy_set(synth_set, tmp_path / "killed", slice(0, 6))
    victim = Path(read_lines(folder)[1][2].split(",")[1]).name
    (tmp_path / "marks").mkdir()
    code = KILLING.format(marks=str(tmp_path / "marks"), victim=victim, times=1, name=name)
    report = run_patched(folder, code, forward=forward)
    assert report["stores"][0]["failures"] == {}
    assert reelbank.store.open(store_of(folder)).clips.status.tolist() == [1] * 6
    assert any(f"({name}: " in note for note in report["notes"])
    assert len(list((tmp_path / "marks").iterdir())) == 2


def test_a_clip_that_is_killed_alone_too_fails(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "killed", slice(0, 6))
    victim = Path(read_lines(folder)[1][2].split(",")[1]).name
    (tmp_path / "marks").mkdir()
    code = KILLING.format(marks=str(tmp_path / "marks"), victim=victim, times=99, name="SIGKILL")
    report = run_patched(folder, code)
    (failure,) = report["stores"][0]["failures"].items()
    assert_matches(failure[1], r"killed twice, then with nothing beside it: exit code -9 \(SIGKILL: most likely memory")
    assert report["stores"][0]["num_extracted"] == 5
    assert len(list((tmp_path / "marks").iterdir())) == 2


def test_clip_that_hangs_is_given_up_at_its_deadline(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "hang", slice(0, 4))
    victim = Path(read_lines(folder)[1][1].split(",")[1]).name
    report = run_patched(
        folder,
        f"""
import time, reelbank.extract.video.decode as decode
scan = decode.Video.scan
def hanging(self):
    if self.path.endswith({victim!r}):
        time.sleep(600)
    return scan(self)
decode.Video.scan = hanging
""",
        deadline_seconds=5.0,
    )
    (failure,) = report["stores"][0]["failures"].items()
    assert_matches(failure[1], "deadline: no new frame for 5 s")
    assert report["stores"][0]["num_extracted"] == 3


def test_full_disk_stops_cleanly_and_the_next_run_goes_on(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "full", slice(0, 8))
    with pytest.raises(DiskFullError, match="the disk is full"):
        run_patched(
            folder,
            """
import errno, reelbank.store.staging as staging
append, written = staging.ClipStage.append, []
def limited(self, *arguments):
    written.append(1)
    if len(written) > 2:
        raise OSError(errno.ENOSPC, "No space left on device")
    return append(self, *arguments)
staging.ClipStage.append = limited
""",
            batch=4,  # a clip a batch: some are finished before the disk is full
        )
    report = run(folder)
    assert report.stores[0].num_extracted + report.stores[0].num_recovered == 8
    assert report.stores[0].num_recovered >= 1
    assert verify(store_of(folder)).problems == ()


def test_disk_full_while_committing_keeps_what_is_staged(
    synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from reelbank.store import writer

    folder = copy_set(synth_set, tmp_path / "commit", slice(0, 4))

    def full(*arguments: object, **options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write_shard", full)
        with pytest.raises(DiskFullError, match="run the same command again"):
            run(folder)
    assert "  staged    4 clips, of a run" in describe(store_of(folder)).text()
    report = run(folder)
    assert "  staged" not in describe(store_of(folder)).text()
    assert (report.stores[0].num_extracted, report.stores[0].num_recovered) == (0, 4)
    assert verify(store_of(folder)).problems == ()


def test_small_tmpfs_fills_up_and_the_run_continues_after_it_grows(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "tmpfs", slice(0, 12))
    mount = tmp_path / "mount"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        out = str(mount / "{model}.zarr")
        with pytest.raises(DiskFullError, match="the disk is full"):
            run(folder, model=("frames",), out=out, sampling=("every:4",))  # how many steps that makes nobody knows yet
        subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
        report = run(folder, model=("frames",), out=out, sampling=("every:4",))
        assert report.stores[0].num_extracted + report.stores[0].num_recovered == 12
        assert verify(mount / "frames.zarr").problems == ()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_flipped_byte_is_found_and_named(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "flip", slice(0, 3))
    run(folder)
    shard = next((store_of(folder) / "features" / "hof" / "c").rglob("0"))
    while shard.is_dir():
        shard = next(shard.rglob("0"))
    data = bytearray(shard.read_bytes())
    store = reelbank.store.open(store_of(folder))
    position = bytes(data).index(np.ascontiguousarray(store.read("hof", 1)).tobytes())
    data[position + 5] ^= 1
    shard.write_bytes(bytes(data))
    problems = verify(store_of(folder)).problems
    assert [(p.clip, p.tap) for p in problems] == [(str(store.column("clip_id")[1]), "hof")]
    assert "crc32c" in problems[0].what
    data[-2] ^= 1
    shard.write_bytes(bytes(data))
    assert "shard index" in str(verify(store_of(folder)).problems[0])


def assert_matches(text: str, pattern: str) -> None:
    assert re.search(pattern, text), f"{text!r} does not match {pattern!r}"
