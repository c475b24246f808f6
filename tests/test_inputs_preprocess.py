"""Preprocessing equals torchvision's, of tensors or of PIL's images, to the bit; `fast` stays close."""

from __future__ import annotations

import subprocess
import sys

import av
import cv2
import numpy as np
import pytest
import torch
from clips import render
from PIL import Image

from reelbank.extract.inputs.preprocess import INTERPOLATIONS, RESIZES, Preprocess, center_crop, make, thumbnail
from reelbank.extract.video.decode import Video
from reelbank.extract.video.frame import Frame, Pixels, frame_of_rgb
from reelbank.extract.weights import torchvision_shim

# Height, width: up and down, odd, square, thin, smaller than the crop on one side or both.
SIZES = ((240, 320), (360, 641), (333, 257), (256, 256), (720, 405), (64, 300), (100, 90))
# PIL resizes in 8-bit fixed point in two passes, as torch does, but with more bits in its weights: one level.
# The second bicubic pass (weights sum to 1.25 in absolute value) makes two of it at a few hard edges.
PIL_LEVELS = {"bilinear": 1, "bicubic": 2}
PIL_SHARE_ABOVE_ONE = 1e-3


def smooth(height_px: int, width_px: int) -> Pixels:
    """A picture with edges and gradients, as resizing meets them."""
    y, x = np.mgrid[:height_px, :width_px]
    waves = [np.sin(x / 9 + channel) * np.cos(y / (7 + channel)) * 120 + 128 for channel in range(3)]
    pixels = np.stack(waves, axis=-1)
    pixels[(x // 16 + y // 16) % 5 == 0] *= 0.3
    return pixels.clip(0, 255).astype(np.uint8)


def by_torchvision(pixels: Pixels, preprocess: Preprocess) -> Pixels:
    torchvision_shim.ensure()
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as first_functional
    from torchvision.transforms.v2 import functional

    mode = InterpolationMode(preprocess.interpolation.removesuffix("-aliased"))
    size = [preprocess.short_side_px] if preprocess.short_side_px else [preprocess.squash_px] * 2
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()
    if preprocess.interpolation.endswith("-aliased"):
        # The transforms of the video networks' weights are of the first kind, which differ here by a level.
        planes = first_functional.resize(planes, size, interpolation=mode, antialias=False)
    else:
        planes = functional.resize(planes, size, interpolation=mode, antialias=True)
    planes = functional.center_crop(planes, list(preprocess.crop_size or ()))
    return planes.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("resize", [{"short_side_px": 256}, {"short_side_px": 97}, {"squash_px": 224}], ids=str)
def test_exact_equals_torchvision(resize: dict[str, int], interpolation: str, size: tuple[int, int]) -> None:
    for crop in (224, (256, 341)):
        preprocess = Preprocess(crop_px=crop, interpolation=interpolation, **resize)
        found = make(preprocess)(frame_of_rgb(smooth(*size)))
        np.testing.assert_array_equal(found, by_torchvision(smooth(*size), preprocess))
        assert found.flags.c_contiguous
        assert found.shape[:2] == preprocess.output_size(*size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", sorted(PIL_LEVELS))
def test_exact_equals_pil_within_one_level(interpolation: str, size: tuple[int, int]) -> None:
    preprocess = Preprocess(short_side_px=256, crop_px=224, interpolation=interpolation)
    height, width = preprocess.resized_size(*size)
    kernel = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    image = np.asarray(Image.fromarray(smooth(*size)).resize((width, height), kernel))
    top, left = round((height - 224) / 2.0), round((width - 224) / 2.0)
    expected = image[top : top + 224, left : left + 224].astype(int)
    found = make(preprocess)(frame_of_rgb(smooth(*size))).astype(int)
    distance = np.abs(found - expected)
    assert distance.max() <= PIL_LEVELS[interpolation]
    assert (distance > 1).mean() <= PIL_SHARE_ABOVE_ONE


@pytest.mark.parametrize("size", [*SIZES, (37, 53), (1080, 1920), (2, 300)])
@pytest.mark.parametrize("interpolation", sorted(PIL_LEVELS))
def test_pil_equals_the_transforms_of_images(interpolation: str, size: tuple[int, int]) -> None:
    """Those of DINOv2 (256, 224, bicubic), CLIP (224, 224, bicubic) and of others: down, up, squashed, padded."""
    torchvision_shim.ensure()
    from torchvision import transforms

    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    pixels[: size[0] // 2] = smooth(*size)[: size[0] // 2]
    mode = transforms.InterpolationMode(interpolation)
    for resize, crop in (
        ({"short_side_px": 256}, 224),
        ({"short_side_px": 224}, 224),
        ({"short_side_px": 31}, (64, 40)),
        ({"squash_px": (96, 130)}, None),
        ({}, 224),
    ):
        preprocess = Preprocess(crop_px=crop, interpolation=interpolation, **resize)
        wanted = preprocess.short_side_px or preprocess.squash_size
        steps = [transforms.Resize(wanted, interpolation=mode)] if wanted else []
        steps += [transforms.CenterCrop(crop)] if crop else []
        tensor = transforms.Compose([*steps, transforms.ToTensor()])(Image.fromarray(pixels))
        found = make(preprocess, "pil")(frame_of_rgb(pixels))
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found.transpose(2, 0, 1) / np.float32(255), tensor.numpy())


def test_pil_is_exact_where_pil_has_no_such_resize() -> None:
    preprocess = Preprocess(short_side_px=97, crop_px=96, interpolation="bilinear-aliased")
    frame = frame_of_rgb(smooth(240, 320))
    np.testing.assert_array_equal(make(preprocess, "pil")(frame), make(preprocess)(frame))
    antialiased = Preprocess(short_side_px=97, crop_px=96)
    assert (make(antialiased, "pil")(frame) != make(antialiased)(frame)).any()


def test_sizes_round_as_torchvision() -> None:
    preprocess = Preprocess(short_side_px=256, crop_px=224)
    assert preprocess.resized_size(240, 320) == (256, 341)
    assert preprocess.resized_size(320, 240) == (341, 256)
    # (341 - 224) / 2 = 58.5 and (343 - 224) / 2 = 59.5: Python rounds both to the even number.
    ramp = np.tile(np.arange(343, dtype=np.uint16)[None, :, None] % 256, (224, 1, 3)).astype(np.uint8)
    assert center_crop(ramp[:, :341], (224, 224))[0, 0, 0] == 58
    assert center_crop(ramp, (224, 224))[0, 0, 0] == 60


@pytest.mark.parametrize("size", SIZES)
def test_valid_box_holds_the_frame(size: tuple[int, int]) -> None:
    preprocess = Preprocess(short_side_px=256, crop_px=(256, 341))
    found = make(preprocess)(frame_of_rgb(np.full((*size, 3), 9, np.uint8)))
    top, left, height, width = preprocess.valid_box(*size)
    expected = np.zeros((256, 341, 3), np.uint8)
    expected[top : top + height, left : left + width] = 9
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("resize", RESIZES)
def test_no_resize_no_crop_is_the_frame_itself_but_not_its_memory(resize: str) -> None:
    frame = frame_of_rgb(smooth(60, 81))
    found = make(Preprocess(), resize)(frame)
    np.testing.assert_array_equal(found, smooth(60, 81))
    assert not np.shares_memory(found, frame.rgb)


@pytest.mark.parametrize("resize", RESIZES)
def test_gray_is_opencv_of_the_resized_rgb(resize: str) -> None:
    kwargs = {"short_side_px": 128, "crop_px": 112}
    frame = frame_of_rgb(smooth(240, 320))
    gray = make(Preprocess(**kwargs, color="gray"), resize)(frame)
    rgb = make(Preprocess(**kwargs), resize)(frame)
    assert gray.shape == (112, 112)
    np.testing.assert_array_equal(gray, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize(
    "name",
    [
        "h264",
        "h264-odd",
        "h264-444-odd",
        "h264-422",
        "h264-10bit",
        "h264-full-range",
        "h264-rotated-90",
        "h264-rotated-180",
        "h264-rotated-270",
        "hevc-10bit",
        "mpeg4-avi",
        "vp9",
    ],
)
def test_frame_rgb_equals_pyav_and_fast_is_near_exact(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = render(tmp_path_factory.getbasetemp(), name)
    with av.open(str(path)) as container:
        plain = next(container.decode(video=0))
        expected = np.rot90(plain.to_ndarray(format="rgb24"), plain.rotation // 90)
    with Video(path) as video:
        ((_, frame),) = video.frames([0])
        np.testing.assert_array_equal(frame.rgb, expected)
        preprocess = Preprocess(short_side_px=48, crop_px=(48, 60))
        exact, fast = (make(preprocess, resize)(frame).astype(int) for resize in ("exact", "fast"))
    assert exact.shape == fast.shape == (48, 60, 3)
    # Chroma is resized at half size, so edges of the bar code differ; a wrong range is 16 levels everywhere,
    # a wrong rotation or crop more.
    assert np.abs(exact - fast).mean() < 4
    assert abs(exact.mean() - fast.mean()) < 1


def test_frame_is_converted_once_for_many(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Video(render(tmp_path_factory.getbasetemp(), "h264")) as video:
        ((_, frame),) = video.frames([3])
    assert isinstance(frame, Frame)
    first = frame.rgb
    make(Preprocess(short_side_px=32, crop_px=32))(frame)
    make(Preprocess(squash_px=40))(frame)
    assert frame.rgb is first


@pytest.mark.parametrize("size", [(240, 320), (720, 1280), (640, 360), (3, 500)])
def test_thumbnail_is_letterboxed(size: tuple[int, int]) -> None:
    found = thumbnail(frame_of_rgb(np.full((*size, 3), 200, np.uint8)))
    assert (found.shape, found.dtype) == ((72, 96, 3), np.uint8)
    rows, columns = np.flatnonzero(found.any((1, 2))), np.flatnonzero(found.any((0, 2)))
    assert len(columns) == 96 or len(rows) == 72
    assert abs(len(columns) * size[0] - len(rows) * size[1]) <= max(size)
    assert abs(rows[0] - (71 - rows[-1])) <= 1
    assert abs(columns[0] - (95 - columns[-1])) <= 1


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, reelbank.extract.errors, reelbank.extract.inputs.preprocess, reelbank.extract.inputs.sampling;"
        "reelbank.extract.inputs.preprocess.Preprocess(crop_px=3);"
        "sys.exit(', '.join({'av', 'cv2', 'torch', 'zarr'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"short_side_px": 256, "squash_px": 224}, "exclude each other"),
        ({"short_side_px": 0}, "short_side_px"),
        ({"crop_px": (0, 3)}, "crop_px"),
        ({"interpolation": "nearest"}, "bicubic, bilinear"),
        ({"color": "bgr"}, "gray, rgb"),
    ],
)
def test_bad_preprocess_is_refused(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocess(**kwargs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="exact, fast, pil"):
        make(Preprocess(), "slow")
