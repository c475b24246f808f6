"""What a run has to do: which clips, under which models, into which rows of which stores."""

from __future__ import annotations

import math
import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank import manifests
from reelbank.extract import backbones
from reelbank.extract.backbones import Backbone, BackboneInfo
from reelbank.extract.config import FeaturizeConfig
from reelbank.extract.inputs import views
from reelbank.extract.inputs.sampling import fixed_steps
from reelbank.extract.inputs.sources import COLUMNS, paths_of
from reelbank.extract.run.content import content_hash, stat_of
from reelbank.extract.run.messages import ClipJob, ModelJob
from reelbank.extract.run.sizing import expected_steps
from reelbank.extract.video.on_device import DECODER
from reelbank.manifests import Clip, Manifest
from reelbank.manifests.finding import find_manifest
from reelbank.store.cores import available_cores, memory_bytes
from reelbank.store.description import readable
from reelbank.store.errors import SpecMismatch
from reelbank.store.layout import DONE, FAILED, MISSING
from reelbank.store.spec import FILE_START, FeatureSpec, differences
from reelbank.store.staging import Outcome
from reelbank.store.sums import read_summed
from reelbank.store.writer import StoreWriter, clip_identity

LIBRARIES = ("av", "numpy", "opencv-python-headless", "pillow", "timm", "torch", "torchvision", "zarr")


def read_manifest(config: FeaturizeConfig) -> Manifest:
    """The manifest that the run is about. Raises ManifestError."""
    return manifests.read(
        config.manifest or find_manifest(),
        root=config.root,
        target_columns=config.target_columns or None,
        allow_group_overlap=config.allow_group_overlap,
    )


def select(manifest: Manifest, config: FeaturizeConfig) -> NDArray[np.int64]:
    """Positions of the clips of this run: those of --split and --clip, all if none is named.

    Raises:
        ValueError: a split or clip that the manifest does not have, no clip is left, or none of them names what a
            model reads.
    """
    splits = sorted({clip.split for clip in manifest.clips})
    if absent := [name for name in config.split if name not in splits]:
        raise ValueError(f"--split {', '.join(absent)}: the manifest has the splits {', '.join(splits)}")
    if config.view_split not in (*splits, "all") and len(config.view_names) > 1:
        raise ValueError(f"--view-split {config.view_split}: the manifest has the splits {', '.join(splits)}")
    ids = {clip.clip_id for clip in manifest.clips}
    if absent := [name for name in config.clip if name not in ids]:
        raise ValueError(f"--clip {', '.join(map(repr, absent))}: not in {manifest.path} of {len(ids)} clips")
    chosen = [
        i
        for i, clip in enumerate(manifest.clips)
        if (not config.split or clip.split in config.split) and (not config.clip or clip.clip_id in config.clip)
    ]
    if not chosen:
        raise ValueError(f"no clip of {manifest.path} is in --split {', '.join(config.split)} and among --clip")
    sources = {model: backbones.describe(model).source for model in config.model}
    if config.mapping and "annotations" not in sources.values():
        names = ", ".join(sources)
        raise ValueError(f"--map {config.mapping[0]}: no annotation table is read by {names}; leave it out")
    for model, source in sources.items():
        if not any(paths_of(source, manifest, manifest.clips[i]) for i in chosen):
            columns = " and ".join(COLUMNS[source])
            raise ValueError(f"{model} reads the manifest's {columns}: no clip of this run has it in {manifest.path}")
    return np.array(chosen, dtype=np.int64)


