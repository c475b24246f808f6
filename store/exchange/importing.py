"""Features that another program computed, or that an export holds, as a store. No video is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.manifests.events import Event, Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store.building import new_store
from reelbank.store.description import readable
from reelbank.store.errors import StoreError
from reelbank.store.exchange.import_arrays import ArraySource, Times, announced_bytes, refuse_size
from reelbank.store.exchange.joining import MAX_NAMED, Share, shares
from reelbank.store.exchange.options import ImportConfig
from reelbank.store.exchange.orienting import oriented
from reelbank.store.exchange.table import clip_of, ledger_values, manifest_of, unknown_columns
from reelbank.store.files import reading, regular
from reelbank.store.layout import FAILED, MISSING
from reelbank.store.spec import FeatureSpec, TapSpec
from reelbank.store.staging import ClipStage, Outcome, stage_failure
from reelbank.store.writer import StoreWriter, clip_identity

if TYPE_CHECKING:
    from reelbank.manifests import Clip, Manifest

AXES = {0: (), 1: ("channel",), 2: ("channel", "x"), 3: ("channel", "y", "x"), 4: ("channel", "z", "y", "x")}


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """What came of an import.

    Attributes:
        failures: {reason: clips} of clips without features; each has its row in the ledger.
        num_unused: arrays that belong to no clip of the manifest; `unused` names a few.
        notes: what a later version exported that is left out; what was guessed of arrays of other programs.
    """

    path: str
    form: str
    num_clips: int
    num_done: int
    taps: dict[str, tuple[tuple[int, ...], str]]
    failures: dict[str, int]
    num_unused: int
    unused: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def has_failures(self) -> bool:
        """Whether a clip has no features."""
        return bool(self.failures)

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON types."""
        return dict(vars(self))

    def text(self) -> str:
        """The facts, a line each."""
        taps = ", ".join(f"{name} {'x'.join(map(str, shape))} {dtype}" for name, (shape, dtype) in self.taps.items())
        lines = [f"{self.path}: {self.num_done} of {self.num_clips} clips from {self.form}; {taps}"]
        lines += [f"  without features: {count} x {reason}" for reason, count in self.failures.items()]
        if self.num_unused:
            names = ", ".join(map(repr, self.unused))
            lines.append(f"  {self.num_unused} arrays belong to no clip of the manifest (first: {names})")
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


@with_bar("import")
def import_store(
    src: Path | str, out: Path | str, config: ImportConfig, progress: Progress | None = None
) -> ImportResult:
    """Makes the store `out` from the arrays of `src`.

    Every clip of the manifest has a row; one without a usable array is failed with the reason.

    Args:
        src: see `open_source`.
        out: the new store.
        config: manifest, taps, dtype.
        progress: called with an Event: clips done of clips.

    Raises:
        StoreError: `src` cannot be read or fits no clip of the manifest, or something is at `out`.
        ManifestError: the manifest cannot be read.
    """
    src, out = Path(src), Path(out)
    with reading(src):
        source = open_source(src, config.tap)
    manifest = _manifest(source, config)
    with reading(src):
        source, turned = oriented(source, config.axes)
        taken, cut = shares(source, manifest, config.array_of)
        shapes = _shapes(source, taken)
        spec = _spec(source, config, shapes)
    steps = {shape[0] for _, tap, shape, _ in shapes if tap in {own.name for own in spec.taps}}
    fixed = next(iter(steps)) if len(steps) == 1 and (not source.header or source.header["fixed_steps"]) else None
    num_bytes = announced_bytes(spec, shapes)
    refuse_size(source, out, num_bytes, config.max_gb)
    provenance = {
        "kind": "imported",
        "command": f"reelbank store import {src.name}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": src.name,
        "form": source.form,
        "sha256": source.sha256(),
        "num_files": len(source.files),
        "of": dict(source.header["provenance"]) if source.header else None,
    }
    failures: Counter[str] = Counter()
    tell = progress or (lambda event: None)
    tell(Event(stage="import", done=0, total=len(manifest), message=f"{readable(num_bytes)} to write"))
    with new_store(out, overwrite=config.overwrite) as part:
        writer = StoreWriter.open_or_create(
            part,
            spec,
            fixed_steps=fixed or None,
            num_clips=len(manifest),
            provenance=provenance,
            counts=[shape[0] for _, tap, shape, _ in shapes if tap == spec.taps[0].name],
        )
        rows = writer.sync_manifest(manifest).tolist()
        stager = _Stager(source=source, spec=spec, store=part)
        outcomes: list[Outcome] = []
        for done, (row, clip, share) in enumerate(zip(rows, manifest.clips, taken, strict=True), start=1):
            outcome = stager.stage(row, clip, share)
            if outcome is not None:
                outcomes.append(outcome)
                if outcome.status == FAILED:
                    failures[_kind(str(outcome.ledger["reason"]))] += 1
            else:
                failures["not extracted yet"] += 1
            last = done == len(rows)
            if outcomes and (last or writer.geometry.unit_of(rows[done]) != writer.geometry.unit_of(row)):
                writer.commit(writer.geometry.unit_of(row), outcomes, {"device": "none", "imported": src.name})
                outcomes = []
            tell(Event(stage="import", done=done, total=len(rows)))
    used = {share.name for share in taken}
    unused = sorted(set(source.arrays) - used)
    return ImportResult(
        path=str(out),
        form=source.form,
        num_clips=len(manifest),
        num_done=len(manifest) - failures.total(),
        taps={tap.name: (tap.shape, tap.dtype) for tap in spec.taps},
        failures=dict(failures),
        num_unused=len(unused),
        unused=tuple(unused[:MAX_NAMED]),
        notes=(*unknown_columns(source.columns), *source.notes, *turned, *cut),
    )


