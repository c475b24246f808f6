"""Format v1: which arrays a store has, their shapes, how they are cut into units, and how the format may grow.

Row i of every array is clip i. A unit is a run of consecutive rows; every array over clips is cut at the
same unit boundaries, so two writers of two units never touch the same file.

Growth. Within one `format_version` an array that is absent means its fill value in every row, and one that ends
before the store does means its fill value past its end. So later code reads earlier stores and the other way round:

- Essential, because nothing can stand for them, are the rows of LEDGER (`clips/`) and COLUMNS (`manifest/`) that say
  so, `features/`, `checksums/`, `mean/` and `std/` of every tap, and the root attributes of ESSENTIAL_ATTRIBUTES. What
  needs one that is absent fails with its path; a writer refuses the store.
- A reader ignores what it does not know: arrays, columns, root attributes, fields of the geometry, and fields of the
  specification that are null. A field that is not null may have changed the numbers and is refused.
- A writer keeps what it does not know. When the store grows, every array in a folder of it whose first axis is `clip`
  grows along, and absent ones of this table are made, filled. A clip that is written anew has the fill value in the
  arrays under `clips/` that its writer does not know: what stood there was said of the features before.
- A merge carries unknown arrays of `clips/` and `manifest/` that all its stores have alike, and names the others.
  Exports hold what this table knows, and name what they leave out.

A later version may therefore add an array whose fill value says `not known`, and a specification field whose null says
`as before`. A change of what is there already needs a higher `format_version`, which earlier code refuses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from reelbank.store.errors import StoreError
from reelbank.store.files import make_folder, read_json, reading, write_json
from reelbank.store.sizes import check_root
from reelbank.store.spec import FeatureSpec, TapSpec

FORMAT_VERSION = 1
MISSING, DONE, FAILED = 0, 1, 2

SHARD_TARGET_BYTES = 32 << 20
CHUNK_LIMIT_BYTES = 16 << 20
MAX_UNIT_CLIPS = 512
# Clips whose number of steps is not known beforehand (`all`, `every`, `fps`): the step axis is cut into blocks.
VECTOR_CHUNK_STEPS, MAP_CHUNK_STEPS, CHUNKS_PER_SHARD = 128, 32, 8

THUMBNAIL_SHAPE = (72, 96, 3)

FRAME_BOX = ("top_px", "left_px", "height_px", "width_px")
"""Where the network's input of view 0 holds the frame rather than padding: the columns of clips/frame_box."""


@dataclass(frozen=True, kw_only=True)
class ClipArray:
    """One array that says something of each clip.

    Attributes:
        dtype: as Zarr calls it, or `str`.
        fill: what an absent value means.
        about: what it says; the unit is in its name.
        axis: name of the axis after `clip`: none, `box` or `step`.
        essential: whether a store without it is refused.
    """

    dtype: str
    fill: Any
    about: str
    axis: str = ""
    essential: bool = False


LEDGER: Mapping[str, ClipArray] = {
    "status": ClipArray(dtype="uint8", fill=MISSING, essential=True, about="0 missing, 1 done, 2 failed"),
    "reason": ClipArray(dtype="str", fill="", about="why a clip failed"),
    "attempts": ClipArray(dtype="uint8", fill=0, about="how often it was extracted, 255 at most"),
    "num_steps": ClipArray(dtype="int64", fill=0, essential=True, about="valid steps; zeros follow"),
    "num_views": ClipArray(dtype="int64", fill=0, essential=True, about="stored views"),
    "in_manifest": ClipArray(dtype="uint8", fill=0, essential=True, about="0 for a clip that left the manifest"),
    "num_frames": ClipArray(dtype="int64", fill=0, about="frames of the clip's interval"),
    "duration_seconds": ClipArray(dtype="float64", fill=math.nan, about="of the clip's interval"),
    "width_px": ClipArray(dtype="int64", fill=0, about="of the video"),
    "height_px": ClipArray(dtype="int64", fill=0, about="of the video"),
    "rate_fps": ClipArray(dtype="float64", fill=math.nan, about="of the video, native"),
    "content_hash": ClipArray(dtype="str", fill="", about="sha256 of the video file"),
    "decode_seconds": ClipArray(dtype="float64", fill=math.nan, about="what decoding cost"),
    "frame_box": ClipArray(dtype="int64", fill=0, axis="box", about=", ".join(FRAME_BOX)),
    "step_seconds": ClipArray(dtype="float64", fill=math.nan, axis="step", about="from the video's first frame"),
    "frame_index": ClipArray(dtype="int64", fill=-1, axis="step", about="frame of the video, in emission order"),
}
"""The arrays under clips/. A new one is a row here and nothing else; whoever finds its value out puts it in the ledger
of an Outcome."""

