"""What `probe` is asked for. The command's options are made from these fields; no torch is loaded here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reelbank.heads.probes import PROBES
from reelbank.heads.run_config import FIGURES
from reelbank.store.accepted import Many, MaybePath
from reelbank.store.devices import check_has_float64
from reelbank.store.options import MAX_SEED, check_options, named_values, option

FLAGS = ("kmeans", "knn", "linear", "tsne", "umap")
"""Analyses that are asked for by a flag of their own; what is an option of theirs is a flag, too."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What to look at, and how. Every field is a flag of `probe`; with no analysis asked: --tsne --knn 5.

    Raises ValueError naming the flag whose value cannot be used.
    """

    store: MaybePath = option(
        None, "--store", "store to look at; default: the only *.zarr of this folder", group="Store"
    )
    tap: str | None = option(None, "--tap", "tap to read; default: the store's first")
    tsne: bool = option(False, "--tsne", "map the rows to the plane by t-SNE", group="Analyses")
    umap: bool = option(False, "--umap", "map the rows to the plane by UMAP; needs reelbank[umap]")
    kmeans: int | None = option(None, "--kmeans", "cluster the rows into K clusters", least=1, most=10_000_000)
    knn: int | None = option(
        None, "--knn", "classify by a vote of the K nearest rows (cosine)", least=1, most=10_000_000
    )
    linear: bool = option(False, "--linear", "classify by logistic regression, C chosen on validation rows")
    analysis: Many[str] = option(
        (), "--analysis", "one more analysis: a row of the table without a flag, or a plug-in", multiple=True
    )
    analysis_option: Many[str] = option(
        (), "--analysis-option", "NAME.OPTION=VALUE: an option of one of --analysis", multiple=True
    )
    explore: bool = option(
        False,
        "--explore",
        "classes, target and clip sizes of the manifest; alone, it reads no features",
        group="Clips without features",
    )
    views: bool = option(
        False, "--views", "draw stored views of a few clips beside the original; needs a store of frames"
    )
    clip: Many[str] = option(
        (), "--clip", "clip_id whose views are drawn; default: the first clips that have some", multiple=True
    )
    level: str = option(
        "clip", "--level", "what a row is: a clip (the mean of its steps) or a step", ("clip", "step"), group="Rows"
    )
    normalize: str = option(
        "zscore",
        "--normalize",
        "zscore by training rows | l2: each step over its length, before any mean | none",
        ("l2", "none", "zscore"),
    )
    label: str = option("label", "--label", "text column with the class")
    target: str | None = option(
        None, "--target", "numeric column; default: the store's first target; 'none': no target"
    )
    highlight: Many[str] = option(
        (), "--highlight", "class that maps show in colour, the others gray; default: all", multiple=True
    )
    perplexity: float = option(
        30.0, "--perplexity", "of t-SNE: effective number of neighbours", above=0, group="Settings of the analyses"
    )
    umap_neighbors: int = option(
        15, "--umap-neighbors", "of UMAP: rows that count as near to one", least=2, most=10_000
    )
    umap_min_dist: float = option(
        0.1, "--umap-min-dist", "of UMAP: least distance of points in the map, whose spread is 1", least=0, most=1
    )
    n_init: int = option(1, "--n-init", "starts of k-means; the best is kept", least=1, most=10_000)
    max_iter: int = option(300, "--max-iter", "most Lloyd steps of one start of k-means", least=1, most=1_000_000)
    view: int = option(0, "--view", "stored view to read; 0 is the evaluation view", least=0, most=10_000, group="Rows")
    seed: int = option(
        0,
        "--seed",
        "of t-SNE, UMAP, k-means, folds and intervals",
        least=0,
        most=MAX_SEED,
        group="Seed, machine, output",
    )
    device: str = option("auto", "--device", "of k-means: auto | cpu | cuda[:N]")
    figures: str = option("png", "--figures", "png | svg | pdf: write the pictures in that format too", FIGURES)
    out: MaybePath = option(None, "--out", "folder of the results; default: <store>-probe")

    def __post_init__(self) -> None:
        check_options(self, ValueError)
        check_has_float64(self.device)
        if self.clip and not self.views:
            raise ValueError("--clip names clips whose views are drawn; it belongs to --views")
        for name in self.analysis:
            if name in FLAGS:
                raise ValueError(f"--analysis {name}: it has a flag of its own, --{name}")
            PROBES.row(name)
        if len(set(self.analysis)) < len(self.analysis):
            raise ValueError(f"--analysis names one twice: {', '.join(self.analysis)}")
        for text in self.analysis_option:
            if not any(text.startswith(f"{name}.") for name in self.analysis):
                asked = ", ".join(self.analysis) or "none"
                raise ValueError(
                    f"--analysis-option {text!r} is not NAME.OPTION=VALUE of one asked; --analysis has {asked}"
                )

        others = self.asked() or self.explore or self.views  # where nothing is asked, a map is drawn
        if self.highlight and others and not any(PROBES.row(name).is_map for name in self.asked()):
            raise ValueError("--highlight colours classes in a map: ask for one, --tsne or --umap")

    def asked(self) -> list[str]:
        """The analyses that the flags and --analysis name, in the table's order, then in that given."""
        given = {
            "tsne": self.tsne,
            "umap": self.umap,
            "kmeans": self.kmeans is not None,
            "knn": self.knn is not None,
            "linear": self.linear,
        }
        own = [name for name in PROBES if given.get(name) or (name in self.analysis and name not in given)]
        return [*own, *(name for name in self.analysis if name not in own)]

    def options_of(self, name: str) -> dict[str, Any]:
        """Every option of an analysis: its default, its flag, or what --analysis-option gives. Raises ValueError."""
        row = PROBES.row(name)
        if name in FLAGS:
            flags = {option: getattr(self, option) for option in row.options}
            return {option: row.options[option] if value is None else value for option, value in flags.items()}
        texts = [text.removeprefix(f"{name}.") for text in self.analysis_option if text.startswith(f"{name}.")]
        given = named_values(texts, row.options, flag="--analysis-option", owner=f"analysis {name!r}", error=ValueError)
        return {**row.options, **given}
