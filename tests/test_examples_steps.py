"""Steps at shares of a clip, stacks that begin at its first frame, zero fields where it is short, fields in px."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_examples_arrays import batches_of, clips, epoch, plan, table_of

from reelbank.extract.backbones.flow_taps import decode_8bit
from reelbank.extract.inputs.frame_choice import choose
from reelbank.extract.inputs.sampling import parse
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.array_features import arrays_of
from reelbank.heads.examples.arrays import open_inputs
from reelbank.heads.examples.steps import position_frames
from reelbank.heads.features_config import FeaturesConfig
from reelbank.heads.models.plans import Input
from reelbank.store import Store
from reelbank.store.testing import write_store

FIVE = (0.0, 0.25, 0.5, 0.75, 1.0)
AT = Input(name="at", about="frames", taps=(("*", "maps"),), values="map", positions=FIVE)
FIELDS = Input(
    name="fields", about="flow", taps=(("*", "flow"), ("*", "flow-8bit")), values="field", stack_steps=8,
    stack_at="first", fill_zeros=True,
)  # fmt: skip
FRAMES = Input(
    name="frames", about="RGB frames", taps=(("frames*", "rgb"), ("*", "maps")), values="pixels", shape=(3, 4, 6),
    needs_shape=True,
)  # fmt: skip
FIRST_FRAME = 100
"""Of every clip in its video: stores count frames from the video's start."""


def sampled(path: Path, sampling: str, lengths: list[int]) -> Store:
    """A store whose steps hold the number of their frame in the clip."""
    held = [
        choose(parse(sampling), np.arange(n) / 25, n / 25, clip_id=f"clip {i}", seed=0).frame_index
        for i, n in enumerate(lengths)
    ]
    maps = [frames.astype(np.float32)[:, None, None, None] * np.ones((1, 1, 2, 2), np.float32) for frames in held]
    return write_store(
        path, {"maps": maps}, clips(len(lengths)), frames=[frames + FIRST_FRAME for frames in held],
        num_frames=lengths, sampling=sampling,
    )  # fmt: skip


def fields(counts: list[int]) -> list[np.ndarray]:
    """x of step t is t + 1, y is -(t + 1) / 8; in the shape of nothing else."""
    return [
        np.stack([np.stack([np.full((3, 5), t + 1), np.full((3, 5), -(t + 1) / 8)]) for t in range(n)]).astype(
            np.float16
        )
        for n in counts
    ]


# --- shares of a clip


@pytest.mark.parametrize(
    "sampling",
    [
        "position:0,0.25,0.5,0.75,1",
        "position:1,0.5,0,0.75,0.25",
        "all",
        "position:0,0.25+position:0.5,0.75,1",
        "uniform:5+position:0.25,0.5,0.75",
        "consecutive:70:zero",
        "random:2+position:0,0.25,0.5,0.75,1",
    ],
)
def test_steps_at_shares_are_those_frames_in_their_order(tmp_path: Path, sampling: str) -> None:
    lengths = [1, 2, 3, 8, 41, 60]
    for positions in (FIVE, (0.75, 0.0)):
        one = Input(name="at", about="frames", taps=(("*", "maps"),), values="map", positions=positions)
        store = sampled(tmp_path / f"{len(positions)}.zarr", sampling, lengths)
        (arrays,) = epoch(batches_of(table_of(store, of=plan(one)), plan(one)), [3, 5, 0, 1, 2, 4], 6)
        assert arrays["at"].shape == (6, len(positions), 1, 2, 2)
        for place, clip in enumerate([3, 5, 0, 1, 2, 4]):
            wanted = [min(int(p * lengths[clip]), lengths[clip] - 1) for p in positions]
            assert arrays["at"][place, :, 0, 0, 0].tolist() == wanted


