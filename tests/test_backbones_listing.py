"""The table of backbones in the docs is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelbank.extract import backbones
from reelbank.extract.backbones import listing

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "backbones.md"


def test_table_of_the_docs_is_current(tmp_path: Path) -> None:
    copy = tmp_path / "backbones.md"
    copy.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    listing.regenerate(copy)
    assert copy.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8"), (
        "run python -m reelbank.extract.backbones.listing docs/reference/backbones.md"
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
    (tmp_path / "page.md").write_text(content)
    with pytest.raises(ValueError, match="expected one <!-- backbones:begin"):
        listing.regenerate(tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == content
