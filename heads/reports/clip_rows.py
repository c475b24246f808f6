"""The clips of a run on its page: the worst mistakes with their thumbnails, and a table of all of them.

No video is opened: a thumbnail is what extraction left in the store.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.errors import TrainingError
from reelbank.heads.reports import html
from reelbank.heads.reports.wording import cell
from reelbank.heads.stored import read_table
from reelbank.store.errors import StoreError
from reelbank.store.files import reading, regular
from reelbank.store.reader import Store

MOST_CLASSES, MOST_PER_CLASS = 12, 4
"""Classes with most mistakes whose worst ones are shown, and how many of each."""
PLAIN_ROWS = 300
"""Clips in the table where no script runs."""
MOST_ROWS = 50_000
"""Clips in the table at all: about 100 bytes each."""


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    """A line of predictions.csv; None where the run has no such value."""

    clip_id: str
    group: str
    split: str
    label: str
    predicted: str
    probability: float | None
    true_probability: float | None
    correct: bool | None
    target: float | None
    predicted_target: float | None
    error: float | None

    @property
    def rank(self) -> tuple[float, ...]:
        """What clips are sorted by, the worst mistake first: certain and wrong, then far off."""
        return (
            0 if self.correct is False else 1,
            -(self.probability or 0.0) if self.correct is False else 0.0,
            -(self.error or 0.0),
        )


def read_clip_rows(path: Path) -> list[ClipRow]:
    """The rows of predictions.csv. Raises TrainingError naming the file for a number that is none."""
    with reading(path, TrainingError):
        return [_row(row) for row in read_table(path, ("split",))[1]]


def _row(row: Mapping[str, str]) -> ClipRow:
    target, predicted = _number(row, "target"), _number(row, "predicted_target")
    error = math.nan if target is None or predicted is None else abs(predicted - target)
    return ClipRow(
        **{name: row.get(name, "") for name in ("clip_id", "group", "split", "label", "predicted")},
        probability=_number(row, "probability"),
        true_probability=_number(row, "true_probability"),
        correct={"1": True, "0": False}.get(row.get("correct", "")),
        target=target,
        predicted_target=predicted,
        error=error if math.isfinite(error) else None,
    )


def _number(row: Mapping[str, str], name: str) -> float | None:
    if not row.get(name):
        return None
    value = float(row[name])
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}")
    return value


def target_pairs(rows: Sequence[ClipRow]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """split -> (true, predicted), of rows with both numbers."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.target is not None and row.predicted_target is not None:
            pairs.setdefault(row.split, []).append((row.target, row.predicted_target))
    return {split: (np.array(values)[:, 0], np.array(values)[:, 1]) for split, values in sorted(pairs.items())}


class Thumbnails:
    """Thumbnails of clips from the stores of a run, where these are still what the run was trained on.

    Attributes:
        notes: why pictures are missing, and how to get them.
    """

    def __init__(self, stores: Sequence[Mapping[str, Any]]) -> None:
        self.notes: dict[str, None] = {}
        self._stores: list[tuple[Store, dict[str, int]]] = []
        for entry in stores:
            path = Path(entry["path"])
            try:
                store = Store(path)
                if entry.get("spec_digest") not in (None, store.spec_digest):
                    self._note(f"{path} is no longer the store of this run")
                    continue
                rows = {str(clip): row for row, clip in enumerate(store.column("clip_id").tolist())}
            except (StoreError, OSError) as error:
                self._note(f"{path} cannot be opened ({type(error).__name__})")
            else:
                self._stores.append((store, rows))

    def links(self, folder: Path) -> list[tuple[str, html.Link | str]]:
        """(what, link) of the stores that are there and of their manifests, from a page in `folder`."""
        return list(dict.fromkeys(link for store, _ in self._stores for link in html.stored_in(store, folder)))

    def _note(self, why: str) -> None:
        self.notes[
            f"Without thumbnails: {why}. Write this page again where the store is found under that path: "
            "reelbank.heads.reports.run_page.write_run_report(run)."
        ] = None

    def of(self, clip_id: str) -> str:
        """The source of a picture of a clip; '' where no store has one."""
        for store, rows in self._stores:
            if clip_id in rows:
                try:
                    pixels = store.thumbnail(rows[clip_id])
                except (StoreError, OSError) as error:
                    self._note(f"that of {clip_id!r} in {store.path} cannot be read ({type(error).__name__})")
                    continue
                if pixels.any():
                    return html.thumbnail_source(pixels)
        if self._stores:
            self.notes[
                "Some clips have no thumbnail in the store: featurize keeps one of each clip, store import has none to "
                "keep."
            ] = None
        return ""


