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
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reelbank.store.errors import DAMAGED, StoreError
from reelbank.store.files import make_folder, reading
from reelbank.store.geometry import (
    CHUNKS_PER_SHARD,
    UNKNOWN_COUNTS,
    chunk_steps,
    least_padded,
    stored_steps,
)
from reelbank.store.geometry import Geometry as Geometry
from reelbank.store.sizes import check_root
from reelbank.store.spec import FeatureSpec, TapSpec
from reelbank.store.sums import read_summed, write_summed

FORMAT_VERSION = 1
MISSING, DONE, FAILED = 0, 1, 2

SHARD_TARGET_BYTES = 32 << 20
MAX_UNIT_CLIPS = 512

THUMBNAIL_SHAPE = (72, 96, 3)

FRAME_BOX = ("top_px", "left_px", "height_px", "width_px")
"""Where the network's input of view 0 holds the frame, not padding, in every step: columns of clips/frame_box."""


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
    "rate_fps": ClipArray(
        dtype="float64", fill=math.nan, about="of the video: the mean between its first and last frame"
    ),
    "content_hash": ClipArray(dtype="str", fill="", about="sha256 of the video file"),
    "decode_seconds": ClipArray(dtype="float64", fill=math.nan, about="what decoding cost"),
    "decode_errors": ClipArray(dtype="int64", fill=-1, about="errors that FFmpeg reported on the way, -1 not known"),
    "end_known": ClipArray(
        dtype="uint8", fill=0, about="1 if the file itself shows that its end is there, 0 not known"
    ),
    "time_source": ClipArray(
        dtype="str", fill="", about="of its times: container, repaired, counted (by a constant rate)"
    ),
    "first_frame_seconds": ClipArray(
        dtype="float64", fill=math.nan, about="when the video's first frame is shown, from the file's start"
    ),
    "repeated_steps": ClipArray(
        dtype="int64", fill=-1, about="steps that read the frames of the one before, as none comes after; -1 not known"
    ),
    "pixel_aspect": ClipArray(
        dtype="float64", fill=math.nan, about="width by height of a pixel of the video as shown, NaN not known"
    ),
    "transfer": ClipArray(dtype="str", fill="", about="of the video's light: sdr, or pq or hlg of HDR"),
    "num_frame_sizes": ClipArray(dtype="int64", fill=0, about="different sizes of the frames read, 0 not known"),
    "frame_box": ClipArray(dtype="int64", fill=0, axis="box", about=", ".join(FRAME_BOX)),
    "step_seconds": ClipArray(
        dtype="float64", fill=math.nan, axis="step", about="from the file's start (spec's time_origin), as intervals"
    ),
    "frame_index": ClipArray(dtype="int64", fill=-1, axis="step", about="frame of the video, in emission order"),
    "step_damaged": ClipArray(
        dtype="uint8", fill=0, axis="step", about="1 if it reads a damaged frame (--damaged keep)"
    ),
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
OTHER_ATTRIBUTES: Mapping[str, Any] = {
    "manifest_digest": "", "provenance": {}, "spec_digest": "", "summed": False, "target_names": [],
}  # fmt: skip
"""Root attributes that may be absent, and what they mean then; `summed`: every file is under a checksum."""


