"""From a decoded frame to what a network reads: uint8, resized, cropped. It belongs to the weights.

`exact` converts the whole frame to RGB and resizes it as torchvision v2 does uint8 tensors (antialias), bit for
bit. PIL, which the official transforms of DINOv2 and CLIP use on images, differs from that by up to 2 levels on up
to 1.5 % of the values, and the tensors of torchvision v1, bicubic, by up to 23. `pil` is PIL's resize itself. `fast`
lets swscale shrink the frame before it becomes RGB: 0.4 to 0.6 levels off in the mean, and about twice as fast.
All follow torchvision's rounding: the long side is `int(long * s / short)` and the crop starts at
`int(round((size - crop) / 2.0))`; a pixel there costs ten times what the kernel does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

# A backbone's description holds a `Preprocess`: it must not cost the import of av, cv2 or torch, which the
# functions below import when they are made.
if TYPE_CHECKING:
    from reelbank.extract.video.frame import Frame, Pixels

COLORS = ("gray", "rgb")
INTERPOLATIONS = ("bicubic", "bilinear", "bilinear-aliased")
_ANTIALIASED = ("bicubic", "bilinear")
RESIZES = ("exact", "fast", "pil")

THUMBNAIL_PX = (72, 96)


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a frame becomes the input of a backbone.

    Attributes:
        short_side_px: resize so that the short side is this, keeping the aspect ratio; or None.
        squash_px: resize to a square of this side or to (height, width), whatever the aspect ratio; or None.
        fit_px: resize so that the whole frame just fits into (height, width), keeping the aspect ratio, and
            pad it with zeros to that size, centred; or None. None of the three: no resize.
        crop_px: centre crop to a square of this side or to (height, width), padded with zeros where the
            frame is smaller; None keeps the whole frame.
        interpolation: `bicubic` or `bilinear`, both antialiased; or `bilinear-aliased`, which is not (what
            torchvision's video networks were trained with), and which has no `fast` and no `pil` form, as PIL
            always antialiases: it is resized exactly.
        color: `rgb`, or `gray` = OpenCV's RGB2GRAY (BT.601 luma) of the resized and cropped RGB.
    """

    short_side_px: int | None = None
    squash_px: int | tuple[int, int] | None = None
    fit_px: tuple[int, int] | None = None
    crop_px: int | tuple[int, int] | None = None
    interpolation: str = "bicubic"
    color: str = "rgb"

    def __post_init__(self) -> None:
        if self.short_side_px is not None and self.squash_px is not None:
            raise ValueError(f"{self.short_side_px = } and {self.squash_px = } exclude each other")
        others = {"short_side_px": self.short_side_px, "squash_px": self.squash_px, "crop_px": self.crop_px}
        if self.fit_px is not None and (given := [name for name, value in others.items() if value is not None]):
            raise ValueError(f"{self.fit_px = } and {', '.join(given)} exclude each other")
        for name, sizes in (
            ("short_side_px", (self.short_side_px,)),
            ("squash_px", self.squash_size or (None,)),
            ("crop_px", self.crop_size or (None,)),
        ):
            if any(size is not None and size < 1 for size in sizes):
                raise ValueError(f"{name}={sizes}, expected at least 1 px")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"{self.interpolation = } is not one of {', '.join(INTERPOLATIONS)}")
        if self.color not in COLORS:
            raise ValueError(f"{self.color = } is not one of {', '.join(COLORS)}")

    @property
    def crop_size(self) -> tuple[int, int] | None:
        """(height, width) in px of the crop, or of what is padded to; or None."""
        crop_px = self.crop_px if self.fit_px is None else self.fit_px
        return (crop_px, crop_px) if isinstance(crop_px, int) else crop_px

    @property
    def squash_size(self) -> tuple[int, int] | None:
        """(height, width) in px of the resize that ignores the aspect ratio, or None."""
        return (self.squash_px, self.squash_px) if isinstance(self.squash_px, int) else self.squash_px

    def resized_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """(height, width) after the resize, before the crop."""
        if self.squash_size is not None:
            return self.squash_size
        if self.fit_px is not None:
            height, width = self.fit_px
            # Compared as products: the side that fills its canvas must fill it to the pixel.
            if height_px * width <= width_px * height:
                return max(round(height_px * width / width_px), 1), width
            return height, max(round(width_px * height / height_px), 1)
        if self.short_side_px is None:
            return height_px, width_px
        # A panorama a few pixels high would ask for a side of 0 px in neither case: long >= short.
        if height_px <= width_px:
            return self.short_side_px, int(self.short_side_px * width_px / height_px)
        return int(self.short_side_px * height_px / width_px), self.short_side_px

    def output_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """(height, width) of the result for a frame of this size."""
        return self.crop_size or self.resized_size(height_px, width_px)

    def valid_box(self, height_px: int, width_px: int) -> tuple[int, int, int, int]:
        """Where the result holds the frame rather than padding: (top, left, height, width) in px."""
        resized = self.resized_size(height_px, width_px)
        spans = [_span(size, crop) for size, crop in zip(resized, self.crop_size or resized, strict=True)]
        (_, top, height), (_, left, width) = spans
        return top, left, height, width


