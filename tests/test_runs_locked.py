"""One writer for a run or a store; file systems without locks."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest
from pipeline import copy_set, run, store_of
from planted import config, planted_store

from reelbank.heads import TrainingError, train_head
from reelbank.heads.judging import intervals
from reelbank.heads.runs.directory import resumable
from reelbank.manifests.files import scratch
from reelbank.store import verify
from reelbank.store.files import only_writer


def test_two_jobs_cannot_train_into_one_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 4)
    store, where = planted_store(tmp_path / "s.zarr", num=48), tmp_path / "run"
    train_head(config(store=(store,), run=where, epochs=1))
    busy = "run is being written by another process; wait for it or stop it"
    before = (where / "results.json").read_bytes()
    for options in ({"resume": True}, {"overwrite": True}):
        with only_writer(where), pytest.raises(TrainingError, match=busy):
            train_head(config(store=(store,), run=where, epochs=2, **options))
        assert (where / "results.json").read_bytes() == before
    with only_writer(where), pytest.raises(TrainingError, match=busy), resumable(where):
        pass
    train_head(config(store=(store,), run=where, epochs=2, resume=True))
    assert (where / "results.json").read_bytes() != before


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_file_system_without_locks_is_written_to_and_it_is_said(
    code: int, synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS without its lock service; it was taken for another writer, and nothing could be written there."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 2))
    report = run(folder)
    (note,) = [note for note in report.notes if "locks" in note]
    assert note == f"{store_of(folder)}: its file system has no locks, so nothing keeps a second writer out"
    assert verify(store_of(folder)).problems == ()


def test_scratch_of_others_stays_where_nothing_tells_whether_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".work-of-another").mkdir()

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with scratch(tmp_path, "work") as made:
            assert made.is_dir()
        assert (tmp_path / ".work-of-another").is_dir()
    with scratch(tmp_path, "work"):
        assert not (tmp_path / ".work-of-another").exists()


def test_a_folder_that_cannot_be_opened_is_no_other_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="broken"), only_writer(tmp_path / "x"):
        pass