def mistakes(rows: Sequence[ClipRow], split: str, unit: str, thumbnails: Thumbnails) -> list[str]:
    """Parts of the page: clips of `split` with the most confident wrong class, and those with the largest error.

    Args:
        unit: of the target; '' for none.
    """
    own = [row for row in rows if row.split == split]
    wrong = [(row.probability, row) for row in own if row.correct is False and row.probability is not None]
    far = [(row.error, row) for row in own if row.error]
    parts = []
    for title, worst, said in (
        ("most confident wrong class", wrong, [_said_class(row) for _, row in wrong]),
        ("largest error of the target", far, [_said_target(row, unit) for _, row in far]),
    ):
        classes: dict[str, list[tuple[float, ClipRow, str]]] = defaultdict(list)
        found = [(size, row, text) for (size, row), text in zip(worst, said, strict=True)]
        for entry in sorted(found, key=lambda entry: -entry[0]):
            classes[entry[1].label].append(entry)
        chosen = sorted(classes, key=lambda label: -sum(size for size, *_ in classes[label]))[:MOST_CLASSES]
        left_out = f"; the {MOST_CLASSES} of {len(classes)} classes with most" if len(classes) > MOST_CLASSES else ""
        cards = [
            (
                f"true class {label}" if label else "no label",
                [(row.clip_id, thumbnails.of(row.clip_id), text) for _, row, text in classes[label][:MOST_PER_CLASS]],
            )
            for label in chosen
        ]
        if cards:
            parts += [html.paragraphs([f"Split {split}, {title}{left_out}."], kind="soft"), html.cards(cards)]
    return [*parts, html.paragraphs(thumbnails.notes, kind="soft")] if parts else []


def _said_class(row: ClipRow) -> str:
    return f"predicted {row.predicted}, probability {cell(row.probability)}"


def _said_target(row: ClipRow, unit: str) -> str:
    return f"predicted {cell(row.predicted_target)}, true {cell(row.target)} {unit}".rstrip()


_HEADS = {
    "clip_id": "clip", "group": "group", "split": "split", "label": "label", "predicted": "predicted",
    "probability": "probability", "true_probability": "of true class",
    "correct": "right", "target": "target", "predicted_target": "predicted target",
    "error": "error",
}  # fmt: skip


def clip_table(rows: Sequence[ClipRow]) -> list[str]:
    """Parts of the page: every clip, the worst mistake first; `script` sorts, filters and turns pages."""
    ordered = sorted(rows, key=lambda row: row.rank)[:MOST_ROWS]
    names = [field.name for field in fields(ClipRow)]
    shown = [name for name in names if any(getattr(row, name) not in ("", None) for row in ordered)]
    values = [[getattr(row, name) for name in shown] for row in ordered]
    if not values:
        return []
    head = [_HEADS[name] for name in shown]
    said = [f"{len(rows)} clips, the worst mistakes first."]
    if len(ordered) < len(rows):
        said.append(f"The first {MOST_ROWS} are here; predictions.csv has all.")
    elif len(ordered) > PLAIN_ROWS:
        said.append(f"Where no script runs the first {PLAIN_ROWS} are shown; predictions.csv has all.")
    data = {
        "head": head,
        "split": shown.index("split") if len({row.split for row in ordered}) > 1 else None,
        "right": shown.index("correct") if "correct" in shown else None,
        "rows": values,
    }
    return [
        html.paragraphs([" ".join(said)], kind="soft"),
        html.table(head, values[:PLAIN_ROWS], identifier="clip-table"),
        html.data_block("clip-table-data", data),
    ]


@cache
def script() -> html.Script:
    """What sorts and filters the table of clips."""
    return html.Script(text=regular(Path(__file__).parent / "templates" / "clips.js").read_text(encoding="utf-8"))
