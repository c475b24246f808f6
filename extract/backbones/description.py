"""What a backbone is, to those who run it and to those who list it. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from reelbank.extract.inputs.preprocess import Preprocess
from reelbank.extract.weights.files import WeightsSource
from reelbank.store.spec import TapSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

PRECISIONS = ("bf16", "fp16", "fp32")
SOURCES = ("annotations", "flow", "motion_maps", "video")
"""What a step may read: the columns of a manifest that the pipeline opens (`flow` is flow_x and flow_y)."""


class BackboneError(ValueError):
    """A backbone that is not known, cannot run as asked, or gave another shape than it declares."""


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """What a backbone gives and needs.

    Attributes:
        name: registered name with its variant.
        taps: every tap by its name.
        default_taps: what is stored when no tap is asked for; the first is the store's default tap.
        preprocess: what turns a decoded frame into the network's input; it belongs to the weights.
        step_frames: offsets of the native frames that one step reads: (0,) or, for flow, (0, 1).
        source: one of SOURCES, whose frames the steps read.
        payload_shape: of one prepared frame where it is not what `preprocess` gives.
        payload_dtype: of one prepared frame: uint8, float32 for annotations.
        sources: published weights in the order they are tried; empty for backbones without weights.
        default_batch: steps per forward pass on a CPU, where 64 are slower per frame than 16; a GPU takes what its
            memory holds, see `reelbank.extract.backbones.passes`.
    """

    name: str
    taps: Mapping[str, TapSpec]
    default_taps: tuple[str, ...]
    preprocess: Preprocess
    step_frames: tuple[int, ...] = (0,)
    source: str = "video"
    payload_shape: tuple[int, ...] | None = None
    payload_dtype: str = "uint8"
    sources: tuple[WeightsSource, ...] = ()
    default_batch: int = 16

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise BackboneError(f"backbone {self.name!r}: {self.source = } is not one of {', '.join(SOURCES)}")
        if misnamed := [key for key, tap in self.taps.items() if key != tap.name]:
            raise BackboneError(f"backbone {self.name!r}: taps {misnamed} are entered under another name")
        self.check_taps(self.default_taps)

    @property
    def frames_shape(self) -> tuple[int, ...]:
        """Shape of the input of one step: (H, W, 3), (2, H, W) for gray pairs, (T, ...) of several frames."""
        payload = self.payload_shape
        if payload is None:
            height, width = self.image_size
            payload = (height, width, 3) if self.preprocess.color == "rgb" else (height, width)
        return payload if len(self.step_frames) == 1 else (len(self.step_frames), *payload)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in px that preprocessing gives whatever the video's size."""
        size = self.preprocess.crop_size or self.preprocess.squash_size
        if not size:
            raise BackboneError(f"backbone {self.name!r}: {self.preprocess} gives no fixed size")
        return size

    def check_taps(self, taps: Sequence[str]) -> None:
        """Raises BackboneError listing the taps there are unless each of `taps` is one of them."""
        if unknown := [tap for tap in taps if tap not in self.taps]:
            raise BackboneError(
                f"backbone {self.name!r} has no tap {', '.join(map(repr, unknown))}; "
                f"choose from {', '.join(sorted(self.taps))}"
            )

    def to_json(self) -> dict[str, Any]:
        """The description as JSON types, with the bytes that one step of each tap takes."""
        taps = [{**asdict(tap), "bytes_per_step": tap.step_bytes} for tap in self.taps.values()]
        return {
            "name": self.name,
            "taps": taps,
            "default_taps": list(self.default_taps),
            "preprocess": asdict(self.preprocess),
            "step_frames": list(self.step_frames),
            "source": self.source,
            "weights": [asdict(source) for source in self.sources],
            "default_batch": self.default_batch,
        }


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a forward pass is made fast. The features are the same whatever is set; benchmarks switch each.

    Attributes:
        cast_weights: once, where autocast would do it in every pass.
        graphs: passes of a GPU are recorded as a CUDA graph and replayed. Not yet tried on a GPU.
        in_flight: batches that a GPU has been given before the first of them is fetched; 1: none waits.
    """

    cast_weights: bool = True
    graphs: bool = False
    in_flight: int = 2


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How a backbone is built; see `reelbank.extract.backbones.build`."""

    weights: str = "pretrained"
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    state_file: Path | None = None
    tuning: Tuning = field(default_factory=lambda: Tuning(cast_weights=False))

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise BackboneError(f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}")


