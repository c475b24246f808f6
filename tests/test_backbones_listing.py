"""README's table of backbones is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelbank.extract import backbones
from reelbank.extract.backbones import listing

README = Path(__file__).parents[1] / "README.md"


def test_table_of_readme_is_current(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README.read_text(encoding="utf-8"), encoding="utf-8")
    listing.regenerate(copy)
    assert copy.read_text(encoding="utf-8") == README.read_text(encoding="utf-8"), (
        "run python -m reelbank.extract.backbones.listing README.md"
    )


def test_every_backbone_and_every_tap_stands_in_one_row() -> None:
    listed = [name for cells in listing.rows() for name in cells[0].split(", ")]
    for name in backbones.names():
        assert listed.count(name) == 1, name
    for cells in listing.rows():
        name = cells[0].split(", ")[0]
        if name in backbones.names():
            taps = backbones.describe(name).taps
            assert [text.split(" ")[0].rstrip("*") for text in cells[2]] == list(taps)


@pytest.mark.parametrize("content", ["no markers", f"{listing.END} {listing.BEGIN}", f"{listing.BEGIN} " * 2])
def test_file_without_its_two_markers_is_left_alone(content: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(content)
    with pytest.raises(ValueError, match="expected one <!-- backbones:begin"):
        listing.regenerate(tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text() == content
