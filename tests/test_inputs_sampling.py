"""Sampling rules: text form, ranges, what short clips give, and the frames of several rules in one store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from pipeline import copy_set, run

import reelbank.store
from reelbank.extract.inputs.frame_choice import PAST_END, Choice, choose
from reelbank.extract.inputs.intervals import clip_frames
from reelbank.extract.inputs.sampling import (
    CONSECUTIVE_STARTS,
    FORMS,
    All,
    Consecutive,
    Every,
    First,
    Fps,
    Position,
    Random,
    Rule,
    Sampling,
    Uniform,
    Union,
    fixed_steps,
    most_steps,
    parse,
)

counts = st.integers(1, 400)
rules: st.SearchStrategy[Rule] = st.one_of(
    st.builds(Uniform, num_steps=counts, open=st.booleans()),
    st.builds(Consecutive, num_steps=counts, start=st.sampled_from(CONSECUTIVE_STARTS)),
    st.builds(Position, positions=st.lists(st.floats(0, 1), min_size=1, max_size=9).map(tuple)),
    st.builds(Random, num_steps=counts),
    st.builds(Every, stride_frames=counts),
    st.builds(First, num_steps=counts),
    st.just(All()),
    st.builds(Fps, rate_fps=st.floats(0.01, 240)),
)
unions = st.builds(Union, parts=st.lists(rules, min_size=2, max_size=4, unique=True).map(tuple))
samplings: st.SearchStrategy[Sampling] = st.one_of(rules, unions)
EGO = "uniform:7:open+uniform:16:open"
"""The frames of Ego-RNN's two lengths."""


def apply(sampling: Sampling | str, num_frames: int, past_end: str = "repeat", rate_fps: float = 25.0) -> Choice:
    """A sampling of a clip at constant rate."""
    return choose(
        parse(sampling) if isinstance(sampling, str) else sampling,
        np.arange(num_frames) / rate_fps,
        num_frames / rate_fps,
        clip_id="a17",
        seed=0,
        past_end=past_end,
    )


@given(samplings)
def test_text_reads_back(sampling: Sampling) -> None:
    assert parse(str(sampling)) == sampling
    assert str(parse(str(sampling))) == str(sampling)


@given(samplings, st.integers(1, 500), st.sampled_from(["pad", "repeat"]))
def test_indices_stay_in_clip(sampling: Sampling, num_frames: int, past_end: str) -> None:
    choice = apply(sampling, num_frames, past_end)
    assert choice.frame_index.dtype == np.int64
    assert len(choice.frame_index) == choice.valid_steps >= 1
    assert 0 <= choice.frame_index.min() <= choice.frame_index.max() < num_frames
    steps = fixed_steps(sampling)
    if past_end == "repeat" and steps is not None:
        assert choice.valid_steps == steps
    if (
        past_end == "pad"
        and isinstance(sampling, Uniform | Consecutive | Random)
        and not getattr(sampling, "open", False)
    ):
        assert len(set(choice.frame_index.tolist())) == choice.valid_steps == min(num_frames, sampling.num_steps)


@given(samplings, st.integers(1, 500))
def test_choice_is_the_same_twice(sampling: Sampling, num_frames: int) -> None:
    np.testing.assert_array_equal(apply(sampling, num_frames).frame_index, apply(sampling, num_frames).frame_index)


@pytest.mark.parametrize(
    ("text", "num_frames", "expected"),
    [
        ("uniform:4", 10, [0, 3, 6, 9]),
        ("uniform:4:open", 10, [0, 2, 4, 6]),
        ("uniform:7:open", 31, [0, 4, 8, 12, 17, 21, 25]),  # floor(linspace(1, 31, 7, endpoint=False)) - 1
        ("uniform:1", 10, [0]),
        ("uniform:8", 3, [0, 0, 0, 0, 1, 1, 1, 2]),
        ("consecutive:5:zero", 3, [0, 1, 2, 0, 1]),
        ("consecutive:4:centre", 11, [3, 4, 5, 6]),
        ("consecutive:3:random", 3, [0, 1, 2]),
        ("position:0,0.5,1", 10, [0, 5, 9]),
        ("position:0.99", 10, [9]),
        ("random:3", 3, [0, 1, 2]),
        ("random:6", 3, [0, 0, 1, 1, 2, 2]),
        ("random:4", 10, [1, 2, 4, 8]),
        ("every:4", 10, [0, 4, 8]),
        ("first:3", 10, [0, 1, 2]),
        ("first:9", 3, [0, 1, 2]),
        ("all", 3, [0, 1, 2]),
        ("fps:5", 25, [0, 5, 10, 15, 20]),
        ("fps:50", 3, [0, 0, 1, 1, 2, 2]),  # a tie takes the earlier frame
        ("fps:1", 5, [0]),
    ],
)
def test_indices_follow_the_rule(text: str, num_frames: int, expected: list[int]) -> None:
    assert apply(text, num_frames).frame_index.tolist() == expected


