"""The table of backbones in the docs is what the code says."""

from __future__ import annotations

from reelbank.extract import backbones
from reelbank.extract.backbones import listing


def test_every_backbone_and_every_tap_stands_in_one_row() -> None:
    listed = [name for cells in listing.rows() for name in cells[0].split(", ")]
    for name in backbones.names():
        assert listed.count(name) == 1, name
    for cells in listing.rows():
        name = cells[0].split(", ")[0]
        if name in backbones.names():
            taps = backbones.describe(name).taps
            assert [text.split(" ")[0].rstrip("*") for text in cells[2]] == list(taps)
