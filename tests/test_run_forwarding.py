"""Models in the parent process, fed through shared memory, give the same store as models in each worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pipeline import assert_same_store, copy_set, read_lines, run, store_of, write_lines

import reelbank.store
from reelbank.extract.run.ring import SLOTS, Ring
from reelbank.store import verify

MODELS = ("flow:dis", "googlenet", "frames")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a worker: the bits of a CPU forward pass may depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_parent_and_workers_give_the_same_bits(synth_set: Path, tmp_path: Path) -> None:
    in_worker = copy_set(synth_set, tmp_path / "worker", slice(0, 7))
    in_parent = copy_set(synth_set, tmp_path / "parent", slice(0, 7))
    options = {"model": MODELS, "weights": "random", "sampling": ("uniform:4", "frames=consecutive:70")}
    run(in_worker, **options)
    report = run(in_parent, forward="parent", **options)
    assert report.tally.opens == 7
    assert report.num_forwarding == 1
    for model in MODELS:
        assert_same_store(store_of(in_worker, model), store_of(in_parent, model))
        assert verify(store_of(in_parent, model)).problems == ()


def test_failures_and_more_steps_than_slots(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "all", slice(0, 4))
    header, rows = read_lines(folder)
    (folder / "videos" / "bad.mp4").write_text("no video")
    columns = header.split(",")
    cells = dict.fromkeys(columns, "") | {"clip_id": "bad", "video": "videos/bad.mp4", "split": "train"}
    write_lines(folder, header, [rows[0], ",".join(cells.values()), *rows[1:]])
    report = run(folder, forward="parent", sampling=("all",), workers=1)
    store = reelbank.store.open(store_of(folder))
    assert store.clips.status.tolist() == [1, 2, 1, 1, 1]
    assert store.num_steps.sum() > SLOTS
    assert list(report.stores[0].failures) == ["bad"]
    assert verify(store_of(folder)).problems == ()


def test_ring_keeps_order_and_bounds() -> None:
    import numpy as np

    ring = Ring(12)
    other = Ring(12, name=ring.name)
    try:
        for turn in range(3):
            for i in range(SLOTS):
                assert not other.is_full
                other.write([np.full((2, 3), turn + i, np.uint8), np.full((2, 3), i, np.uint8)])
            assert other.is_full
            for i in range(SLOTS):
                first, second = ring.peek((2, 2, 3), "uint8")
                assert (first == turn + i).all() and (second == i).all()
                del first, second
                ring.release()
    finally:
        other.close(unlink=False)
        ring.close(unlink=True)
