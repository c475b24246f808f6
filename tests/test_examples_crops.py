"""Views cut of stored whole frames while a head is trained, against those that extraction cuts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from array_head import MAPS
from numpy.typing import NDArray

from reelbank.extract.inputs import views
from reelbank.extract.inputs.preprocess import Preprocess, make
from reelbank.extract.video.frame import frame_of_rgb
from reelbank.heads.examples.array_features import arrays_of
from reelbank.heads.examples.arrays import Draw, long_enough, open_inputs
from reelbank.heads.examples.clips import load_table
from reelbank.heads.examples.crops import DRAWN
from reelbank.heads.features_config import FeaturesConfig
from reelbank.heads.models.plans import Group, HeadPlan, Input, Stage
from reelbank.store.corner_crops import CORNERS
from reelbank.store.testing import write_store

STAGE = Stage(name="1", groups=(Group(name="all", tensors=("*",)),))
FIELDS = Input(name="flow", about="fields", taps=(("*", "flow-8bit"),), values="gray", stack_steps=5)
CROP = Preprocess(short_side_px=256, interpolation="bilinear", crop_px=224)


def stored(frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]]:
    """A frame of short side 256 as `frames:256` stores it, 256 x 341, and where it lies in it."""
    height, width = frame.shape[:2]
    whole = np.zeros((256, 341, 3), np.uint8)
    left = (341 - width) // 2
    whole[:height, left : left + width] = frame
    return whole, (0, left, height, width)


def cut(tmp_path: Path, frames: list[NDArray[np.uint8]], clips: list[int], numbers: list[int]) -> NDArray[Any]:
    """Views of clips as a head reads them, in levels (B, 3, 224, 224)."""
    pictures = [stored(frame) for frame in frames]
    store = write_store(
        tmp_path / "f.zarr",
        {"rgb": [picture[None] for picture, _ in pictures]},
        [{"clip_id": f"c{i}", "label": "a"} for i in range(len(frames))],
        backbone="frames:256",
        frame_box=[box for _, box in pictures],
    )
    plan = HeadPlan(inputs=(MAPS,), stages=(STAGE,))
    table = long_enough(load_table(open_inputs((store,), plan, ())), plan)
    made = arrays_of(table, plan, FeaturesConfig(train_views="draw"), 1.0).batches(
        torch.device("cpu"), evaluation_clips=2
    )
    draw = Draw(clips=np.array(clips), views=np.array(numbers), starts=np.zeros(len(clips)))
    arrays, _ = made._prepared(draw, made._taken(draw))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    levels: NDArray[Any] = 255 * (arrays["maps"][:, 0].numpy() * std[:, None, None] + mean[:, None, None])
    return levels


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / a + y / b) for a, b in ((9, 31), (17, 13), (40, 21))]
    return np.stack(waves, axis=-1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(256, 341), (256, 256), (256, 300)])
def test_views_of_whole_frames_are_those_that_extraction_cuts(tmp_path: Path, height: int, width: int) -> None:
    """Within a level: extraction rounds the resized crop to whole ones."""
    frame = smooth(height, width)
    numbers = [0, 1, 2, 10, 21, 36, 40]
    found = cut(tmp_path, [frame], [0] * len(numbers), numbers)
    for ours, number in zip(found, numbers, strict=True):
        name = DRAWN[number]
        prepare = make(CROP, "exact") if number == 0 else views.changed(name, CROP, "c0", 0)
        expected = np.moveaxis(prepare(frame_of_rgb(frame)), -1, 0)
        assert np.abs(ours - expected).max() <= 1.01, name


def test_whole_frames_alone_are_drawn_in_all_forty_crops(tmp_path: Path) -> None:
    assert DRAWN[0] == "original" and DRAWN[1:] == CORNERS and len(CORNERS) == 40
    frame = smooth(256, 341)
    found = cut(tmp_path, [frame, frame], [0, 1], [3, 3])
    np.testing.assert_array_equal(found[0], found[1])


def test_flow_changes_its_sign_where_a_view_is_mirrored(tmp_path: Path) -> None:
    """x alone; 255 - v, as images of flow have it."""
    fields = np.zeros((6, 2, 256, 341), np.uint8)
    fields[:, 0], fields[:, 1] = 100, 40
    store = write_store(
        tmp_path / "f.zarr", {"flow-8bit": [fields]}, [{"clip_id": "a", "label": "a"}], backbone="flow:images-256",
        frame_box=[(0, 0, 256, 341)],
    )  # fmt: skip
    plan = HeadPlan(inputs=(FIELDS,), stages=(STAGE,))
    table = long_enough(load_table(open_inputs((store,), plan, ())), plan)
    made = arrays_of(table, plan, FeaturesConfig(train_views="draw"), 1.0).batches(
        torch.device("cpu"), evaluation_clips=2
    )
    for number, expected in ((CORNERS.index("corner-1-centre"), 100), (CORNERS.index("corner-1-centre-flip"), 155)):
        draw = Draw(clips=np.array([0]), views=np.array([number + 1]), starts=np.zeros(1))
        stack = made._prepared(draw, made._taken(draw))[0]["flow"]
        levels = (stack * (0.229 + 0.224 + 0.225) / 3 + (0.485 + 0.456 + 0.406) / 3) * 255
        assert stack.shape == (1, 1, 10, 224, 224)
        assert levels[0, 0, :, 100, 100].round().tolist() == [expected, 40] * 5
