"""Sampling rules against their formulas written plainly, and the frames of an interval at its very ends."""

from __future__ import annotations

import hashlib
import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelbank.extract.inputs.frame_choice import Choice, choose
from reelbank.extract.inputs.intervals import clip_frames
from reelbank.extract.inputs.sampling import (
    All,
    Consecutive,
    Every,
    First,
    Fps,
    Position,
    Random,
    Uniform,
    fixed_steps,
    most_steps,
    parse,
)

quick = settings(deadline=None, max_examples=80)


def _choose(text: str, num_frames: int, *, past_end: str = "repeat", rate_fps: float = 10.0, **more: Any) -> list[int]:
    times = np.arange(num_frames) / rate_fps
    options: dict[str, Any] = {"clip_id": "a17", "seed": 0, "past_end": past_end, **more}
    found: Choice = choose(parse(text), times, num_frames / rate_fps, **options)
    assert found.valid_steps == len(found.frame_index)
    return found.frame_index.tolist()  # type: ignore[no-any-return]


# --- each rule and its formula


@quick
@given(st.integers(1, 60), st.integers(1, 300))
def test_uniform_is_the_floor_of_even_places_from_the_first_to_the_last(steps: int, frames: int) -> None:
    # exact fractions; where numpy's rounding falls just below a whole number the place is checked by its neighbour
    places = [Fraction(i * (frames - 1), max(steps - 1, 1)) for i in range(steps)]
    found = _choose(f"uniform:{steps}", frames)
    for place, index in zip(places, found, strict=True):
        assert index == math.floor(place) or (place.denominator == 1 and index == place - 1)
    assert found[0] == 0
    assert steps == 1 or found[-1] == frames - 1
    opened = _choose(f"uniform:{steps}:open", frames)
    for i, index in enumerate(opened):
        place = Fraction(i * (frames - 1), steps)
        assert index == math.floor(place) or (place.denominator == 1 and index == place - 1)


@quick
@given(st.integers(1, 40), st.integers(1, 90))
def test_consecutive_frames_follow_each_other_and_loop(steps: int, frames: int) -> None:
    for start in ("zero", "centre", "random"):
        found = _choose(f"consecutive:{steps}:{start}", frames)
        assert all(b == (a + 1) % frames for a, b in itertools.pairwise(found))
        assert start != "zero" or found[0] == 0
        assert start != "centre" or found[0] == max(frames - steps, 0) // 2
        if steps <= frames:
            assert found == list(range(found[0], found[0] + steps))  # nothing loops that need not
        else:
            assert found[0] == 0


def test_random_start_is_the_scaled_hash_of_seed_and_clip() -> None:
    for clip_id in ("a", "b", "c", "d"):
        drawn = int.from_bytes(hashlib.sha256(f"7\0{clip_id}".encode()).digest()[:8], "big")
        expected = drawn * 16 // 2**64
        assert _choose("consecutive:5", 20, clip_id=clip_id, seed=7)[0] == expected
    assert str(parse("consecutive:5")) == "consecutive:5:random"


def test_random_start_reaches_both_ends() -> None:
    for frames in (4, 5, 6):
        starts = {_choose("consecutive:4", frames, clip_id=f"c{i}")[0] for i in range(60)}
        assert starts == set(range(frames - 3))


@pytest.mark.parametrize(
    ("position", "index"), [("0", 0), ("0.099", 0), ("0.1", 1), ("0.5", 5), ("0.999", 9), ("1", 9), ("1,0", None)]
)
def test_position_is_the_floor_of_the_share_and_stays_in_the_clip(position: str, index: int | None) -> None:
    assert _choose(f"position:{position}", 10) == ([9, 0] if index is None else [index])


def test_random_frames_are_those_with_the_smallest_draws() -> None:
    seed = int.from_bytes(hashlib.sha256(b"3\0a17").digest()[:16], "big")
    order = np.argsort(np.random.PCG64(seed).random_raw(12), kind="stable")
    assert _choose("random:5", 12, seed=3) == sorted(order[:5].tolist())
    assert _choose("random:12", 12) == list(range(12))
    twice = _choose("random:17", 12, seed=3)
    assert np.bincount(twice).tolist() == [2 if i in order[:5] else 1 for i in range(12)]


