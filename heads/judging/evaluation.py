"""From predictions to the numbers of a report: metrics with intervals, baselines beside them, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.examples.label_sets import names_in
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.examples.splits import count_groups
from reelbank.heads.judging import baselines
from reelbank.heads.judging.by_class import by_class
from reelbank.heads.judging.intervals import FEW_GROUPS, WILSON, estimate, group_numbers, interval_notes
from reelbank.heads.judging.label_sets import LabelScores, per_label
from reelbank.heads.judging.metrics import METRICS, ClassScores, Scores, TargetScores, evaluate, names_of
from reelbank.heads.reports.wording import bracket, counted, title, units_of, with_unit

# (metric, the baseline that it must beat): what the verdict speaks of.
HEADLINES = {
    "label": ("accuracy", "majority_class"),
    "labels": ("macro_ap", "random_order"),
    "target": ("mae", "constant_median"),
}


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of the clips of one split.

    Attributes:
        rows: positions in the clip table, int64 (n,).
        folds: fold whose model predicted each clip (n,), -1 without folds.
        probabilities: {output: (n, K)}.
    """

    split: str
    rows: np.ndarray
    folds: np.ndarray
    probabilities: Mapping[str, np.ndarray]


def pooled(split: str, parts: Sequence[Predictions]) -> Predictions:
    """The predictions of several folds as one, in the order of the clip table."""
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    filled = [part for part in parts if len(part.rows)]
    return Predictions(
        split=split,
        rows=rows[order],
        folds=np.concatenate([part.folds for part in parts])[order],
        probabilities={
            name: np.concatenate([part.probabilities[name] for part in filled])[order]
            for name in (filled[0].probabilities if filled else {})
        },
    )


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a run reports of its predictions.

    Attributes:
        splits: {split: its entry in results.json}.
        reported: the split that the verdict speaks of.
        confusions: {split: table}, see `confusion`; only splits that are judged by class.
        notes: sentences about clips that the metrics treat specially.
        verdict: sentences.
    """

    splits: dict[str, Any]
    reported: str
    confusions: dict[str, Any]
    notes: list[str]
    verdict: str


def judge(prepared: Prepared, predictions: Mapping[str, Predictions], train: np.ndarray) -> Judgement:
    """Judges the predictions of every split.

    Args:
        train: clips whose labels the baselines know: the training part; with folds all known clips.
    """
    splits = {split: split_results(prepared, part, train) for split, part in predictions.items()}
    reported = "test" if "test" in splits else "val"
    return Judgement(
        splits=splits,
        reported=reported,
        confusions={split: table for split, part in predictions.items() if (table := confusion(prepared, part))},
        notes=[
            *(note for part in predictions.values() for note in unseen_label_notes(prepared, part)),
            *interval_notes(splits),
        ],
        verdict=verdict(prepared, splits, reported),
    )


def class_scores(prepared: Prepared, predictions: Predictions) -> tuple[ClassScores, np.ndarray] | None:
    """Scores of the class output and the rows they are of; None where the split cannot be judged by class.

    Clips without a label do not count. A split whose labels training never saw (`unknown`) has no scores.
    """
    if prepared.labels is None or prepared.label_sets is not None or "label" not in predictions.probabilities:
        return None
    labels = prepared.table.labels[predictions.rows]
    numbers = prepared.class_numbers[predictions.rows]
    if predictions.split == "unknown" or not (numbers >= 0).any():
        return None
    labelled = labels != ""
    scores = ClassScores(probabilities=predictions.probabilities["label"][labelled], truth=numbers[labelled])
    return scores, predictions.rows[labelled]


def label_scores(prepared: Prepared, predictions: Predictions) -> tuple[LabelScores, np.ndarray] | None:
    """Scores of clips that may have several labels and the rows they are of; None where clips have one.

    As `class_scores`; labels that training never saw are not judged.
    """
    if prepared.label_sets is None or "label" not in predictions.probabilities or predictions.split == "unknown":
        return None
    labelled = prepared.table.labels[predictions.rows] != ""
    rows = predictions.rows[labelled]
    if not len(rows):
        return None
    return LabelScores(
        probabilities=predictions.probabilities["label"][labelled], truth=prepared.label_sets[rows]
    ), rows


def scores_of(prepared: Prepared, predictions: Predictions) -> list[tuple[str, Scores, np.ndarray]]:
    """(output, scores, the rows they are of) of every output that the split can be judged by."""
    found: dict[str, tuple[Scores, np.ndarray] | None] = {
        "label": class_scores(prepared, predictions),
        "labels": label_scores(prepared, predictions),
        "target": target_scores(prepared, predictions),
    }
    return [(output, *scores) for output, scores in found.items() if scores is not None]


def target_scores(prepared: Prepared, predictions: Predictions) -> tuple[TargetScores, np.ndarray] | None:
    """Scores of the target output and the rows they are of; None where no clip of the split has a target."""
    if prepared.bins is None or "target" not in predictions.probabilities:
        return None
    assert prepared.target_values is not None
    values = prepared.target_values[predictions.rows]
    known = np.isfinite(values)
    if not known.any():
        return None
    scores = TargetScores(
        probabilities=predictions.probabilities["target"][known],
        bin_values=prepared.bins.values(),
        truth=values[known],
        labels=prepared.bins.distributions(values[known]),
        estimate=prepared.config.head.estimate,
    )
    return scores, predictions.rows[known]


def shown_metrics(prepared: Prepared, output: str) -> list[str]:
    """The metrics of `output` that say something of so many classes."""
    num_classes = len(prepared.labels or ())
    found = names_of(output, prepared.config.data.metric)
    return [name for name in found if METRICS.row(name).says_something(num_classes)]


def split_results(prepared: Prepared, predictions: Predictions, train: np.ndarray) -> dict[str, Any]:
    """The entry of one split in results.json.

    Args:
        train: clips whose labels the baselines know: the training part; with folds all known clips.
    """
    guesses: dict[str, Any] = {}
    classes, targets = class_scores(prepared, predictions), target_scores(prepared, predictions)
    sets, table = label_scores(prepared, predictions), confusion(prepared, predictions)
    # With folds a clip that only validates and tests may lack label or target.
    metrics = {
        name: _with_interval(prepared, name, scores, rows)
        for output, scores, rows in scores_of(prepared, predictions)
        for name in shown_metrics(prepared, output)
    }
    if sets is not None and prepared.label_sets is not None:
        seen = prepared.label_sets[train[prepared.table.labels[train] != ""]]
        guesses |= baselines.of_label_sets(seen, sets[0].truth)
    if classes is not None and prepared.labels is not None:
        known = prepared.class_numbers[train]
        guesses |= baselines.of_classes(known[known >= 0], classes[0].truth, len(prepared.labels))
    if targets is not None and prepared.bins is not None and prepared.target_values is not None:
        values, rows = targets
        seen = prepared.target_values[train]
        labels = prepared.table.labels[rows].tolist()
        guesses |= baselines.of_target(prepared.bins, seen[np.isfinite(seen)], values.truth, labels)
    return {
        "num_clips": len(predictions.rows),
        "num_groups": count_groups(prepared.groups, predictions.rows),
        "metrics": metrics,
        "baselines": {
            guess: {name: value for name, value in values.items() if name in metrics}
            for guess, values in guesses.items()
        },
        **({} if sets is None else {"per_class": per_label(prepared.labels or (), sets[0])}),
        **({} if table is None else by_class(table["labels"], np.array(table["counts"], dtype=np.int64))),
    }


def _with_interval(prepared: Prepared, name: str, scores: Scores, rows: np.ndarray) -> dict[str, Any]:
    groups = group_numbers(prepared.groups[rows].tolist())
    value, low, high, how, drawn = estimate(name, scores, groups, seed=prepared.config.seed)
    metric = METRICS.row(name)
    unit = metric.unit
    if unit == "target":
        assert prepared.bins is not None
        unit = prepared.bins.unit
    return {
        "value": number(value),
        "low": number(low),
        "high": number(high),
        "interval": how,
        "drawn": drawn,
        "higher_is_better": metric.higher_is_better,
        "unit": unit,
    }


def plain_metrics(prepared: Prepared, predictions: Predictions) -> dict[str, float | None]:
    """{metric: value} without intervals, for the row of one fold."""
    return {
        name: number(evaluate(name, scores))
        for output, scores, _ in scores_of(prepared, predictions)
        for name in shown_metrics(prepared, output)
    }


def confusion(prepared: Prepared, predictions: Predictions) -> dict[str, Any] | None:
    """{labels, counts}: clips by true (rows) and predicted class; labels never seen in training come last."""
    classes = class_scores(prepared, predictions)
    if classes is None or prepared.labels is None:
        return None
    scores, rows = classes
    unseen = sorted(set(prepared.table.labels[rows][scores.truth < 0].tolist()))
    names = [*prepared.labels, *unseen]
    places = {label: place for place, label in enumerate(names)}
    truth = np.array([places[label] for label in prepared.table.labels[rows].tolist()], dtype=np.int64)
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (truth, scores.predicted), 1)
    return {"labels": names, "counts": counts.tolist()}


def number(value: float) -> float | None:
    """JSON has no NaN: undefined is null."""
    return float(value) if math.isfinite(value) else None


def unseen_label_notes(prepared: Prepared, predictions: Predictions) -> list[str]:
    """Sentences about clips of the split that the metrics treat specially."""
    notes = []
    classes = class_scores(prepared, predictions)
    if classes is not None and (unseen := int((classes[0].truth < 0).sum())):
        notes.append(
            f"{unseen} clips of {predictions.split!r} have a label that training never saw; they count as wrong."
        )
    if prepared.labels is not None and classes is not None and len(classes[1]) < len(predictions.rows):
        missing = len(predictions.rows) - len(classes[1])
        notes.append(f"{missing} clips of {predictions.split!r} have no label; class metrics leave them out.")
    if sets := label_scores(prepared, predictions):
        notes += _label_set_notes(prepared, predictions, sets)
    if predictions.split == "unknown" and prepared.labels is not None and prepared.label_sets is None:
        known = np.isin(prepared.table.labels[predictions.rows], prepared.labels)
        if known.any():
            first = str(prepared.table.labels[predictions.rows][known][0])
            notes.append(
                f"{int(known.sum())} clips of 'unknown' have a class that training knows (the first: {first!r}): "
                "its numbers are not those of unknown classes alone."
            )
    if prepared.bins is not None and prepared.target_values is not None:
        values = prepared.target_values[predictions.rows]
        if empty := int((~np.isfinite(values)).sum()):
            notes.append(f"{empty} clips of {predictions.split!r} have no target; its metrics leave them out.")
        outside = int(((values < prepared.bins.low) | (values > prepared.bins.high)).sum())
        if outside:
            notes.append(
                f"{outside} clips of {predictions.split!r} have a target outside {prepared.bins.low:g} to "
                f"{prepared.bins.high:g}; no bin can predict them exactly."
            )
    return notes


def _label_set_notes(prepared: Prepared, predictions: Predictions, sets: tuple[LabelScores, np.ndarray]) -> list[str]:
    scores, rows = sets
    names, split = prepared.labels or (), predictions.split
    cells = prepared.table.labels[rows].tolist()
    notes = []
    if absent := [name for name, count in zip(names, scores.truth.sum(axis=0).tolist(), strict=True) if not count]:
        notes.append(
            f"No clip of {split!r} has {_some(absent)}: average precision is over the other {len(names) - len(absent)} "
            "classes."
        )
    here = [prepared.groups[rows][has] for has in scores.truth.T]
    if rare := [name for name, own in zip(names, here, strict=True) if 0 < len(set(own.tolist())) < FEW_GROUPS]:
        notes.append(
            f"In {split!r} fewer than {FEW_GROUPS} groups have {_some(rare)}: intervals of macro averages lean on the "
            "other labels."
        )
    if unseen := sorted(names_in(cells, prepared.config.separator) - set(names)):
        notes.append(f"Training never saw {_some(unseen)}, which clips of {split!r} have: these are not judged.")
    if missing := len(predictions.rows) - len(rows):
        notes.append(f"{missing} clips of {split!r} have no label; class metrics leave them out.")
    return notes


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return shown if len(names) <= 5 else f"{len(names)} classes ({shown}, ...)"


def verdict(prepared: Prepared, splits: Mapping[str, Mapping[str, Any]], reported: str) -> str:
    """Plain sentences: does the head beat the trivial guess, on the reported split and on `unknown`?"""
    sentences = [prepared.warning]
    if prepared.config.data.shuffle_labels:
        sentences.append("CONTROL: the training labels were shuffled; nothing above a baseline is to be expected.")
    if reported in splits and not any(
        splits[reported]["metrics"].get(name, {}).get("value") is not None for name, _ in HEADLINES.values()
    ):
        known = " or ".join(
            name for name, there in (("label", prepared.labels), ("target", prepared.bins)) if there is not None
        )
        sentences.append(f"{reported} is not judged: none of its {splits[reported]['num_clips']} clips has a {known}.")
    for split in dict.fromkeys([reported, "unknown"]):
        for metric, baseline in HEADLINES.values():
            if split in splits and splits[split]["metrics"].get(metric, {}).get("value") is not None:
                sentences.append(_compared(splits[split], split, metric, baseline))
    return " ".join(sentence for sentence in sentences if sentence)


def _compared(entry: Mapping[str, Any], split: str, metric: str, baseline: str) -> str:
    measured = entry["metrics"][metric]
    value, low, high = measured["value"], measured["low"], measured["high"]
    guess = entry["baselines"][baseline][metric]
    unit = f" {measured['unit']}" if metric == "mae" and measured["unit"] else ""
    shown = f"{split} {title(metric)} {_short(value)}{unit}"
    other = f"the {title(baseline)} baseline {_short(guess)}{unit}"
    better_up = measured["higher_is_better"]
    units = units_of(entry)
    if low is None or high is None:
        why = measured["interval"].replace("groups", units)
        return f"{shown} beside {other}: neither is called better, as there is no interval ({why})."
    kind = "95 % Wilson interval" if measured["interval"] == WILSON else "95 % interval"
    shown += f" ({kind} {_short(low)} to {_short(high)}, {measured['drawn']} {units})"
    if measured["drawn"] < FEW_GROUPS:
        few = f"an interval over {measured['drawn']} {units} says too little to call either better"
        return f"{shown} beside {other}: {few}."
    if (low > guess) if better_up else (high < guess):
        return f"{shown} beats {other}."
    if (high < guess) if better_up else (low > guess):
        return f"{shown} is worse than {other}."
    return f"{shown} does not clearly beat {other}: the interval contains it."


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def summary_text(directory: Path, results: Mapping[str, Any]) -> str:
    """results.json as lines for a terminal."""
    lines = [results["verdict"], ""]
    for split, entry in results["splits"].items():
        lines.append(f"{split}: {counted(entry)}")
        names = {name: with_unit(name, measured["unit"]) for name, measured in entry["metrics"].items()}
        width = max([14, *map(len, names.values())])
        for name, measured in entry["metrics"].items():
            shown = _measured(measured, units_of(entry))
            lines.append(f"  {names[name]:<{width}} {shown:<40}{_guesses(entry['baselines'], name)}".rstrip())
    lines += ["", results["selection"]["sentence"], *results["notes"], f"Run: {directory}"]
    if (directory / "report.html").exists():
        lines.append(f"Report: {directory / 'report.html'}")
    return "\n".join(lines)


def _measured(measured: Mapping[str, Any], units: str) -> str:
    if measured["value"] is None:
        return "undefined"
    if measured["low"] is None:
        return _short(measured["value"])
    return _short(measured["value"]) + bracket(measured, _short(measured["low"]), _short(measured["high"]), units)


def _guesses(guesses: Mapping[str, Mapping[str, float]], metric: str) -> str:
    return ", ".join(f"{title(name)} {_short(values[metric])}" for name, values in guesses.items() if metric in values)
