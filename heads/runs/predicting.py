"""A run applied to a store: the same features in, class and target predictions out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import reelbank.store
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.array_features import SEGMENTS, arrays_of
from reelbank.heads.examples.arrays import long_enough, open_inputs
from reelbank.heads.examples.batches import ArrayBatches
from reelbank.heads.examples.clips import ClipTable, load_table, open_sources
from reelbank.heads.examples.features import load_features
from reelbank.heads.examples.label_sets import joined
from reelbank.heads.examples.resident import Resident, home_of
from reelbank.heads.examples.vectors import Reading
from reelbank.heads.extraction import Extract, extracted, failures
from reelbank.heads.features_config import FeaturesConfig
from reelbank.heads.judging.label_sets import THRESHOLD
from reelbank.heads.judging.metrics import point_estimate, quantile
from reelbank.heads.models import head_row, plan_of
from reelbank.heads.models.plans import HeadPlan
from reelbank.heads.runs.checkpoints import Predictor
from reelbank.heads.runs.predictions import INTERVAL, PredictResult
from reelbank.heads.split_rules import OWN
from reelbank.heads.stored import read_config, read_results, read_table
from reelbank.heads.training.trainer import probabilities
from reelbank.manifests.events import Event, Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store.accepted import StrPath, paths_of
from reelbank.store.devices import check_has_float64, cpu_threads, resolve_device
from reelbank.store.errors import SpecMismatch
from reelbank.store.files import reading
from reelbank.store.indexing import parse_segments
from reelbank.store.spec import FeatureSpec, differences

# Spec fields that may differ: other taps are not read, views after 0 are not used, the path of a weights file is
# only where it lay (its sha256 is compared), and the origin of times and the names of columns say where a clip's frames
# stand, not what is made of them.
_FREE_FIELDS = (
    *("taps", "views", "view_split", "seed", "time_origin", "annotation_columns", "weights.source", "weights.path"),
)


EVALUATED_CLIPS = 32
"""Clips whose arrays a head reads at once; fewer where memory is short."""


@with_bar("predict")
def predict(
    run: Path | str,
    store: StrPath | Iterable[StrPath],
    *,
    split: str | None = None,
    device: str = "auto",
    threads: int = 1,
    accept_changed_code: bool = False,
    progress: Progress | None = None,
) -> PredictResult:
    """Applies the head of a finished run to every clip of a store that has features.

    A run with folds has one head per fold: their probabilities are averaged.

    Args:
        run: run directory.
        store: the store, or as many as the run was trained on, in the same order.
        split: only clips of this split.
        accept_changed_code: apply a head that is a plug-in even if its source is not what it was in training.

    Raises:
        DeviceError: a device that is unknown, not here, or without float64.
        TrainingError: no finished run there, or no clip to predict.
        SpecMismatch: the store was not made as the run's store was; the fields that differ are listed.
    """
    check_has_float64(device)
    applied = open_run(run, paths_of("store", store, TrainingError), accept_changed_code=accept_changed_code)
    table = applied.table
    if split is not None:
        chosen = np.flatnonzero(table.splits == split)
        if not len(chosen):
            raise TrainingError(f"no clip of split {split!r}; there are {', '.join(sorted(set(table.splits)))}")
        table = table.take(chosen)
    with cpu_threads(threads):
        return applied.to(table, torch.device(resolve_device(device)), progress)


@dataclass(frozen=True, kw_only=True)
class Applied:
    """A finished run beside the clips that its head can read.

    Attributes:
        results, config: the content of its files.
        predictors: its head, or one per fold.
        plan: of a head that reads arrays, without its targets.
        table: the clips.
    """

    run: Path
    results: Mapping[str, Any]
    config: Mapping[str, Any]
    predictors: tuple[Predictor, ...]
    plan: HeadPlan | None
    table: ClipTable

    def to(self, table: ClipTable, device: torch.device, progress: Progress | None = None) -> PredictResult:
        """What the head says of the clips of `table`, a part of this one's."""
        averaged = _averaged(self.predictors, table, self.plan, device, progress)
        seen = np.isin(table.clip_ids, sorted(_trained_and_reported(self.run, self.results, self.config["config"])))
        found = _result(self.predictors[0], table, averaged, self.config["warning"], seen, len(self.predictors))
        rule = self.config["config"].get("split_by", OWN)
        if rule == OWN:
            return found
        note = f"{self.run} parted its clips by --split-by {rule}: clips of any split of a store may have trained it."
        return replace(found, notes=(*found.notes, note))