def test_every_and_all_by_hand() -> None:
    assert _choose("every:3", 8) == [0, 3, 6]
    assert _choose("every:1", 3) == _choose("all", 3) == [0, 1, 2]
    assert _choose("every:9", 9) == [0]
    assert _choose("every:8", 9) == [0, 8]


# --- fps: how many steps, and which frame each is


@pytest.mark.parametrize(
    ("frames", "rate", "steps"),
    [
        (10, "2", 2),  # 1 s
        (14, "2", 3),  # 1.4 s x 2 = 2.8
        (12, "2", 2),  # 2.4
        (25, "1", 2),  # 2.5: halves go to the even number
        (35, "1", 4),  # 3.5
        (2, "1", 1),  # 0.2: at least one
        (1, "10", 1),
    ],
)
def test_fps_rounds_the_number_of_steps(frames: int, rate: str, steps: int) -> None:
    assert len(_choose(f"fps:{rate}", frames)) == steps


@quick
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 60), st.integers(0, 500))
def test_fps_takes_the_nearest_frame_and_of_two_the_earlier(gaps: list[int], rate: int, shift: int) -> None:
    """Times in whole milliseconds, so that ties are ties."""
    millis = np.cumsum([shift, *gaps])
    found = choose(
        Fps(rate_fps=rate), millis / 1000, millis[-1] / 1000, clip_id="a", seed=0, start_seconds=shift / 1000
    )
    steps = max(round(millis[-1] / 1000 * rate), 1)
    assert len(found.frame_index) == steps
    for k, index in enumerate(found.frame_index.tolist()):
        wanted = shift + Fraction(1000 * k, rate)
        distances = [abs(int(value) - wanted) for value in millis]
        assert index == distances.index(min(distances))


def test_fps_counts_from_the_start_of_the_interval_not_from_its_first_frame() -> None:
    times = np.array([1.25, 1.75, 2.25, 2.75])
    assert choose(parse("fps:2"), times, 2.0, clip_id="a", seed=0).frame_index.tolist() == [0, 1, 2, 3]
    early = choose(parse("fps:2"), times, 2.0, clip_id="a", seed=0, start_seconds=1.0)
    assert early.frame_index.tolist() == [0, 0, 1, 2]  # 1.0 1.5 2.0 2.5: ties to the earlier


def test_duration_decides_the_steps_of_fps_alone() -> None:
    times = np.arange(4) / 10
    for text in ("uniform:3", "every:2", "all", "position:0.5", "random:2", "consecutive:2:centre"):
        found = [choose(parse(text), times, length, clip_id="a", seed=0).frame_index.tolist() for length in (0.4, 9.0)]
        assert found[0] == found[1]
    assert len(choose(parse("fps:10"), times, 0.6, clip_id="a", seed=0).frame_index) == 6


# --- past the end


@pytest.mark.parametrize("frames", [1, 4, 5, 6])
@pytest.mark.parametrize(
    "text", ["uniform:5", "uniform:5:open", "consecutive:5:zero", "consecutive:5:random", "random:5"]
)
def test_short_clips_by_rule(text: str, frames: int) -> None:
    repeated = _choose(text, frames)
    assert len(repeated) == 5
    if frames >= 5:
        assert _choose(text, frames, past_end="pad") == _choose(text, frames, past_end="error") == repeated
        return
    assert _choose(text, frames, past_end="pad") == list(range(frames))
    with pytest.raises(ValueError, match=rf"clip 'a17': {text} asks for 5 frames, the clip has {frames}; take fewer"):
        _choose(text, frames, past_end="error")


