"""Pictures and fields changed in training: what the draws do, to what, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_examples_arrays import CPU, clips, epoch, plan, table_of

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.array_features import arrays_of
from reelbank.heads.examples.batches import MEAN, STD, ArrayBatches
from reelbank.heads.features_config import FeaturesConfig
from reelbank.heads.models.plans import Input
from reelbank.store import Store
from reelbank.store.testing import write_store

PICTURES = Input(name="pictures", about="frames", taps=(("frames*", "rgb"), ("*", "maps")), values="pixels")
FIELDS = Input(
    name="fields", about="flow", taps=(("*", "flow"), ("*", "flow-8bit")), values="field", stack_steps=3,
    stack_at="first", fill_zeros=True,
)  # fmt: skip
GRAY = Input(name="fields", about="flow images", taps=(("*", "flow-8bit"),), values="gray", stack_steps=3)
COUNT = 12
ALL = ("flip", "crop", "brightness")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store, Store]:
    """Pictures 20 x 30, fields 40 x 60 of the same clips, and the fields in 8 bits."""
    folder, rng = tmp_path_factory.mktemp("stores"), np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (2, 20, 30, 3), dtype=np.uint8) for _ in range(COUNT)]
    fields = [(4 * rng.normal(size=(4, 2, 40, 60))).astype(np.float16) for _ in range(COUNT)]
    levels = [rng.integers(0, 256, (4, 2, 40, 60), dtype=np.uint8) for _ in range(COUNT)]
    return (
        write_store(folder / "p.zarr", {"rgb": pictures}, clips(COUNT), backbone="frames"),
        write_store(folder / "f.zarr", {"flow": fields}, clips(COUNT), backbone="flow"),
        write_store(folder / "g.zarr", {"flow-8bit": levels}, clips(COUNT), backbone="flow"),
    )


def made_of(given: tuple[Store, ...], *inputs: Input, methods: tuple[str, ...] = ALL, **more: Any) -> ArrayBatches:
    of, config = plan(*inputs), FeaturesConfig(pixel_augment=methods, **more)
    return arrays_of(table_of(*given, of=of), of, config, 1.0).batches(CPU, evaluation_clips=4)


def drawn(count: int, seed: int) -> NDArray[np.float64]:
    """The numbers of the changes, which come after those of views and starts."""
    torch.manual_seed(seed)
    torch.rand(count, dtype=torch.float64), torch.rand(count, dtype=torch.float64)
    return torch.rand(count, 5, dtype=torch.float64).numpy()


def levels_of(batch: torch.Tensor) -> NDArray[Any]:
    """Pictures (B, T, 3, H, W) as networks read them, in 0 to 255."""
    found: NDArray[Any] = 255 * (batch.numpy() * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None])
    return found


def enlarged(plane: NDArray[Any], top: int, left: int, rows: int, columns: int) -> NDArray[Any]:
    """A part of (H, W), bilinear to the size of the whole, pixel by pixel."""
    height, width = plane.shape
    part, made = plane[top : top + rows, left : left + columns], np.empty((height, width))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            y0, x0 = int(v), int(u)
            y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
            above = part[y0, x0] * (1 - (u - x0)) + part[y0, x1] * (u - x0)
            below = part[y1, x0] * (1 - (u - x0)) + part[y1, x1] * (u - x0)
            made[y, x] = above * (1 - (v - y0)) + below * (v - y0)
    return made


def expected(planes: NDArray[Any], kind: str, numbers: NDArray[np.float64]) -> NDArray[Any]:
    """One step (C, H, W) changed slowly: pictures and 8-bit flow in levels, fields in px."""
    mirrored, scale, top, left, brightness = numbers
    height, width = planes.shape[1:]
    rows, columns = round((0.8 + 0.2 * scale) * height), round((0.8 + 0.2 * scale) * width)
    box = int(top * (height - rows + 1)), int(left * (width - columns + 1)), rows, columns
    made = np.stack([enlarged(plane.astype(np.float64), *box) for plane in planes])
    if kind != "pixels":
        still = 127.5 if kind == "gray" else 0.0
        made = still + (made - still) * np.array([width / columns, height / rows])[:, None, None]
        made = made.clip(0, 255) if kind == "gray" else made
    if mirrored < 0.5:
        made = made[..., ::-1].copy()
        if kind != "pixels":
            made[0] = (255 if kind == "gray" else 0) - made[0]
    if kind == "pixels":
        made = (made * (0.8 + 0.4 * brightness)).clip(0, 255)
    return made


@pytest.mark.parametrize("kind", ["field", "gray"])
def test_changes_are_those_of_a_slow_loop_alike_in_all_inputs(stores: tuple[Store, ...], kind: str) -> None:
    flow, one = (stores[1], FIELDS) if kind == "field" else (stores[2], GRAY)
    made = made_of((stores[0], flow), PICTURES, one)
    order, numbers = [7, 2, 5, 0], drawn(4, 3)
    assert {number < 0.5 for number in numbers[:, 0]} == {True, False}
    (batch,) = epoch(made, order, 4, 3)
    for place, clip in enumerate(order):
        pictures, fields = stores[0].read("rgb", clip)[0], flow.read(next(iter(flow.taps)), clip)[0]
        for step in range(2):
            wanted = expected(np.moveaxis(pictures[step], -1, 0), "pixels", numbers[place])
            np.testing.assert_allclose(levels_of(batch["pictures"])[place, step], wanted, atol=2e-3)
        wanted = np.concatenate([expected(field, kind, numbers[place]) for field in fields[:3]])
        found = batch["fields"][place, 0].numpy()
        if kind == "gray":
            found = 255 * (found * np.mean(STD) + np.mean(MEAN))
        np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_a_mirrored_field_has_its_x_negated_and_its_y_kept(stores: tuple[Store, ...]) -> None:
    for store in stores[1:]:
        made, plain = (made_of((store,), FIELDS, methods=methods) for methods in (("flip",), ()))
        order = list(range(COUNT))
        (found,), (whole,) = epoch(made, order, COUNT), epoch(plain, order, COUNT)
        is_mirrored = drawn(COUNT, 0)[:, 0] < 0.5
        assert 0 < is_mirrored.sum() < COUNT
        sign = torch.tensor([-1.0, 1.0]).repeat(3).view(1, 6, 1, 1)
        for place, mirrored in enumerate(is_mirrored.tolist()):
            wanted = whole["fields"][place].flip(-1) * sign if mirrored else whole["fields"][place]
            assert torch.equal(found["fields"][place], wanted)


@pytest.mark.parametrize("methods", [ALL, ("crop",), ("brightness", "flip")])
@pytest.mark.parametrize("size", [1, 5])
def test_streamed_is_held_to_the_bit_and_evaluation_is_not_changed(
    stores: tuple[Store, ...], methods: tuple[str, ...], size: int
) -> None:
    held = made_of(stores[:2], PICTURES, FIELDS, methods=methods)
    plain = made_of(stores[:2], PICTURES, FIELDS, methods=())
    order = [3, 1, 2, 8, 9, 0, 11, 4]
    streamed = replace(held, held=None)
    for ours, theirs in zip(epoch(held, order, size, 7), epoch(streamed, order, size, 7), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    (changed,), (whole,) = epoch(held, order, 8, 7), epoch(plain, order, 8, 7)
    assert not torch.equal(changed["pictures"], whole["pictures"])
    assert torch.equal(changed["fields"], torch.cat([b["fields"] for b in epoch(held, order, size, 7)]))
    for ours, theirs in zip(held.evaluated(torch.tensor(order))[0].values(), whole.values(), strict=True):
        assert torch.equal(ours, theirs)


def test_both_streams_keep_to_one_field_of_view(tmp_path: Path) -> None:
    """A dot and what moves there are cut and mirrored to the same place, and brightness leaves motion alone."""
    picture, field = np.zeros((1, 64, 64, 3), np.uint8), np.zeros((3, 2, 64, 64), np.float16)
    picture[0, 20:24, 40:44], field[:, :, 20:24, 40:44] = 200, 2.0
    a = write_store(tmp_path / "a.zarr", {"rgb": [picture] * 30}, clips(30), backbone="frames")
    b = write_store(tmp_path / "b.zarr", {"flow": [field] * 30}, clips(30), backbone="flow")
    (batch,) = epoch(made_of((a, b), PICTURES, FIELDS), list(range(30)), 30)
    places = set()
    for place in range(30):
        dots = np.argwhere(levels_of(batch["pictures"])[place, 0, 0] > 60).mean(axis=0)
        moving = np.argwhere(batch["fields"][place, 0, 1].numpy() > 1).mean(axis=0)
        assert np.abs(dots - moving).max() < 0.8
        places.add(tuple(dots.round()))
        y = batch["fields"][place, 0, 1].max().item()
        assert 2.0 <= y <= 2.0 / 0.79
    assert len(places) > 15


def test_what_cannot_be_changed_is_refused(stores: tuple[Store, ...], tmp_path: Path) -> None:
    maps = write_store(tmp_path / "m.zarr", {"maps": [np.zeros((2, 3, 4, 4), np.float16)] * 2}, clips(2))
    with pytest.raises(TrainingError, match=r"--pixel-augment flip .* of frames .*m\.zarr .* holds maps, in which"):
        made_of((maps,), PICTURES, methods=("flip",))
    with pytest.raises(TrainingError, match="--pixel-augment brightness is for pictures, and the head reads none"):
        made_of(stores[1:2], FIELDS, methods=("brightness",))
    with pytest.raises(TrainingError, match="--pixel-augment is for heads that read arrays, which head 'mlp' does not"):
        TrainConfig.of(store=(stores[0].path,), head="mlp", pixel_augment=("flip",))
    with pytest.raises(TrainingError, match="--pixel-augment 'jitter' is not one of brightness, crop, flip"):
        FeaturesConfig(pixel_augment=("jitter",))