def _kind(reason: str) -> str:
    """A reason without the numbers of its clip, so that equal ones are counted together."""
    return reason.partition(":")[0]


@dataclass(frozen=True, kw_only=True)
class _Stager:
    """Stages clip after clip."""

    source: ArraySource
    spec: FeatureSpec
    store: Path

    def stage(self, row: int, clip: Clip, share: Share) -> Outcome | None:
        """The outcome of one clip; None for one that was never extracted."""
        ledger, status, reason = self._before(clip.clip_id)
        identity = clip_identity(clip, self.spec.digest, str(ledger.get("content_hash", "")))
        if (name := share.name) is None or share.reason:
            if name is None and status == MISSING:
                return None
            reason = share.reason or reason or f"no array in {self.source.path.name}"
            return stage_failure(self.store, row, identity, {**ledger, "reason": reason}, None)
        stage = ClipStage(self.store, row, self.spec.taps)
        try:
            with reading(self.source.path):
                count = self._append(stage, name, share)
                times = share.times(self.source.times(name))
                steps = _times(times, count)
        except StoreError as error:
            stage.discard()
            return stage_failure(self.store, row, identity, {**ledger, "reason": str(error)}, None)
        if times.rate_fps is not None:
            ledger["rate_fps"] = times.rate_fps
        return stage.finish(identity, ledger, *steps, None, None)

    def _before(self, clip_id: str) -> tuple[dict[str, Any], int, str]:
        """(ledger, status, reason) that an export has of a clip."""
        if clip_id not in self._positions:
            return {}, FAILED, ""
        i = self._positions[clip_id]
        table = self.source.columns
        with reading(self.source.path):
            reason = str(table["ledger/reason"][i]) if "ledger/reason" in table else ""
            return ledger_values(table, i), int(table["ledger/status"][i]), reason

    @cached_property
    def _positions(self) -> Mapping[str, int]:
        return {str(clip_id): i for i, clip_id in enumerate(self.source.columns.get("manifest/clip_id", ()))}

    def _append(self, stage: ClipStage, name: str, share: Share) -> int:
        counts = set()
        for tap in self.spec.taps:
            if tap.name not in self.source.arrays[name]:
                raise StoreError(f"no array for tap {tap.name!r} in {self.source.path.name}")
            shape, _ = self.source.shape(name, tap.name)
            if shape[1:] != tap.shape:
                raise StoreError(f"steps of another shape: tap {tap.name!r} is {shape[1:]}, expected {tap.shape}")
            first, last = share.taken(shape[0])
            counts.add(last - first)
            for block in self.source.blocks(name, tap.name, first, last):
                stage.append(tap, _cast(block, tap))
        if len(counts) > 1:
            raise StoreError(f"taps with different numbers of steps: {', '.join(map(str, sorted(counts)))}")
        return int(counts.pop())


def _cast(block: np.ndarray, tap: TapSpec) -> np.ndarray:
    if block.dtype.kind == "f" and (bad := int(block.size - np.isfinite(block).sum())):
        raise StoreError(f"NaN or Inf in the array: {bad} values of a block of tap {tap.name!r}")
    with np.errstate(over="ignore"):
        cast = block.astype(tap.dtype)
    if cast.dtype.kind == "f" and (bad := int(cast.size - np.isfinite(cast).sum())):
        raise StoreError(f"values beyond 65,504, where float16 ends; use --dtype float32: {bad} of tap {tap.name!r}")
    return cast