def plan_geometry(spec: FeatureSpec, fixed_steps: int | None, num_clips: int, counts: Sequence[int] = ()) -> Geometry:
    """Cuts a store so that one shard of its largest tap is some tens of MB, and little of its chunks is padding.

    Args:
        spec: of the store.
        fixed_steps: steps of every clip, or None where clips differ.
        num_clips: of the manifest.
        counts: steps of clips, as far as they are known before; they need not be exact.
    """
    step_bytes = max(tap.step_bytes for tap in spec.taps)
    chunks = None
    if fixed_steps is not None:
        shard_steps = fixed_steps
    else:
        shard_steps = max(chunk_steps(tap, None) for tap in spec.taps) * CHUNKS_PER_SHARD
        if counts and max(counts) < shard_steps:
            longest = max(1, *counts)
            shard_steps = longest if longest <= 16 else -(-longest // 4) * 4  # a prime has no divisors to cut it by
        chunks = {tap.name: least_padded(tap, shard_steps, counts or UNKNOWN_COUNTS) for tap in spec.taps}
    clip_bytes = step_bytes * shard_steps * len(spec.views)
    unit = max(1, min(MAX_UNIT_CLIPS, SHARD_TARGET_BYTES // clip_bytes))
    return Geometry(unit_clips=unit, fixed_steps=fixed_steps, shard_steps=shard_steps, chunk_steps=chunks)


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
            chunks=(1, 1, stored_steps(geometry, tap, 1), *tap.shape), dimensions=tap_dimensions(tap),
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


def array_document(
    definition: Definition, num_clips: int = 0, attributes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The zarr.json of an array of `num_clips` clips, as zarr-python writes it."""
    document: dict[str, Any] = json.loads(_document_text(definition))
    shape = [num_clips, *definition.tail] if definition.dimensions else []
    return {**document, "shape": shape, "attributes": dict(attributes or {})}


@cache
def _document_text(definition: Definition) -> bytes:
    """What zarr-python writes of an array of no clips; making it takes some milliseconds."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec
    from zarr.core.buffer import default_buffer_prototype

    options: dict[str, Any] = {"compressors": (ZstdCodec(level=0, checksum=False), Crc32cCodec())}
    if definition.shards is not None:
        # Not Zarr's crc32c: a zstd frame has a checksum of its own, which readers of before it compare, too.
        compressor = ZstdCodec(level=1, checksum=True) if definition.codec == "zstd-1" else None
        options = {"shards": definition.shards, "compressors": compressor, "filters": None}
    shape = (0, *definition.tail) if definition.dimensions else ()
    array = zarr.create_array(
        zarr.storage.MemoryStore(), shape=shape, chunks=definition.chunks,
        dtype=str if definition.dtype == "str" else definition.dtype,
        fill_value=definition.fill, dimension_names=definition.dimensions, **options,
    )  # fmt: skip
    written = array.metadata.to_buffer_dict(default_buffer_prototype())
    return bytes(written["zarr.json"].to_bytes())


def column_definition(unit_clips: int, *, numeric: bool) -> Definition:
    """How a manifest column is made: a number or a text per clip."""
    return Definition(
        dtype="float64" if numeric else "str", fill=math.nan if numeric else "", tail=(), chunks=(unit_clips,),
        dimensions=("clip",), essential=False,
    )  # fmt: skip


def create_array(path: Path, name: str, definition: Definition, num_clips: int = 0) -> None:
    """Makes the array `name` of the store at `path`, all fill."""
    write_summed(path / name / "zarr.json", array_document(definition, num_clips))


GROUP: Mapping[str, Any] = {"attributes": {}, "node_type": "group", "zarr_format": 3}
FOLDERS = ("features", "checksums", "mean", "std", "clips", "thumbnails", "manifest")
PLAIN_FOLDERS = ("commits", "staging")
"""Of plain files; an empty scalar array makes them known to Zarr, which warns about folders that it does not know."""


def folder_documents() -> dict[str, Any]:
    """{folder: its zarr.json} of what holds arrays or plain files."""
    scalar = Definition(dtype="uint8", fill=0, tail=(), chunks=(), dimensions=(), essential=False)
    document = array_document(scalar, attributes={"about": "plain files of the writer"})
    return {folder: dict(GROUP) for folder in FOLDERS} | dict.fromkeys(PLAIN_FOLDERS, document)


def create(
    path: Path,
    spec: FeatureSpec,
    geometry: Geometry,
    provenance: Mapping[str, Any],
) -> None:
    """Makes an empty store of zero clips. Raises StoreError if something is already there."""
    if path.exists() and any(path.iterdir()):
        raise StoreError(f"{path} is already there and is not a reelbank store; choose another --out")
    make_folder(path)
    write_summed(path / "zarr.json", dict(GROUP))
    for folder, document in folder_documents().items():
        write_summed(path / folder / "zarr.json", document)
    for name, definition in definitions(spec, geometry).items():
        create_array(path, name, definition)
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
            "summed": True,
        },
    )


ROOT_COPY = "commits/root.json"


def write_root(path: Path, attributes: Mapping[str, Any]) -> None:
    """Replaces the root attributes; readers take the number of clips from here, so it is written last.

    A copy goes first: without the root a store could not be read at all.
    """
    write_summed(path / ROOT_COPY, dict(attributes))
    write_summed(path / "zarr.json", {**GROUP, "attributes": dict(attributes)})


def read_root(path: Path) -> dict[str, Any]:
    """The root attributes. Raises StoreError if `path` is not a store of this format."""
    if not path.exists():
        if re.match(r"[a-z][a-z0-9+.-]*:/", str(path)):  # a Path makes one slash of two
            raise StoreError(f"{path} is a URL; stores are read from folders: copy it to one")
        beside = path.with_name(f"{path.name}.zarr")
        raise StoreError(
            f"no store at {path}; " + (f"did you mean {beside}?" if beside.exists() else "featurize makes one")
        )
    if not (path / "zarr.json").is_file():
        raise StoreError(f"{path} holds no zarr.json: it is not a store")
    attributes = read_summed(path / "zarr.json").get("attributes", {})
    version = attributes.get("format_version")
    if version is None or "spec" not in attributes:
        raise StoreError(f"{path} is a Zarr group, but not one that reelbank wrote")
    if version is True or version != FORMAT_VERSION:
        is_later = type(version) is int and version > FORMAT_VERSION
        way = (
            "install a later reelbank"
            if is_later
            else "carry it over by its own `store export` and this `store import`"
        )
        raise StoreError(
            f"{path} has format version {version}; this reelbank reads version {FORMAT_VERSION}: {way}, or let "
            "featurize make another store"
        )
    if missing := [name for name in ESSENTIAL_ATTRIBUTES if name not in attributes]:
        raise StoreError(f"{path / 'zarr.json'} has no attribute {missing[0]!r}: the store is damaged")
    root = {**OTHER_ATTRIBUTES, **attributes}
    with reading(path / "zarr.json"):
        check_root(path, root)
    return root


def not_there(path: Path) -> StoreError:
    """What is said of an essential array that is absent."""
    return StoreError(f"{path} is not there and nothing can stand for it: {DAMAGED}")


def canonical(data: Any) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))