def test_shares_of_a_clip_are_the_published_places() -> None:
    for n in range(1, 500):
        assert position_frames(n, FIVE).tolist() == [0, n // 4, n // 2, 3 * n // 4, n - 1]


@pytest.mark.parametrize(
    ("sampling", "lacking"),
    [("position:0,0.5,1", "0.25 of clip 'clip 0', frame 10 of 41"), ("uniform:4", "0.25 of clip 'clip 0', frame 10")],
)
def test_shares_that_a_store_does_not_hold_are_refused(tmp_path: Path, sampling: str, lacking: str) -> None:
    store = sampled(tmp_path / "s.zarr", sampling, [41])
    match = rf"frame at {lacking}.* does not hold \(sampling {sampling}\); .*--sampling position:0,0\.25,0\.5,0\.75,1"
    with pytest.raises(TrainingError, match=match):
        batches_of(table_of(store, of=plan(AT)), plan(AT))


@pytest.mark.parametrize("sampling", ["random:16", "consecutive:16:random", "fps:5", "position:0.5+random:16"])
def test_shares_are_refused_where_the_first_frame_is_not_known(tmp_path: Path, sampling: str) -> None:
    store = sampled(tmp_path / "s.zarr", sampling, [41])
    with pytest.raises(TrainingError, match=r"does not say where in clip 'clip 0' its steps lie; .*position:0,0\.25"):
        batches_of(table_of(store, of=plan(AT)), plan(AT))


# --- stacks of fields


def test_fields_are_stacked_x_before_y_from_the_first_step_on(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", {"flow": fields([8, 30])}, clips(2))
    made = batches_of(table_of(store, of=plan(FIELDS)), plan(FIELDS))
    assert made.taps["fields"].shape.shape == (16, 3, 5)
    expected = [value for t in range(8) for value in (t + 1, -(t + 1) / 8)]
    for seed in range(3):
        (arrays,) = epoch(made, [1, 0], 2, seed)
        assert arrays["fields"].shape == (2, 1, 16, 3, 5)
        assert arrays["fields"].dtype == torch.float32
        assert arrays["fields"][:, 0, :, 2, 4].tolist() == [expected, expected]
    evaluated = made.evaluated(torch.tensor([1]))[0]["fields"]
    assert evaluated[0, 0, :, 2, 4].tolist() == expected


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("is_8bit", [False, True])
def test_short_clips_end_in_zero_fields_which_are_counted(tmp_path: Path, is_held: bool, is_8bit: bool) -> None:
    """Clips of 12, 9, 8, 3 and 2 frames have 8, 8, 7, 2 and 1 fields."""
    steps, repeated, num_frames = [8, 8, 8, 3, 2], [0, 0, 1, 1, 1], [12, 9, 8, 3, 2]
    given: Any = fields(steps)
    for one, count in zip(given, repeated, strict=True):
        one[len(one) - count :] = one[len(one) - count - 1 : len(one) - count] if count else one[len(one) :]
    if is_8bit:
        given = [np.round(np.clip(one.astype(np.float64) + 20, 0, 40) * 255 / 40).astype(np.uint8) for one in given]
    name = "flow-8bit" if is_8bit else "flow"
    store = write_store(
        tmp_path / "s.zarr", {name: given}, clips(5), num_frames=num_frames, repeated_steps=repeated, sampling="first:8"
    )
    of = plan(FIELDS)
    arrays = arrays_of(table_of(store, of=of), of, FeaturesConfig(), 1.0)
    made = arrays.batches(torch.device("cpu"), evaluation_clips=2)
    made = made if is_held else replace(made, held=None)
    found = torch.cat([one["fields"] for one in epoch(made, [0, 1, 2, 3, 4], 1)])
    for clip, count in enumerate([8, 8, 7, 2, 1]):
        own = decode_8bit(given[clip]) if is_8bit else given[clip].astype(np.float32)
        stacked = np.zeros((8, 2, 3, 5), np.float32)
        stacked[:count] = own[:count]
        np.testing.assert_array_equal(found[clip, 0].numpy(), stacked.reshape(16, 3, 5))
    assert made.evaluated(torch.tensor([4]))[1]["fields"].tolist() == [[True]]
    assert (
        "3 of 5 clips are too short for 8 steps of flow: 14 steps at their end are zero fields, 3 of them in the place "
        "of a step that repeats the one before." in arrays.notes()
    )


def test_stacks_that_are_drawn_leave_out_steps_that_repeat(tmp_path: Path) -> None:
    of = plan(Input(name="f", about="flow", taps=(("*", "flow"),), values="field", stack_steps=3, fill_zeros=True))
    store = write_store(tmp_path / "s.zarr", {"flow": fields([9])}, clips(1), repeated_steps=[1])
    made = batches_of(table_of(store, of=of), of)
    seen = {value for seed in range(60) for value in epoch(made, [0], 1, seed)[0]["f"][0, 0, ::2, 0, 0].tolist()}
    assert 9.0 not in seen
    assert {1.0, 7.0} <= seen


def test_first_steps_that_are_others_are_refused(tmp_path: Path) -> None:
    for number, (sampling, held, frames) in enumerate(
        [
            ("uniform:4", [0, 10, 20, 30], 31),
            ("consecutive:8:zero", [0, 1, 2, 0, 1, 2, 0, 1], 3),
            ("consecutive:8:centre", list(range(4, 12)), 16),
            ("first:4", [0, 1, 2, 3], 31),
        ]
    ):
        store = write_store(
            tmp_path / f"{number}.zarr", {"flow": fields([len(held)])}, clips(1), frames=[held], num_frames=[frames],
            sampling=sampling,
        )  # fmt: skip
        with pytest.raises(TrainingError, match=rf"first 8 steps .* of clip 'clip 0'.*{sampling}\).*first:8"):
            batches_of(table_of(store, of=plan(FIELDS)), plan(FIELDS))


# --- the shape of a store


def test_a_store_of_another_size_is_refused(tmp_path: Path) -> None:
    def store(name: str, height: int, width: int) -> Store:
        pixels = [np.zeros((1, height, width, 3), np.uint8)]
        return write_store(tmp_path / f"{name}.zarr", {"rgb": pixels}, clips(1), backbone="frames:112")

    open_inputs((store("right", 4, 6),), plan(FRAMES), ())
    match = r"RGB frames of 3 x 4 x 6, and .*wrong\.zarr \(frames:112\) holds rgb of 6 x 4 x 3; .*frames:squash4"
    with pytest.raises(TrainingError, match=match):
        open_inputs((store("wrong", 6, 4),), plan(FRAMES), ())
    maps = write_store(tmp_path / "m.zarr", {"maps": [np.zeros((1, 7, 2, 2), np.float32)]}, clips(1))
    open_inputs((maps,), plan(FRAMES), ())  # of the first tap alone