def open_run(run: Path | str, stores: Sequence[Path] | None = None, *, accept_changed_code: bool = False) -> Applied:
    """A finished run and the clips of stores that its head can read.

    Args:
        stores: see `predict`; None: those that the run was trained on, where they are found under the same path.

    Raises:
        TrainingError, SpecMismatch: see `predict`.
        StoreError: a path that is no store.
    """
    run = Path(run)
    stored, config = read_results(run), read_config(run)
    folders = [run / f"fold-{entry['fold']}" for entry in stored["folds"]] or [run]
    predictors = [
        Predictor.load(folder / "best.safetensors", accept_changed_code=accept_changed_code) for folder in folders
    ]
    first = predictors[0]
    plan = plan_of(first.head_name, first.options)
    plan = None if plan is None else plan.to_predict
    trained_on = needed_sources(first.sources, plan)
    paths = stores
    if paths is None:
        own = zip(config["stores"], first.sources, strict=False)
        paths = [Path(entry["path"]) for entry, source in own if needed_sources([source], plan)]
    if len(paths) != len(trained_on):
        raise TrainingError(f"{run} reads {len(trained_on)} stores together; {len(paths)} were given")
    taps = tuple(dict.fromkeys(tap for source in trained_on for tap in source["keys"].values()))
    opened = [reelbank.store.open(path) for path in paths]
    for store, trained in zip(opened, trained_on, strict=True):
        refuse_other_features(run, store.path, store.spec, trained)
    if plan is None:
        sources = open_sources(opened, taps, [_readings(source) for source in trained_on])
    else:
        sources = open_inputs(opened, plan, taps)
    label_column = config["config"]["label"]
    columns = sources[0].store.column_names
    table = load_table(sources, label_column=label_column if label_column in columns else "none", join="inner")
    if plan is not None:
        table = long_enough(table, plan)
    return Applied(
        run=run, results=stored, config=config, predictors=tuple(predictors), plan=plan, table=table
    )  # fmt: skip


def _trained_and_reported(run: Path, results: Mapping[str, Any], asked: Mapping[str, Any]) -> set[str]:
    """Ids of clips that the run reports by a head that never saw them, and whose own head or heads did."""
    splits = {"val", "test"} if results["folds"] else {"val"}
    if not results["folds"] and (asked.get("refit") != "yes" or results["reported"] == "val"):
        return set()
    rows = read_table(run / "predictions.csv", ("clip_id", "split"))[1]
    return {row["clip_id"] for row in rows if row["split"] in splits}


