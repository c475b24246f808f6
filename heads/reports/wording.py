"""What numbers are called, wherever they are shown: one table for terminal, pages and docs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

DASH = "\u2013"
"""What stands where a value is undefined."""

FEW_GROUPS = 5
"""Below this an interval that draws groups says next to nothing."""
LOUD = "WARNING: "
"""How a note begins that no reader may miss."""
SAY_LITTLE = "say little: read no difference out of them."

TITLES: Mapping[str, str] = {
    "accuracy": "accuracy",
    "cross_entropy": "cross-entropy of the classes",
    "ce_on_softmax": "cross-entropy on the softmax",
    "top5_accuracy": "accuracy of the five most probable",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "macro_ap": "mean average precision",
    "micro_f1_at_half": "micro F1 at probability 0.5",
    "macro_f1_at_half": "macro F1 at probability 0.5",
    "mae": "mean absolute error",
    "mae_bins": "mean distance from the true bin",
    "spc_values": "rank correlation over clips",
    "spc_bins": "rank correlation over bins",
    "nll": "cross-entropy, sum over bins",
    "nll_mean": "cross-entropy, mean over bins",
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "val_accuracy": "validation accuracy",
    "val_mae": "validation mean absolute error",
    "majority_class": "majority class",
    "uniform_random_class": "uniform random class",
    "training_prevalence": "training prevalence",
    "random_order": "random order",
    "constant_median": "constant median",
    "class_mean_oracle": "class mean oracle",
    "uniform_random_bin": "uniform random bin",
    "random_training_label": "random training label",
    "label_marginal": "label marginal",
}
"""Metrics, columns of metrics.jsonl and baselines."""

_UNITS = {"fraction": "0 to 1", "correlation": "-1 to 1", "target": "target units"}


def title(name: str) -> str:
    """A metric, column or baseline in words; one from outside as it is called."""
    return TITLES.get(name, name if ":" in name else name.replace("_", " "))


def with_unit(name: str, unit: str | None) -> str:
    """'mean absolute error, kcal/h', 'accuracy, 0 to 1': a metric in words with what its numbers are in."""
    shown = _UNITS.get(unit or "", unit)
    return f"{title(name)}, {shown}" if shown and not title(name).endswith(shown) else title(name)


def counted(split: Mapping[str, Any]) -> str:
    """'30 clips, 7 groups' of a split of results.json; 'no groups' where the manifest has none."""
    num_groups = split["num_groups"]
    return f"{split['num_clips']} clips, {'no groups' if num_groups is None else f'{num_groups} groups'}"


def units_of(entry: Mapping[str, Any]) -> str:
    """What the intervals of a split draw: groups, or clips where the manifest has no groups."""
    return "clips" if entry["num_groups"] is None else "groups"


def cell(value: Any) -> str:
    """A value as a reader wants it: four significant digits (two of small ones), a dash for what is undefined."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


def bracket(measured: Mapping[str, Any], low: str, high: str, units: str) -> str:
    """' [0.51, 0.74; 7 groups]', ' [0.82, 1; Wilson, 12 groups]': an interval, its kind, and how many it draws."""
    said = ["Wilson"] * (measured.get("interval") == "Wilson")
    if measured.get("drawn") is not None:
        said.append(f"{measured['drawn']} {units if measured['drawn'] != 1 else units.removesuffix('s')}")
    return f" [{low}, {high}{'; ' if said else ''}{', '.join(said)}]"


def with_interval(measured: Mapping[str, Any], units: str = "groups") -> str:
    """'0.63 [0.51, 0.74; 7 groups]', '1 [0.82, 1; Wilson, 12 groups]'; without an interval the value alone."""
    if measured.get("value") is None:
        return DASH
    value = f"{measured['value']:.4g}"
    if measured.get("low") is None or measured.get("high") is None:
        return value
    return value + bracket(measured, f"{measured['low']:.4g}", f"{measured['high']:.4g}", units)


def confused_text(pairs: Iterable[Mapping[str, Any]]) -> str:
    """'most often taken for another class: run as walk, 12 clips (30 % of run); ...', of a split of results.json."""
    said = [
        f"{one['true']} as {one['predicted']}, {one['clips']} {'clip' if one['clips'] == 1 else 'clips'} "
        f"({100 * one['share']:.0f} % of {one['true']})"
        for one in pairs
    ]
    return f"most often taken for another class: {'; '.join(said)}." if said else "no clip is taken for another class."


def few_groups(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The sentence about intervals that say little, of {split: entry of results.json}; none where all say something."""
    few = []
    for split, entry in splits.items():
        drawn = [
            one["drawn"] for one in entry["metrics"].values() if one["value"] is not None and one["low"] is not None
        ]
        if drawn and min(drawn) < FEW_GROUPS:
            few.append(f"of {split!r} over {min(drawn)} {units_of(entry)}")
    return [f"Intervals {', '.join(few)} {SAY_LITTLE}"] if few else []


def shared_text(overlap: Mapping[str, Mapping[str, Any]]) -> str:
    """'val 0 of 72 (0.0 %), test 3 of 216 (1.4 %)': judged clips whose group was trained on; '' without groups."""
    return ", ".join(
        f"{split} {one['shared']} of {one['clips']} ({100 * (one['share'] or 0):.1f} %)"
        for split, one in overlap.items()
        if one["shared"] is not None
    )


def warnings_first(notes: Iterable[str]) -> tuple[list[str], list[str]]:
    """(those that a page must show at its top, the others) of the notes of a run or probe; each once."""
    each = list(dict.fromkeys(notes))
    loud = [note for note in each if note.endswith(SAY_LITTLE) or note.startswith(LOUD)]
    return loud, [note for note in each if note not in loud]
