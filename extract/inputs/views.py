"""Views: the frame as it is, and copies of it changed by draws that hold for all frames of a clip.

Video augmentations: one draw per clip, before the resize; horizontal flip with probability 0.5, rotation uniform in
(-30, 30) degrees with bilinear sampling and black corners, jitter of brightness, contrast and saturation by factors
in [0.8, 1.2] and of hue by [-0.1, 0.1] turns. The publication gives no ranges of the jitter: `jitter-B-C-S-H` has
others, so that `jitter` is `jitter-0.2-0.2-0.2-0.1`.
Multi-scale corner crops x flips: `reelbank.store.corner_crops`; the square is resized to the network's input.

Everything is drawn from (clip id, view, seed): the same in every run and in whatever order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.extract.inputs.preprocess import Preprocess, make, resize_pixels, to_gray
from reelbank.store.corner_crops import CORNERS, SHORT_SIDE_PX, corner_crop, corner_of

if TYPE_CHECKING:
    from reelbank.extract.video.frame import Frame, Pixels

ORIGINAL = "original"
AUGMENTATIONS = ("flip", "flip-always", "jitter", "rotation")
PRESETS = {
    "augment": (ORIGINAL, "flip", "rotation", "jitter"),
    "original": (ORIGINAL,),
}

MAX_ANGLE_DEGREES = 30.0
JITTER = (0.2, 0.2, 0.2, 0.1)
"""How much brightness, contrast and saturation change (the factor less 1), and the hue in turns, at most."""
JITTER_LIMITS = (1.0, 1.0, 1.0, 0.5)
FLIP_PROBABILITY = 0.5

Prepare = Callable[[Any], "Pixels"]


def parse(text: str) -> tuple[str, ...]:
    """Names of the views that `--views` asks for; the first is always `original`.

    Args:
        text: `original`, `augment` (original, flip, rotation, jitter), `corners` (original and all 40 crops),
            `corners:N` (original and N of the 40, another subset for each clip), or names joined by commas.

    Raises:
        ValueError: an unknown name or number; the known ones are listed.
    """
    family, _, number = text.partition(":")
    if family == "corners":
        if not number:
            return (ORIGINAL, *CORNERS)
        if not number.isdecimal() or not 1 <= int(number) <= len(CORNERS):
            raise ValueError(f"--views {text!r}: corners:N takes N from 1 to {len(CORNERS)}")
        return (ORIGINAL, *(f"corner-any-{i}" for i in range(1, int(number) + 1)))
    if text in PRESETS:
        return PRESETS[text]
    names = tuple(name.strip() for name in text.split(","))
    known = (ORIGINAL, *AUGMENTATIONS, *CORNERS)
    if unknown := [name for name in names if name not in known and not _is_jitter(name)]:
        presets = ", ".join(sorted((*PRESETS, "corners", "corners:N")))
        raise ValueError(
            f"--views {text!r}: {', '.join(map(repr, unknown))} is no view; choose {presets}, or a list of "
            f"{', '.join((ORIGINAL, *AUGMENTATIONS))}, corner-SCALE-POSITION[-flip] such as {CORNERS[0]} and "
            "jitter-BRIGHTNESS-CONTRAST-SATURATION-HUE such as jitter-0.4-0.4-0.4-0.2 (at most 1, 1, 1 and 0.5)"
        )
    names = (ORIGINAL, *(name for name in names if name != ORIGINAL))
    if len(set(names)) != len(names):
        raise ValueError(f"--views {text!r} names a view twice")
    return names


def _jitter(name: str) -> tuple[float, ...] | None:
    """The most that a view of jitter changes, as `JITTER`; None for another view, or one out of range."""
    if name == "jitter":
        return JITTER
    kind, *amounts = name.split("-")
    try:
        given = tuple(map(float, amounts))
    except ValueError:
        return None
    within = len(given) == len(JITTER) and all(
        0 <= value <= limit for value, limit in zip(given, JITTER_LIMITS, strict=True)
    )
    return given if kind == "jitter" and within else None


def _is_jitter(name: str) -> bool:
    return _jitter(name) is not None


def text_of(names: Sequence[str]) -> str:
    """What `parse` reads as these views."""
    drawn = len(names) > 1 and names[1].startswith("corner-any-")
    return f"corners:{len(names) - 1}" if drawn else ",".join(names)


def check(names: Sequence[str], source: str, preprocess: Preprocess, backbone: str) -> None:
    """Raises ValueError where a backbone's input cannot have these views."""
    if names == (ORIGINAL,):
        return
    if source == "annotations":
        raise ValueError(f"{backbone} reads keypoints: views need frames; leave out --views")
    if source != "video" and (colours := [name for name in names if _is_jitter(name)]):
        raise ValueError(
            f"{backbone} reads {source.replace('_', ' ')}: view {colours[0]!r} needs colours; name other views"
        )
    if any(name.startswith("corner") for name in names) and preprocess.crop_size is None:
        raise ValueError(f"{backbone} squashes whole frames: corner crops need a backbone that crops")


