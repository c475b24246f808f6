"""A run applied to a store: the same features in, class and target predictions out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

import reelbank.store
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.clips import ClipTable, load_table, open_sources
from reelbank.heads.examples.features import load_features
from reelbank.heads.examples.label_sets import joined, matrix
from reelbank.heads.examples.resident import Resident, home_of
from reelbank.heads.examples.vectors import Reading
from reelbank.heads.judging.label_sets import THRESHOLD, macro_ap
from reelbank.heads.judging.metrics import point_estimate
from reelbank.heads.models import head_row
from reelbank.heads.runs.checkpoints import Predictor
from reelbank.heads.runs.directory import probability_column
from reelbank.heads.stored import read_config, read_results, read_table
from reelbank.heads.training.trainer import probabilities
from reelbank.manifests.events import Event, Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store.accepted import StrPath, paths_of
from reelbank.store.devices import check_has_float64, cpu_threads, resolve_device
from reelbank.store.errors import SpecMismatch
from reelbank.store.files import appearing, reading, scratch
from reelbank.store.indexing import parse_segments
from reelbank.store.spec import FeatureSpec, differences

# Spec fields that may differ: other taps are not read, views after 0 are not used, the path of a weights file is
# only where it lay (its sha256 is compared), and the origin of times and the names of columns say where a clip's frames
# stand, not what is made of them.
_FREE_FIELDS = (
    *("taps", "views", "view_split", "seed", "time_origin", "annotation_columns", "weights.source", "weights.path"),
)


@dataclass(frozen=True, kw_only=True)
class PredictResult:
    """Predictions of the clips of a store, one entry per clip.

    Attributes:
        clip_ids, splits, labels: str arrays (N,), from the store.
        predicted, probability: most probable class and its probability (N,); None without a class output.
        probabilities: {output: float64 (N, K)}.
        class_names: in the order of `probabilities["label"]`.
        separator: what stands between the labels of a clip that may have several: then `predicted` are those of
            probability 0.5 or more, and `probability` is None.
        predicted_target: value of the most probable bin (N,) in target units; None without a target output.
        trained_folds: clips that trained most of the heads of a run with folds, bool (N,).
        left_out: (reason, number of clips) of clips without features.
        warning: the sentence about random weights; empty for a trained backbone.
        notes: sentences for a person.
    """

    clip_ids: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray | None
    probability: np.ndarray | None
    probabilities: Mapping[str, np.ndarray]
    class_names: tuple[str, ...] | None
    target_name: str | None
    predicted_target: np.ndarray | None
    trained_folds: np.ndarray
    left_out: tuple[tuple[str, int], ...]
    warning: str
    notes: tuple[str, ...]
    separator: str | None = None

    def accuracy_by_split(self) -> dict[str, float]:
        """Share of right classes in each split, of clips whose label is known and that trained none of the heads."""
        if self.predicted is None or self.class_names is None or self.separator is not None:
            return {}
        known = np.isin(self.labels, self.class_names) & ~self.trained_folds
        right = self.predicted == self.labels
        splits = sorted(set(self.splits[known].tolist()))
        return {split: float(right[known & (self.splits == split)].mean()) for split in splits}

    def macro_ap_by_split(self) -> dict[str, float]:
        """Mean average precision of each split, of such clips; where clips may have several labels."""
        if self.class_names is None or self.separator is None:
            return {}
        found = {}
        truth = matrix(self.labels.tolist(), self.class_names, self.separator)
        for split in sorted(set(self.splits.tolist())):
            rows = (self.splits == split) & (self.labels != "") & ~self.trained_folds
            if truth[rows].any():
                found[split] = macro_ap(truth[rows], self.probabilities["label"][rows])
        return found

    def to_json(self) -> dict[str, Any]:
        """What was predicted, without the rows."""
        several = {} if self.separator is None else {"macro_ap_by_split": self.macro_ap_by_split()}
        return {
            "num_clips": len(self.clip_ids),
            "classes": None if self.class_names is None else list(self.class_names),
            "target_name": self.target_name,
            "accuracy_by_split": self.accuracy_by_split(),
            **several,
            "left_out": [{"reason": reason, "count": count} for reason, count in self.left_out],
            "warning": self.warning,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """The same for a terminal."""
        lines = [self.warning] if self.warning else []
        lines.append(f"{len(self.clip_ids)} clips predicted.")
        for split, accuracy in self.accuracy_by_split().items():
            lines.append(f"accuracy of split {split!r} where the label is a known class: {accuracy:.3f}")
        for split, precision in self.macro_ap_by_split().items():
            lines.append(f"mean average precision of split {split!r}: {precision:.3f}")
        return "\n".join([*lines, *self.notes])

    def write_csv(self, path: Path) -> None:
        """Columns clip_id, split, label, then predicted and probability, then predicted_<target>.

        Where clips may have several labels: the probability of each, instead of one.
        """
        columns: dict[str, list[Any]] = {
            "clip_id": self.clip_ids.tolist(),
            "split": self.splits.tolist(),
            "label": self.labels.tolist(),
        }
        if self.predicted is not None and self.probability is not None:
            columns["predicted"] = self.predicted.tolist()
            columns["probability"] = [f"{value:.6f}" for value in self.probability]
        if self.predicted is not None and self.separator is not None:
            columns["predicted"] = self.predicted.tolist()
            for name, values in zip(self.class_names or (), self.probabilities["label"].T, strict=True):
                columns[probability_column(name)] = [f"{value:.6f}" for value in values]
        if self.predicted_target is not None:
            columns[f"predicted_{self.target_name}"] = [f"{value:.6g}" for value in self.predicted_target]
        with appearing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))


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
    run, paths = Path(run), paths_of("store", store, TrainingError)
    stored, config = read_results(run), read_config(run)
    folders = [run / f"fold-{entry['fold']}" for entry in stored["folds"]] or [run]
    predictors = [
        Predictor.load(folder / "best.safetensors", accept_changed_code=accept_changed_code) for folder in folders
    ]
    first = predictors[0]
    if len(paths) != len(first.sources):
        raise TrainingError(f"{run} was trained on {len(first.sources)} stores together; {len(paths)} were given")
    taps = tuple(dict.fromkeys(tap for source in first.sources for tap in source["keys"].values()))
    for path, trained in zip(paths, first.sources, strict=True):
        refuse_other_features(run, path, reelbank.store.open(path).spec, trained)
    sources = open_sources(paths, taps, [_readings(source) for source in first.sources])
    label_column = config["config"]["label"]
    columns = sources[0].store.column_names
    table = load_table(sources, label_column=label_column if label_column in columns else "none", join="inner")
    if split is not None:
        chosen = np.flatnonzero(table.splits == split)
        if not len(chosen):
            raise TrainingError(f"no clip of split {split!r}; there are {', '.join(sorted(set(table.splits)))}")
        table = table.take(chosen)
    with cpu_threads(threads):
        averaged = _averaged(predictors, table, torch.device(resolve_device(device)), progress)
    seen = _clips_of(run / "predictions.csv") if stored["folds"] else set()
    return _result(first, table, averaged, config["warning"], np.isin(table.clip_ids, sorted(seen)), len(predictors))


def _clips_of(path: Path) -> set[str]:
    """The clip ids of predictions.csv; with folds those of every clip that trained a head."""
    return {row["clip_id"] for row in read_table(path, ("clip_id", "split"))[1] if row["split"] != "unknown"}


class Extract(Protocol):
    """Makes features of videos as a run's stores were made; from outside, because `heads` imports no decoder."""

    def __call__(self, spec: FeatureSpec, videos: Sequence[Path], store: Path) -> None:
        """Writes the features of `videos`, a clip each, into a new store of `spec` at `store`."""