def test_fps_takes_nearest_frame_of_variable_rate() -> None:
    times = np.asarray([10.0, 10.1, 10.9, 12.2])
    choice = choose(parse("fps:1"), times, 3.0, clip_id="a", seed=0)
    assert choice.frame_index.tolist() == [0, 2, 3]
    late = choose(parse("fps:1"), times, 3.0, clip_id="a", seed=0, start_seconds=9.5)
    assert late.frame_index.tolist() == [0, 1, 2]


def test_random_start_is_uniform_and_depends_on_clip_and_seed() -> None:
    sampling, times = Consecutive(num_steps=7), np.arange(10) / 25.0
    starts = [int(choose(sampling, times, 0.4, clip_id=f"clip{i}", seed=3).frame_index[0]) for i in range(2000)]
    counts_by_start = np.bincount(starts, minlength=4)
    assert len(counts_by_start) == 4
    assert (abs(counts_by_start - 500) < 100).all()  # 5 standard deviations of a binomial
    others = [int(choose(sampling, times, 0.4, clip_id=f"clip{i}", seed=4).frame_index[0]) for i in range(2000)]
    assert starts != others


@given(counts, st.integers(1, 500))
def test_random_frames_are_in_order_of_time_and_as_often_as_each_other(num_steps: int, num_frames: int) -> None:
    frames = apply(Random(num_steps=num_steps), num_frames).frame_index
    assert (np.diff(frames) >= 0).all()
    counts_by_frame = np.bincount(frames, minlength=num_frames)
    assert counts_by_frame.max() - counts_by_frame.min() <= 1


def test_random_frames_are_drawn_uniformly_and_depend_on_clip_and_seed() -> None:
    sampling, times = Random(num_steps=3), np.arange(10) / 25.0
    drawn = [choose(sampling, times, 0.4, clip_id=f"clip{i}", seed=3).frame_index for i in range(2000)]
    assert all(len(set(frames.tolist())) == 3 for frames in drawn)
    assert (abs(np.bincount(np.concatenate(drawn), minlength=10) - 600) < 105).all()  # 5 standard deviations
    others = [choose(sampling, times, 0.4, clip_id=f"clip{i}", seed=4).frame_index for i in range(2000)]
    assert any((a != b).any() for a, b in zip(drawn, others, strict=True))


def test_short_clip_by_past_end() -> None:
    assert apply("uniform:16", 5).valid_steps == 16
    assert apply("uniform:16", 5, "pad").frame_index.tolist() == [0, 1, 2, 3, 4]
    assert apply("consecutive:16:zero", 5, "pad").frame_index.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"clip 'a17': uniform:16 asks for 16 frames, the clip has 5"):
        apply("uniform:16", 5, "error")
    assert apply("position:0,0.1", 1, "error").valid_steps == 2
    with pytest.raises(ValueError, match="'loop' is not one of error, pad, repeat"):
        apply("all", 5, "loop")
    with pytest.raises(ValueError, match="has no frames"):
        apply("all", 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uniform",
        "uniform:",
        "uniform:0",
        "uniform:-3",
        "uniform:4:",
        "uniform:4:closed",
        "uniform:4.0",
        "consecutive:9:middle",
        "consecutive:9:",
        "consecutive",
        "position:",
        "position:1.5",
        "position:nan",
        "every:0",
        "every",
        "all:3",
        "fps:0",
        "fps:inf",
        "fps:",
        "random:0",
        "random",
        "uniform:١٦",
        "uniform:7+",
        "+uniform:7",
        "uniform:7++all",
        "uniform:7+uniform:7",
        "uniform:7+uniform:0",
        "uniform:7+every",
        "every:2+3",
    ],
)
def test_bad_text_lists_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="the forms") as caught:
        parse(text)
    assert all(form in str(caught.value) for form in FORMS)
    assert repr(text) in str(caught.value)


def test_clip_frames_are_half_open() -> None:
    times = np.arange(10) / 10.0
    assert clip_frames(times, 1.0, clip_id="a") == (0, 10)
    assert clip_frames(times, 1.0, clip_id="a", start_seconds=0.2, end_seconds=0.5) == (2, 5)
    assert clip_frames(times, 1.0, clip_id="a", start_seconds=0.85) == (9, 10)
    assert clip_frames(times, 1.0, clip_id="a", end_seconds=5.0) == (0, 10)
    with pytest.raises(ValueError, match=r"clip 'a': end_seconds=5 is past the video's 1 s"):
        clip_frames(times, 1.0, clip_id="a", end_seconds=5.0, past_end="error")
    with pytest.raises(ValueError, match=r"the interval \[0.5, 0.5\) s is empty"):
        clip_frames(times, 1.0, clip_id="a", start_seconds=0.5, end_seconds=0.5)
    with pytest.raises(ValueError, match="no frame starts in"):
        clip_frames(times, 1.0, clip_id="a", start_seconds=3.0)
    with pytest.raises(ValueError, match="is empty"):
        clip_frames(times, 1.0, clip_id="a", start_seconds=float("nan"))