COLUMNS: Mapping[str, ClipArray] = {
    "clip_id": ClipArray(dtype="str", fill="", essential=True, about="unique key"),
    "video": ClipArray(dtype="str", fill="", about="path as the manifest has it"),
    "split": ClipArray(dtype="str", fill="", essential=True, about="train, val, test, unknown ..."),
    "label": ClipArray(dtype="str", fill="", about="class"),
    "group": ClipArray(dtype="str", fill="", about="subject or source recording"),
    "start_seconds": ClipArray(dtype="float64", fill=math.nan, about="NaN: the video's start"),
    "end_seconds": ClipArray(dtype="float64", fill=math.nan, about="NaN: the video's end"),
}
"""The columns under manifest/ that every store has; targets (NaN where absent) and further text are beside them."""

ESSENTIAL_ATTRIBUTES = ("format_version", "spec", "geometry", "columns", "num_clips")
OTHER_ATTRIBUTES: Mapping[str, Any] = {"manifest_digest": "", "provenance": {}, "spec_digest": "", "target_names": []}
"""Root attributes that may be absent, and what they mean then."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a store is cut.

    Attributes:
        unit_clips: K, rows of one unit.
        fixed_steps: steps of every clip, or None where clips differ.
        shard_steps: steps of one shard; the step axis may grow past it.
    """

    unit_clips: int
    fixed_steps: int | None
    shard_steps: int

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Geometry:
        """The geometry in root attributes; fields of a later version are ignored. Raises StoreError if one lacks."""
        if missing := [f.name for f in fields(cls) if f.name not in data]:
            raise StoreError(f"the store's geometry has no {missing[0]}: it is damaged")
        return cls(**{f.name: data[f.name] for f in fields(cls)})

    def unit_of(self, row: int) -> int:
        """Unit that holds `row`."""
        return row // self.unit_clips

    def rows_of(self, unit: int, num_clips: int) -> range:
        """Rows of `unit` in a store of `num_clips` rows."""
        return range(unit * self.unit_clips, min((unit + 1) * self.unit_clips, num_clips))


