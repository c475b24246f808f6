"""The picture of what a head reads, as a run leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelbank.heads import Event, TrainConfig, train_head
from reelbank.heads.reports import picture_rows
from reelbank.heads.runs import showing
from reelbank.store.testing import write_store

COUNT, STEPS = 12, 3


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    clips = [{"clip_id": f"c{i}", "label": "ab"[i % 2], "split": "train" if i < 8 else "val"} for i in range(COUNT)]
    frames = [rng.integers(0, 256, (STEPS, 8, 8, 3), dtype=np.uint8) for _ in range(COUNT)]
    moving = [rng.random((STEPS, 8, 8)).astype(np.float32) for _ in range(COUNT)]
    bits = [one > 0.5 for one in moving]
    write_store(tmp_path / "frames.zarr", {"rgb": frames}, clips, backbone="frames")
    write_store(tmp_path / "moving.zarr", {"moving": moving, "bits8": bits}, clips, backbone="b")
    return tmp_path / "frames.zarr", tmp_path / "moving.zarr"


def config(stores: tuple[Path, ...], run: Path) -> TrainConfig:
    return TrainConfig.of(
        store=stores, head="array_head:ROW", head_option=("motion=true",), target="none", epochs=1, run=run
    )  # fmt: skip


def test_run_shows_what_its_head_reads_of_the_first_reported_clip(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def strip(clip: str, rows: Any, *, heading: Any) -> Any:
        asked.extend([clip, *rows])
        return picture_rows.picture_rows("t", [picture_rows.Block(title=clip, rows=rows)], heading=heading)

    monkeypatch.setattr(showing, "input_strip", strip)
    run = train_head(config(stores, tmp_path / "run")).directory
    clip, frames, moving, bits = asked
    assert clip == "c8 (val), label a"
    assert [row.title for row in (frames, moving, bits)] == [
        "frames: frames.zarr (frames), tap rgb",
        "what moves: moving.zarr, tap moving: 8 px",
        "what moves: moving.zarr, tap bits8, not read: 8 px",
    ]
    from reelbank.store import Store

    assert np.array_equal(np.stack(frames.pictures), Store(stores[0]).read("rgb", 8)[0])
    assert np.array_equal(np.stack(bits.pictures) > 0, Store(stores[1]).read("bits8", 8)[0])
    assert (run / "figures" / "inputs.png").read_bytes().startswith(b"\x89PNG")
    page = (run / "report.html").read_text()
    assert "What the head reads of one clip" in page


def test_run_without_such_a_picture_is_as_good_and_says_why(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any) -> Any:
        raise OSError("the store is gone")

    monkeypatch.setattr(showing, "pictures_of", fails)
    notes: list[str] = []

    def hear(event: Event) -> None:
        notes.append(event.note)

    run = train_head(config(stores, tmp_path / "run"), hear).directory
    assert (run / "report.html").is_file() and not (run / "figures" / "inputs.png").exists()
    assert "no picture of what the head reads: the store is gone" in notes
    assert "What the head reads of one clip" not in (run / "report.html").read_text()