@with_bar("predict")
def predict_videos(
    run: Path | str,
    videos: StrPath | Iterable[StrPath],
    *,
    extract: Extract,
    keep: StrPath | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> PredictResult:
    """Applies the head of a finished run to videos, whose features are made for it and not kept.

    Args:
        run: run directory.
        videos: file or files and folders, or a table of clips, as `extract` takes them.
        extract: makes the features of all stores of the run.
        keep: folder in which the features stay.
        options: of `predict`.

    Raises:
        TrainingError: no finished run there, or no video that gave features.
        SpecMismatch: `extract` made other features than the run was trained on.
    """
    run = Path(run)
    stored, config = read_results(run), read_config(run)
    trained = run / f"fold-{stored['folds'][0]['fold']}" if stored["folds"] else run
    head = Predictor.load(trained / "best.safetensors", accept_changed_code=True)
    plan = plan_of(head.head_name, head.options)
    sources = needed_sources(head.sources, None if plan is None else plan.to_predict)
    specs = []
    for source in sources:
        with reading(trained / "best.safetensors", TrainingError):
            spec = FeatureSpec.from_json(source["spec"])
        used = _used(source)
        # Taps that the head does not read and views that only training knows cost time here and change nothing.
        taps = tuple(tap for tap in spec.taps if tap.name in used)
        specs.append(replace(spec, taps=taps, views=spec.views[:1], view_split="train"))
    like = [Path(entry["path"]) for entry in config["stores"]]
    told: dict[str, None] = {}

    def tell(event: Event) -> None:
        if event.note:
            told[event.note] = None
        if progress is not None:
            progress(replace(event, note=""))  # said once, beside the predictions

    files, kept = paths_of("videos", videos, TrainingError), None if keep is None else Path(keep)
    with extracted(extract, specs, files, near=run, like=like, keep=kept, progress=tell) as stores:
        found = predict(run, stores, progress=progress, **options)
        notes = (*told, *found.notes)
        return replace(found, notes=notes, is_per_clip=True, failures=failures(stores))


def _readings(source: Mapping[str, Any]) -> dict[str, Reading]:
    return {key: Reading.from_json(reading) for key, reading in source.get("readings", {}).items()}


def _used(source: Mapping[str, Any]) -> set[str]:
    """The taps that a head reads of a store, for their own sake or beside others."""
    return {*source["keys"].values(), *(name for one in _readings(source).values() for name in one.beside)}


def refuse_other_features(run: Path, path: Path, found: FeatureSpec, trained: Mapping[str, Any]) -> None:
    """Raises SpecMismatch if a head trained on `trained` cannot read the features of the store at `path`."""
    with reading(run, TrainingError):
        expected = FeatureSpec.from_json(trained["spec"])
    used = _used(trained)
    differing = {
        name: values
        for name, values in differences(expected, found).items()
        if not any(name == free or name.startswith((f"{free}.", f"{free}[")) for free in _FREE_FIELDS)
    }
    trained_kinds = {spec.weights.get("kind") for spec in (expected, found)} <= {"file", "pretrained"}
    if trained_kinds and expected.weights.get("sha256") == found.weights.get("sha256"):
        differing.pop("weights.kind", None)  # of a published file that was named as a file
    there = {tap.name: f"{tap.shape} {tap.dtype}" for tap in found.taps}
    for tap in sorted(used):
        ours = expected.tap(tap)
        if there.get(tap) != (wanted := f"{ours.shape} {ours.dtype}"):
            differing[f"taps[{tap}]"] = (wanted, there.get(tap))
    if differing:
        lines = [f"  {name}: the run {ours!r}, the store {theirs!r}" for name, (ours, theirs) in differing.items()]
        raise SpecMismatch(
            f"{run} cannot be applied to {path}, whose features were made differently:\n" + "\n".join(lines) + "\n"
            "Featurize the clips as the run's store was made, or train another head."
        )


def needed_sources(sources: Sequence[Mapping[str, Any]], plan: HeadPlan | None) -> tuple[Mapping[str, Any], ...]:
    """Those of the stores of a training that its head reads when it predicts: not those of targets alone."""
    if plan is None:
        return tuple(sources)
    names = {one.name for one in plan.inputs}
    kept = [{**one, "keys": {key: tap for key, tap in one["keys"].items() if key in names}} for one in sources]
    return tuple(one for one in kept if one["keys"])


def _averaged(
    predictors: Sequence[Predictor], table: ClipTable, plan: HeadPlan | None, device: Any, progress: Progress | None
) -> dict[str, np.ndarray]:
    """Mean over the predictors of their probabilities, {output: float64 (N, K)}."""
    resident_of = _vectors_for(predictors, table, device, progress) if plan is None else _arrays_for(
        predictors[0], table, plan, device
    )  # fmt: skip
    rows = np.arange(len(table))
    total: dict[str, np.ndarray] = {}
    for done, predictor in enumerate(predictors, start=1):
        resident = resident_of(predictor)
        independent = predictor.separator is not None
        for name, values in probabilities(predictor.head.to(device), resident, rows, independent=independent).items():
            total[name] = total.get(name, 0.0) + values / len(predictors)
        if progress is not None:
            progress(Event(stage="evaluate", done=done, total=len(predictors)))
    return total


def _arrays_for(first: Predictor, table: ClipTable, plan: HeadPlan, device: Any) -> Callable[[Predictor], ArrayBatches]:
    segments = int(first.options.get(SEGMENTS, 1))
    arrays = arrays_of(table, plan, FeaturesConfig(steps=first.steps), 0.0)
    batches = arrays.batches(device, evaluation_clips=EVALUATED_CLIPS, segments=segments)
    return lambda predictor: batches


def _vectors_for(
    predictors: Sequence[Predictor], table: ClipTable, device: Any, progress: Progress | None
) -> Callable[[Predictor], Resident]:
    first = predictors[0]
    needs_steps = head_row(first.head_name).needs_steps
    segments = None if first.segments is None else parse_segments(first.segments)
    features = load_features(
        table, needs_steps=needs_steps, pool=first.pool, segments=segments,
        unit_steps=first.unit_steps, progress=progress,
    )  # fmt: skip
    home, note = home_of(features.num_bytes(needs_steps=needs_steps), device)
    if note and progress is not None:
        progress(Event(stage="evaluate", done=0, total=len(predictors), note=note))
    return lambda predictor: Resident.load(features, predictor.normalization, device, home)


def _result(
    predictor: Predictor,
    table: ClipTable,
    averaged: Mapping[str, np.ndarray],
    warning: str,
    trained: np.ndarray,
    num_heads: int,
) -> PredictResult:
    predicted = probability = values = bounds = None
    if predictor.labels is not None and predictor.separator is not None:
        predicted = np.array(joined(averaged["label"] >= THRESHOLD, predictor.labels, predictor.separator), dtype=str)
    elif predictor.labels is not None:
        best = averaged["label"].argmax(axis=1)
        predicted = np.array(predictor.labels, dtype=str)[best]
        probability = averaged["label"][np.arange(len(best)), best]
    if predictor.bins is not None:
        bins = predictor.bins.values()
        values = point_estimate(averaged["target"], bins, predictor.estimate)
        bounds = np.stack([quantile(averaged["target"], bins, level) for level in INTERVAL], axis=1)
    notes = [f"{count} clips are left out: {reason}." for reason, count in table.left_out]
    if (table.splits == "train").any():
        notes.append("If clips of split 'train' trained this head, what it says of them is no test.")
    if num_heads > 1:
        notes.append(f"Mean of the heads of {num_heads} folds.")
    targets = None if predictor.bins is None else table.targets.get(predictor.bins.target)
    judged = (table.labels != "") | (False if targets is None else np.isfinite(targets))
    if seen := int((trained & judged).sum()):  # a new video, of which nothing is known, may be called as a clip of it
        notes.append(
            f"{seen} of these clips trained {'most of the heads' if num_heads > 1 else 'the head, after validation,'} "
            "and count in no accuracy; what the head that never saw a clip says of it stands in the run's "
            "predictions.csv."
        )
    return PredictResult(
        clip_ids=table.clip_ids,
        splits=table.splits,
        labels=table.labels,
        predicted=predicted,
        probability=probability,
        probabilities=averaged,
        class_names=predictor.labels,
        target_name=None if predictor.bins is None else predictor.bins.target,
        target_unit="" if predictor.bins is None else predictor.bins.unit,
        predicted_target=values,
        target_bounds=bounds,
        targets=targets,
        durations_seconds=table.sources[0].store.clips.duration_seconds[table.rows[0]],
        trained_folds=trained,
        left_out=table.left_out,
        warning=warning,
        notes=tuple(notes),
        separator=predictor.separator,
    )
