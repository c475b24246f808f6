"""The specification of a store: everything that changes the numbers in it, and nothing that does not.

A spec is hashed into the store and compared on every re-run. Speed settings (workers, batch, device)
are not here: they stand in the commit record of each unit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from reelbank.store.errors import SpecMismatch, StoreError
from reelbank.store.kinds import check_kinds

DTYPES = ("bool", "float16", "float32", "uint8")
CODECS = ("none", "zstd-1")
FILE_START = "file"


@dataclass(frozen=True, kw_only=True)
class TapSpec:
    """One named output of a backbone, as it is stored per step.

    Attributes:
        name: `cls`, `pool`, `flow`, ...
        dtype: stored dtype; embeddings float16, keypoints float32, frames uint8, presence bool.
        axes: names of the axes after (clip, view, step), without the tap's name.
        shape: their sizes; `(D,)` for a vector tap.
        codec: `none` (embeddings: fp16 features compress by 3 to 7 %, and raw chunks can be memory-mapped)
            or `zstd-1` (post-ReLU maps: less than half the size).
    """

    name: str
    dtype: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    codec: str = "none"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise StoreError(f"tap {self.name!r}: dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        if self.codec not in CODECS:
            raise StoreError(f"tap {self.name!r}: codec {self.codec!r} is not one of {', '.join(CODECS)}")
        if len(self.axes) != len(self.shape) or any(size < 1 for size in self.shape):
            raise StoreError(f"tap {self.name!r}: {self.axes = } and {self.shape = } do not describe one step")
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise StoreError(f"tap name {self.name!r}: only letters, digits, '-' and '_' may name an array")

    @property
    def is_vector(self) -> bool:
        """Whether one step is a float vector (D,): such taps have `mean` and `std`."""
        return len(self.shape) == 1 and self.dtype.startswith("float")

    @property
    def step_bytes(self) -> int:
        """Bytes of one step, uncompressed."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """What was computed: two stores with the same digest hold the same numbers for the same clips.

    Attributes:
        backbone: registered name with its variant, e.g. `dinov2` or `flow:dis`.
        weights: kind (`pretrained`, `file`, `random`, `run`, `none`), sha256 and, if random, seed and recipe; of a
            training run `base`, the kind of weights that it began with.
        taps: in the order they are stored; the first is the store's default.
        sampling: canonical text of the sampling rule, e.g. `uniform:16`.
        past_end: `repeat`, `pad` or `error`: what happens to clips shorter than the sampling asks.
        views: names of the stored views; view 0 is the evaluation view.
        view_split: the split whose clips get the views after 0.
        resize: `exact`, `pil` or `fast`.
        precision: dtype of the forward pass: `fp32`, `bf16` or `fp16`.
        preprocess: short side, interpolation, crop, colour: what turns a frame into the network's input.
        seed: of every random draw (frame starts, views).
        plugin_sha256: of the source of a backbone that is not one of reelbank's: other code, other numbers. The
            provenance says whose it is.
        decoder: what decoded the videos where it was not FFmpeg on the CPU: `torchcodec-cuda`.
        time_origin: where intervals and `step_seconds` count from: `file`, its start as players show it, also where the
            picture begins later; null: the first frame, as in earlier stores and where no video is read.
        annotation_columns: {our name: theirs} of annotation tables whose columns were mapped.
        square_pixels: true where frames of videos whose pixels are not square were enlarged to the shape that players
            show; null: read as they are stored.
    """

    backbone: str
    weights: Mapping[str, Any]
    taps: tuple[TapSpec, ...]
    sampling: str
    past_end: str = "repeat"
    views: tuple[str, ...] = ("original",)
    view_split: str = "train"
    resize: str = "exact"
    precision: str = "fp32"
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    plugin_sha256: str | None = None
    decoder: str | None = None
    time_origin: str | None = None
    annotation_columns: Mapping[str, str] | None = None
    square_pixels: bool | None = None

    def __post_init__(self) -> None:
        if self.time_origin not in (None, FILE_START):
            found = f"time_origin {self.time_origin!r}"
            raise StoreError(f"the spec's {found} is not one that this version knows; a later reelbank made it")
        names = [tap.name for tap in self.taps]
        if not names or len(set(names)) != len(names):
            raise StoreError(f"a spec needs at least one tap and each once, found {names}")

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON types, tuples as lists."""
        result: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return result

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FeatureSpec:
        """The spec that `to_json` wrote. Raises StoreError if a field is missing, or unknown and not null."""
        values = _known_fields(cls, data, "the spec")
        try:
            check_kinds(data, dict(SPEC_KINDS), "spec")
            values["taps"] = tuple(
                TapSpec(
                    **_known_fields(TapSpec, tap, f"tap {tap['name']!r} of the spec")
                    | {"axes": tuple(tap["axes"]), "shape": tuple(tap["shape"])}
                )
                for tap in data["taps"]
            )
            values["views"] = tuple(data["views"])
            if not values["views"]:
                raise StoreError("a spec needs at least one view, found none")
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"the spec is not one of a reelbank store: {error}") from error

    @property
    def weights_are_random(self) -> bool:
        """Whether the weights are random, or those of a training run that began with random ones."""
        return are_random(self.weights)

    @property
    def digest(self) -> str:
        """sha256 (hex) of the canonical JSON without its nulls.

        A null says what an absent field says, so that a field which a later version adds leaves older stores equal.
        """
        text = json.dumps(_without_nulls(self.to_json()), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def tap(self, name: str) -> TapSpec:
        """The tap called `name`. Raises StoreError listing the taps there are."""
        for tap in self.taps:
            if tap.name == name:
                return tap
        raise StoreError(f"no tap {name!r} in this store; it holds {', '.join(sorted(t.name for t in self.taps))}")


def are_random(weights: Mapping[str, Any]) -> bool:
    """Whether `weights` of a spec are random, or those of a training run that began with random ones.

    How much of them is left in such a run is not known here: it is never said too seldom.
    """
    of = weights.get("of", {})
    return "random" in (weights.get("kind"), weights.get("base"), of.get("kind"), of.get("base"))


def differences(ours: FeatureSpec, theirs: FeatureSpec) -> dict[str, tuple[Any, Any]]:
    """The fields that differ, flattened with dots: {field: (ours, theirs)}."""
    a, b = _flatten(ours.to_json()), _flatten(theirs.to_json())
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def refuse_mismatch(path: object, stored: FeatureSpec, asked: FeatureSpec) -> None:
    """Raises SpecMismatch with every differing field unless the two specs are the same."""
    if stored.digest == asked.digest:
        return
    lines = [f"  {key}: stored {old!r}, asked {new!r}" for key, (old, new) in differences(stored, asked).items()]
    raise SpecMismatch(
        f"{path} was made with another specification:\n" + "\n".join(lines) + "\n"
        "Ask for the stored values, or write to another store with --out."
    )


_TEXT = (str, None)
SPEC_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("backbone", "sampling", "past_end?", "view_split?", "resize?", "precision?"), str),
    "weights": {"kind": str, "source?": _TEXT, "sha256?": _TEXT, "of?": {"kind?": str, "*": object}, "*": object},
    "taps": [{"name": str, "dtype": str, "axes": [str], "shape": [int], "codec?": str}],
    "views?": [str],
    "preprocess?": {"*": object},
    "seed?": int,
    "plugin_sha256?": _TEXT,
    "decoder?": _TEXT,
    "time_origin?": _TEXT,
    "annotation_columns?": (None, {"*": str}),
    "square_pixels?": (bool, None),
}


def _known_fields(cls: type[FeatureSpec | TapSpec], data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of `data` that this version has; a null one of a later version says what its absence says."""
    known = {f.name for f in fields(cls)}
    if unknown := sorted(name for name in set(data) - known if data[name] is not None):
        raise StoreError(
            f"{where} has fields this version does not know: {', '.join(unknown)}; a later reelbank made it"
        )
    return {name: value for name, value in data.items() if name in known}


def _without_nulls(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_nulls(value) for key, value in data.items() if value is not None}
    return [_without_nulls(item) for item in data] if isinstance(data, list) else data


def _flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(data, dict):
        items = [(f"{prefix}.{key}" if prefix else key, value) for key, value in data.items()]
    elif isinstance(data, list) and data and isinstance(data[0], dict):
        items = [(f"{prefix}[{item.get('name', i)}]", item) for i, item in enumerate(data)]
    else:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat.update(_flatten(value, key))
    return flat