def common_box(preprocess: Preprocess, sizes_px: Iterable[tuple[int, int]]) -> tuple[int, int, int, int]:
    """What `valid_box` is of every (height, width) alike: all are centred, so that they have a part in common."""
    boxes = np.array([preprocess.valid_box(*size) for size in sizes_px])
    start = boxes[:, :2].max(0)
    stop = (boxes[:, :2] + boxes[:, 2:]).min(0)
    top, left, height, width = (int(number) for number in (*start, *(stop - start)))
    return top, left, height, width


def make(preprocess: Preprocess, resize: str = "exact") -> Callable[[Frame | Any], Pixels]:
    """The function that applies a preprocessing to a frame.

    It keeps swscale's state between frames: one per thread.

    Args:
        preprocess: what to do.
        resize: `exact`, `fast` or `pil`.

    Returns:
        (Frame or `av.VideoFrame`) -> contiguous uint8 (H, W, 3), or (H, W) for gray.
    """
    if resize not in RESIZES:
        raise ValueError(f"{resize = } is not one of {', '.join(RESIZES)}")
    from reelbank.extract.video.frame import Frame

    antialiased = preprocess.interpolation in _ANTIALIASED
    shrink = _Swscale(preprocess.interpolation) if resize == "fast" and antialiased else None
    resized = resize_by_pil if resize == "pil" and antialiased else resize_pixels

    def apply(frame: Frame | Any) -> Pixels:
        frame = frame if isinstance(frame, Frame) else Frame(frame)
        size = preprocess.resized_size(frame.height_px, frame.width_px)
        if shrink is not None and size != (frame.height_px, frame.width_px):
            pixels = shrink(frame, size)
        else:
            pixels = resized(frame.rgb, size, preprocess.interpolation)
        if preprocess.crop_size is not None:
            pixels = center_crop(pixels, preprocess.crop_size)
        if preprocess.color == "gray":
            return to_gray(np.ascontiguousarray(pixels))
        # Always a copy of its own: the RGB of a frame is shared, nobody gets it to write to.
        return pixels.copy(order="C")

    return apply


def thumbnail(frame: Frame | Any) -> Pixels:
    """(72, 96, 3) uint8: the whole frame, scaled to fit, on black."""
    from reelbank.extract.video.frame import Frame

    frame = frame if isinstance(frame, Frame) else Frame(frame)
    height, width = THUMBNAIL_PX
    scale = min(height / frame.height_px, width / frame.width_px)
    size = max(round(frame.height_px * scale), 1), max(round(frame.width_px * scale), 1)
    return center_crop(_Swscale("bilinear")(frame, size), THUMBNAIL_PX).copy(order="C")