def make_job(config: FeaturizeConfig, model: str, folder: Path, like: FeatureSpec | None = None) -> ModelJob:
    """Finds or makes the weights of one model and says what will be stored.

    Args:
        config: of the run.
        model: registered name.
        folder: for the weights file that workers read.
        like: the spec that the features must have.

    Raises:
        SpecMismatch: the spec would be another than `like`.
        WeightsError, BackboneError: the model cannot be built, or has no such tap.
    """
    info = backbones.describe(model)
    taps = config.taps_of(model, {name: backbones.describe(name).taps for name in config.model}) or info.default_taps
    info.check_taps(taps)
    names = config.view_names
    views.check(names, info.source, info.preprocess, model)
    backbone = backbones.build(
        model, weights=config.weights_asked, seed=config.seed, device=config.device, precision=config.precision
    )
    backbones.try_out(model, backbone, taps)
    plugin = backbones.plugin(model)
    state_file = None
    if backbone.module is not None:
        state_file = folder / f"{config.store_path(model).name}.safetensors"
        backbones.save_state(backbone, state_file)
    spec = FeatureSpec(
        backbone=model,
        weights=_identifying(backbone.weights),
        taps=tuple(info.taps[name] for name in taps),
        sampling=str(config.sampling_of(model)),
        past_end=config.past_end,
        resize=config.resize,
        precision=config.precision,
        views=names,
        view_split=config.view_split if len(names) > 1 else "train",  # without views it changes nothing
        preprocess=asdict(backbone.preprocess),
        seed=config.seed,
        plugin_sha256=None if plugin is None else plugin.sha256,
        decoder=DECODER if config.decode == "cuda" and info.source == "video" else None,
        square_pixels=True if config.square_pixels and info.source == "video" else None,
        time_origin=_time_origin(config.store_path(model), like) if info.source == "video" else None,
        annotation_columns=(config.annotation_columns or None) if info.source == "annotations" else None,
    )
    if like is not None:
        _refuse_other_features(like, spec)
    batch = config.batch or _default_batch(backbone, taps)
    _check_batch(info, batch, config.workers or available_cores())
    return ModelJob(
        model=model,
        store=config.store_path(model),
        spec=spec,
        batch=batch,
        device=backbone.device,
        state_file=state_file,
    )


def _refuse_other_features(like: FeatureSpec, spec: FeatureSpec) -> None:
    """Raises SpecMismatch saying what differs and why it may, but for a name of the same weights."""
    differing = differences(like, spec)
    if like.weights.get("sha256") == spec.weights.get("sha256"):
        differing.pop("weights.kind", None)  # a published file that was given as --weights FILE
    if differing:
        lines = [f"  {field}: then {old!r}, now {new!r}" for field, (old, new) in differing.items()]
        why = [advice for part, advice in _WHY_OTHER.items() if any(field.startswith(part) for field in differing)]
        raise SpecMismatch(
            f"{spec.backbone} does not give here the features that are asked for:\n"
            + "\n".join(lines)
            + "\n"
            + "; ".join(why or ["another version of reelbank made them: extract and train again with this one"])
        )


_WHY_OTHER = {
    "weights": "these are other weights: give the file or the run that was used as --weights",
    "plugin_sha256": "the source of the backbone has changed since",
}


def _time_origin(store: Path, like: FeatureSpec | None) -> str | None:
    """A store that is there goes on as it began: without the field, times count from the first frame."""
    if like is not None:
        return like.time_origin
    mark = store / "zarr.json"
    attributes = read_summed(mark).get("attributes", {}) if mark.is_file() else {}
    return attributes["spec"].get("time_origin") if "spec" in attributes else FILE_START


def _default_batch(backbone: Backbone, taps: Sequence[str]) -> int:
    if backbone.module is None or not backbone.device.startswith("cuda"):
        return backbone.default_batch
    from reelbank.extract.backbones.passes import default_batch

    return default_batch(backbone, taps)


def _check_batch(info: BackboneInfo, batch: int, workers: int) -> None:
    """Raises ValueError for batches that cannot be in memory together: the system would kill the workers one by one."""
    needed = batch * math.prod(info.frames_shape) * np.dtype(info.payload_dtype).itemsize * workers
    memory = memory_bytes()
    if memory is not None and needed > memory:
        raise ValueError(
            f"--batch {batch}: the input alone of {info.name} takes {readable(needed)} in {workers} "
            f"worker{'s' * (workers != 1)}, this machine has {readable(memory)}; ask for a smaller batch"
        )


def open_writer(job: ModelJob, manifest: Manifest, weights: Mapping[str, Any]) -> StoreWriter:
    """The writer of the model's store, made if it is not there."""
    plugin = backbones.plugin(job.model)
    provenance = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        # Relative to the store: it stays right when both are moved together, and names no folder of this machine.
        "manifest": os.path.relpath(manifest.path, job.store.parent) if manifest.path else "",
        "manifest_notes": list(manifest.notes),
        "weights": dict(weights),
        "plugin": None if plugin is None else plugin.identity(),
        "versions": versions(),
    }
    return StoreWriter.open_or_create(
        job.store,
        job.spec,
        fixed_steps=fixed_steps(job.sampling),
        num_clips=len(manifest),
        provenance=provenance,
        counts=expected_steps(job.sampling, manifest.clips),
    )


def versions(decoder: str | None = None) -> dict[str, str]:
    """Versions of everything that can change a feature."""
    libraries = LIBRARIES if decoder is None else sorted([*LIBRARIES, "torchcodec"])
    return {"reelbank": version("reelbank"), "python": platform.python_version()} | {
        name: version(name) for name in libraries
    }


