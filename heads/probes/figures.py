"""The pictures of a probe: which there are, and what each is drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from reelbank.heads.probes.embedding import Embedding
    from reelbank.heads.probes.kmeans import Clustering
    from reelbank.heads.probes.rows import ProbeRows
    from reelbank.heads.reports.drawing import Heading

PICTURES = {
    "tsne-class.png": "t-SNE coloured by class; the number of a class stands at the median of its points",
    "tsne-target.png": "t-SNE coloured by the target",
    "kmeans-clusters.png": "Size and purity of the k-means clusters",
    "knn-confusion.png": "Confusion matrix of the nearest neighbours",
    "linear-confusion.png": "Confusion matrix of the linear probe",
    "class-counts.png": "Clips per class and split",
    "target-distribution.png": "Distribution of the target",
    "target-by-class.png": "Mean and standard deviation of the target, per class and split",
    "target-ranges.png": "Clips by range of the target",
    "clip-sizes.png": "Duration, number of frames, width and height, per split: median, quartiles, 1.5 IQR",
    "class-durations.png": "Duration of the clips, per class",
    "stored-views.png": "Stored views of clips beside the original, at the middle step",
}
"""Every picture a probe may write, in the order of the page, with what it shows."""


def draw(
    rows: ProbeRows,
    embedding: Embedding | None,
    clustering: Clustering | None,
    analyses: Mapping[str, Any],
    heading: Heading,
) -> dict[str, bytes]:
    """{file name: PNG} of every picture the findings allow, in the order of `PICTURES`."""

    from reelbank.heads.reports import figures as pictures

    first = np.unique(rows.clip_rows, return_index=True)[1]
    has_labels = bool((rows.labels != "").any())
    shown_labels = np.where(rows.labels == "", "(no label)", rows.labels).tolist()
    splits = rows.splits.tolist()
    figures = {}
    if embedding is not None:
        points = embedding.coordinates
        figures["tsne-class.png"] = pictures.scatter_by_class(
            points, shown_labels, splits, title="t-SNE by class", heading=heading, numbered=True
        )
        if rows.target is not None and np.isfinite(rows.target).any():
            figures["tsne-target.png"] = pictures.scatter_by_value(
                points, rows.target, splits, value_name=rows.target_name, title="t-SNE by target", heading=heading
            )
    if clustering is not None and has_labels:
        counts = np.unique(rows.labels[rows.labels != ""], return_counts=True)[1]
        figures["kmeans-clusters.png"] = pictures.cluster_sizes(
            clustering.counts,
            analyses["kmeans"]["purities"],
            majority_share=float(counts.max() / counts.sum()),
            heading=heading,
        )
    for name, title in (("knn", "Nearest neighbours"), ("linear", "Linear probe")):
        if name in analyses:
            confusion, reported = analyses[name]["confusion"], analyses[name]["reported"]
            figures[f"{name}-confusion.png"] = pictures.confusion_matrix(
                np.array(confusion["counts"]), confusion["labels"], title=f"{title}, {reported}", heading=heading
            )
    if has_labels:
        figures["class-counts.png"] = pictures.class_counts(
            [shown_labels[i] for i in first], [splits[i] for i in first], heading=heading
        )
    if rows.target is not None and np.isfinite(rows.target).any():
        figures["target-distribution.png"] = pictures.target_distribution(
            rows.target[first], [splits[i] for i in first], name=rows.target_name, heading=heading
        )
    return {name: pictures.png(figures[name]) for name in PICTURES if name in figures}
