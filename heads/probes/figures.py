"""The pictures of a probe that belong to no single analysis: maps, and what the rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reelbank.heads.probes import PROBES
from reelbank.manifests.registry import file_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reelbank.heads.probes.rows import ProbeRows
    from reelbank.heads.reports.drawing import Heading

GENERAL = {
    "class-counts.png": "Clips per class and split",
    "target-distribution.png": "Distribution of the target",
    "target-by-class.png": "Mean and standard deviation of the target, per class and split",
    "target-ranges.png": "Clips by range of the target",
    "clip-sizes.png": "Duration, number of frames, width and height, per split: median, quartiles, 1.5 IQR",
    "class-durations.png": "Duration of the clips, per class",
    "stored-views.png": "Stored views of clips beside the original, at the middle step",
}
"""Pictures of no single analysis, with what they show."""

PICTURES = {**{file: text for name, row in PROBES.items() for file, text in row.captions(name).items()}, **GENERAL}
"""Every picture a probe may write, in the order of the page, with what it shows; those of plug-ins come first."""


def draw_map(
    name: str, title: str, rows: ProbeRows, points: NDArray[np.floating], heading: Heading
) -> dict[str, bytes]:
    """{file name: PNG} of a map, (R, 2): coloured by class, and by target where there is one."""
    from reelbank.heads.reports import figures as pictures

    splits, stem = rows.splits.tolist(), file_name(name)
    figures = {
        f"{stem}-class.png": pictures.scatter_by_class(
            points,
            _shown_labels(rows),
            splits,
            title=f"{title} by class",
            heading=heading,
            numbered=True,
            highlight=rows.highlight,
        )
    }
    if rows.target is not None and np.isfinite(rows.target).any():
        figures[f"{stem}-target.png"] = pictures.scatter_by_value(
            points, rows.target, splits, value_name=rows.target_name, title=f"{title} by target", heading=heading
        )
    return {file: pictures.png(figure) for file, figure in figures.items()}


def draw_rows(rows: ProbeRows, heading: Heading) -> dict[str, bytes]:
    """{file name: PNG} of what the rows are: classes and target."""
    from reelbank.heads.reports import figures as pictures

    first = np.unique(rows.clip_rows, return_index=True)[1]
    shown_labels, splits = _shown_labels(rows), rows.splits.tolist()
    figures = {}
    if (rows.labels != "").any():
        figures["class-counts.png"] = pictures.class_counts(
            [shown_labels[i] for i in first], [splits[i] for i in first], heading=heading
        )
    if rows.target is not None and np.isfinite(rows.target).any():
        figures["target-distribution.png"] = pictures.target_distribution(
            rows.target[first], [splits[i] for i in first], name=rows.target_name, heading=heading
        )
    return {file: pictures.png(figure) for file, figure in figures.items()}


def _shown_labels(rows: ProbeRows) -> list[str]:
    shown: list[str] = np.where(rows.labels == "", "(no label)", rows.labels).tolist()
    return shown