@dataclass(frozen=True, kw_only=True)
class Todo:
    """What one store needs.

    Attributes:
        rows: {row: position in the manifest} of clips to extract.
        recovered: outcomes that an interrupted run staged but did not commit.
        num_done: selected clips that already have features.
        failed_before: {row: reason} of selected clips that failed and whose file has not changed.
        damaged: a sentence for each staged clip that could not be taken over.
    """

    rows: dict[int, int]
    recovered: dict[int, Outcome]
    num_done: int
    failed_before: dict[int, str]
    damaged: tuple[str, ...] = ()


def plan_store(
    writer: StoreWriter, manifest: Manifest, rows: NDArray[np.int64], chosen: NDArray[np.int64], config: FeaturizeConfig
) -> Todo:
    """Compares a store with its manifest and the files on disk.

    Args:
        writer: of the store, already synced with the manifest.
        rows: (len(manifest),) row of each clip.
        chosen: positions of the clips of this run.
    """
    source = backbones.describe(writer.spec.backbone).source
    status, reasons = writer.ledger("status"), writer.ledger("reason")
    hashes, stats = writer.ledger("content_hash"), writer.file_stats()
    content_of = cache(_content)  # many clips may be of one file
    recovered, damaged = writer.recover(_Recovery(writer.spec.digest, manifest, rows, source, content_of).accepts)
    todo: dict[int, int] = {}
    failed: dict[int, str] = {}
    touched: dict[int, tuple[int, int]] = {}
    done = 0
    for position in chosen.tolist():
        row = int(rows[position])
        if row in recovered:
            continue
        paths = paths_of(source, manifest, manifest.clips[position])
        stat = stat_of(paths)
        same = stat == stats.get(row) and not (config.rehash and stat)
        if not same and status[row] != MISSING and stat is not None:
            content = content_of(paths)
            same = content is None or content == str(hashes[row])  # what cannot be read now takes nothing away
            if same and content is not None:
                touched[row] = stat
        if status[row] == DONE and (same or stat is None):
            done += 1  # a video that is gone takes nothing from features that are there
        elif status[row] == FAILED and same and not config.retry_failed:
            failed[row] = str(reasons[row])
        else:
            todo[row] = position
    writer.note_unchanged(touched)
    return Todo(rows=todo, recovered=recovered, num_done=done, failed_before=failed, damaged=(*writer.healed, *damaged))


def clip_jobs(manifest: Manifest, jobs: list[ModelJob], todos: list[Todo]) -> list[ClipJob]:
    """One job per clip that any store needs, in manifest order."""
    sources = [backbones.describe(job.model).source for job in jobs]
    rows: dict[int, list[tuple[int, int]]] = {}
    for model, todo in enumerate(todos):
        for row, position in todo.rows.items():
            rows.setdefault(position, []).append((model, row))
    return [
        ClipJob(
            index=i,
            clip=(clip := manifest.clips[i]),
            paths={source: paths_of(source, manifest, clip) for source in {sources[model] for model, _ in rows[i]}},
            rows=tuple(rows[i]),
            root=manifest.root if manifest.confined else None,
        )
        for i in sorted(rows)
    ]


class _Recovery:
    """Decides which staged clips of an interrupted run are still what the manifest asks for."""

    def __init__(
        self,
        spec_digest: str,
        manifest: Manifest,
        rows: NDArray[np.int64],
        source: str,
        content_of: Callable[[tuple[Path, ...]], str | None],
    ) -> None:
        self._content_of = content_of
        self._spec_digest, self._manifest, self._source = spec_digest, manifest, source
        self._positions = {int(row): position for position, row in enumerate(rows.tolist())}

    def accepts(self, outcome: Outcome) -> bool:
        """Whether spec, definition and bytes are those of the clip that has this row now."""
        position = self._positions.get(outcome.row)
        if position is None:
            return False
        clip: Clip = self._manifest.clips[position]
        content = outcome.identity["content_hash"]
        if outcome.identity != clip_identity(clip, self._spec_digest, content):
            return False
        paths = paths_of(self._source, self._manifest, clip)
        stat = stat_of(paths)
        return stat == outcome.file_stat or (stat is not None and self._content_of(paths) == content)


def _content(paths: tuple[Path, ...]) -> str | None:
    """The hash of what a clip is read from; None where it cannot be read, which its worker will say."""
    try:
        return content_hash(paths)
    except OSError:
        return None


def _identifying(weights: Mapping[str, Any]) -> dict[str, Any]:
    """What of the weights changes the numbers: not where the file lay."""
    return {key: weights[key] for key in ("kind", "sha256", "seed", "recipe", "base") if key in weights}
