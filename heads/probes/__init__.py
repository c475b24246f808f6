"""The table of analyses that need no trained head. An analysis is one file and one row; it is loaded on first use.

Each looks at the rows of features of a store and gives a `Finding`: numbers for results.json, sentences, a part of the
page, pictures, columns of coordinates.csv. What lies on disk and on the page is made from these, in the table's order.
An analysis is one of PROBES, one that an installed package adds (entry points `reelbank.probes`), or
`module:attribute`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reelbank.manifests.registry import Registry, file_name, first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reelbank.heads.probes.rows import ProbeRows

__all__ = ["PROBES", "Finding", "Probe", "Question"]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A registered analysis.

    Attributes:
        target: `module:function`, Question -> Finding.
        summary: one line for listings.
        title: what it is called in captions and headings; empty: its name.
        is_map: whether it gives coordinates: they are drawn by class and by target, and shown on the page.
        pictures: {file name: caption} of the other pictures that it may draw.
        options: its own options with their defaults, given as --analysis-option NAME.OPTION=VALUE.
        check: `module:function`, Question -> None: raises ValueError for what the rows lack. Every analysis is asked
            before the first one runs. Empty: nothing can lack.
    """

    target: str
    summary: str
    title: str = ""
    is_map: bool = False
    pictures: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    check: str = ""

    def captions(self, name: str) -> dict[str, str]:
        """{file name: caption} of every picture it may leave, under the name that it was asked by."""
        title = self.title or name
        numbered = "class; the number of a class stands at the median of its points"
        by = {"class": numbered, "target": "the target"} if self.is_map else {}
        maps = {f"{file_name(name)}-{of}.png": f"{title} coloured by {what}" for of, what in by.items()}
        return {**maps, **self.pictures}


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an analysis is asked.

    Attributes:
        rows: vectors (R, D), labels, splits, groups, target.
        options: every option of its row.
        seed: of whatever it draws.
        device: `auto`, `cpu` or `cuda[:N]`, as asked.
        heading: what stands above every picture (`reelbank.heads.reports.figures`).
    """

    rows: ProbeRows
    options: Mapping[str, Any]
    seed: int
    device: str
    heading: Any


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What an analysis gives back.

    Attributes:
        numbers: its entry in results.json, JSON types.
        sentences: what a person wants to know first, with the baseline.
        notes: what was other than asked.
        page: HTML of its part of the page, made of the parts of `reelbank.heads.reports.html`.
        coordinates: (R, 2) of a map; None for others.
        pictures: {file name of its row: PNG}.
        columns: {name: (R,) values} for coordinates.csv.
    """

    numbers: Mapping[str, Any]
    sentences: Sequence[str] = ()
    notes: Sequence[str] = ()
    page: str = ""
    coordinates: NDArray[Any] | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)


_ROWS = {
    "tsne": Probe(
        target="reelbank.heads.probes.analyses.maps:tsne_map",
        summary="a map of the rows in the plane by t-SNE (--tsne)",
        title="t-SNE",
        is_map=True,
        options={"perplexity": 30.0},
        check="reelbank.heads.probes.analyses.maps:check_tsne",
    ),
    "umap": Probe(
        target="reelbank.heads.probes.analyses.maps:umap_map",
        summary="a map of the rows in the plane by UMAP (--umap)",
        title="UMAP",
        is_map=True,
        options={"umap_neighbors": 15, "umap_min_dist": 0.1},
        check="reelbank.heads.probes.analyses.maps:check_umap",
    ),
    "kmeans": Probe(
        target="reelbank.heads.probes.analyses.clusters:clusters",
        summary="K clusters of the rows, against labels and target (--kmeans K)",
        title="k-means",
        pictures={"kmeans-clusters.png": "Size and purity of the k-means clusters"},
        options={"kmeans": 8, "n_init": 1, "max_iter": 300},
    ),
    "knn": Probe(
        target="reelbank.heads.probes.analyses.classification:nearest_neighbours",
        summary="a vote of the K nearest rows, by cosine (--knn K)",
        title="Nearest neighbours",
        pictures={"knn-confusion.png": "Confusion matrix of the nearest neighbours"},
        options={"knn": 5},
        check="reelbank.heads.probes.analyses.classification:check_neighbours",
    ),
    "linear": Probe(
        target="reelbank.heads.probes.analyses.classification:linear_probe",
        summary="logistic regression, C chosen on validation rows (--linear)",
        title="Linear probe",
        pictures={"linear-confusion.png": "Confusion matrix of the linear probe"},
        check="reelbank.heads.probes.analyses.classification:check_linear",
    ),
}

PROBES: Registry[Probe] = Registry(
    _ROWS,
    kind="analysis",
    group="reelbank.probes",
    row_type=Probe,
    error=ValueError,
    from_function=lambda target, function: Probe(target=target, summary=first_line(function)),
    function="analyse(question) -> Finding",
)
