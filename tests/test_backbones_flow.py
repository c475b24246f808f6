"""Flow has the right sign, axis and size, and its taps say where things move."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from reelbank.extract import backbones
from reelbank.extract.backbones import flow, flow_taps
from reelbank.extract.inputs import preprocess
from reelbank.extract.video.frame import frame_of_rgb
from reelbank.extract.weights import torchvision_shim
from reelbank.extract.weights.files import WeightsError

TVL1 = pytest.param("flow:tvl1", marks=pytest.mark.skipif(not hasattr(cv2, "optflow"), reason="OpenCV has no optflow"))
METHODS = ("flow", "flow:dis", TVL1)
RAFT = ("flow:raft-large", "flow:raft-small")
_INNER = slice(32, -32)  # what leaves or enters the image has no flow


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def texture(seed: int = 0, size: int = 320) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    noise = rng.random((size, size), dtype=np.float32) * 255
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.5) * 3 - 255, np.float32)


def warped(image: npt.NDArray[np.float32], dx: npt.ArrayLike, dy: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """The 224x224 middle of `image` after every point (x, y) moved to (x + dx, y + dy)."""
    y, x = np.mgrid[48:272, 48:272].astype(np.float32)
    moved = cv2.remap(image, np.asarray(x - dx, np.float32), np.asarray(y - dy, np.float32), cv2.INTER_CUBIC)
    return np.clip(moved, 0, 255).astype(np.uint8)


def pair(dx: npt.ArrayLike, dy: npt.ArrayLike, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.stack([warped(texture(seed), 0, 0), warped(texture(seed), dx, dy)])[None]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (-3, 0), (0, 3), (0, -3), (2, 1), (0.5, -4)])
def test_translation_is_found_with_sign_and_axis(name: str, dx: float, dy: float) -> None:
    field = backbones.build(name).forward(pair(dx, dy), ["flow"])["flow"][0]
    inner = field[:, _INNER, _INNER].astype(np.float64)
    np.testing.assert_allclose(np.median(inner, axis=(1, 2)), [dx, dy], atol=0.15)
    np.testing.assert_allclose(inner.mean(axis=(1, 2)), [dx, dy], atol=0.3)


@pytest.mark.parametrize("name", METHODS)
def test_rotation_is_found_point_by_point(name: str) -> None:
    y, x = np.mgrid[:224, :224] - 111.5
    angle = 0.03  # clockwise on the screen, where y points down
    true_dx, true_dy = -angle * y, angle * x
    field = backbones.build(name).forward(pair(true_dx, true_dy), ["flow"])["flow"][0]
    error = np.hypot(field[0] - true_dx, field[1] - true_dy)[_INNER, _INNER]
    assert np.median(error) < 0.2


@pytest.mark.parametrize("name", METHODS)
def test_still_pair_votes_only_for_zero_motion(name: str) -> None:
    hof = backbones.build(name).forward(pair(0, 0))["hof"][0]
    cells = hof[:192].reshape(16, 12)
    np.testing.assert_array_equal(cells[:, :8], 0)
    np.testing.assert_array_equal(cells[:, 8], 1)
    assert hof[192] == 1


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("dx", "dy", "expected"), [(5, 0, 0), (5, 5, 1), (0, 5, 2), (-5, 0, 4), (0, -5, 6)])
def test_histogram_bin_is_the_direction(name: str, dx: float, dy: float, expected: int) -> None:
    hof = backbones.build(name).forward(pair(dx, dy))["hof"][0].astype(np.float64)
    cells = hof[:192].reshape(4, 4, 12)[1:3, 1:3].reshape(4, 12)
    assert (cells[:, :8].argmax(axis=1) == expected).all()
    np.testing.assert_allclose(cells[:, 9:12].mean(0), [dx, dy, np.hypot(dx, dy)], atol=0.3)
    assert hof[192:].argmax() == 5  # speeds in [4, 8) px


def test_histograms_equal_a_pixel_by_pixel_count() -> None:
    rng = np.random.default_rng(1)
    field = rng.normal(0, 3, (2, 8, 8)).astype(np.float32)
    field[:, :2, :2] = 0.1
    hof = flow_taps.histograms(field)
    expected = np.zeros((16, 12))
    speeds = np.zeros(8)
    for y in range(8):
        for x in range(8):
            dx, dy = map(float, field[:, y, x])
            size = (dx * dx + dy * dy) ** 0.5
            cell = expected[(y // 2) * 4 + x // 2]
            if size < 0.25:
                cell[8] += 1
            else:
                position = (np.degrees(np.arctan2(dy, dx)) % 360) / 45
                cell[int(position) % 8] += size * (1 - position % 1)
                cell[(int(position) + 1) % 8] += size * (position % 1)
            cell[9:] += dx, dy, size
            speeds[sum(size >= edge for edge in (0.25, 0.5, 1, 2, 4, 8, 16))] += 1
    np.testing.assert_allclose(hof, np.concatenate([expected.ravel() / 4, speeds / 64]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_flat_and_noisy_pairs_stay_finite(name: str) -> None:
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, (1, 2, 224, 224), dtype=np.uint8)
    flat = np.stack([np.zeros((224, 224), np.uint8), np.full((224, 224), 255, np.uint8)])[None]
    features = backbones.build(name).forward(np.concatenate([noise, flat]), ["hof", "flow"])
    assert all(np.isfinite(feature).all() for feature in features.values())
    assert np.abs(features["flow"]).max() <= 224


@pytest.mark.parametrize("name", METHODS)
def test_result_does_not_depend_on_opencv_threads(name: str) -> None:
    backbone = backbones.build(name)
    found = []
    before = cv2.getNumThreads()
    try:
        for num_threads in (1, 2, 4):
            cv2.setNumThreads(num_threads)
            found.append(backbone.forward(pair(2, 1), ["flow"])["flow"])
            assert cv2.getNumThreads() == num_threads
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("name", METHODS)
def test_no_pairs_give_no_rows(name: str) -> None:
    features = backbones.build(name).forward(np.zeros((0, 2, 224, 224), np.uint8), ["hof", "flow", "flow-8bit"])
    assert {tap: feature.shape for tap, feature in features.items()} == {
        "hof": (0, 200),
        "flow": (0, 2, 224, 224),
        "flow-8bit": (0, 2, 224, 224),
    }


def test_farneback_is_the_standard_call() -> None:
    before, after = pair(2, -1)[0]
    start: Any = None
    expected = cv2.calcOpticalFlowFarneback(before, after, start, 0.5, 3, 15, 3, 5, 1.2, 0)
    found = flow.field_of(flow.estimator(""), before, after)
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))


def test_missing_tvl1_names_the_package_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "optflow", raising=False)
    assert backbones.describe("flow:tvl1").taps == backbones.describe("flow").taps
    with pytest.raises(backbones.BackboneError, match=r"install opencv-contrib-python-headless .* or choose dis"):
        backbones.build("flow:tvl1")


@pytest.mark.parametrize(
    ("displacement_px", "level"),
    [(0, 128), (-20, 0), (20, 255), (-300, 0), (300, 255), (1, 134), (-1, 121), (10, 191), (0.1, 128), (-0.1, 127)],
)
def test_8bit_level_is_that_of_published_flow_images(displacement_px: float, level: int) -> None:
    assert flow_taps.encode_8bit(np.array([displacement_px])) == level


def test_8bit_comes_back_within_a_level_and_still_stays_still() -> None:
    displacements = np.linspace(-20, 20, 4001)
    back = flow_taps.decode_8bit(flow_taps.encode_8bit(displacements))
    assert np.abs(back - displacements).max() <= 20 / 127.5 + 1e-5
    assert flow_taps.decode_8bit(flow_taps.encode_8bit(np.zeros(1)))[0] == 0


def test_8bit_of_mirrored_motion_is_the_inverted_image() -> None:
    """Published training code mirrors x images by 255 - x."""
    displacements = np.linspace(-25, 25, 500) + 1e-3  # none lies half way between two levels
    levels = flow_taps.encode_8bit(displacements)
    np.testing.assert_array_equal(flow_taps.encode_8bit(-displacements), 255 - levels)


@pytest.mark.parametrize("name", METHODS)
def test_8bit_tap_is_the_field_rounded(name: str) -> None:
    features = backbones.build(name).forward(pair(3, -2), ["flow-8bit", "flow"])
    assert list(features) == ["flow-8bit", "flow"]
    error = flow_taps.decode_8bit(features["flow-8bit"]) - np.clip(features["flow"].astype(np.float64), -20, 20)
    assert np.abs(error).max() <= 20 / 127.5 + 0.01  # float16 near 20 px


def test_flow_images_come_back_as_images_and_as_px() -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (2, 2, 224, 224), dtype=np.uint8)
    images[0, 0] = 128
    features = backbones.build("flow:images").forward(images, ["flow", "flow-8bit"])
    np.testing.assert_array_equal(features["flow-8bit"], images)
    assert not np.shares_memory(features["flow-8bit"], images)
    assert (features["flow"][0, 0] == 0).all()
    np.testing.assert_allclose(features["flow"], (images - 128.0) * 40 / 255, rtol=1e-3)


@pytest.mark.parametrize(("name", "size"), [("flow:images", (224, 224)), ("flow:images-256", (256, 341))])
def test_flow_images_get_the_evaluation_crop(name: str, size: tuple[int, int]) -> None:
    info = backbones.describe(name)
    assert info.source == "flow"
    assert info.frames_shape == (2, *size)
    assert info.taps["flow-8bit"].shape == (2, *size)
    image = np.repeat(np.repeat(np.arange(240, dtype=np.uint8)[:, None], 320, axis=1)[..., None], 3, axis=2)
    prepared = preprocess.make(info.preprocess)(frame_of_rgb(image))
    assert prepared.shape == size
    top = (256 - size[0]) // 2
    np.testing.assert_allclose(prepared[:, size[1] // 2], (np.arange(size[0]) + top) * 240 / 256, atol=1.5)


def test_real_flow_images_are_still_where_the_picture_is_still(data_root: Path) -> None:
    """Images 2 and 4 of this set belong to repeated frames; in 1, 3 and 5 the camera moves."""
    folder = data_root / "clips" / "mmaction2" / "imgs"
    backbone = backbones.build("flow:images")
    prepare = preprocess.make(backbone.preprocess)
    sizes = []
    for number in range(1, 6):
        planes = [np.asarray(Image.open(folder / f"{axis}_{number:05d}.jpg").convert("RGB")) for axis in "xy"]
        images = np.stack([prepare(frame_of_rgb(plane)) for plane in planes])
        field = backbone.forward(images[None], ["flow"])["flow"][0].astype(np.float64)
        sizes.append(float(np.median(np.hypot(*field))))
    assert max(sizes[1], sizes[3]) < 0.25
    assert min(sizes[0], sizes[2], sizes[4]) > 0.5


def real_pairs(folder: Path) -> list[tuple[Path, Path]]:
    frames = sorted((folder / "raft_demo_frames").glob("*.png"))
    numbered = [folder / "mmaction2" / "imgs" / f"img_{number:05d}.jpg" for number in (1, 2, 5, 6, 7, 8)]
    return [*itertools.pairwise(frames), *zip(numbered[::2], numbered[1::2], strict=True)]


@pytest.mark.parametrize("name", METHODS)
def test_flow_of_real_frames_finds_the_first_in_the_second(name: str, data_root: Path) -> None:
    backbone = backbones.build(name)
    prepare = preprocess.make(backbone.preprocess)
    y, x = np.mgrid[:224, :224].astype(np.float32)
    for paths in real_pairs(data_root / "clips"):
        frames = np.stack([prepare(frame_of_rgb(np.asarray(Image.open(path).convert("RGB")))) for path in paths])
        dx, dy = backbone.forward(frames[None], ["flow"])["flow"][0].astype(np.float32)

        def error(dx: Any, dy: Any, frames: npt.NDArray[np.uint8] = frames) -> float:
            moved = cv2.remap(frames[1], x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            return float(np.abs(moved.astype(float) - frames[0])[8:-8, 8:-8].mean())

        found = error(dx, dy)
        assert found < 0.7 * error(0 * dx, 0 * dy)
        for wrong in ((-dx, -dy), (dy, dx), (-dx, dy), (dx, -dy)):
            assert error(*wrong) > 1.3 * found, "another sign or axis fits nearly as well"


def torchvision_raft(model: str, seed: int = 0) -> torch.nn.Module:
    torchvision_shim.ensure()
    from torchvision.models import optical_flow

    torch.manual_seed(seed)
    network: torch.nn.Module = getattr(optical_flow, model)(weights=None).eval()
    return network


def rgb_pair(dx: float, dy: float) -> npt.NDArray[np.uint8]:
    return np.stack([pair(dx, dy, seed) for seed in range(3)], axis=-1)  # (1, 2, 224, 224, 3)


def test_raft_equals_torchvisions_own_forward_on_its_own_file(tmp_path: Path) -> None:
    network = torchvision_raft("raft_small")
    torch.save(network.state_dict(), tmp_path / "raft_small.pth")
    backbone = backbones.build("flow:raft-small", weights=tmp_path / "raft_small.pth", device="cpu")
    assert backbone.weights["kind"] == "file"
    frames = np.concatenate([rgb_pair(3, 1), rgb_pair(-2, 0)])
    found = backbone.forward(frames, ["flow", "flow-8bit", "hof"])

    alone = backbone.forward(frames[1:], ["flow", "flow-8bit", "hof"])
    for tap, feature in alone.items():
        np.testing.assert_array_equal(feature[0], found[tap][1])

    images = torch.from_numpy(frames[:1]).permute(1, 0, 4, 2, 3) / 127.5 - 1  # (2, 1, 3, H, W)
    with torch.inference_mode():
        expected = network(images[0], images[1], num_flow_updates=12)[-1].numpy()
    scale = np.abs(expected).max()
    assert scale > 1
    np.testing.assert_allclose(found["flow"][0] / scale, expected[0] / scale, atol=2e-3)
    levels = found["flow-8bit"][0].astype(int) - flow_taps.encode_8bit(expected[0])
    assert np.abs(levels).max() <= 1
    np.testing.assert_allclose(found["hof"][0], flow_taps.histograms(expected[0]), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", RAFT)
def test_raft_takes_torchvisions_names_and_no_others(name: str, tmp_path: Path) -> None:
    variant = name.partition(":")[2].replace("-", "_")
    network = torchvision_raft(variant)
    torch.save(network.state_dict(), tmp_path / "right.pth")
    built = backbones.build(name, weights=tmp_path / "right.pth", device="cpu")
    assert built.module is not None
    assert (
        sum(p.numel() for p in built.module.parameters()) == {"raft_large": 5_257_536, "raft_small": 990_162}[variant]
    )
    other = next(other for other in RAFT if other != name)
    with pytest.raises(WeightsError, match=r"right\.pth"):
        backbones.build(other, weights=tmp_path / "right.pth", device="cpu")


@pytest.mark.parametrize("name", RAFT)
def test_raft_names_its_published_file(name: str) -> None:
    (source,) = backbones.describe(name).sources
    assert source.file_name.startswith(name.partition(":")[2].replace("-", "_"))
    assert source.sha256_prefix in source.file_name
    assert source.licence == "BSD-3-Clause"


def test_random_raft_is_calibrated() -> None:
    built = backbones.build("flow:raft-large", weights="random", seed=1, device="cpu")
    assert built.module is not None
    norms = [layer for layer in built.module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert norms
    assert all(bool((layer.running_var != 1).any()) for layer in norms)


def test_raft_that_diverges_is_an_error_and_no_motion() -> None:
    backbone = backbones.build("flow:raft-small", weights="random", device="cpu")
    assert backbone.module is not None
    next(backbone.module.parameters()).data.fill_(float("nan"))
    with pytest.raises(backbones.BackboneError, match="gave NaN or Inf in precision fp32"):
        backbone.forward(rgb_pair(1, 1))
    assert backbone.forward(np.zeros((0, 2, 224, 224, 3), np.uint8))["hof"].shape == (0, 200)
