"""Kills and power cuts while a store is written; `attacks.power_cut` tries thousands of states, here are some."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attacks import crash_points, power_cut
from attacks.disk import WAYS, Disk, write_state

import reelbank.store
from reelbank.store import building, durable, layout, merge
from reelbank.store.files import only_writer
from reelbank.store.staging import RECORD, folder_of, staged_rows
from reelbank.store.writer import StoreWriter


@pytest.mark.parametrize("name", power_cut.SCENARIOS)
def test_no_state_of_the_disk_holds_a_wrong_byte_or_loses_a_clip(name: str) -> None:
    found = power_cut.try_states(name, states=2, seed=3)
    assert found.not_held == ()
    assert found.tried == 2
    assert found.facts["moments"] > 100


@pytest.mark.parametrize("name", ["new", "retry"])
def test_a_recovery_that_is_cut_too_is_recovered_from(name: str) -> None:
    found = power_cut.try_recoveries(name, states=4, seed=5, of_each=2)
    assert found.not_held == ()
    assert found.tried == 4


def test_a_kill_at_any_moment_loses_nothing() -> None:
    found = crash_points.try_crash_points("retry", 4, seed=1)
    assert found.not_held == ()
    assert (found.tried, found.facts["different states"]) == (4, 4)


def test_a_run_flushes_what_a_killed_one_left() -> None:
    found = crash_points.try_unflushed("growth", 3, seed=3)
    assert found.not_held == ()
    assert found.tried == 3


def test_folders_that_lie_unchanged_for_long_are_not_flushed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    power_cut.grow(tmp_path / "s.zarr", power_cut.FIRST)
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync", synced.append)
    durable.settle(tmp_path / "s.zarr")
    assert {tmp_path / "s.zarr", tmp_path / "s.zarr/clips", tmp_path / "s.zarr/clips/status"} <= set(synced)
    for folder in {*synced}:
        os.utime(folder, (0, 0))
    synced.clear()
    durable.settle(tmp_path / "s.zarr")
    assert synced == []


def test_crash_points_are_the_moments_at_which_something_else_lies_on_the_disk(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    disk = Disk(root)
    with disk.recording():
        with (root / "a").open("wb") as file:
            file.write(b"1")
            file.flush()
            os.fsync(file.fileno())
        disk.note("said")
        (root / "a").rename(root / "b")
        (root / "b").unlink()
    points = [disk.moments[i] for i in crash_points.different(disk.moments)]
    assert [(moment.what.split()[0], moment.noted) for moment in points] == [
        ("write", ()), ("rename", ("said",)), ("remove", ("said",)), ("end", ("said",)),
    ]  # fmt: skip


def test_what_a_kill_left_unflushed_a_later_power_cut_may_take(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for folder in (first, second, third):
        folder.mkdir()
    disk = Disk(first)
    with disk.recording():
        (first / "folder").mkdir()
        (first / "folder/file").write_bytes(b"old")
    write_state(disk.moments[-1], "killed", second)
    again = Disk(second, disk.moments[-1])
    with again.recording():
        descriptor = os.open(second, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    write_state(again.moments[-1], "lost", third)
    assert (second / "folder/file").read_bytes() == b"old"
    assert [path.relative_to(third).as_posix() for path in third.rglob("*")] == ["folder"]


def test_model_of_the_disk_loses_what_was_not_synced(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    (root / "old").mkdir(parents=True)
    (root / "old/kept").write_bytes(b"kept")
    disk = Disk(root)
    with disk.recording():
        (root / "old/kept").write_bytes(b"other")
        with (root / "new").open("wb") as file:
            file.write(b"12345678")
            file.flush()
            os.fsync(file.fileno())
        (root / "new").rename(root / "old/new")
        disk.note("said")
        descriptor = os.open(root / "old", os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    last, before = disk.moments[-1], next(m for m in disk.moments if m.what.startswith("sync") and m.noted)
    states = {}
    for way in WAYS:
        for name, moment in (("last", last), ("before", before)):
            folder = tmp_path / f"{way}-{name}"
            folder.mkdir()
            write_state(moment, way, folder)
            states[way, name] = {
                path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
            }
    assert states["killed", "last"] == {"old/kept": b"other", "old/new": b"12345678"}
    assert states["lost", "last"] == {"old/kept": b"kept", "old/new": b"12345678"}
    assert states["lost", "before"] == {"old/kept": b"kept"}
    assert states["zeros", "last"]["old/kept"] == bytes(5)
    assert states["cut", "last"]["old/kept"] == b"ot"
    assert states["empty", "last"] == {"old/kept": b"", "old/new": b"12345678"}


@pytest.fixture(scope="module")
def killed_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose run was killed before its commit: clip c1 is staged, the others are done."""
    path = tmp_path_factory.mktemp("killed") / "s.zarr"
    videos = dict(power_cut.FIRST)
    power_cut.grow(path, {name: video for name, video in videos.items() if name != "c1"})
    commit = StoreWriter.commit
    try:
        StoreWriter.commit = lambda *arguments: None  # type: ignore[method-assign]
        power_cut.grow(path, videos)
    finally:
        StoreWriter.commit = commit  # type: ignore[method-assign]
    return path


def _staged(killed_store: Path, path: Path) -> tuple[StoreWriter, Path]:
    """(writer, folder of the staged clip) of a copy of `killed_store`."""
    shutil.copytree(killed_store, path)
    row = reelbank.store.open(path).column("clip_id").tolist().index("c1")
    return StoreWriter(path, power_cut.SPEC), folder_of(path, row)