@pytest.mark.parametrize("past_end", PAST_END)
def test_clip_frames_end_of_video_is_no_error(past_end: str) -> None:
    times = np.arange(10) / 10.0
    assert clip_frames(times, 1.0, clip_id="a", end_seconds=1.0, past_end=past_end) == (0, 10)


# --- the frames of several rules


@given(unions, st.integers(1, 300), st.sampled_from(["pad", "repeat"]))
def test_union_is_what_its_rules_choose_in_order_and_once(sampling: Union, num_frames: int, past_end: str) -> None:
    together = np.zeros(0, np.int64)
    for part in sampling.parts:
        together = np.union1d(together, apply(part, num_frames, past_end).frame_index)
    choice = apply(sampling, num_frames, past_end)
    np.testing.assert_array_equal(choice.frame_index, together)
    assert fixed_steps(sampling) is None
    assert choice.valid_steps == len(together) <= min(num_frames, most_steps(sampling) or num_frames)


@pytest.mark.parametrize("num_frames", [*range(1, 40), 100, 457, 1000, 5000])
def test_union_of_two_lengths_holds_the_published_frames_of_both(num_frames: int) -> None:
    """Ego-RNN counts frames from 1: floor(linspace(1, N, n, endpoint=False))."""
    found = set(apply(EGO, num_frames).frame_index.tolist())
    published = [np.floor(np.linspace(1, num_frames, n, endpoint=False)).astype(int) - 1 for n in (7, 16)]
    assert found == set(np.concatenate(published).tolist())
    assert len(found) <= 22, "both have the first frame"
    assert num_frames < 200 or len(found) == 22


def test_union_of_a_short_clip_repeats_nothing() -> None:
    assert apply("uniform:4+uniform:9", 3).frame_index.tolist() == [0, 1, 2]
    assert apply("uniform:2+uniform:4:open", 3).frame_index.tolist() == [0, 1, 2]
    assert apply("position:0.9,0.1+every:5", 10).frame_index.tolist() == [0, 1, 5, 9]
    with pytest.raises(ValueError, match=r"clip 'a17': uniform:9 asks for 9 frames, the clip has 3"):
        apply("uniform:2+uniform:9", 3, "error")
    assert apply("uniform:2+every:2", 3, "error").frame_index.tolist() == [0, 2]


def test_union_draws_what_its_rules_draw_alone() -> None:
    alone = [apply(text, 90).frame_index for text in ("random:5", "consecutive:6")]
    np.testing.assert_array_equal(apply("random:5+consecutive:6", 90).frame_index, np.union1d(*alone))


def test_union_reads_rules_between_its_signs() -> None:
    parts = (Uniform(num_steps=7, open=True), Uniform(num_steps=16, open=True))
    assert parse(EGO) == parse(f" {EGO.replace('+', ' + ')} ") == Union(parts=parts)
    assert str(parse(EGO)) == EGO
    assert parse("fps:1e+1+all") == Union(parts=(Fps(rate_fps=10.0), All()))
    with pytest.raises(ValueError, match=r"sampling 'all\+some:3': 'some:3' is not one of the forms"):
        parse("all+some:3")


def test_union_is_made_of_different_rules_that_are_none() -> None:
    inner = Union(parts=(All(), Uniform(num_steps=2)))
    with pytest.raises(ValueError, match="made of rules, found Union"):
        Union(parts=(Uniform(num_steps=3), inner))  # type: ignore[arg-type]
    for parts in ((), (All(),), (All(), All())):
        with pytest.raises(ValueError, match="two or more different rules, found"):
            Union(parts=parts)


def test_store_of_a_union_holds_the_frames_of_each_rule(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 1))
    for name, rule in (("both", EGO), ("every", "all")):
        run(folder, model=("frames:112",), sampling=(rule,), out=str(tmp_path / f"{name}.zarr"), workers=1)
    both, every = (reelbank.store.open(tmp_path / f"{name}.zarr") for name in ("both", "every"))
    assert both.spec.sampling == EGO
    frame_index = zarr.open_array(tmp_path / "both.zarr/clips/frame_index", mode="r")
    stored, frames = both.read("rgb", 0)[0], every.read("rgb", 0)[0]
    places = np.asarray(frame_index[0])[: len(stored)]
    for rule in EGO.split("+"):
        wanted = apply(rule, len(frames)).frame_index
        assert set(wanted.tolist()) <= set(places.tolist())
        np.testing.assert_array_equal(stored[np.searchsorted(places, wanted)], frames[wanted])
    assert not reelbank.store.verify(tmp_path / "both.zarr").problems