def _times(times: Times, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`step_seconds` and `frame_index` (T,); NaN and -1 where the source does not say, or says it of other steps."""
    seconds, frames = times.step_seconds, times.frame_index
    return (
        seconds if seconds is not None and len(seconds) == count else np.full(count, np.nan),
        frames if frames is not None and len(frames) == count else np.full(count, -1, dtype=np.int64),
    )


def _manifest(source: ArraySource, config: ImportConfig) -> Manifest:
    from reelbank.manifests import Clip, Manifest, read

    if config.manifest is not None:
        return read(
            config.manifest,
            target_columns=config.target_columns or None,
            allow_group_overlap=config.allow_group_overlap,
        )
    if source.header is not None:
        with reading(source.path):
            return manifest_of(source.columns, tuple(source.header["target_names"]))
    clips = tuple(Clip(clip_id=clip_of(name) or name, video="") for name in source.arrays)
    if len({clip.clip_id for clip in clips}) != len(clips):
        clips = tuple(Clip(clip_id=name, video="") for name in source.arrays)
    return Manifest(path=None, root=Path(), clips=clips)


def _shapes(source: ArraySource, taken: Sequence[Share]) -> list[tuple[str, str, tuple[int, ...], np.dtype[Any]]]:
    """(name, tap, (T, *axes), dtype) of what clips take and can be read. Raises StoreError if nothing can."""
    found, errors = [], []
    for share in taken:
        if share.name is None or share.reason:
            continue
        for tap in source.arrays[share.name]:
            try:
                (count, *axes), dtype = source.shape(share.name, tap)
            except StoreError as error:  # its clip will fail with this reason
                errors.append(error)
                continue
            first, last = share.taken(count)
            found.append((share.name, tap, (last - first, *axes), dtype))
    if errors and not found:
        raise errors[0]
    return found


def _spec(
    source: ArraySource, config: ImportConfig, shapes: list[tuple[str, str, tuple[int, ...], np.dtype[Any]]]
) -> FeatureSpec:
    """The spec of the store: never that of an extraction, so `featurize` cannot add to it unseen."""
    weights: dict[str, Any] = {"kind": "imported", "source": source.path.name}
    if source.header is not None:
        original = FeatureSpec.from_json(source.header["spec"])
        of = original.weights.get("of") if original.weights.get("kind") == "imported" else original.weights
        weights |= {"of": of} if of else {}
        weights |= {"int8": sorted(source.channels)} if source.channels else {}
        taps = [tap for tap in original.taps if tap.name in next(iter(source.arrays.values()), source.header["taps"])]
        if config.dtype:
            taps = [replace(tap, dtype=config.dtype) if tap.dtype.startswith("float") else tap for tap in taps]
        view = original.views[int(source.header["view"])]
        return replace(
            original, backbone=config.backbone or original.backbone, weights=weights, taps=tuple(taps), views=(view,)
        )
    found: dict[str, TapSpec] = {}
    for name, tap, shape, dtype in shapes:
        if tap not in found:
            found[tap] = _tap(tap, shape[1:], dtype, config, f"{source.path}: {name!r}")
    return FeatureSpec(
        backbone=config.backbone or "imported",
        weights=weights,
        taps=tuple(found[tap] for tap in sorted(found)),
        sampling="imported",
    )


def _tap(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], config: ImportConfig, where: str) -> TapSpec:
    if dtype.kind == "f":
        stored = config.dtype or "float16"
    elif dtype.name in ("bool", "uint8"):
        stored = dtype.name
    else:
        raise StoreError(f"{where} is {dtype}; a store holds float16, float32, uint8 and bool")
    if len(shape) not in AXES or not all(shape):
        raise StoreError(f"{where} has steps of shape {shape}; expected an array (T, D), or (T, C, H, W) for maps")
    return TapSpec(name=name, dtype=stored, axes=AXES[len(shape)], shape=shape)


def open_source(path: Path, taps: Sequence[str]) -> ArraySource:
    """Looks what `path` is and finds its arrays.

    Args:
        path: a folder of .npy, .npz or .pt files, or one HDF5, safetensors, .npz or .pt file; an export of reelbank or
            what another program wrote.
        taps: which arrays per clip; empty: all of an export, else the only one there is.

    Raises:
        StoreError: nothing there, a format that is not known, arrays that no rule here fits.
    """
    if not path.exists():
        raise StoreError(f"nothing at {path} to import")
    if path.is_dir():
        from reelbank.store.exchange.npy_import import open_folder

        return open_folder(path, taps)
    with regular(path).open("rb") as file:
        head = file.read(16)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        from reelbank.store.exchange.hdf5_import import open_hdf5

        return open_hdf5(path, taps)
    if head.startswith(b"PAR1"):
        raise StoreError(
            f"{path} is a Parquet table: it has a vector per clip and no steps, which a store needs; export as hdf5"
        )
    if path.suffix in (".npz", ".pt", ".pth"):
        from reelbank.store.exchange.npy_import import open_one_archive

        return open_one_archive(path, taps)
    if len(head) > 8 and head[8:9] == b"{":
        from reelbank.store.exchange.safetensors_import import open_safetensors

        return open_safetensors(path, taps)
    raise StoreError(
        f"{path} is no HDF5 file, no safetensors file and no folder of .npy, .npz or .pt files, nor one .npz or .pt; "
        "a single .npy file is imported as its folder"
    )
