"""What numbers are called on pages and in terminals."""

from __future__ import annotations

from reelbank.heads.reports.wording import shared_text


def test_clips_of_trained_groups_are_told_part_by_part_and_of_no_groups_nothing() -> None:
    found = {
        "val": {"clips": 72, "shared": 60, "share": 60 / 72},
        "test": {"clips": 216, "shared": 0, "share": 0.0},
        "unknown": {"clips": 4, "shared": None, "share": None},
    }
    assert shared_text(found) == "val 60 of 72 (83.3 %), test 0 of 216 (0.0 %)"
    assert shared_text({"test": {"clips": 3, "shared": None, "share": None}}) == ""