class Backbone(Protocol):
    """A backbone ready to run.

    `weights` says where the numbers come from: kind (`file`, `none`, `pretrained`, `random`, `run`) and more.
    `module` is the network with its weights, None for operators. `device` is the effective device.
    """

    @property
    def info(self) -> BackboneInfo: ...
    @property
    def name(self) -> str: ...
    @property
    def taps(self) -> Mapping[str, TapSpec]: ...
    @property
    def default_taps(self) -> tuple[str, ...]: ...
    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def step_frames(self) -> tuple[int, ...]: ...
    @property
    def default_batch(self) -> int: ...
    @property
    def weights(self) -> dict[str, Any]: ...
    @property
    def module(self) -> nn.Module | None: ...
    @property
    def device(self) -> str: ...

    def forward(self, frames: npt.NDArray[Any], taps: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Features of a batch of steps.

        Args:
            frames: (B, *info.frames_shape) in info.payload_dtype.
            taps: names of the wanted taps; None for `default_taps`. Others are not computed.

        Returns:
            For each wanted tap an array (B, *shape) in the tap's dtype.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A row of the table resolved: the description, and the call that builds the backbone."""

    info: BackboneInfo
    make: Callable[[BuildOptions], Backbone]


@dataclass(frozen=True, kw_only=True)
class Described:
    """Gives a backbone the attributes that are those of its description."""

    info: BackboneInfo

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def taps(self) -> Mapping[str, TapSpec]:
        return self.info.taps

    @property
    def default_taps(self) -> tuple[str, ...]:
        return self.info.default_taps

    @property
    def preprocess(self) -> Preprocess:
        return self.info.preprocess

    @property
    def step_frames(self) -> tuple[int, ...]:
        return self.info.step_frames

    @property
    def default_batch(self) -> int:
        return self.info.default_batch

    def wanted_taps(self, frames: npt.NDArray[Any], taps: Sequence[str] | None) -> tuple[str, ...]:
        """The taps to compute, after a check of the input. Raises BackboneError showing the shapes."""
        expected = self.info.frames_shape
        if frames.dtype != self.info.payload_dtype or frames.shape[1:] != expected or frames.ndim != len(expected) + 1:
            raise BackboneError(
                f"backbone {self.name!r}: {frames.shape = } {frames.dtype}, expected (B, "
                f"{', '.join(map(str, expected))}) {self.info.payload_dtype}"
            )
        if taps is None:
            return self.default_taps
        self.info.check_taps(taps)
        return tuple(taps)

    def checked(self, tap: str, feature: npt.NDArray[Any], num_steps: int) -> npt.NDArray[Any]:
        """The feature, if it has the declared shape and dtype. Raises BackboneError showing both."""
        spec = self.taps[tap]
        if feature.shape != (num_steps, *spec.shape) or feature.dtype != spec.dtype:
            raise BackboneError(
                f"backbone {self.name!r}, tap {tap!r}: {feature.shape = } {feature.dtype}, "
                f"declared {(num_steps, *spec.shape)} {spec.dtype}"
            )
        return feature


def vector_tap(name: str, size: int) -> TapSpec:
    """A float16 embedding (D,). Stored raw: fp16 features compress by 3 to 7 %, raw chunks can be mapped."""
    return TapSpec(name=name, dtype="float16", axes=("channel",), shape=(size,))


def map_tap(name: str, channels: int, size: int) -> TapSpec:
    """A float16 feature map after a ReLU (C, H, W): half of it is zeros, so zstd-1 halves its size."""
    return TapSpec(
        name=name,
        dtype="float16",
        axes=("channel", "height", "width"),
        shape=(channels, size, size),
        codec="zstd-1",
    )


def taps_by_name(*taps: TapSpec) -> dict[str, TapSpec]:
    """The table of taps that BackboneInfo wants."""
    return {tap.name: tap for tap in taps}


def taps_after(
    order: Sequence[str], step: Callable[[str, Tensor], Tensor], tap: str, value: Tensor, wanted: frozenset[str]
) -> dict[str, Tensor]:
    """Taps of a network whose taps follow one another, from `tap` on to the last that is wanted.

    Args:
        order: every tap, in the order in which they are computed.
        step: gives a tap (by name) from the one before it.
        value: of `tap`.

    Raises:
        BackboneError: a wanted tap comes before `tap`.
    """
    start = order.index(tap)
    if early := [name for name in order[:start] if name in wanted]:
        raise BackboneError(f"tap {early[0]!r} cannot be computed from {tap!r}, which comes after it")
    values = {tap: value}
    for name in order[start + 1 : max(map(order.index, wanted), default=0) + 1]:
        values[name] = value = step(name, value)
    return values
