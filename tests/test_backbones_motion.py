"""Camera motion is taken out of flow, what moves by itself stays, and motion maps are cut as trainers expect."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from reelbank.extract import backbones
from reelbank.extract.backbones import motion_map, warp_flow
from reelbank.extract.inputs import preprocess
from reelbank.extract.video.decode import Video
from reelbank.extract.video.frame import frame_of_rgb

NAMES = ("warp-flow", "warp-flow:dis")
_SIZE = 224
_MARGIN = 128  # of the texture around the first frame, so that the camera may move

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """What the camera does to the picture from one frame to the next; rotation and zoom about the middle."""

    dx_px: float = 0
    dy_px: float = 0
    degrees: float = 0
    zoom: float = 1

    def homography(self, num_frames: int = 1) -> npt.NDArray[np.float64]:
        """(3, 3): where a point of frame 0 is in frame `num_frames`."""
        angle, middle = np.deg2rad(self.degrees), (_SIZE - 1) / 2
        linear = self.zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = middle - linear @ [middle, middle] + [self.dx_px, self.dy_px]
        step = np.vstack([np.column_stack([linear, shift]), [0, 0, 1]])
        return np.asarray(np.linalg.matrix_power(step, num_frames))


CAMERAS = {
    "standing": Camera(),
    "slow pan": Camera(dx_px=0.3, dy_px=0.2),
    "pan": Camera(dx_px=5, dy_px=-3),
    "fast pan": Camera(dx_px=14, dy_px=6),
    "rotation": Camera(degrees=3),
    "rotation and zoom": Camera(dx_px=1, dy_px=2, degrees=2, zoom=1.02),
}
BOX = (80, 90, 140, 150)  # x0, y0, x1, y1 of the object in frame 0
MOTION = (4.0, 2.0)  # of the object over the background, px per frame


@functools.cache
def texture(seed: int) -> npt.NDArray[np.float32]:
    size = _SIZE + 2 * _MARGIN
    noise = np.random.default_rng(seed).random((size, size), dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return np.asarray((smooth - smooth.mean()) / smooth.std() * 45 + 128, np.float32)


def frame(camera: Camera, index: int, motion: tuple[float, float] = MOTION, noise: float = 2.0) -> Pixels:
    """Frame `index` (224, 224) of a textured object that moves over a textured background."""
    y, x = np.mgrid[:_SIZE, :_SIZE].astype(np.float64)
    points = np.linalg.inv(camera.homography(index)) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    x, y = (points[axis].reshape(_SIZE, _SIZE) / points[2].reshape(_SIZE, _SIZE) for axis in (0, 1))
    ox, oy = x - index * motion[0], y - index * motion[1]
    background, thing = (
        cv2.remap(texture(seed), np.float32(u + _MARGIN), np.float32(v + _MARGIN), cv2.INTER_CUBIC)
        for seed, u, v in ((0, x, y), (1, ox, oy))
    )
    inside = (ox >= BOX[0]) & (ox < BOX[2]) & (oy >= BOX[1]) & (oy < BOX[3])
    grain = np.random.default_rng(index).normal(0, noise, inside.shape)
    return np.clip(np.rint(np.where(inside, thing, background) + grain), 0, 255).astype(np.uint8)


def pair(camera: Camera, motion: tuple[float, float] = MOTION) -> Pixels:
    """(1, 2, 224, 224)."""
    return np.stack([frame(camera, index, motion) for index in (0, 1)])[None]


def object_core(grow_px: int) -> npt.NDArray[np.bool_]:
    """The object of frame 0 and of frame 1 grown (or shrunk, frame 0 alone) by so many px."""
    y, x = np.mgrid[:_SIZE, :_SIZE]
    reach_x, reach_y = (0, 0) if grow_px < 0 else (int(MOTION[0]), int(MOTION[1]))
    x0, y0, x1, y1 = BOX
    across = (x >= x0 - grow_px) & (x < x1 + reach_x + grow_px)
    return np.asarray(across & (y >= y0 - grow_px) & (y < y1 + reach_y + grow_px))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_camera_motion_is_removed_and_the_object_keeps_its_own(name: str, camera: Camera) -> None:
    dx, dy = backbones.build(name).forward(pair(camera), ["flow"])["flow"][0].astype(np.float64)
    # Flow is smooth: the object's motion reaches over its border by half a window.
    background = ~object_core(12)
    size = np.hypot(dx, dy)[background]
    assert np.median(size) < 0.2
    assert size.mean() < 0.2
    core = object_core(-12)
    kept = np.median(dx[core]), np.median(dy[core])
    assert np.hypot(kept[0] - MOTION[0], kept[1] - MOTION[1]) < 0.15 * np.hypot(*MOTION)


@pytest.mark.parametrize("name", NAMES)
def test_plain_flow_of_the_same_pair_has_the_camera_in_it(name: str) -> None:
    plain = name.replace("warp-", "")
    field = backbones.build(plain).forward(pair(CAMERAS["pan"]), ["flow"])["flow"][0].astype(np.float64)
    np.testing.assert_allclose(np.median(field[:, ~object_core(12)], axis=1), [5, -3], atol=0.3)


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_homography_is_that_of_the_camera(camera: Camera) -> None:
    found = backbones.build("warp-flow").forward(pair(camera), ["homography"])["homography"][0]
    assert found.dtype == np.float32
    assert found[2, 2] == 1
    corners = np.array([[0, 0, 1], [223, 0, 1], [0, 223, 1], [223, 223, 1]], np.float64).T
    there, expected = found @ corners, camera.homography() @ corners
    np.testing.assert_allclose(there[:2] / there[2], expected[:2] / expected[2], atol=0.15)


def test_tap_subsets_hof_and_images_are_of_the_compensated_field() -> None:
    backbone = backbones.build("warp-flow")
    features = backbone.forward(pair(CAMERAS["pan"]), ["hof", "homography", "flow-8bit"])
    assert list(features) == ["hof", "homography", "flow-8bit"]
    background = features["flow-8bit"][0][:, ~object_core(12)]
    assert np.isin(np.median(background, axis=1), (127, 128)).all()
    assert features["hof"][0].reshape(-1)[192:194].sum() > 0.7  # below 0.5 px


def test_slow_person_before_a_standing_camera_is_not_the_camera() -> None:
    """RANSAC alone bends the plane until it also explains part of what moves slowly."""
    y, x = np.mgrid[:_SIZE, :_SIZE].astype(np.float32)
    slow = np.where(x > 150, 0.9 * np.sin((x + y) / 17), 0).astype(np.float32)
    before = frame(CAMERAS["standing"], 0, noise=0)
    after = cv2.remap(before, x - slow, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    frames = np.stack([before, after])[None].astype(np.uint8)
    found = backbones.build("warp-flow").forward(frames, ["homography", "flow"])
    np.testing.assert_array_equal(found["homography"][0], np.eye(3))
    assert np.median(np.hypot(*found["flow"][0].astype(np.float64))[:, :100]) < 0.05


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 2, 224, 224), np.uint8),
        np.stack([np.zeros((224, 224), np.uint8), np.full((224, 224), 255, np.uint8)])[None],
        np.random.default_rng(0).integers(0, 256, (1, 2, 224, 224), dtype=np.uint8),
        np.stack([np.eye(224, dtype=np.uint8) * 255, np.eye(224, dtype=np.uint8)[::-1] * 255])[None],
    ],
    ids=["black", "flash", "noise", "lines"],
)
def test_frames_without_matches_have_a_standing_camera(frames: Pixels) -> None:
    found = backbones.build("warp-flow").forward(frames, ["homography", "flow"])
    np.testing.assert_array_equal(found["homography"][0], np.eye(3))
    np.testing.assert_array_equal(found["flow"], backbones.build("flow").forward(frames, ["flow"])["flow"])


def test_points_behind_the_camera_match_nothing() -> None:
    flipped = np.diag([1.0, 1.0, -1.0])
    assert np.isinf(warp_flow._residuals_px(flipped, np.ones((3, 2)), -np.ones((3, 2)))).all()


@pytest.mark.parametrize("name", [*NAMES, "motion-map"])
def test_result_depends_on_the_pair_alone(name: str) -> None:
    """Not on the batch, the random state of OpenCV, or its threads."""
    backbone = backbones.build(name)
    frames = np.concatenate([pair(CAMERAS["pan"]), pair(CAMERAS["rotation"]), pair(CAMERAS["slow pan"])])
    taps = tuple(backbone.taps)
    whole = backbone.forward(frames, taps)
    num_threads = cv2.getNumThreads()
    try:
        for row, threads in enumerate((1, 2, 4)):
            cv2.setNumThreads(threads)
            cv2.setRNGSeed(row + 1)
            for tap, feature in backbone.forward(frames[row : row + 1], taps).items():
                np.testing.assert_array_equal(feature[0], whole[tap][row])
            assert cv2.getNumThreads() == threads
    finally:
        cv2.setNumThreads(num_threads)
        cv2.setRNGSeed(0)


def test_encoded_pan_is_removed_from_a_decoded_video(tmp_path: Path) -> None:
    """The whole way: H.264 at 336x224, decoded, squashed to 224x224, where x shrinks by 2/3."""
    camera, num_frames = Camera(dx_px=3, dy_px=-1), 5
    path = tmp_path / "pan.mp4"
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(25), options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = 336, 224, "yuv420p"
        for index in range(num_frames):
            gray = cv2.resize(frame(camera, index, noise=0), (336, 224), interpolation=cv2.INTER_CUBIC)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.repeat(gray[..., None], 3, axis=2), "rgb24")))
        container.mux(stream.encode())
    backbone = backbones.build("warp-flow")
    prepare = preprocess.make(backbone.preprocess)
    with Video(path) as video:
        frames = np.stack([prepare(shown) for _, shown in video.frames(range(num_frames))])
    fields = backbone.forward(np.stack([frames[:-1], frames[1:]], axis=1), ["flow"])["flow"].astype(np.float64)
    plain = backbones.build("flow").forward(np.stack([frames[:-1], frames[1:]], axis=1), ["flow"])["flow"]
    assert abs(float(np.median(plain[:, 0])) - 3) < 0.2
    y, x = np.mgrid[:_SIZE, :_SIZE]
    for index, (dx, dy) in enumerate(fields):
        left, top = 80 + index * (MOTION[0] + 3), 90 + index * (MOTION[1] - 1)
        near = (x > left - 14) & (x < left + 80) & (y > top - 14) & (y < top + 80)
        inside = (x > left + 12) & (x < left + 48) & (y > top + 12) & (y < top + 48)
        size = np.hypot(dx, dy)
        assert np.median(size[~near]) < 0.2
        assert size[~near].mean() < 0.2
        np.testing.assert_allclose([np.median(dx[inside]), np.median(dy[inside])], MOTION, atol=0.15 * 4.5)


def test_real_hand_held_frames_move_less_once_compensated(data_root: Path) -> None:
    plain, warp = backbones.build("flow"), backbones.build("warp-flow")
    prepare = preprocess.make(warp.preprocess)
    with Video(data_root / "clips" / "mmaction2" / "demo_demo.mp4") as video:
        frames = np.stack([prepare(shown) for _, shown in video.frames((0, 1, 10, 11, 20, 21))]).reshape(3, 2, 224, 224)
    before, after = (
        np.median(np.hypot(*np.moveaxis(kind.forward(frames, ["flow"])["flow"].astype(np.float64), 1, 0)), axis=(1, 2))
        for kind in (plain, warp)
    )
    assert (after < 0.35 * before).all()


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_motion_map_is_the_object_whatever_the_camera_does(camera: Camera) -> None:
    features = backbones.build("motion-map").forward(pair(camera))
    grid = features["grid28"][0].astype(np.float64)
    assert (grid[14:16, 12:16] == 1).all()
    assert np.concatenate([grid[:8].ravel(), grid[24:].ravel(), grid[:, :7].ravel()]).mean() < 0.01
    assert features["bits28"][0][14:16, 12:16].all()
    assert features["bits28"][0].mean() < 0.25


def test_motion_map_of_nothing_that_moves_is_empty() -> None:
    frames = np.repeat(frame(CAMERAS["standing"], 0)[None, None], 2, axis=1)
    assert not any(feature.any() for feature in backbones.build("motion-map").forward(frames).values())


def maps(num_maps: int = 3) -> Pixels:
    return np.random.default_rng(4).integers(0, 256, (num_maps, _SIZE, _SIZE), dtype=np.uint8)


def test_gray_14_and_7_follow_from_28_exactly() -> None:
    """Golden numbers of the published system: 14 and 7 are 2x2 and 4x4 means of 28, and means of the map's blocks."""
    binary = (maps() > 127).astype(np.uint8) * 255
    grid28 = backbones.build("motion-map:images").forward(binary, ["grid28"])["grid28"]
    for size, block in ((28, 8), (14, 16), (7, 32)):
        expected = (binary / 255).reshape(3, size, block, size, block).mean(axis=(2, 4))
        np.testing.assert_array_equal(motion_map.gray_grid(grid28, size), expected)
    two_by_two = grid28.astype(np.float64).reshape(3, 14, 2, 14, 2).mean(axis=(2, 4))
    np.testing.assert_array_equal(motion_map.gray_grid(grid28, 14), two_by_two)


