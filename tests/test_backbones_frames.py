"""Stored frames: their sizes, and where a picture lies in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipeline import run_patched, store_of

import reelbank.store
from reelbank.extract import backbones
from reelbank.extract.inputs.preprocess import RESIZES, Preprocess, make
from reelbank.extract.video.frame import Pixels, frame_of_rgb

SIZES = {
    "frames": (224, 224),
    "frames:112": (112, 112),
    "frames:256": (256, 341),
    "frames:squash112": (112, 112),
    "frames:squash224": (224, 224),
}
SEEN_BY_FLOW = """
import numpy as np
from reelbank.extract.backbones import flow

def seen(estimate, before, after):
    if before.any():  # the rest of the batch is empty
        np.save({path!r}, before)
    return np.zeros((2, *before.shape), np.float32)

flow.field_of = seen
"""


def picture(height_px: int, width_px: int) -> Pixels:
    """Nowhere black: padding can be told from picture."""
    rng = np.random.default_rng(4)
    return rng.integers(40, 256, (height_px, width_px, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_tap_is_the_prepared_frame(name: str) -> None:
    backbone = backbones.build(name)
    assert backbone.info.frames_shape == backbone.taps["rgb"].shape == (*SIZES[name], 3)
    prepared = make(backbone.preprocess)(frame_of_rgb(picture(240, 320)))
    np.testing.assert_array_equal(backbone.forward(prepared[None])["rgb"], prepared[None])


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((240, 320), (0, 0, 256, 341)),  # 4:3 fits to the pixel
        ((1080, 1920), (0, 0, 256, 341)),  # 16:9 loses its sides
        ((1920, 1080), (0, 42, 256, 256)),  # upright: 256 wide, cropped above and below
        ((300, 300), (0, 42, 256, 256)),
    ],
)
def test_frames_256_are_the_picture_inside_the_valid_box_and_zeros_outside(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    preprocess = backbones.describe("frames:256").preprocess
    assert preprocess.valid_box(*size) == box
    found = make(preprocess)(frame_of_rgb(picture(*size)))
    top, left, height, width = box
    inside = np.zeros((256, 341), np.bool_)
    inside[top : top + height, left : left + width] = True
    assert found[inside].min() > 0
    assert not found[~inside].any()


def test_frames_112_keep_the_whole_height() -> None:
    """A crop of 112 from 112: the rows are all there, as in a resize alone."""
    preprocess = backbones.describe("frames:112").preprocess
    whole = make(Preprocess(short_side_px=112, interpolation="bilinear"))(frame_of_rgb(picture(240, 320)))
    np.testing.assert_array_equal(make(preprocess)(frame_of_rgb(picture(240, 320))), whole[:, 18:130])


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(240, 320), (1080, 1920), (1920, 1080), (100, 3000), (3000, 4), (320, 576)])
def test_fit_keeps_the_whole_picture(size: tuple[int, int], resize: str) -> None:
    preprocess = Preprocess(fit_px=(320, 576), interpolation="bilinear")
    top, left, height, width = preprocess.valid_box(*size)
    assert height == 320 or width == 576
    assert abs(height / width * size[1] / size[0] - 1) < 0.02 or min(height, width) < 30
    assert (top, left) == ((320 - height) // 2, (576 - width) // 2)
    found = make(preprocess, resize)(frame_of_rgb(picture(*size)))
    assert found.shape == (320, 576, 3)
    inside = np.zeros((320, 576), np.bool_)
    inside[top : top + height, left : left + width] = True
    assert found[inside].min() > 0
    assert not found[~inside].any()


def test_fit_excludes_the_other_sizes() -> None:
    with pytest.raises(ValueError, match="short_side_px, crop_px exclude each other"):
        Preprocess(fit_px=(320, 576), short_side_px=256, crop_px=224)
    with pytest.raises(ValueError, match="expected at least 1 px"):
        Preprocess(fit_px=(320, 0))


def _place_of_dot(gray: np.ndarray) -> np.ndarray:
    """Mean (row, column) of what is bright."""
    return np.argwhere(gray > 100).mean(axis=0)


def test_squashed_frames_see_what_flow_sees(tmp_path: Path) -> None:
    """A dot of a wide video lies at one pixel of the stored frame and of the picture that flow is estimated from."""
    height, width, row, column = 120, 320, 31, 262
    (tmp_path / "dot").mkdir()
    for number in range(2):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[row - 3 : row + 4, column - 3 : column + 4] = 255
        Image.fromarray(pixels).save(tmp_path / "dot" / f"{number}.png")
    (tmp_path / "manifest.csv").write_text("clip_id,video,split,label,rate_fps\na,dot,train,x,25\n")
    models = ("frames:squash224", "frames", "flow")
    patch = SEEN_BY_FLOW.format(path=str(tmp_path / "gray.npy"))
    run_patched(tmp_path, patch, model=models, sampling=("position:0",), workers=1)
    seen = _place_of_dot(np.load(tmp_path / "gray.npy"))
    expected = (np.array([row, column]) + 0.5) * 224 / np.array([height, width]) - 0.5
    assert np.abs(seen - expected).max() < 1

    squashed, cropped = (reelbank.store.open(store_of(tmp_path, model)).read("rgb", 0)[0, 0] for model in models[:2])
    assert np.abs(_place_of_dot(squashed[..., 0]) - seen).max() < 1
    assert not (cropped > 100).any(), "the centre crop has cut it off: another field of view"
