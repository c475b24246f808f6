"""Classifiers that need no trained head: nearest neighbours and logistic regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reelbank.heads.judging.intervals import FEW_GROUPS, interval_notes
from reelbank.heads.probes import Finding, Question
from reelbank.heads.probes.neighbours import knn, linear, make_protocol, require_labels
from reelbank.heads.reports import figures
from reelbank.heads.reports.html import paragraphs, section, table
from reelbank.heads.reports.wording import title as title_of
from reelbank.heads.reports.wording import units_of, with_interval, with_unit


def check_neighbours(question: Question) -> None:
    """Raises ValueError: no labelled rows of two groups to fit and to judge."""
    require_labels(question.rows, make_protocol(question.rows))


def check_linear(question: Question) -> None:
    """Raises ValueError as `check_neighbours`, or where the fitted rows have one label."""
    require_labels(question.rows, make_protocol(question.rows), seed=question.seed)


def nearest_neighbours(question: Question) -> Finding:
    """A vote of the `knn` nearest rows, by cosine."""
    rows = question.rows
    numbers = knn(rows, make_protocol(rows), question.options["knn"], seed=question.seed)
    asked = f" ({numbers['k_asked']} asked, no more rows vote)" if numbers["k"] < numbers["k_asked"] else ""
    return _finding("Nearest neighbours", f"k = {numbers['k']}{asked}, cosine", "knn", numbers, question)


def linear_probe(question: Question) -> Finding:
    """Logistic regression, its strength chosen on validation rows."""
    rows = question.rows
    numbers = linear(rows, make_protocol(rows), seed=question.seed)
    notes = [] if numbers["converged"] else ["The linear probe stopped at 1,000 iterations before it converged."]
    strengths = ", ".join(f"{value:g}" for value in sorted(set(numbers["strength"])))
    return _finding("Linear probe", f"C = {strengths}", "linear", numbers, question, notes)


def _finding(
    title: str, settings: str, name: str, numbers: Mapping[str, Any], question: Question, notes: list[str] | None = None
) -> Finding:
    accuracy = numbers["metrics"]["accuracy"]
    chance = numbers["baselines"]["majority_class"].get("accuracy")
    units = units_of(numbers)
    confusion = numbers["confusion"]
    figure = figures.confusion_matrix(
        np.array(confusion["counts"]),
        confusion["labels"],
        title=f"{title}, {numbers['reported']}",
        heading=question.heading,
    )
    return Finding(
        numbers=numbers,
        sentences=[
            f"{title} ({settings}): accuracy {with_interval(accuracy, units)} on {numbers['reported']} "
            f"({numbers['num_rows']} rows); always the commonest class: {chance:.4g}."
            f"{_beats(accuracy, chance, units)}"
        ],
        notes=[*(notes or []), *interval_notes({numbers["reported"]: numbers})],
        page=section(title, _page(title, settings, numbers)),
        pictures={f"{name}-confusion.png": figures.png(figure)},
    )


def _beats(metric: Mapping[str, Any], chance: float, units: str) -> str:
    if metric["low"] is None:
        return f" No interval: {metric['interval'].replace('groups', units)}."
    if metric["drawn"] < FEW_GROUPS:
        return f" An interval over {metric['drawn']} {units} says too little to call either better."
    if metric["low"] > chance:
        return " The 95 % interval lies above it."
    return " The 95 % interval does not lie above it."


def _page(title: str, settings: str, entry: Mapping[str, Any]) -> str:
    baselines = entry["baselines"]
    rows = [
        [
            with_unit(metric, value["unit"]),
            with_interval(value, units_of(entry)),
            *(baseline.get(metric) for baseline in baselines.values()),
        ]
        for metric, value in entry["metrics"].items()
    ]
    head = ["metric", "value [95 % interval]", *map(title_of, baselines)]
    return paragraphs([f"{title} ({settings}). {entry['sentence']}"]) + table(head, rows)