def predict_videos(
    run: Path | str, videos: StrPath | Iterable[StrPath], *, extract: Extract, **options: Any
) -> PredictResult:
    """Applies the head of a finished run to videos, whose features are made for it and not kept.

    Args:
        run: run directory.
        videos: file or files; each is a clip.
        extract: makes the features; it is called once per store of the run, in their order.
        options: of `predict`.

    Raises:
        TrainingError: no finished run there, or no video that gave features.
        SpecMismatch: `extract` made other features than the run was trained on.
    """
    run, files = Path(run), paths_of("videos", videos, TrainingError)
    stored = read_results(run)
    trained = run / f"fold-{stored['folds'][0]['fold']}" if stored["folds"] else run
    sources = Predictor.load(trained / "best.safetensors", accept_changed_code=True).sources
    with scratch(run, "predicting", elsewhere=True) as folder:
        stores = []
        for i, source in enumerate(sources):
            with reading(trained / "best.safetensors", TrainingError):
                spec = FeatureSpec.from_json(source["spec"])
            used = _used(source)
            # Taps that the head does not read and views that only training knows cost time here and change nothing.
            spec = replace(spec, taps=tuple(tap for tap in spec.taps if tap.name in used), views=spec.views[:1])
            stores.append(folder / f"{i}.zarr")
            extract(spec, list(files), stores[-1])
        return predict(run, tuple(stores), **options)


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


def _averaged(
    predictors: list[Predictor], table: ClipTable, device: Any, progress: Progress | None
) -> dict[str, np.ndarray]:
    """Mean over the predictors of their probabilities, {output: float64 (N, K)}."""
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
    rows = np.arange(len(table))
    total: dict[str, np.ndarray] = {}
    for done, predictor in enumerate(predictors, start=1):
        resident = Resident.load(features, predictor.normalization, device, home)
        independent = predictor.separator is not None
        for name, values in probabilities(predictor.head.to(device), resident, rows, independent=independent).items():
            total[name] = total.get(name, 0.0) + values / len(predictors)
        if progress is not None:
            progress(Event(stage="evaluate", done=done, total=len(predictors)))
    return total


def _result(
    predictor: Predictor,
    table: ClipTable,
    averaged: Mapping[str, np.ndarray],
    warning: str,
    trained: np.ndarray,
    num_heads: int,
) -> PredictResult:
    predicted = probability = values = None
    if predictor.labels is not None and predictor.separator is not None:
        predicted = np.array(joined(averaged["label"] >= THRESHOLD, predictor.labels, predictor.separator), dtype=str)
    elif predictor.labels is not None:
        best = averaged["label"].argmax(axis=1)
        predicted = np.array(predictor.labels, dtype=str)[best]
        probability = averaged["label"][np.arange(len(best)), best]
    if predictor.bins is not None:
        values = point_estimate(averaged["target"], predictor.bins.values(), predictor.estimate)
    notes = [f"{count} clips are left out: {reason}." for reason, count in table.left_out]
    if (table.splits == "train").any():
        notes.append("If clips of split 'train' trained this head, what it says of them is no test.")
    if num_heads > 1:
        notes.append(f"Mean of the heads of {num_heads} folds.")
    if trained.any():
        notes.append(
            f"{int(trained.sum())} of these clips trained most of the heads and count in no accuracy; what the head "
            "that never saw a clip says of it stands in the run's predictions.csv."
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
        predicted_target=values,
        trained_folds=trained,
        left_out=table.left_out,
        warning=warning,
        notes=tuple(notes),
        separator=predictor.separator,
    )