def test_gray_maps_are_within_float16_of_their_block_means() -> None:
    grid28 = backbones.build("motion-map:images").forward(maps(), ["grid28"])["grid28"]
    for size in (28, 14, 7):
        expected = cv2.resize((maps()[0] / 255), (size, size), interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(motion_map.gray_grid(grid28[0], size), expected, atol=2.5e-4)


@pytest.mark.parametrize(("size", "stride"), [(7, 32), (14, 16), (28, 8)])
def test_bits_take_the_nearest_source_pixel(size: int, stride: int) -> None:
    features = backbones.build("motion-map:images").forward(maps(), [f"bits{size}"])
    np.testing.assert_array_equal(features[f"bits{size}"], maps()[:, ::stride, ::stride] >= 128)
    single = np.zeros((1, _SIZE, _SIZE), np.uint8)
    single[0, 3 * stride, 2 * stride] = 128  # the top-left pixel of its block decides, others do not
    single[0, 3 * stride + 1 : 4 * stride, 4 * stride + 1 : 5 * stride] = 255
    bits = backbones.build("motion-map:images").forward(single, [f"bits{size}"])[f"bits{size}"][0]
    assert np.argwhere(bits).tolist() == [[3, 2]]


def test_map_images_get_the_crop_of_the_frames() -> None:
    info = backbones.describe("motion-map:images")
    assert (info.source, info.frames_shape) == ("motion_maps", (_SIZE, _SIZE))
    image = np.zeros((240, 320, 3), np.uint8)
    image[:, 160:] = 255
    prepared = preprocess.make(info.preprocess)(frame_of_rgb(image))
    bits = backbones.build("motion-map:images").forward(prepared[None], ["bits28"])["bits28"][0]
    np.testing.assert_array_equal(bits, np.tile(np.arange(28) >= 14, (28, 1)))


@pytest.mark.parametrize(("shape", "size", "match"), [((28, 28), 8, "7, 14, 28"), ((14, 14), 7, r"\(\.\.\., 28, 28\)")])
def test_gray_grid_refuses_other_shapes_and_sizes(shape: tuple[int, int], size: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        motion_map.gray_grid(np.zeros(shape), size)
