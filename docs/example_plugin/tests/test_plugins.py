"""One line per plug-in: what every row of reelbank's own tables keeps to, these keep to."""

from __future__ import annotations

from pathlib import Path

from reelbank import testing


def test_backbone() -> None:
    testing.check_backbone("colours")


def test_head() -> None:
    testing.check_head("cosine")


def test_loss() -> None:
    testing.check_loss("emd")


def test_metric() -> None:
    testing.check_metric("within_tenth")


def test_dataset(tmp_path: Path) -> None:
    for name in ("wave_01.mp4", "wave_02.mp4", "jump_01.mp4", "notes.txt"):
        (tmp_path / name).touch()
    assert len(testing.check_dataset("numbered", tmp_path)) == 3
