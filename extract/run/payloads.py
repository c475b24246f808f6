"""From a frame of a source to what one step of a backbone reads of it: its *payload*, one per view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.extract.backbones import BackboneInfo
from reelbank.extract.inputs import views
from reelbank.extract.inputs.preprocess import make
from reelbank.store.spec import FeatureSpec

Pixels = NDArray[Any]
Prepare = Callable[[Any], Pixels]


def preparer(info: BackboneInfo, resize: str) -> Prepare:
    """The function from a frame of the backbone's source to its payload; it keeps swscale's state between frames."""
    if info.source == "annotations":
        return _as_it_is
    return _both(make(info.preprocess, resize)) if info.source == "flow" else make(info.preprocess, resize)


class ClipViews:
    """The views of one clip under one backbone.

    Attributes:
        key: equal where two backbones make the same payloads of a clip.
    """

    def __init__(self, info: BackboneInfo, spec: FeatureSpec, original: Prepare, clip_id: str, split: str) -> None:
        """Draws what is random; `original` is the backbone's `preparer`, `split` that of the clip."""
        has_all = spec.view_split in ("all", split)
        self.names = spec.views if has_all else spec.views[:1]
        self.key = info.source, info.preprocess, spec.resize, self.names, spec.seed
        self._prepare = [original]
        for name in self.names[1:]:
            change = views.changed(name, info.preprocess, clip_id, spec.seed)
            flip = views.flips(name, clip_id, spec.seed)
            self._prepare.append(_both(change, invert_x=flip) if info.source == "flow" else change)

    def __call__(self, frame: Any) -> Sequence[Pixels]:
        """One payload per view."""
        return [prepare(frame) for prepare in self._prepare]


def _both(prepare: Prepare, *, invert_x: bool = False) -> Prepare:
    """x and y images of flow as (2, H, W); a mirrored x component points the other way: 255 - v."""

    def apply(pair: Any) -> Pixels:
        x, y = (prepare(image) for image in pair)
        return np.stack([255 - x if invert_x else x, y])

    return apply


def _as_it_is(payload: Any) -> Pixels:
    return np.asarray(payload)
