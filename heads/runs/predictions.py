"""What a run says of clips: a table and a summary for a person, JSON, CSV."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.examples.label_sets import matrix
from reelbank.heads.judging.label_sets import THRESHOLD, macro_ap
from reelbank.heads.runs.directory import probability_column
from reelbank.store.files import appearing

INTERVAL = (0.05, 0.95)
"""Share of a predicted distribution below the two bounds that stand beside its value."""
LONG_SECONDS = 60.0
"""Length of a clip from which it is said that it was taken as a whole."""
TERMINAL_COLUMNS = 80
_GUESSERS = (
    "one class, one value: what who looks at no video gets, who knows the most frequent class and the median of these "
    "very clips."
)
_LEAST_WIDTH = 8
_MOST_NAMES = 8


@dataclass(frozen=True, kw_only=True)
class PredictResult:
    """Predictions of the clips of a store or of videos, one entry per clip.

    Attributes:
        clip_ids, splits, labels: str arrays (N,), from the store.
        predicted, probability: most probable class and its probability (N,); None without a class output.
        probabilities: {output: float64 (N, K)}.
        class_names: in the order of `probabilities["label"]`.
        separator: what stands between the labels of a clip that may have several: then `predicted` are those of
            probability 0.5 or more, and `probability` is None.
        predicted_target: the value of the predicted distribution (N,) in target units; None without a target output.
        target_bounds: its quantiles at INTERVAL, (N, 2).
        target_unit: unit of the target, empty where it is not known.
        targets: true values (N,), NaN where not known; None where the store has no such column.
        durations_seconds: of the clips (N,), NaN where not known.
        trained_folds: clips that trained most of the heads of a run with folds, or a head once more after they had
            validated its choice (`--refit`), bool (N,).
        left_out: (reason, number of clips) of clips without features.
        failures: {clip id: reason} of those that were asked for one by one and have none.
        is_per_clip: whether each clip was asked for, as videos are, so that each is printed.
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
    target_bounds: np.ndarray | None = None
    target_unit: str = ""
    targets: np.ndarray | None = None
    durations_seconds: np.ndarray | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    is_per_clip: bool = False

    def accuracy_by_split(self) -> dict[str, float]:
        """Share of right classes in each split, of clips whose label is known and that trained none of the heads."""
        return {split: values["accuracy"] for split, values in self._judged_classes().items()}

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

    def class_counts(self) -> dict[str, int]:
        """How many clips were given each class, the most frequent first; classes that none was given are left out."""
        if self.predicted is None or self.class_names is None:
            return {}
        if self.separator is not None:
            counts = (self.probabilities["label"] >= THRESHOLD).sum(axis=0).tolist()
        else:
            counts = [int((self.predicted == name).sum()) for name in self.class_names]
        given = [(name, count) for name, count in zip(self.class_names, counts, strict=True) if count]
        return dict(sorted(given, key=lambda pair: -pair[1]))

    def judged_by_split(self) -> dict[str, dict[str, float]]:
        """What can be judged in each split, beside who never looks, of clips that trained none of the heads.

        Returns:
            {split: numbers}. Of clips whose label is one of the head's classes `num_labelled`, `accuracy` and
            `accuracy_most_frequent`, which is that of their most frequent label; of clips whose target is known
            `num_targets`, `mae` in target units and `mae_median`, which is that of their median.
        """
        classes, targets = self._judged_classes(), self._judged_targets()
        return {split: {**classes.get(split, {}), **targets.get(split, {})} for split in sorted({*classes, *targets})}

    def _judged_classes(self) -> dict[str, dict[str, float]]:
        if self.predicted is None or self.class_names is None or self.separator is not None:
            return {}
        known = np.isin(self.labels, self.class_names) & ~self.trained_folds
        found = {}
        for split in sorted(set(self.splits[known].tolist())):
            rows = known & (self.splits == split)
            _, counts = np.unique(self.labels[rows], return_counts=True)
            found[split] = {
                "num_labelled": int(rows.sum()),
                "accuracy": float((self.predicted == self.labels)[rows].mean()),
                "accuracy_most_frequent": float(counts.max() / counts.sum()),
            }
        return found

    def _judged_targets(self) -> dict[str, dict[str, float]]:
        if self.predicted_target is None or self.targets is None:
            return {}
        known = np.isfinite(self.targets) & ~self.trained_folds
        found = {}
        for split in sorted(set(self.splits[known].tolist())):
            rows = known & (self.splits == split)
            truth = self.targets[rows]
            found[split] = {
                "num_targets": int(rows.sum()),
                "mae": float(np.abs(self.predicted_target[rows] - truth).mean()),
                "mae_median": float(np.abs(np.median(truth) - truth).mean()),
            }
        return found

    def rows(self) -> list[dict[str, Any]]:
        """One entry per clip, of what there is: the class, its probability and the runner-up, the target's value and
        bounds; `failed` with the reason for clips without features, which come last."""
        found = []
        for i, clip_id in enumerate(self.clip_ids.tolist()):
            row: dict[str, Any] = {"clip_id": clip_id}
            if self.predicted is not None and self.class_names is not None:
                q = self.probabilities["label"][i]
                row["predicted"] = str(self.predicted[i])
                if self.separator is not None:
                    row["probabilities"] = dict(zip(self.class_names, q.tolist(), strict=True))
                elif len(q) > 1:
                    first, second = np.argsort(-q, kind="stable")[:2].tolist()
                    row |= {"probability": float(q[first])}
                    row |= {"runner_up": self.class_names[second], "runner_up_probability": float(q[second])}
            if self.predicted_target is not None:
                row[f"predicted_{self.target_name}"] = float(self.predicted_target[i])
                if self.target_bounds is not None:
                    row["interval"] = self.target_bounds[i].tolist()
            found.append(row)
        return found + [{"clip_id": clip_id, "failed": reason} for clip_id, reason in self.failures.items()]

    def to_json(self) -> dict[str, Any]:
        """What was predicted; the rows where each clip was asked for."""
        several = {} if self.separator is None else {"macro_ap_by_split": self.macro_ap_by_split()}
        return {
            "num_clips": len(self.clip_ids),
            "classes": None if self.class_names is None else list(self.class_names),
            "class_counts": self.class_counts(),
            "target_name": self.target_name,
            "target_unit": self.target_unit or None,
            "interval_levels": None if self.predicted_target is None else list(INTERVAL),
            "accuracy_by_split": self.accuracy_by_split(),
            "judged_by_split": self.judged_by_split(),
            **several,
            "left_out": [{"reason": reason, "count": count} for reason, count in self.left_out],
            "warning": self.warning,
            "notes": list(self.all_notes()),
            **({"clips": self.rows()} if self.is_per_clip else {}),
        }

    def text(self) -> str:
        """The same for a terminal of 80 columns."""
        parts = [_wrapped(self.warning)] if self.warning else []
        if self.is_per_clip:
            parts.append("\n".join(_laid_out(*self._table())))
            parts += [_wrapped(f"{clip_id}: failed, {reason}") for clip_id, reason in self.failures.items()]
        else:
            counted = ", ".join(f"{name} {count}" for name, count in self.class_counts().items())
            parts.append(_wrapped(f"{len(self.clip_ids)} clips predicted{counted and f': {counted}'}."))
        if judged := self.judged_by_split():
            parts.append("\n".join(_laid_out(*self._judgement(judged))))
            parts.append(_wrapped(_GUESSERS))
        for split, precision in self.macro_ap_by_split().items():
            parts.append(f"mean average precision of split {split!r}: {precision:.3f}")
        return "\n".join([*parts, *map(_wrapped, self.all_notes())])

    def all_notes(self) -> tuple[str, ...]:
        """`notes`, and what a reader of the rows of videos should know."""
        if not self.is_per_clip:
            return self.notes
        notes = [note for note in self.notes if "clips are left out: " not in note]  # each is a row
        if self.class_names is not None and self.separator is None:
            names = ", ".join(self.class_names[:_MOST_NAMES]) + (", ..." if len(self.class_names) > _MOST_NAMES else "")
            notes.append(f"Each clip is given one of the {len(self.class_names)} classes ({names}), whatever it shows.")
        if self.target_bounds is not None:
            low, high = (f"{level:.0%}" for level in INTERVAL)
            notes.append(f"{low} to {high} of the distribution that the head predicts: what it believes, not a test.")
        if self.durations_seconds is not None and (long := self.durations_seconds > LONG_SECONDS).any():
            first = int(np.flatnonzero(long)[0])
            notes.append(
                f"{int(long.sum())} clips are long (the first, {self.clip_ids[first]}, "
                f"{self.durations_seconds[first]:.0f} s), and what is said is of the whole. For parts, give a table of "
                "clips (a CSV of video, start_seconds, end_seconds) in place of the videos."
            )
        return tuple(notes)

    def _quantity(self) -> str:
        """The target with its unit: `kcal/h`, `weight`."""
        unit, name = self.target_unit, str(self.target_name)
        return unit if unit.startswith(name) else f"{name} ({unit})" if unit else name

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Titles and cells of the rows that have features; names are left of what they name."""
        titles = ["clip"]
        classes = self.predicted is not None
        if classes:
            titles += ["labels"] if self.separator is not None else ["class", "p", "or", "p"]
        if self.predicted_target is not None:
            titles += [self._quantity()]
            titles += ["{:.0%} to {:.0%}".format(*INTERVAL)] if self.target_bounds is not None else []
        cells = []
        for row in self.rows()[: len(self.clip_ids)]:
            line = [row["clip_id"]]
            if classes and self.separator is not None:
                likely = ((value, name) for name, value in row["probabilities"].items() if value >= THRESHOLD)
                line.append(", ".join(f"{name} {value:.2f}" for value, name in sorted(likely, reverse=True)) or "none")
            elif classes:
                line += [row["predicted"], _share(row.get("probability"))]
                line += [row.get("runner_up", ""), _share(row.get("runner_up_probability"))]
            if self.predicted_target is not None:
                line.append(f"{row[f'predicted_{self.target_name}']:.4g}")
                if self.target_bounds is not None:
                    line.append("{:.4g} to {:.4g}".format(*row["interval"]))
            cells.append(line)
        return titles, cells

    def _judgement(self, judged: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
        """Titles and cells of what could be judged, each number beside that of who never looks."""
        columns = {
            "labelled": "num_labelled",
            "accuracy": "accuracy",
            "one class": "accuracy_most_frequent",
            "with target": "num_targets",
            f"MAE {self._quantity()}": "mae",
            "one value": "mae_median",
        }
        there = {title: name for title, name in columns.items() if any(name in values for values in judged.values())}
        cells = [[split, *(_number(values.get(name)) for name in there.values())] for split, values in judged.items()]
        return ["split", *there], cells

    def write_csv(self, path: Path) -> None:
        """Columns clip_id, split, label, then predicted and probability, then predicted_<target> and its bounds.

        Where clips may have several labels: the probability of each, instead of one. Where each clip was asked for:
        the runner-up with its probability, and the reason of clips without features.
        """
        columns: dict[str, list[Any]] = {
            "clip_id": self.clip_ids.tolist(),
            "split": self.splits.tolist(),
            "label": self.labels.tolist(),
        }
        if self.predicted is not None and self.probability is not None:
            columns["predicted"] = self.predicted.tolist()
            columns["probability"] = [f"{value:.6f}" for value in self.probability]
            if self.is_per_clip and len(self.class_names or ()) > 1:
                rows = self.rows()[: len(self.clip_ids)]
                columns["runner_up"] = [row["runner_up"] for row in rows]
                columns["runner_up_probability"] = [f"{row['runner_up_probability']:.6f}" for row in rows]
        if self.predicted is not None and self.separator is not None:
            columns["predicted"] = self.predicted.tolist()
            for name, values in zip(self.class_names or (), self.probabilities["label"].T, strict=True):
                columns[probability_column(name)] = [f"{value:.6f}" for value in values]
        if self.predicted_target is not None:
            columns[f"predicted_{self.target_name}"] = [f"{value:.6g}" for value in self.predicted_target]
            if self.target_bounds is not None:
                for side, values in zip(("low", "high"), self.target_bounds.T, strict=True):
                    columns[f"predicted_{self.target_name}_{side}"] = [f"{value:.6g}" for value in values]
        if self.is_per_clip:
            columns["failed"] = [""] * len(self.clip_ids)
        failed = [
            [{"clip_id": clip_id, "failed": reason}.get(name, "") for name in columns]
            for clip_id, reason in self.failures.items()
        ]
        with appearing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
            writer.writerows(failed)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}" if value <= 1 else f"{value:.4g}"


def _laid_out(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table that fits a terminal: numbers to the right, names shortened where they must be."""
    columns = list(zip(titles, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_name = [i == 0 or title in ("class", "or", "labels") for i, title in enumerate(titles)]
    while sum(widths) + 2 * (len(widths) - 1) > TERMINAL_COLUMNS:
        longest = max((width, i) for i, width in enumerate(widths) if is_name[i])
        if longest[0] <= _LEAST_WIDTH:
            break
        widths[longest[1]] -= 1
    lines = []
    for cells in (titles, *rows):
        fitted = [
            _shortened(text, width, from_front=i == 0)
            for i, (text, width) in enumerate(zip(cells, widths, strict=True))
        ]
        placed = [
            text.ljust(w) if name else text.rjust(w) for text, w, name in zip(fitted, widths, is_name, strict=True)
        ]
        lines.append("  ".join(placed).rstrip())
    return lines


def _shortened(text: str, width: int, *, from_front: bool) -> str:
    """Of a path the end tells most, of a class its beginning."""
    if len(text) <= width:
        return text
    return "..." + text[3 - width :] if from_front else text[: width - 3] + "..."


def _wrapped(sentence: str) -> str:
    return textwrap.fill(
        sentence, TERMINAL_COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
