"""Kills and power cuts while files are made of a store; `attacks.files_cut` tries hundreds of states, here are some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attacks import files_cut

from reelbank.manifests import files
from reelbank.manifests.files import appearing, leftovers, remove_leftovers
from reelbank.store.testing import write_store


@pytest.mark.parametrize(("name", "states"), [("export npy", 5), ("export hdf5", 3), ("manifest", 6)])
def test_the_old_file_stays_or_the_new_one_is_there(name: str, states: int) -> None:
    found = files_cut.try_making(name, states, seed=6)
    assert found.not_held == ()
    assert found.tried == states


def test_what_another_process_still_writes_is_no_leftover(tmp_path: Path) -> None:
    gone, ours, alive = (tmp_path / f".x.csv.{pid}.partial" for pid in (999999999, os.getpid(), os.getppid()))
    for path in (gone, alive):
        path.write_text("part")
    ours.mkdir()
    other = tmp_path / ".y.csv.999999999.partial"
    other.write_text("part")
    assert set(leftovers(tmp_path, "x.csv")) == {gone, ours}
    remove_leftovers(tmp_path, "x.csv")
    assert set(tmp_path.iterdir()) == {alive, other}


def test_what_shall_last_is_flushed_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    with appearing(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "file").write_text("x")
    assert synced == [partial, partial / "file", tmp_path]
    synced.clear()
    with appearing(tmp_path / "file", durable=False) as partial:
        partial.write_text("x")
    assert synced == []


def test_an_export_killed_between_its_two_renames_gives_the_old_one_back(tmp_path: Path) -> None:
    import numpy as np

    from reelbank.store import StoreError, export
    from reelbank.store.exchange.options import ExportConfig

    write_store(tmp_path / "s.zarr", {"pool": [np.ones((2, 3), np.float16)]}, [{"clip_id": "a"}])
    export(tmp_path / "s.zarr", tmp_path / "e", ExportConfig(format="npy"))
    (tmp_path / "e").rename(tmp_path / ".e.old")
    with pytest.raises(StoreError, match="is already there"):
        export(tmp_path / "s.zarr", tmp_path / "e", ExportConfig(format="npy"))
    assert (tmp_path / "e/clips.jsonl").is_file()
    assert not (tmp_path / ".e.old").exists()


@pytest.mark.parametrize("can_swap", [True, False])
def test_a_folder_takes_the_place_of_a_folder(can_swap: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system cannot swap two names: a kill between its two renames is then made good."""
    if not can_swap:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    files.take_place(tmp_path / "new", tmp_path / "old")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["old", "old/new"]
    (tmp_path / "old").rename(tmp_path / ".old.old")
    files.give_back(tmp_path / "old")
    assert (tmp_path / "old/new").read_text() == "new"
    with files.appearing(tmp_path / "old") as partial:
        partial.mkdir()
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]
