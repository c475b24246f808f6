"""A store as HDF5, .npy files, safetensors or Parquet, for programs that read those. One clip's block is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reelbank.manifests.events import Event, Progress
from reelbank.manifests.files import as_one_file
from reelbank.manifests.notebooks import with_bar
from reelbank.store.agreement import Agreement
from reelbank.store.errors import StoreError
from reelbank.store.exchange.options import ExportConfig
from reelbank.store.exchange.quantizing import Channels, fit_channels
from reelbank.store.exchange.selection import HEADER_FILE, FileNames, Selection
from reelbank.store.exchange.table import RESERVED_TAPS, file_name, listed_rows, unknown_notes
from reelbank.store.files import appearing, give_back, remove_leftovers
from reelbank.store.layout import DONE
from reelbank.store.reader import Store
from reelbank.store.spec import TapSpec

if TYPE_CHECKING:
    from reelbank.store.exchange.parquet_export import Mapped

# What video_features calls the file of a model's features: <video stem>_<feature>.npy.
FEATURE_NAMES = {"resnet18": "resnet", "resnet34": "resnet", "resnet50": "resnet"}


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was written.

    Attributes:
        num_clips: clips with features; `num_listed` counts those that failed too.
        left_out: {reason: clips} that are not in the export at all.
        losses: {tap: {cosine_min, cosine_median, max_abs, num_steps}} of int8.
        notes: which arrays of a later version are left out.
    """

    path: str
    num_clips: int
    num_listed: int
    num_bytes: int
    left_out: dict[str, int]
    losses: dict[str, dict[str, float]]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON types."""
        return dict(vars(self))

    def text(self) -> str:
        """The facts, a line each."""
        lines = [f"{self.path}: {self.num_clips} clips, {self.num_bytes / 1e6:.1f} MB"]
        if without := self.num_listed - self.num_clips:
            lines.append(f"  without features: {without}, listed with their reason")
        lines += [f"  left out: {count} x {reason}" for reason, count in self.left_out.items()]
        lines += [f"  {note}" for note in self.notes]
        for tap, loss in self.losses.items():
            lines.append(
                f"  int8 of tap {tap}: cosine with what is stored {loss['cosine_min']:.6f} at least, "
                f"{loss['cosine_median']:.6f} in the median, greatest difference {loss['max_abs']:.3g}"
            )
        return "\n".join(lines)


@with_bar("export")
def export(store: Path | str, out: Path | str, config: ExportConfig, progress: Progress | None = None) -> ExportResult:
    """Writes the store at `store` to `out`, which appears whole or not at all.

    Args:
        store: the store.
        out: a file, or for npy a folder.
        config: format, taps, naming.
        progress: called with an Event: clips written of clips to write.

    Raises:
        StoreError: something is at `out`, an unknown tap or view, clips whose files would have one name.
    """
    opened, out = Store(store), Path(out)
    folder = config.format == "npy"
    give_back(out)
    _refuse_replacing(out, opened.path, folder=folder, overwrite=config.overwrite)
    taps = _taps(opened, config)
    rows, left_out = listed_rows(opened, config.view)
    done = int((opened.clips.status[rows] == DONE).sum())
    probe = None
    if config.format == "parquet":
        from reelbank.store.exchange.parquet_export import read_probe, unmapped, usable_rows

        probe = None if config.probe is None else read_probe(config.probe, opened)
        rows, without = usable_rows(opened, rows)
        left_out, done = left_out | without, len(rows)
    passes = 2 if config.dtype == "int8" else 1

    def tell(count: int, before: int = 0) -> None:
        if progress is not None:
            progress(Event(stage="export", done=before + count, total=passes * done))

    channels = _channels(opened, taps, rows, config.view, tell) if config.dtype == "int8" else {}
    selection = Selection(
        store=opened,
        taps=taps,
        view=config.view,
        rows=rows,
        channels=channels,
        losses={name: Agreement() for name in channels},
        tell=lambda count: tell(count, (passes - 1) * done),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out.parent, out.name)
    with appearing(out) as partial:
        _write(selection, partial, config, probe)
        if out.is_symlink():
            out.unlink()
    return ExportResult(
        path=str(out),
        num_clips=done,
        num_listed=len(rows),
        num_bytes=sum(p.stat().st_size for p in (out.rglob("*") if folder else [out]) if p.is_file()),
        left_out=left_out,
        losses={name: loss.to_json() for name, loss in selection.losses.items()},
        notes=(*unknown_notes(opened), *(unmapped(opened, rows, probe) if probe else ())),
    )


def _write(selection: Selection, part: Path, config: ExportConfig, probe: Mapped | None) -> None:
    if config.format == "npy":
        from reelbank.store.exchange.npy_export import write_npy

        write_npy(selection, part, _file_names(selection, config))
    elif config.format == "hdf5":
        from reelbank.store.exchange import hdf5_export

        write = hdf5_export.write_array if config.layout == "array" else hdf5_export.write_groups
        write(selection, part)
    elif config.format == "parquet":
        from reelbank.store.exchange.parquet_export import write_parquet

        write_parquet(selection, part, probe)
    else:
        from reelbank.store.exchange.safetensors_export import write_safetensors

        write_safetensors(selection, part)


def _taps(store: Store, config: ExportConfig) -> tuple[TapSpec, ...]:
    names = config.tap or (
        (store.default_tap,)
        if config.naming == "howto100m" or config.format == "parquet"
        else tuple(tap.name for tap in store.spec.taps)
    )
    taps = tuple(store.spec.tap(name) for name in dict.fromkeys(names))
    if config.naming == "howto100m" and len(taps) > 1:
        raise StoreError("--naming howto100m has one file per clip and so one tap; give one --tap")
    if config.format == "parquet" and len(taps) > 1:
        raise StoreError("--format parquet has one vector per clip and so one tap; give one --tap")
    if reserved := [tap.name for tap in taps if tap.name in RESERVED_TAPS]:
        raise StoreError(f"tap {reserved[0]!r} has the name of an array that every export holds; leave it out by --tap")
    return taps


def _channels(
    store: Store, taps: tuple[TapSpec, ...], rows: NDArray[np.int64], view: int, tell: Callable[[int], None]
) -> dict[str, Channels]:
    done = rows[store.clips.status[rows] == DONE].tolist()

    def blocks(tap: TapSpec, *, counted: bool) -> Iterator[NDArray[Any]]:
        for count, row in enumerate(done, start=1):
            yield from store.blocks(tap.name, row, view)
            if counted:
                tell(count)

    return {tap.name: fit_channels(tap, blocks(tap, counted=tap is taps[-1])) for tap in taps}


def _file_names(selection: Selection, config: ExportConfig) -> FileNames:
    """Raises StoreError where two files would have one name."""
    companions: dict[str, dict[int, str]] = {}
    several = len(selection.taps) > 1
    if config.naming == "clip_id":
        stems = {i: file_name(selection.clip_ids[i]) for i in selection.done}
        taps = {tap.name: {i: f"{tap.name}/{s}" if several else s for i, s in stems.items()} for tap in selection.taps}
    else:
        videos = selection.columns["manifest/video"]
        stems = {i: Path(str(videos[i])).stem or file_name(selection.clip_ids[i]) for i in selection.done}
        if config.naming == "howto100m":
            taps = {tap.name: stems for tap in selection.taps}
        else:
            family = selection.store.spec.backbone.partition(":")[0]
            feature = FEATURE_NAMES.get(family, file_name(family))
            taps = {
                tap.name: {i: f"{s}_{tap.name if several else feature}" for i, s in stems.items()}
                for tap in selection.taps
            }
            companions = {name: {i: f"{s}_{name}" for i, s in stems.items()} for name in ("fps", "timestamps_ms")}
    taken: dict[str, int] = {}
    for names in (*taps.values(), *companions.values()):
        for i, name in names.items():
            if (other := taken.setdefault(as_one_file(name), i)) != i:
                by_id = config.naming == "clip_id"
                advice = "use --format hdf5" if by_id else "use --naming clip_id"
                where = " on macOS and Windows, which ignore case" if by_id or names[other] != name else ""
                raise StoreError(
                    f"clips {selection.clip_ids[other]!r} and {selection.clip_ids[i]!r} would both be {name}.npy "
                    f"with --naming {config.naming}{where}; {advice}"
                )
    return FileNames(taps=taps, companions=companions)


def _refuse_replacing(out: Path, store: Path, *, folder: bool, overwrite: bool) -> None:
    if not (out.exists() or out.is_symlink()):
        return
    if not overwrite:
        raise StoreError(f"{out} is already there; choose another place or pass --overwrite")
    if out.resolve() == store.resolve() or store.resolve().is_relative_to(out.resolve()):
        raise StoreError(f"{out} is or holds the store that is exported; choose another place")
    if out.is_dir() != folder:
        wanted, found = ("a folder", "a file") if folder else ("a file", "a folder")
        raise StoreError(f"{out} is {found} and the export is {wanted}; choose another place")
    if folder and not (out / HEADER_FILE).is_file() and any(out.iterdir()):
        raise StoreError(f"{out} is no export of reelbank (it holds no {HEADER_FILE}); choose another place")