@pytest.mark.parametrize("past_end", ["repeat", "pad", "error"])
@pytest.mark.parametrize("text", ["position:0,0.5,1", "every:9", "first:9", "all", "fps:99"])
def test_rules_without_a_fixed_count_ask_for_nothing_past_the_end(text: str, past_end: str) -> None:
    assert _choose(text, 2, past_end=past_end) == _choose(text, 2)


def test_repeat_repeats_as_each_rule_says() -> None:
    assert _choose("uniform:6", 3) == [0, 0, 0, 1, 1, 2]
    assert _choose("consecutive:7:centre", 3) == [0, 1, 2, 0, 1, 2, 0]
    assert sorted(set(_choose("random:4", 3))) == [0, 1, 2]


def test_no_frames_and_unknown_rules_are_errors() -> None:
    with pytest.raises(ValueError, match="clip 'a17' has no frames"):
        _choose("all", 0)
    for call in (lambda: _choose("all", 3, past_end="loop"), lambda: _frames(past_end="loop")):
        with pytest.raises(ValueError, match=r"past_end = 'loop' is not one of error, pad, repeat"):
            call()


def test_fixed_steps_of_every_rule() -> None:
    found = {
        text: fixed_steps(parse(text))
        for text in ("uniform:4", "consecutive:5", "random:6", "position:0,1,0.5", "every:2", "all", "fps:3", "first:8")
    }
    assert found == {
        "uniform:4": 4,
        "consecutive:5": 5,
        "random:6": 6,
        "position:0,1,0.5": 3,
        "every:2": None,
        "all": None,
        "fps:3": None,
        "first:8": None,
    }
    assert [most_steps(parse(text)) for text in ("first:8", "first:8+uniform:4", "first:8+all")] == [8, 12, None]


# --- which frames lie in an interval: start <= t < end


TIMES = np.arange(10) / 10.0


def _frames(start: float | None = None, end: float | None = None, past_end: str = "repeat") -> tuple[int, int]:
    return clip_frames(TIMES, 1.0, clip_id="a17", start_seconds=start, end_seconds=end, past_end=past_end)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, (0, 10)),
        (0.0, None, (0, 10)),
        (0.3, 0.6, (3, 6)),  # a frame at the start is in, one at the end is not
        (np.nextafter(0.3, 1), np.nextafter(0.6, 1), (4, 7)),
        (np.nextafter(0.3, 0), np.nextafter(0.6, 0), (3, 6)),
        (0.9, None, (9, 10)),
        (0.9, 0.95, (9, 10)),
        (None, 0.1, (0, 1)),
        (None, 0.9, (0, 9)),
        (None, np.nextafter(0.9, 1), (0, 10)),
        (-5.0, 0.2, (0, 2)),
    ],
)
def test_intervals_are_half_open(start: float | None, end: float | None, expected: tuple[int, int]) -> None:
    assert _frames(start, end) == expected


def test_neighbouring_intervals_share_no_frame_and_lose_none() -> None:
    random = np.random.default_rng(0)
    times = np.sort(random.integers(0, 500, size=80)) / 100
    times = np.unique(times)
    cuts = [0.0, *np.sort(random.choice(times[3:-3], 3, replace=False)).tolist(), 99.0]
    found = [clip_frames(times, 5.1, clip_id="a", start_seconds=a, end_seconds=b) for a, b in itertools.pairwise(cuts)]
    assert found[0][0] == 0
    assert found[-1][1] == len(times)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(found))
    for (first, stop), a, b in zip(found, cuts, cuts[1:], strict=False):
        assert [i for i, t in enumerate(times) if a <= t < b] == list(range(first, stop))


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.6, 0.5), (1.0, 0.0), (math.nan, None), (None, math.nan)])
def test_empty_intervals_are_refused(start: float | None, end: float | None) -> None:
    with pytest.raises(ValueError, match=r"clip 'a17': the interval .* is empty; end_seconds must lie after"):
        _frames(start, end)


