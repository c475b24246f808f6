"""Optical flow of native frame pairs; taps in `flow_taps`.

`flow`: Two-Frame Motion Estimation Based on Polynomial Expansion, Farnebäck 2003. `flow:dis`: Fast Optical
Flow using Dense Inverse Search, Kroeger et al. 2016, arXiv:1603.03590 (OpenCV's medium preset). `flow:tvl1`: A
Duality Based Approach for Realtime TV-L1 Optical Flow, Zach et al. 2007, in OpenCV builds that have it.
`flow:raft-small`, `flow:raft-large`: see `raft`. `flow:images`, `flow:images-256`: see `flow_images`.
One step is the pair (i, i + 1); frames are gray, squashed to 224x224, so displacements are in pixels of
that square per native frame.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.extract.backbones import flow_taps
from reelbank.extract.backbones.description import (
    Backbone,
    BackboneError,
    BackboneInfo,
    BuildOptions,
    Definition,
    Described,
)
from reelbank.extract.inputs.preprocess import Preprocess

Gray = npt.NDArray[np.uint8]
Estimate = Callable[[Gray, Gray], npt.NDArray[np.float32]]
"""(first, second) of a gray pair (H, W) -> displacements (H, W, 2) in px."""

METHODS = {
    "": "Farneback pyr_scale=0.5 levels=3 winsize=15 iterations=3 poly_n=5 poly_sigma=1.2 flags=0",
    "dis": "DIS medium",
    "tvl1": "DualTVL1",
}

GRAY_PAIR = Preprocess(squash_px=flow_taps.SIZE_PX, interpolation="bilinear", color="gray")


def define(family: str, variant: str) -> Definition:
    """Flow by the method that `variant` names."""
    if variant.startswith("raft"):
        from reelbank.extract.backbones import raft

        return raft.define(family, variant)
    if variant.startswith("images"):
        from reelbank.extract.backbones import flow_images

        return flow_images.define(family, variant)
    info = BackboneInfo(
        name=f"{family}:{variant}" if variant else family,
        taps=flow_taps.flow_taps(),
        default_taps=("hof",),
        preprocess=GRAY_PAIR,
        step_frames=(0, 1),
    )
    return Definition(info=info, make=functools.partial(_make, info, variant))


def _make(info: BackboneInfo, method: str, options: BuildOptions) -> Backbone:
    return _Flow(info=info, method=METHODS[method], estimate=estimator(method))


@dataclass(frozen=True, kw_only=True)
class _Flow(Described):
    method: str
    estimate: Estimate
    module: None = None
    device: str = "cpu"

    @property
    def weights(self) -> dict[str, Any]:
        return {"kind": "none", "source": f"OpenCV {self.method}; hof 1"}

    def forward(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Flow of gray pairs (B, 2, H, W) uint8."""
        wanted = self.wanted_taps(frames, taps)
        fields = np.zeros((len(frames), 2, flow_taps.SIZE_PX, flow_taps.SIZE_PX), np.float32)
        with one_opencv_thread():
            for field, (before, after) in zip(fields, frames, strict=True):
                field[...] = field_of(self.estimate, before, after)
        return flow_taps.features(self, fields, wanted)


def field_of(estimate: Estimate, before: Gray, after: Gray) -> flow_taps.Field:
    """Flow (2, H, W) float32 of one gray pair (H, W)."""
    field = estimate(np.ascontiguousarray(before), np.ascontiguousarray(after))  # (H, W, 2)
    return flow_taps.bounded(field).transpose(2, 0, 1)


@contextlib.contextmanager
def one_opencv_thread() -> Iterator[None]:
    """OpenCV works in the calling thread; afterwards it has the threads that it had.

    DIS cuts the image into as many stripes as there are threads, and its result depends on the cut.
    """
    import cv2

    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(num_threads)


def estimator(method: str) -> Estimate:
    """One of METHODS ready to run. Raises BackboneError if this OpenCV does not have it."""
    return _ESTIMATORS[method]()


def _farneback() -> Estimate:
    import cv2

    def estimate(before: Gray, after: Gray) -> npt.NDArray[np.float32]:
        start: Any = None
        return np.asarray(cv2.calcOpticalFlowFarneback(before, after, start, 0.5, 3, 15, 3, 5, 1.2, 0), np.float32)

    return estimate


def _dis() -> Estimate:
    import cv2

    library: Any = cv2  # its stubs lack DIS
    return _calc(library.DISOpticalFlow_create(library.DISOPTICAL_FLOW_PRESET_MEDIUM))


def _tvl1() -> Estimate:
    import cv2

    library: Any = cv2
    create = getattr(getattr(library, "optflow", None), "DualTVL1OpticalFlow_create", None)
    if create is None:
        raise BackboneError(
            f"flow method 'tvl1' was asked for, OpenCV {library.__version__} was built without its `optflow` module; "
            "install opencv-contrib-python-headless in place of opencv-python-headless, or choose dis"
        )
    return _calc(create())


def _calc(flow: Any) -> Estimate:
    def estimate(before: Gray, after: Gray) -> npt.NDArray[np.float32]:
        return np.asarray(flow.calc(before, after, None), np.float32)

    return estimate


_ESTIMATORS: dict[str, Callable[[], Estimate]] = {"": _farneback, "dis": _dis, "tvl1": _tvl1}