def _change(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes())) and None  # type: ignore[func-returns-value]


def _other_row(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(record | {"row": record["row"] + 1}))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty record": _change(RECORD, lambda data: b""),
    "record of nothing": _change(RECORD, lambda data: b"{}"),
    "record that is a list": _change(RECORD, lambda data: b"[]"),
    "record of another row": _other_row,
    "record cut": _change(RECORD, lambda data: data[:60]),
    "payload zero": _change("pool-0.bin", lambda data: bytes(len(data))),
    "payload short": _change("map-1.bin", lambda data: data[:-1]),
    "payload empty": _change("pool-1.bin", lambda data: b""),
    "payload gone": lambda folder: (folder / "map-0.bin").unlink(),
    "thumbnail zero": _change("thumbnail.bin", lambda data: bytes(len(data))),
    "thumbnail gone": lambda folder: (folder / "thumbnail.bin").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_staged_clip_is_dropped_said_and_made_again(damage: str, killed_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    writer, folder = _staged(killed_store, path)
    DAMAGE[damage](folder)
    with only_writer(path):
        kept, said = writer.recover(lambda outcome: True)
    assert kept == {}
    (sentence,) = said
    assert sentence.startswith(f"staging/{folder.name} ")
    assert sentence.endswith("it is removed and its clip is extracted again")
    assert not folder.exists()
    power_cut.grow(path, power_cut.FIRST)
    assert power_cut.wrong_clips(path, power_cut.FIRST) == []
    assert len(reelbank.store.open(path).done_rows()) == len(power_cut.FIRST)


def test_a_writer_that_died_at_its_first_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    path.mkdir()
    (path / ".zarr.json.123.partial").write_text("{")
    power_cut.grow(path, power_cut.FIRST)
    assert power_cut.wrong_clips(path, power_cut.FIRST) == []
    assert not (path / ".zarr.json.123.partial").exists()


@pytest.mark.parametrize("kept", [0, 1, 3, 8])
def test_a_half_made_store_is_cleared_and_made(kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before its root was written, then again while the half was cleared away."""
    path = tmp_path / "s.zarr"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(layout, "write_root", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        power_cut.grow(path, power_cut.FIRST)
    (path / ".zarr.json.123.partial").write_text("{")
    with monkeypatch.context() as patch:
        remove, left = shutil.rmtree, iter(range(kept))

        def killed(folder: Path) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            remove(folder)

        patch.setattr(building.shutil, "rmtree", killed)
        with contextlib.suppress(KeyboardInterrupt):
            power_cut.grow(path, power_cut.FIRST)
    power_cut.grow(path, power_cut.FIRST)
    assert power_cut.wrong_clips(path, power_cut.FIRST) == []
    assert len(reelbank.store.open(path).done_rows()) == len(power_cut.FIRST)


def test_what_is_staged_whole_is_taken_over(killed_store: Path, tmp_path: Path) -> None:
    writer, folder = _staged(killed_store, tmp_path / "s.zarr")
    kept, said = writer.recover(lambda outcome: True)
    assert [folder_of(tmp_path / "s.zarr", row) for row in kept] == [folder]
    assert said == []


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_strangers_in_staging_are_removed(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    power_cut.grow(path, power_cut.FIRST)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/mine").write_text("stays")
    stranger = path / "staging" / ("000000002" if kind == "link" else "stray")
    if kind == "folder":
        stranger.mkdir()
        (stranger / RECORD).write_text("{}")
    elif kind == "file":
        stranger.write_text("x")
    else:
        stranger.symlink_to(tmp_path / "elsewhere")
    found, said = staged_rows(path, power_cut.TAPS)
    assert found == {}
    assert said == [f"staging/{stranger.name} is no folder of a clip: it is removed and its clip is extracted again"]
    assert not stranger.is_symlink()
    assert not stranger.exists()
    assert (tmp_path / "elsewhere/mine").read_text() == "stays"


def test_recovery_never_touches_a_committed_clip(killed_store: Path, tmp_path: Path) -> None:
    """A kill between the commit and the clearing of staging: the remnant is thrown away, whatever it says."""
    path = tmp_path / "s.zarr"
    writer, folder = _staged(killed_store, path)
    left = {file.name: file.read_bytes() for file in folder.iterdir()}
    power_cut.grow(path, power_cut.FIRST)
    folder.mkdir()
    for name, content in left.items():
        (folder / name).write_bytes(content)
    shards = {file: file.read_bytes() for file in (path / "features").rglob("*") if file.is_file()}
    assert writer.recover(lambda outcome: True) == ({}, [])
    assert not folder.exists()
    power_cut.grow(path, power_cut.FIRST)
    assert {file: file.read_bytes() for file in shards} == shards


def test_a_merge_killed_between_its_two_renames_gives_the_old_store_back(tmp_path: Path) -> None:
    for name, videos in (("a", power_cut.FIRST), ("b", power_cut.MORE), ("m", power_cut.BROKEN)):
        power_cut.grow(tmp_path / f"{name}.zarr", videos)
    (tmp_path / "m.zarr").rename(tmp_path / ".m.zarr.old")
    merge(tmp_path / "m.zarr", [tmp_path / "a.zarr", tmp_path / "b.zarr"], overwrite=True)
    assert power_cut.wrong_clips(tmp_path / "m.zarr", power_cut.FIRST, power_cut.MORE) == []
    assert not (tmp_path / ".m.zarr.old").exists()
    assert np.array_equal(reelbank.store.open(tmp_path / "a.zarr").done_rows(), np.arange(len(power_cut.FIRST)))