@pytest.mark.parametrize(("start", "end"), [(0.91, None), (0.91, 5.0), (0.31, 0.39), (7.0, 8.0)])
def test_an_interval_without_a_frame_is_an_error_and_no_empty_clip(start: float, end: float | None) -> None:
    with pytest.raises(ValueError, match=r"clip 'a17': no frame starts in .* and 10 frames; correct"):
        _frames(start, end)


def test_past_end_error_allows_one_mean_frame_time() -> None:
    for end in (0.5, 1.0, 1.05, 1.1):
        assert _frames(None, end, "error")[1] == (5 if end == 0.5 else 10)
    for end in (1.1001, 1.2, 50.0):
        with pytest.raises(ValueError, match=r"clip 'a17': end_seconds=.* is past the video's 1 s; shorten the clip"):
            _frames(None, end, "error")
        assert _frames(0.8, end, "repeat") == _frames(0.8, end, "pad") == (8, 10)
    assert _frames(0.2, None, "error") == (2, 10)  # an open end is the end of the video
    one = {"clip_id": "a", "past_end": "error"}  # a still of half a second: its frame time is that
    assert clip_frames(np.zeros(1), 0.5, end_seconds=1.0, **one) == (0, 1)
    with pytest.raises(ValueError, match=r"is past the video's 0\.5 s"):
        clip_frames(np.zeros(1), 0.5, end_seconds=1.01, **one)
    with pytest.raises(ValueError, match="no frame starts in"):
        clip_frames(np.zeros(0), 0.0, clip_id="a")


# --- the text forms


def test_texts_are_canonical() -> None:
    texts = [
        (Uniform(num_steps=8), "uniform:8"),
        (Uniform(num_steps=8, open=True), "uniform:8:open"),
        (Consecutive(num_steps=4), "consecutive:4:random"),
        (Consecutive(num_steps=4, start="zero"), "consecutive:4:zero"),
        (Position(positions=(0.0, 0.25, 1.0)), "position:0,0.25,1"),
        (Random(num_steps=3), "random:3"),
        (Every(stride_frames=2), "every:2"),
        (First(num_steps=8), "first:8"),
        (All(), "all"),
        (Fps(rate_fps=2.0), "fps:2"),
        (Fps(rate_fps=29.97), "fps:29.97"),
    ]
    for rule, text in texts:
        assert str(rule) == text
        assert parse(text) == parse(f" {text} ") == rule
    assert parse("consecutive:4") == Consecutive(num_steps=4, start="random")


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "4"])
def test_counts_are_whole_numbers_of_at_least_one(value: Any) -> None:
    for make in (lambda: Uniform(num_steps=value), lambda: Random(num_steps=value), lambda: Every(stride_frames=value)):
        with pytest.raises(ValueError, match="a whole number of at least 1"):
            make()
    with pytest.raises(ValueError, match="consecutive takes a whole number"):
        Consecutive(num_steps=value)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_rates_are_finite_and_above_zero(value: float) -> None:
    with pytest.raises(ValueError, match="expected a finite rate above 0"):
        Fps(rate_fps=value)
    assert Fps(rate_fps=1e-6).rate_fps == 1e-6


def test_positions_are_shares() -> None:
    for positions in ((), (-0.001,), (1.001,), (0.5, 2.0), (math.nan,)):
        with pytest.raises(ValueError, match="expected one or more values from 0 to 1"):
            Position(positions=positions)
    assert Position(positions=(0.0, 1.0)).positions == (0.0, 1.0)
    with pytest.raises(ValueError, match="is not one of"):
        Consecutive(num_steps=3, start="middle")


@pytest.mark.parametrize(
    "text",
    [
        *("", "some", "all:3", "uniform", "uniform:", "uniform:0", "uniform:4:closed", "uniform:4:", "uniform:2.5"),
        *("consecutive:4:", "consecutive:4:end", "position:", "position:0.5,2", "random", "every:-1", "fps:0", "fps:x"),
    ],
)
def test_what_is_no_rule_is_an_error_that_lists_the_forms(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"all; consecutive:N\[:centre\|random\|zero\]; every:K; first:N; fps:F; position:P"
    ):
        parse(text)