def center_crop(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Centre crop of (H, W, 3) to (height, width), zero-padded, with torchvision's rounding."""
    (y, top, height), (x, left, width) = (_span(have, want) for have, want in zip(pixels.shape, size, strict=False))
    taken: Pixels = pixels[y : y + height, x : x + width]
    if (height, width) == size:
        return taken
    padded: Pixels = np.zeros((*size, pixels.shape[2]), np.uint8)
    padded[top : top + height, left : left + width] = taken
    return padded


def to_gray(pixels: Pixels) -> Pixels:
    """(H, W, 3) RGB to (H, W): 0.299 R + 0.587 G + 0.114 B in OpenCV's fixed point."""
    import cv2  # only flow needs it

    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def _span(have: int, want: int) -> tuple[int, int, int]:
    """One axis of a centre crop: (first pixel taken, pixels of padding before it, pixels taken)."""
    if have < want:
        return 0, (want - have) // 2, have
    return round((have - want) / 2.0), 0, want


def resize_pixels(pixels: Pixels, size: tuple[int, int], interpolation: str) -> Pixels:
    """(H, W, 3) uint8 resized to (height, width) as torchvision does with antialias, bit for bit."""
    if pixels.shape[:2] == size:
        return pixels
    import torch

    # The batch axis comes before the permutation: torch sees channels-last memory only if that axis has the stride
    # of a whole frame, and its kernel for other memory takes twice as long for the same bits.
    planes = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    if interpolation == "bilinear-aliased":
        # Through float32 and rounded, as torchvision does where it does not antialias.
        planes = torch.nn.functional.interpolate(planes.float(), size=size, mode="bilinear", align_corners=False)
        return np.ascontiguousarray(planes[0].permute(1, 2, 0).round().to(torch.uint8).numpy())
    resized = torch.nn.functional.interpolate(
        planes, size=size, mode=interpolation, align_corners=False, antialias=True
    )
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def resize_by_pil(pixels: Pixels, size: tuple[int, int], interpolation: str) -> Pixels:
    """(H, W, 3) uint8 resized to (height, width) as torchvision's transforms resize a PIL image, bit for bit."""
    if pixels.shape[:2] == size:
        return pixels
    from PIL import Image

    kernel = Image.Resampling[interpolation.upper()]
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], kernel), np.uint8)


class _Swscale:
    """Two steps, because swscale's path that scales and converts to RGB at once is not vectorised."""

    def __init__(self, interpolation: str) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._interpolation = Interpolation[interpolation.upper()]
        self._format = self._between = ""
        self._scale = VideoReformatter()
        self._to_rgb = VideoReformatter()

    def __call__(self, frame: Frame, size: tuple[int, int]) -> Pixels:
        """The shown frame scaled to (height, width): (H, W, 3), rows not always adjacent in memory."""
        from reelbank.extract.video.frame import oriented, rgb_view

        orientation = frame.orientation
        height, width = size[::-1] if orientation.quarter_turns % 2 else size
        if frame.native.format.name != self._format:
            self._format, self._between = frame.native.format.name, _intermediate(frame.native.format)
        scaled = self._scale.reformat(
            frame.native, width, height, self._between, interpolation=self._interpolation, threads=1
        )
        return oriented(rgb_view(scaled, self._to_rgb), orientation)


def _intermediate(native_format: Any) -> str:
    """The 8-bit format to scale in: the chroma layout stays, so that nothing is lost before the resize."""
    components = native_format.components
    if native_format.is_rgb or native_format.has_palette or len(components) < 3:
        return "rgb24"
    across = round(native_format.width / components[1].width) if components[1].width else 1
    down = round(native_format.height / components[1].height) if components[1].height else 1
    return {(1, 1): "yuv444p", (2, 1): "yuv422p"}.get((across, down), "yuv420p")
