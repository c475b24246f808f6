"""Two classifiers on the same clips: the exact test by enumeration, its counts, and what published accuracies leave."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest

from reelbank.heads.judging.paired import (
    Disagreement,
    PublishedPair,
    disagreement,
    exact_text,
    mcnemar_exact,
    over_repeats,
    p_text,
)

NAN = float("nan")


@pytest.mark.parametrize(("only_this", "only_other"), [*itertools.product(range(6), range(6))])
def test_p_is_the_share_of_coin_series_that_are_as_lopsided(only_this: int, only_other: int) -> None:
    tosses = only_this + only_other
    series = [abs(2 * sum(coins) - tosses) for coins in itertools.product((0, 1), repeat=tosses)]
    as_lopsided = sum(one >= abs(only_this - only_other) for one in series)
    assert mcnemar_exact(only_this, only_other) == pytest.approx(as_lopsided / len(series), rel=1e-12)


def test_p_of_forty_against_thirty_one_is_the_golden_one() -> None:
    assert f"{mcnemar_exact(40, 31):.2f}" == "0.34"
    assert mcnemar_exact(40, 31) == mcnemar_exact(31, 40) == pytest.approx(binomtest(40, 71).pvalue, rel=1e-12)


@pytest.mark.parametrize("counts", [(700, 301), (3000, 3100), (1, 4000)])
def test_p_of_many_clips_is_scipys_and_never_zero(counts: tuple[int, int]) -> None:
    assert mcnemar_exact(*counts) == pytest.approx(max(binomtest(counts[0], sum(counts)).pvalue, 5e-324), rel=1e-9)
    assert mcnemar_exact(*counts) > 0


@pytest.mark.parametrize("each", [0, 1, 7, 500])
def test_p_of_a_tie_is_one(each: int) -> None:
    assert mcnemar_exact(each, each) == 1.0


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="only_other = -1"):
        mcnemar_exact(3, -1)


def test_clips_count_where_exactly_one_is_right_and_both_are_judged() -> None:
    this = np.array([1, 1, 0, 0, 1, NAN, 1, 1.0])
    other = np.array([1, 0, 1, 0, 0, 1, NAN, 0.0])
    assert disagreement(this, other) == Disagreement(only_this=3, only_other=1)
    assert disagreement(other, this) == Disagreement(only_this=1, only_other=3)
    with pytest.raises(ValueError, match="no share of clips"):
        disagreement(this, np.full(8, 0.5))
    with pytest.raises(ValueError, match="same clips"):
        disagreement(this, other[:7])


def test_of_repeats_the_one_in_the_middle_is_shown_with_its_own_counts() -> None:
    repeats = [Disagreement(only_this=a, only_other=b) for a, b in ((9, 1), (4, 4), (7, 2))]
    found = over_repeats(repeats)
    assert (found["only_this"], found["only_other"]) == (7, 2)
    assert found["p"] == mcnemar_exact(7, 2)
    assert [one["only_this"] for one in found["repeats"]] == [9, 4, 7]
    assert over_repeats(repeats[:2])["p"] == 1.0  # of two the one that says less
    assert over_repeats(repeats[:1])["p"] == mcnemar_exact(9, 1)
    assert exact_text(found) == "only this row right on 7, only the other on 2, exact test p = 0.18"


def test_published_accuracies_bound_p() -> None:
    """199 against 188 and 197 against 188 of 360 clips, of which nobody has the predictions."""
    pair = PublishedPair.of(0.5472, 0.5222, 360)
    assert (pair.right, pair.other_right, pair.difference, pair.least) == (197, 188, 9, 9)
    values = [pair.p(disagree) for disagree in range(pair.least, pair.most + 1, 2)]
    assert values == sorted(values)
    assert values[0] == mcnemar_exact(9, 0)
    # At most: all that the worse one has wrong and the better one right.
    assert pair.most == 172 + 163
    assert values[-1] == mcnemar_exact(172, 163)
    assert f"{pair.p(71):.2f}" == "0.34"
    said = pair.sentence(71)
    assert "197 against 188 of 360 clips right, +9" in said
    assert said.endswith("p = 0.34 if 40 against 31 disagree.")
    assert PublishedPair.of(0.5222, 0.5472, 360).p(71) == pair.p(71)
    for wrong in (70, 7, pair.most + 2):
        with pytest.raises(ValueError, match="they disagree on 9, 11"):
            pair.p(wrong)
    with pytest.raises(ValueError, match="cannot be"):
        PublishedPair(right=361, other_right=3, clips=360)


def test_bounds_are_those_of_every_table_that_the_accuracies_allow() -> None:
    for clips in (1, 4, 7):
        for right, other in itertools.product(range(clips + 1), repeat=2):
            pair = PublishedPair(right=right, other_right=other, clips=clips)
            tables = {
                (right - both) + (other - both)
                for both in range(min(right, other) + 1)
                if right + other - both <= clips
            }
            assert tables == set(range(pair.least, pair.most + 1, 2))


def test_p_is_said_in_two_digits() -> None:
    assert [p_text(p) for p in (1.0, 0.3424, 0.0995, 0.0213, 0.00125, 1e-9)] == [
        *("1.00", "0.34", "0.10", "0.021", "0.0013", "< 0.0001"),
    ]
