"""On a full disk all or nothing is written and a sentence says so; commands that are stopped leave nothing, and none
waits for ever. The large forms are `attacks.full_disk`, `attacks.leftovers` and `attacks.hangs`.

The disk of these tests is a file that may not grow (RLIMIT_FSIZE), which is real to every library and needs no root.
"""

from __future__ import annotations

import errno
import os
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attacks import full_disk, hangs, leftovers
from attacks.commands import Commands, commands

import reelbank.store
from reelbank.heads.runs.checkpoints import write_tensors
from reelbank.heads.runs.predictions import PredictResult
from reelbank.heads.runs.recording import EpochLog
from reelbank.manifests.files import NotWritten, filling, write_whole
from reelbank.manifests.rendered import synth
from reelbank.store.exchange import hdf5_export
from reelbank.store.exchange.options import ExportConfig, ImportConfig
from reelbank.store.testing import write_store

LIMIT_BYTES = 8 << 10


@contextmanager
def full(num_bytes: int = LIMIT_BYTES) -> Iterator[None]:
    """No file may grow longer, in this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    numbers = np.random.default_rng(4)
    clips = [{"clip_id": f"c{i}", "split": "train", "label": "a"} for i in range(40)]
    write_store(folder / "toy.zarr", {"cls": [numbers.normal(size=(20, 64)).astype(np.float32) for _ in clips]}, clips)
    others = [clip | {"clip_id": f"d{i}"} for i, clip in enumerate(clips)]
    write_store(folder / "second.zarr", {"cls": [np.zeros((1, 64), dtype=np.float32) for _ in clips]}, others)
    reelbank.store.export(folder / "toy.zarr", folder / "big.h5", ExportConfig())
    return folder


def _export(**options: str) -> Callable[[Path, Path], None]:
    return lambda base, out: (reelbank.store.export(base / "toy.zarr", out, ExportConfig(**options)), None)[1]


def _import(base: Path, out: Path) -> None:
    reelbank.store.import_store(base / "big.h5", out, ImportConfig())


def _merge(base: Path, out: Path) -> None:
    reelbank.store.merge(out, [base / "toy.zarr", base / "second.zarr"])


def _checkpoint(base: Path, out: Path) -> None:
    write_tensors(out, {"a": torch.zeros(10_000)}, {})


def _csv(base: Path, out: Path) -> None:
    names = np.array([f"a clip with a long name {i}" for i in range(1000)])
    columns = {"clip_ids": names, "splits": names, "labels": names, "predicted": None, "predicted_target": None}
    rows = SimpleNamespace(**columns, is_per_clip=False, failures={})
    PredictResult.write_csv(rows, out)  # type: ignore[arg-type]


def _folder(base: Path, out: Path) -> None:
    with filling(out, last="last") as made:
        (made / "first").write_bytes(b"x")
        (made / "last").write_bytes(bytes(LIMIT_BYTES + 1))


def _videos(base: Path, out: Path) -> None:
    synth.render(out, clips=2)


WRITERS = {
    "checkpoint": _checkpoint,
    "csv": _csv,
    "folder": _folder,
    "hdf5 array": _export(layout="array"),
    "hdf5 groups": _export(),
    "import": _import,
    "merge": _merge,
    "npy": _export(format="npy"),
    "safetensors": _export(format="safetensors"),
    "videos": _videos,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_does_not_fit_leaves_nothing_and_is_one_sentence(kind: str, base: Path, tmp_path: Path) -> None:
    limit = 4 << 10 if kind in ("npy", "videos", "merge", "import") else LIMIT_BYTES
    with full(limit), pytest.raises(NotWritten, match=r"could not be written: .* then run the same command again"):
        WRITERS[kind](base, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    WRITERS[kind](base, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["hdf5 array", "hdf5 groups"])
def test_hdf5_fails_wherever_its_disk_is_full_and_never_in_silence(
    kind: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = hdf5_export._write_all, [1 << 30]

    def counted(descriptor: int, view: memoryview, offset: int) -> None:
        left[0] -= len(view)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(descriptor, view, offset)

    monkeypatch.setattr(hdf5_export, "_write_all", counted)
    WRITERS[kind](base, tmp_path / "whole")
    total = (1 << 30) - left[0]
    for budget in (0, *np.linspace(64, total - 1, 16).astype(int).tolist(), total - 100, total - 1000):
        left[0] = budget
        with pytest.raises(NotWritten):
            WRITERS[kind](base, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["whole"], budget


@pytest.mark.parametrize("kind", ["checkpoint", "csv"])
def test_what_was_there_stays(kind: str, base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("good")
    with full(), pytest.raises(NotWritten):
        WRITERS[kind](base, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "good"


def test_the_log_of_epochs_has_whole_lines(tmp_path: Path) -> None:
    log = EpochLog(tmp_path / "metrics.jsonl")
    with full(100), pytest.raises(NotWritten, match=r"metrics\.jsonl could not be written"):
        for epoch in range(100):
            log.append({"epoch": epoch, "fold": None, "train_loss": 1.5})
    log.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert 1 <= len(lines) < 100
    assert all(line.endswith("}") for line in lines)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES])
def test_other_errors_of_a_disk_are_said_the_same_way(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(NotWritten, match=r"a\.txt could not be written: .* then run the same command again"):
        write_whole(tmp_path / "a.txt", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_full_tmpfs_leaves_nothing(base: Path, tmp_path: Path) -> None:
    with full_disk.disk(tmp_path / "disk", mount=True) as resize:
        if resize is None:
            pytest.skip("a tmpfs cannot be mounted here")
        resize(LIMIT_BYTES)
        for kind in ("hdf5 array", "hdf5 groups", "checkpoint"):
            with pytest.raises(NotWritten, match=r"the disk is full, .* free"):
                WRITERS[kind](base, tmp_path / "disk" / "out")
            assert list((tmp_path / "disk").iterdir()) == []


@pytest.fixture(scope="module")
def call() -> Iterator[Commands]:
    with commands(("zarr", "h5py", "reelbank.store", "reelbank.cli")) as call:
        yield call


def test_a_stopped_command_leaves_nothing(call: Commands, base: Path, tmp_path: Path) -> None:
    assert leftovers.attack_writer("store import", call, base, tmp_path / "disk", 2, 1).not_held == ()


@pytest.mark.parametrize(("name", "special"), [("import, HDF5", "a FIFO"), ("ledger, info", "a link to a FIFO")])
def test_no_command_waits_for_what_is_no_file(
    name: str, special: str, call: Commands, base: Path, tmp_path: Path
) -> None:
    assert hangs.attack_input(call, base, tmp_path / "copy", name, special) == ""


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, 6])
def test_a_small_file_that_announces_terabytes_is_refused(seed: int, tmp_path: Path) -> None:
    path = hangs.bomb(tmp_path / "bomb", random.Random(seed))
    with pytest.raises(
        ValueError, match=r"--max-gb|damaged|no \.npy file|announces|more than a store holds|has \d+ bytes"
    ):
        reelbank.store.import_store(path, tmp_path / "i.zarr", ImportConfig())
    assert [left for left in tmp_path.iterdir() if left.stem != "bomb"] == []


def test_mutated_matlab_files_kill_their_reader_alone(tmp_path: Path) -> None:
    found = hangs.attack_matlab(tmp_path, 40, 0)
    assert found.not_held == ()
    assert sum(found.facts.values()) == 40
