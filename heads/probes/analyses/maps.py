"""Maps of the rows in the plane. They are drawn by `reelbank.heads.probes.figures`."""

from __future__ import annotations

from reelbank.heads.probes import Finding, Question
from reelbank.heads.probes.embedding import FFT_FROM_ROWS, check_rows, has_fft, tsne


def check_tsne(question: Question) -> None:
    """Raises ValueError: too few rows, rows that are all equal, a perplexity that is none."""
    check_rows(question.rows.vectors, question.options["perplexity"])


def tsne_map(question: Question) -> Finding:
    """t-SNE with `perplexity`; see `reelbank.heads.probes.embedding`."""
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
    return Finding(
        numbers={name: value for name, value in vars(found).items() if name not in ("coordinates", "start")},
        sentences=[
            f"t-SNE of {len(rows)} rows: perplexity {found.perplexity:g}"
            + (f" ({found.perplexity_asked:g} asked)" if found.perplexity < found.perplexity_asked else "")
            + (f", KL divergence {found.kl_divergence:.3f}." if found.kl_divergence is not None else ".")
        ],
        notes=notes,
        coordinates=found.coordinates,
    )