def flips(view: str, clip_id: str, seed: int) -> bool:
    """Whether the view mirrors the clip: the x component of precomputed flow then changes its sign."""
    if view.startswith("corner"):
        return corner_of(view, clip_id, seed).endswith("-flip")
    draw = _rng("flip", clip_id, seed).random() < FLIP_PROBABILITY
    return view == "flip-always" or (view == "flip" and bool(draw))


def changed(view: str, preprocess: Preprocess, clip_id: str, seed: int) -> Prepare:
    """The function from a frame to the backbone's input for a view other than `original`.

    Changed frames are resized exactly (`--resize exact`), whatever holds for the original.
    """
    if view.startswith("corner"):
        return _corner_crop(corner_of(view, clip_id, seed), preprocess)
    exact, augment = make(preprocess, "exact"), _augmentation(view, clip_id, seed)

    def apply(frame: Frame) -> Pixels:
        from reelbank.extract.video.frame import frame_of_rgb

        return exact(frame_of_rgb(augment(frame.rgb)))

    return apply


def _corner_crop(name: str, preprocess: Preprocess) -> Prepare:
    """A square crop of the frame with short side 256, mirrored before it if so named, resized to the input's size."""
    short = Preprocess(short_side_px=SHORT_SIDE_PX)
    size = preprocess.crop_size
    assert size is not None, "checked by `check`"

    def apply(frame: Frame) -> Pixels:
        pixels = resize_pixels(frame.rgb, short.resized_size(*frame.rgb.shape[:2]), "bilinear")
        where = corner_crop(name, *pixels.shape[:2])
        pixels = pixels[:, ::-1] if where.mirrored else pixels
        top, left, side = where.top_px, where.left_px, where.side_px
        crop = np.ascontiguousarray(pixels[top : top + side, left : left + side])
        resized = resize_pixels(crop, size, "bilinear")
        return to_gray(resized) if preprocess.color == "gray" else resized

    return apply


def _augmentation(name: str, clip_id: str, seed: int) -> Callable[[Pixels], Pixels]:
    rng = _rng(name, clip_id, seed)
    if name in ("flip", "flip-always"):
        flip = flips(name, clip_id, seed)
        return lambda pixels: np.ascontiguousarray(pixels[:, ::-1]) if flip else pixels
    if name == "rotation":
        angle_degrees = float(rng.uniform(-MAX_ANGLE_DEGREES, MAX_ANGLE_DEGREES))
        return lambda pixels: rotated(pixels, angle_degrees)
    most = _jitter(name)
    assert most is not None, f"{name} is no view"
    rng = _rng("jitter", clip_id, seed)  # the same draws for any range
    brightness, contrast, saturation = (float(rng.uniform(1 - change, 1 + change)) for change in most[:3])
    hue_turns = float(rng.uniform(-most[3], most[3]))
    return lambda pixels: _jittered(pixels, brightness, contrast, saturation, hue_turns)


def rotated(pixels: Pixels, angle_degrees: float) -> Pixels:
    """(H, W, 3) turned counterclockwise about its centre, bilinear, black where there is no pixel."""
    import cv2

    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_degrees, 1.0)
    turned = cv2.warpAffine(pixels, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(turned, np.uint8)


def _jittered(pixels: Pixels, brightness: float, contrast: float, saturation: float, hue_turns: float) -> Pixels:
    """(H, W, 3) with brightness, contrast, saturation and hue changed in this order, by torchvision."""
    import torch

    from reelbank.extract.weights import torchvision_shim

    torchvision_shim.ensure()
    from torchvision.transforms.v2 import functional

    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    planes = functional.adjust_brightness(planes, brightness)
    planes = functional.adjust_contrast(planes, contrast)
    planes = functional.adjust_saturation(planes, saturation)
    planes = functional.adjust_hue(planes, hue_turns)
    return np.ascontiguousarray(planes.permute(1, 2, 0).numpy())


def _rng(view: str, clip_id: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{clip_id}\0{view}\0{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
