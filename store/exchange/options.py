"""What an export and an import are asked for. The commands' options are made from these fields; no numpy here."""

from __future__ import annotations

from dataclasses import dataclass

from reelbank.store.accepted import Many, MaybePath
from reelbank.store.errors import StoreError
from reelbank.store.options import check_options, option

FORMATS = ("hdf5", "npy", "parquet", "safetensors")
NAMINGS = ("clip_id", "howto100m", "video_features")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """How a store is written out. Every field is a flag of `reelbank store export`."""

    format: str = option("hdf5", "--format", "file format", choices=FORMATS, group="What is written")
    tap: Many[str] = option(
        (), "--tap", "tap(s) to write; default: all (howto100m, parquet: the store's first)", multiple=True
    )
    layout: str = option(
        "groups", "--layout", "hdf5: a group per clip, or one array with offsets", choices=("array", "groups")
    )
    naming: str = option(
        "clip_id",
        "--naming",
        "npy: files by clip id, or by the video's file stem as HowTo100M (<stem>.npy) and video_features "
        "(<stem>_<feature>.npy, _fps.npy, _timestamps_ms.npy) have them",
        choices=NAMINGS,
    )
    view: int = option(0, "--view", "stored view to write; 0 is the evaluation view", least=0, most=10_000)
    dtype: str = option(
        "stored",
        "--dtype",
        "stored: the bytes as they are; int8: a scale and offset per channel, its loss is measured and printed",
        choices=("int8", "stored"),
    )
    probe: MaybePath = option(
        None, "--probe", "parquet: folder of a probe of this store, whose map gives the columns x and y"
    )
    overwrite: bool = option(False, "--overwrite", "replace an export of reelbank that is there")

    def __post_init__(self) -> None:
        check_options(self, StoreError)
        if self.layout != "groups" and self.format != "hdf5":
            raise StoreError(f"--layout {self.layout} is for --format hdf5, not {self.format}")
        if self.naming != "clip_id" and self.format != "npy":
            raise StoreError(f"--naming {self.naming} is for --format npy, not {self.format}")
        if self.probe is not None and self.format != "parquet":
            raise StoreError(f"--probe is for --format parquet, not {self.format}")
        if self.dtype != "stored" and self.format == "parquet":
            raise StoreError(f"--dtype {self.dtype} is for arrays of steps; a table of --format parquet has means")


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """How arrays become a store. Every field is a flag of `reelbank store import`."""

    manifest: MaybePath = option(
        None,
        "--manifest",
        "clips and labels, joined by clip id or by the video's file stem; default: an export's own, else a clip per "
        "array without label",
        group="Clips and labels",
    )
    tap: Many[str] = option(
        (),
        "--tap",
        "which arrays of a clip; where a clip has one array, the tap's name [default: all of an export, else "
        "'features']",
        multiple=True,
        group="Arrays",
    )
    array_of: str | None = option(
        None,
        "--array-of",
        "video: a clip takes those steps of an array whose times lie in its interval; clip: it takes the whole array "
        "[default: video where arrays are called by the video's file stem, clip where by clip id, which is said]",
        choices=("clip", "video"),
    )
    axes: str | None = option(
        None,
        "--axes",
        "whether arrays are (T, D) or (D, T); default: told by what all of them agree on, which is said",
        choices=("DT", "TD"),
    )
    dtype: str | None = option(
        None,
        "--dtype",
        "stored dtype of float arrays; default: that of an export, else float16",
        choices=("float16", "float32"),
    )
    backbone: str | None = option(
        None,
        "--backbone",
        "what made the features, e.g. clip:ViT-B/32; default: as an export says, else 'imported'",
        group="The store",
    )
    max_gb: float | None = option(
        None,
        "--max-gb",
        "most that the store may take; default: 20 times the source, or 1 GB if that is more: a small file can "
        "announce any amount",
        above=0,
    )
    target_columns: Many[str] = option(
        (),
        "--target-columns",
        "numeric target columns of --manifest; default: kcal, else target*",
        multiple=True,
        group="Clips and labels",
    )
    allow_group_overlap: bool = option(
        False, "--allow-group-overlap", "accept a group on both sides of a split; printed in every report"
    )
    overwrite: bool = option(False, "--overwrite", "replace the store that is there", group="The store")

    def __post_init__(self) -> None:
        check_options(self, StoreError)
