"""What every backbone keeps to: declared taps, the same answer twice, no influence between steps."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.extract import backbones
from reelbank.extract.backbones import Backbone, BackboneError, BackboneInfo, BuildOptions, Definition
from reelbank.testing.checking import name_of, run

BATCH = 3
SEED = 3
COSINES = {True: 0.99, False: 0.999}
"""Least mean cosine of bf16 to fp32 on calibrated random weights, for a network of convolutions and for others."""

Array = npt.NDArray[Any]


def check_backbone(given: str | Callable[[str, str], Definition] | Definition) -> None:
    """Builds a backbone with random weights on the CPU and checks everything it promises.

    Args:
        given: its name, the function of its row, or what that function gave.
    """
    name, definition = (
        (given.info.name, given)
        if isinstance(given, Definition)
        else (name_of(given), backbones.definition(name_of(given)))
    )
    run(CHECKS, Subject(name, definition), f"backbone {name!r}")


class Subject:
    """A backbone under test; what several checks need is computed once."""

    def __init__(self, name: str, definition: Definition) -> None:
        self.name, self.info, self._definition = name, definition.info, definition

    def built(self, **options: Any) -> Backbone:
        """A new backbone of random weights."""
        settings: dict[str, Any] = {"weights": "random", "seed": SEED, "device": "cpu"}
        return self._definition.make(BuildOptions(**settings | options))

    @cached_property
    def backbone(self) -> Backbone:
        return self.built()

    @cached_property
    def frames(self) -> Array:
        return steps(self.info)

    @cached_property
    def features(self) -> dict[str, Array]:
        """All taps of the standard steps."""
        return self.backbone.forward(self.frames, tuple(self.info.taps))

    @cached_property
    def features_of_one(self) -> dict[str, Array]:
        """All taps of the last standard step, in a batch of its own."""
        return self.backbone.forward(self.frames[-1:], tuple(self.info.taps))

    @property
    def is_network(self) -> bool:
        return self.backbone.module is not None

    @property
    def reads_single_frames(self) -> bool:
        """Whether it is a network that turns one video frame into features: what --precision is for."""
        return self.is_network and self.info.source == "video" and len(self.info.step_frames) == 1


def is_network(name: str) -> bool:
    """Whether a backbone has weights, published or only random ones; an operator has none."""
    if backbones.describe(name).sources:
        return True
    try:
        return backbones.outline(name).module is not None
    except BackboneError:  # a library is not here, or was built without what it needs
        return False


def steps(info: BackboneInfo, num_steps: int = BATCH, seed: int = 0) -> Array:
    """Steps of a smooth random texture; later frames of a step are moved, by another amount in each step."""
    rng = np.random.default_rng(seed)
    if info.source == "annotations":
        return _people(rng, num_steps)
    height, width = info.image_size
    coarse = rng.integers(0, 256, (num_steps, height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    frames = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    frames = (frames // 2 + rng.integers(0, 128, frames.shape, dtype=np.uint8) // 2).astype(np.uint8)
    shape = info.frames_shape
    if shape[-1] != 3:
        frames = frames[..., 0]
    if len(shape) == frames.ndim - 1:
        return frames
    num_images = math.prod(shape) // math.prod(frames.shape[1:])  # of pairs of flow two for each frame
    moved = [[np.roll(image, (i + 1) * j, axis=i % 2) for j in range(num_images)] for i, image in enumerate(frames)]
    square = np.s_[64:160, 64:160]  # moves against the rest, so that something is left without the camera's motion
    for i, images in enumerate(moved):
        for j, image in enumerate(images):
            image[square] = np.roll(frames[i][square], -(i + 2) * j, axis=i % 2)
    return np.stack([np.stack(step) for step in moved]).reshape(num_steps, *shape)


def _people(rng: np.random.Generator, num_steps: int) -> npt.NDArray[np.float32]:
    """Annotations (B, 27, 3) of 25 points that are all there, with their box."""
    points = rng.uniform(50, 250, (num_steps, 25, 2)).astype(np.float32)
    corners = np.stack([points.min(axis=1) - 10, points.max(axis=1) + 10], axis=1)
    presence = np.ones((num_steps, 27, 1), np.float32)
    presence[:, 25:] = 0
    return np.concatenate([np.concatenate([points, corners], axis=1), presence], axis=2)


def description_is_plain_data(subject: Subject) -> None:
    """It goes to workers and into JSON."""
    info = subject.info
    data = json.loads(json.dumps(info.to_json()))
    assert data["name"] == subject.name, f"info.name is {data['name']!r}: take the family that `define` is given"
    assert all(tap["bytes_per_step"] > 0 for tap in data["taps"])
    assert pickle.loads(pickle.dumps(info)) == info
    assert info.default_taps, "BackboneInfo.default_taps is empty"
    assert set(info.default_taps) <= set(info.taps), f"{info.default_taps = }, {tuple(info.taps) = }"
    assert all(source.licence for source in info.sources), "BackboneInfo.sources: a WeightsSource without a licence"


def taps_are_as_declared(subject: Subject) -> None:
    """Shape, dtype, finite numbers; what a network gives depends on its input in every tap."""
    assert tuple(subject.features) == tuple(subject.info.taps)
    for tap, feature in subject.features.items():
        assert_declared(subject.info, tap, feature, len(subject.frames))
    # An operator may give a constant (points that are all there), and one of motion the same for two textures.
    of_motion = not subject.is_network and len(subject.info.step_frames) > 1
    for tap in subject.features if subject.is_network else () if of_motion else subject.info.default_taps[:1]:
        feature = subject.features[tap]
        assert all(np.any(row) for row in feature), f"tap {tap!r}: a step is all zeros"
        assert all(np.any(row != feature[0]) for row in feature[1:]), f"tap {tap!r}: different steps, same feature"


def assert_declared(info: BackboneInfo, tap: str, feature: Array, num_steps: int) -> None:
    spec = info.taps[tap]
    assert feature.shape == (num_steps, *spec.shape), f"tap {tap!r}: {feature.shape = }, declared {spec.shape} per step"
    assert feature.dtype == np.dtype(spec.dtype), f"tap {tap!r}: {feature.dtype = }, declared {spec.dtype}"
    assert np.isfinite(feature).all(), f"tap {tap!r}: a number is not finite"


def default_taps_have_the_same_bits_twice(subject: Subject) -> None:
    again = subject.backbone.forward(subject.frames)
    assert tuple(again) == subject.info.default_taps
    for tap, feature in again.items():
        np.testing.assert_array_equal(feature, subject.features[tap])


def second_build_gives_the_same_bits(subject: Subject) -> None:
    again = subject.built()
    assert again.weights == subject.backbone.weights
    for tap, feature in again.forward(subject.frames).items():
        np.testing.assert_array_equal(feature, subject.features[tap])


def place_in_the_batch_and_padding_change_no_bit(subject: Subject) -> None:
    """Clips meet in any batch, whose rest is zeros: the last step moves to the front, the first one back."""
    frames, taps, whole = subject.frames, tuple(subject.info.taps), subject.features
    moved = subject.backbone.forward(np.stack([frames[-1], frames[0], np.zeros_like(frames[0])]), taps)
    for tap in taps:
        np.testing.assert_array_equal(moved[tap][:2], whole[tap][[-1, 0]])


def batch_of_one_is_close_to_the_row_of_a_batch(subject: Subject) -> None:
    """2e-3 of the largest value: another batch size sums in another order, then float16 rounds (5e-4)."""
    for tap, feature in subject.features_of_one.items():
        one, row = feature[0].astype(np.float64), subject.features[tap][-1].astype(np.float64)
        scale = float(np.abs(row).max()) or 1.0
        np.testing.assert_allclose(one / scale, row / scale, rtol=0, atol=2e-3)


def each_tap_alone_equals_all_taps_together(subject: Subject) -> None:
    for tap in subject.info.taps:
        alone = subject.backbone.forward(subject.frames[-1:], [tap])
        assert list(alone) == [tap]
        np.testing.assert_array_equal(alone[tap], subject.features_of_one[tap])


def wrong_input_is_refused(subject: Subject) -> None:
    """Described.wanted_taps does it."""
    for wrong in (subject.frames[:, :-1], subject.frames.astype(np.float64)):
        try:
            subject.backbone.forward(wrong)
        except BackboneError:
            continue
        raise AssertionError(f"forward took {wrong.shape} {wrong.dtype} where {subject.info.frames_shape} is declared")


def network_is_frozen_and_in_eval_mode(subject: Subject) -> None:
    if (module := subject.backbone.module) is not None:
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not any(layer.training for layer in module.modules())


def state_file_gives_a_worker_the_same_backbone(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.safetensors"
        backbones.save_state(subject.backbone, file)
        assert [path.name for path in file.parent.iterdir()] == [file.name]
        worker = subject.built(state_file=file)
        assert worker.weights == subject.backbone.weights
        for tap, feature in worker.forward(subject.frames).items():
            np.testing.assert_array_equal(feature, subject.features[tap])


def bf16_keeps_the_direction_of_the_features(subject: Subject) -> None:
    """Networks that read single frames, with calibrated random weights; limits: COSINES."""
    from reelbank.extract.backbones.network import Network

    exact = subject.backbone
    if not subject.reads_single_frames or not isinstance(exact, Network):
        return
    rounded = dataclasses.replace(exact, precision="bf16").forward(subject.frames, tuple(subject.info.taps))
    for tap, feature in subject.features.items():
        assert not np.array_equal(feature, rounded[tap]), f"tap {tap!r}: bf16 was asked for and not used"
        cosine, least = mean_cosine(feature, rounded[tap]), COSINES[exact.architecture.channels_last]
        assert cosine >= least, f"tap {tap!r}: {cosine = }, at least {least}"


def mean_cosine(a: Array, b: Array) -> float:
    x, y = (v.astype(np.float64).reshape(len(v), -1) for v in (a, b))
    return float(np.mean((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)))


CHECKS: Mapping[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        description_is_plain_data,
        taps_are_as_declared,
        default_taps_have_the_same_bits_twice,
        second_build_gives_the_same_bits,
        place_in_the_batch_and_padding_change_no_bit,
        batch_of_one_is_close_to_the_row_of_a_batch,
        each_tap_alone_equals_all_taps_together,
        wrong_input_is_refused,
        network_is_frozen_and_in_eval_mode,
        state_file_gives_a_worker_the_same_backbone,
        bf16_keeps_the_direction_of_the_features,
    )
}
