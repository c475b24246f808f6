"""Maps of the rows in the plane. They are drawn by `reelbank.heads.probes.figures`."""

from __future__ import annotations

import numpy as np

from reelbank.heads.probes import Finding, Question, class_layout
from reelbank.heads.probes.embedding import FFT_FROM_ROWS, NO_UMAP, check_rows, has_fft, has_umap, tsne, umap


def check_tsne(question: Question) -> None:
    """Raises ValueError: too few rows, rows that are all equal, a perplexity that is none."""
    check_rows(question.rows.vectors, question.options["perplexity"])


def tsne_map(question: Question) -> Finding:
    """t-SNE with `perplexity`; see `reelbank.heads.probes.embedding`. Beside it how the classes lie, in numbers."""
    rows = question.rows
    found = tsne(rows.vectors, perplexity=question.options["perplexity"], seed=question.seed)
    notes = []
    if found.perplexity < found.perplexity_asked:
        notes.append(
            f"Perplexity {found.perplexity_asked:g} was asked, {found.perplexity:g} used: "
            f"{len(rows)} rows allow no more."
        )
    if found.kl_divergence is None:
        notes.append("The KL divergence is not shown: the library's approximation of it is below 0, as for equal rows.")
    if len(rows) > FFT_FROM_ROWS and not has_fft():
        notes.append(
            f"The t-SNE is scikit-learn's: openTSNE, which is faster above {FFT_FROM_ROWS:,} rows, is not installed."
        )
    layout = class_layout.class_layout(rows, question.seed)
    if 0 < layout["num_rows"] < (labelled := int((rows.labels != "").sum())):
        notes.append(f"How classes lie is of {layout['num_rows']:,} of {labelled:,} labelled rows, drawn by the seed.")
    return Finding(
        numbers={
            **{name: value for name, value in vars(found).items() if name not in ("coordinates", "start")},
            "class_layout": layout,
        },
        page=class_layout.page(layout),
        sentences=[
            f"t-SNE of {len(rows)} rows: perplexity {found.perplexity:g}"
            + (f" ({found.perplexity_asked:g} asked)" if found.perplexity < found.perplexity_asked else "")
            + (f", KL divergence {found.kl_divergence:.3f}." if found.kl_divergence is not None else "."),
            *(class_layout.sentences(layout) if layout["num_rows"] else ()),
        ],
        notes=notes,
        coordinates=found.coordinates,
    )


def check_umap(question: Question) -> None:
    """Raises ValueError: umap-learn is not installed, too few rows, or rows that are all equal."""
    if not has_umap():
        raise ValueError(NO_UMAP)
    check_rows(question.rows.vectors, name="UMAP")


def umap_map(question: Question) -> Finding:
    """UMAP with `umap_neighbors` and `umap_min_dist`; see `reelbank.heads.probes.embedding`."""
    rows, options = question.rows, question.options
    found = umap(
        rows.vectors, neighbours=options["umap_neighbors"], min_dist=options["umap_min_dist"], seed=question.seed
    )
    asked = f" ({found.neighbours_asked} asked)" if found.neighbours < found.neighbours_asked else ""
    notes = []
    if asked:
        notes.append(
            f"UMAP: {found.neighbours_asked} neighbours were asked, {found.neighbours} used: "
            f"{len(rows)} rows allow no more."
        )
    if (num_equal := len(rows) - len(np.unique(rows.vectors, axis=0))) > 0:
        notes.append(f"UMAP: {num_equal} of {len(rows)} rows equal an earlier one, and lie on or beside it.")
    return Finding(
        numbers={name: value for name, value in vars(found).items() if name not in ("coordinates", "start")},
        sentences=[
            f"UMAP of {len(rows)} rows: {found.neighbours} neighbours{asked}, least distance {found.min_dist:g}."
        ],
        notes=notes,
        coordinates=found.coordinates,
    )