def plan_geometry(spec: FeatureSpec, fixed_steps: int | None, num_clips: int) -> Geometry:
    """Cuts a store so that one shard of its largest tap is some tens of MB."""
    step_bytes = max(math.prod(tap.shape) * np.dtype(tap.dtype).itemsize for tap in spec.taps)
    if fixed_steps is not None:
        shard_steps = fixed_steps
    else:
        shard_steps = max(chunk_steps(tap, None) for tap in spec.taps) * CHUNKS_PER_SHARD
    clip_bytes = step_bytes * shard_steps * len(spec.views)
    unit = max(1, min(MAX_UNIT_CLIPS, SHARD_TARGET_BYTES // clip_bytes))
    return Geometry(unit_clips=unit, fixed_steps=fixed_steps, shard_steps=shard_steps)


def chunk_steps(tap: TapSpec, fixed_steps: int | None) -> int:
    """Steps of one chunk: all of them where they are fixed and small, else a block."""
    step_bytes = math.prod(tap.shape) * np.dtype(tap.dtype).itemsize
    if fixed_steps is not None and fixed_steps * step_bytes <= CHUNK_LIMIT_BYTES:
        return fixed_steps
    if fixed_steps is not None:
        fits = max(1, CHUNK_LIMIT_BYTES // step_bytes)
        return max(n for n in range(1, fits + 1) if fixed_steps % n == 0)
    return VECTOR_CHUNK_STEPS if tap.is_vector else MAP_CHUNK_STEPS


def tap_dimensions(tap: TapSpec) -> tuple[str, ...]:
    """Names of the axes of `features/<tap>` (xarray refuses one name with two sizes, so they carry the tap)."""
    return ("clip", "view", "step", *(f"{tap.name}_{axis}" for axis in tap.axes))


def column_array(name: str) -> str:
    """Array under manifest/ that holds the column `name`; a name can never leave the folder."""
    safe = quote(name, safe=" ")
    return safe + "_" if safe in {"clip", "view", "step"} else safe.replace(".", "%2E")


@dataclass(frozen=True, kw_only=True)
class Definition:
    """How one array over clips is made.

    Attributes:
        tail: sizes of the axes after `clip`.
        chunks: sizes of one chunk.
        dimensions: names of all axes.
        essential: whether nothing can stand for it.
        shards: sizes of one file that holds many chunks; None where a chunk is a file.
        codec: of sharded arrays, `none` or `zstd-1`.
    """

    dtype: str
    fill: Any
    tail: tuple[int, ...]
    chunks: tuple[int, ...]
    dimensions: tuple[str, ...]
    essential: bool
    shards: tuple[int, ...] | None = None
    codec: str = "none"


def definitions(spec: FeatureSpec, geometry: Geometry) -> dict[str, Definition]:
    """{path: definition} of every array over clips except those under manifest/."""
    unit, steps, views = geometry.unit_clips, geometry.shard_steps, len(spec.views)
    first_steps = geometry.fixed_steps or steps
    found: dict[str, Definition] = {}

    def plain(tail: tuple[int, ...], dtype: str, fill: Any, dimensions: tuple[str, ...], essential: bool) -> Definition:
        return Definition(
            dtype=dtype, fill=fill, tail=tail, chunks=(unit, *tail), dimensions=dimensions, essential=essential
        )  # fmt: skip

    for tap in spec.taps:
        found[f"features/{tap.name}"] = Definition(
            dtype=tap.dtype, fill=0, tail=(views, first_steps, *tap.shape),
            chunks=(1, 1, chunk_steps(tap, geometry.fixed_steps), *tap.shape), dimensions=tap_dimensions(tap),
            essential=True, shards=(unit, views, steps, *tap.shape), codec=tap.codec,
        )  # fmt: skip
        found[f"checksums/{tap.name}"] = plain((views,), "uint32", 0, ("clip", "view"), True)
        if tap.is_vector:
            for kind in ("mean", "std"):
                names = ("clip", "view", f"{tap.name}_{tap.axes[0]}")
                found[f"{kind}/{tap.name}"] = plain((views, *tap.shape), "float32", math.nan, names, True)
    sizes = {"": (), "box": (len(FRAME_BOX),), "step": (first_steps,)}
    for name, row in LEDGER.items():
        axes = ("clip", row.axis) if row.axis else ("clip",)
        found[f"clips/{name}"] = plain(sizes[row.axis], row.dtype, row.fill, axes, row.essential)
    found["thumbnails/rgb"] = Definition(
        dtype="uint8", fill=0, tail=THUMBNAIL_SHAPE, chunks=(1, *THUMBNAIL_SHAPE),
        dimensions=("clip", "thumbnail_y", "thumbnail_x", "rgb"), essential=False, shards=(unit, *THUMBNAIL_SHAPE),
        codec="zstd-1",
    )  # fmt: skip
    return found


def create_array(group: Any, name: str, definition: Definition) -> None:
    """Makes one array, of zero clips."""
    from zarr.codecs import ZstdCodec

    options: dict[str, Any] = {}
    if definition.shards is not None:
        compressor = ZstdCodec(level=1) if definition.codec == "zstd-1" else None
        options = {"shards": definition.shards, "compressors": compressor, "filters": None}
    group.create_array(
        name, shape=(0, *definition.tail), chunks=definition.chunks,
        dtype=str if definition.dtype == "str" else definition.dtype,
        fill_value=definition.fill, dimension_names=definition.dimensions, **options,
    )  # fmt: skip


def create(
    path: Path,
    spec: FeatureSpec,
    geometry: Geometry,
    provenance: Mapping[str, Any],
) -> None:
    """Makes an empty store of zero clips. Raises StoreError if something is already there."""
    import zarr

    from reelbank.store.durable import DurableStore

    if path.exists() and any(path.iterdir()):
        raise StoreError(f"{path} is already there and is not a reelbank store; choose another --out")
    make_folder(path)
    group = zarr.create_group(DurableStore(path), overwrite=False)
    for name, definition in definitions(spec, geometry).items():
        create_array(group, name, definition)
    group.create_group("manifest")
    for folder in ("commits", "staging"):
        # zarr-python warns about folders it does not know; an empty scalar array makes them known.
        group.create_array(folder, shape=(), dtype="uint8", attributes={"about": "plain files of the writer"})
    write_root(
        path,
        {
            "format_version": FORMAT_VERSION,
            "spec": spec.to_json(),
            "spec_digest": spec.digest,
            "geometry": vars(geometry),
            "provenance": dict(provenance),
            "columns": {},
            "target_names": [],
            "manifest_digest": "",
            "num_clips": 0,
        },
    )


def write_root(path: Path, attributes: Mapping[str, Any]) -> None:
    """Replaces the root attributes; readers take the number of clips from here, so it is written last."""
    write_json(path / "zarr.json", {"attributes": dict(attributes), "node_type": "group", "zarr_format": 3})


def read_root(path: Path) -> dict[str, Any]:
    """The root attributes. Raises StoreError if `path` is not a store of this format."""
    if not path.exists():
        raise StoreError(f"no store at {path}; featurize makes one")
    if not (path / "zarr.json").is_file():
        raise StoreError(f"{path} holds no zarr.json: it is not a store")
    attributes = read_json(path / "zarr.json").get("attributes", {})
    if not isinstance(attributes, dict):
        raise StoreError(f"{path / 'zarr.json'} has attributes that are no object: the store is damaged")
    version = attributes.get("format_version")
    if version is None or "spec" not in attributes:
        raise StoreError(f"{path} is a Zarr group, but not one that reelbank wrote")
    if version is True or version != FORMAT_VERSION:
        raise StoreError(f"{path} has format version {version}; this reelbank reads version {FORMAT_VERSION}")
    if missing := [name for name in ESSENTIAL_ATTRIBUTES if name not in attributes]:
        raise StoreError(f"{path / 'zarr.json'} has no attribute {missing[0]!r}: the store is damaged")
    root = {**OTHER_ATTRIBUTES, **attributes}
    with reading(path / "zarr.json"):
        check_root(path, root)
    return root


def not_there(path: Path) -> StoreError:
    """What is said of an essential array that is absent."""
    return StoreError(f"{path} is not there and nothing can stand for it: the store is damaged")


def canonical(data: Any) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))
