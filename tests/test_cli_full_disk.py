"""On a full disk a command writes all or nothing and says so; the whole of it is `attacks.full_disk`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacks import full_disk, leftovers
from attacks.commands import Commands, commands

KINDS = (
    *("train-head", "predict", "probe", "manifest csv"),
    *("store export, hdf5 array", "store export, hdf5 groups", "store export, npy", "store export, safetensors"),
    *("store import", "store merge"),
)


@pytest.fixture(scope="module")
def call() -> Iterator[Commands]:
    with commands() as call:
        yield call


@pytest.fixture(scope="module")
def base(call: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    full_disk.prepare_stores(folder, call)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_may_not_grow_leaves_nothing_and_one_sentence(
    kind: str, call: Commands, base: Path, tmp_path: Path
) -> None:
    found = full_disk.attack_writer(kind, call, base, tmp_path / "disk", 1, 1, mount=False)
    assert found.not_held == ()
    assert found.facts["refused"] == 1


@pytest.mark.parametrize("kind", ["store export, hdf5 groups", "store merge"])
def test_a_full_disk_leaves_nothing_and_one_sentence(kind: str, call: Commands, base: Path, tmp_path: Path) -> None:
    with full_disk.disk(tmp_path / "disk", mount=True) as resize:
        if resize is None:
            pytest.skip("a tmpfs cannot be mounted here")
    found = full_disk.attack_writer(kind, call, base, tmp_path / "disk", 2, 1)
    assert found.not_held == ()
    assert found.facts["refused"]


@pytest.mark.parametrize("kind", ["store import", "store export, npy"])
def test_a_stopped_command_leaves_nothing(kind: str, call: Commands, base: Path, tmp_path: Path) -> None:
    assert leftovers.attack_writer(kind, call, base, tmp_path / "disk", 2, 1).not_held == ()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_other_errors_of_a_disk_are_said_the_same_way(code: int, tmp_path: Path) -> None:
    from reelbank.manifests.files import NotWritten, write_whole

    def fail(path: Path, data: bytes) -> None:
        raise OSError(code, os.strerror(code), str(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(NotWritten, match=r"a.txt could not be written: .* then run the same command again"):
            write_whole(tmp_path / "a.txt", b"x")
    assert list(tmp_path.iterdir()) == []
