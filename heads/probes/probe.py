"""Looking at a store without training a head: t-SNE, k-means, nearest neighbours, a linear probe, its manifest.

`probe(config)` fills one folder:

`results.json`     (written last) what was asked, what was found, warnings and notes; `analyses` holds one entry
                   per analysis: `explore`, `tsne`, `kmeans`, `knn`, `linear`
`coordinates.csv`  one line per row: clip_id, step ('' for a whole clip), split, label, group, target, and x, y
                   (with t-SNE) and cluster (with k-means); not written where only the manifest was explored
`*.png`            the pictures
`index.html`       all of it as one page that needs no network
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelbank.heads.events import Event, Progress
from reelbank.heads.probes.figures import PICTURES
from reelbank.store.devices import resolve_device
from reelbank.store.options import option

if TYPE_CHECKING:
    from reelbank.heads.probes.embedding import Embedding
    from reelbank.heads.probes.exploration import Exploration
    from reelbank.heads.probes.kmeans import Clustering
    from reelbank.heads.probes.rows import ProbeRows
    from reelbank.store.reader import Store

DEFAULT_K = 5

OUTPUTS = (*PICTURES, "coordinates.csv", "index.html", "results.json")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What to look at, and how. Every field is a flag of `probe`; with no analysis asked: --tsne --knn 5.

    Raises ValueError naming the flag whose value cannot be used.
    """

    store: Path | None = option(None, "--store", "store to look at; default: the only *.zarr of this folder")
    tap: str | None = option(None, "--tap", "tap to read; default: the store's first")
    tsne: bool = option(False, "--tsne", "map the rows to the plane by t-SNE")
    kmeans: int | None = option(None, "--kmeans", "cluster the rows into K clusters")
    knn: int | None = option(None, "--knn", "classify by a vote of the K nearest rows (cosine)")
    linear: bool = option(False, "--linear", "classify by logistic regression, C chosen on validation rows")
    explore: bool = option(
        False, "--explore", "classes, target and clip sizes of the manifest; alone, it reads no features"
    )
    level: str = option("clip", "--level", "what a row is: a clip (the mean of its steps) or a step", ("clip", "step"))
    normalize: str = option(
        "zscore",
        "--normalize",
        "zscore by training rows | l2 of each row | none",
        ("l2", "none", "zscore"),
    )
    label: str = option("label", "--label", "text column with the class")
    target: str | None = option(
        None, "--target", "numeric column; default: the store's first target; 'none': no target"
    )
    perplexity: float = option(30.0, "--perplexity", "of t-SNE: effective number of neighbours")
    n_init: int = option(1, "--n-init", "starts of k-means; the best is kept")
    max_iter: int = option(300, "--max-iter", "most Lloyd steps of one start of k-means")
    view: int = option(0, "--view", "stored view to read; 0 is the evaluation view")
    seed: int = option(0, "--seed", "of t-SNE, k-means, folds and intervals")
    device: str = option("auto", "--device", "of k-means: auto | cpu | cuda[:N]")
    out: Path | None = option(None, "--out", "folder of the results; default: <store>-probe")

    def __post_init__(self) -> None:
        for item in fields(self):
            choices, value = item.metadata["choices"], getattr(self, item.name)
            if choices and value not in choices:
                raise ValueError(f"{item.metadata['flag']} {value!r} is not one of {', '.join(sorted(choices))}")
        for name, least in (("kmeans", 1), ("knn", 1), ("n_init", 1), ("max_iter", 1), ("view", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name.replace('_', '-')} {value} must be {least} or more")
        if not self.perplexity > 0:
            raise ValueError(f"--perplexity {self.perplexity} must be above 0")


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What a probe found.

    Attributes:
        out: the folder.
        page: its index.html.
        pictures: its PNG files.
        results: the content of results.json.
        verdict: the sentences a person wants to read first.
        warning: the sentence every report must show; '' for none.
    """

    out: Path
    page: Path
    pictures: tuple[Path, ...]
    results: dict[str, Any]
    verdict: tuple[str, ...]
    warning: str

    def text(self) -> str:
        """The findings for a person: sentences, then where the files are."""
        lines = [*([self.warning] if self.warning else []), *self.verdict, f"Page: {self.page}"]
        return "\n".join([*lines, f"Pictures: {', '.join(str(path) for path in self.pictures)}"])


@dataclass(kw_only=True)
class _Findings:
    """What the analyses left for the pictures and the page."""

    analyses: dict[str, Any] = field(default_factory=dict)
    embedding: Embedding | None = None
    clustering: Clustering | None = None
    exploration: Exploration | None = None
    pictures: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def probe(config: ProbeConfig, progress: Progress | None = None) -> ProbeResult:
    """Runs the analyses of `config` on a store and writes the folder described above.

    Raises:
        ValueError: no or several stores, an unknown tap or column, too few rows (with their number), or an
            output folder that holds other files.
        StoreError: a path that is not a store.
    """
    import reelbank.store
    from reelbank.heads.probes.rows import default_store, load_rows

    began = time.monotonic()
    store = reelbank.store.open(config.store or default_store(Path.cwd()))
    tap = config.tap or store.default_tap
    out = config.out or Path(f"{store.path.name.removesuffix('.zarr')}-probe")
    _require_free(out)
    plan = _plan(config)
    tell = _Teller(progress, int(config.explore) + (len(plan) + 1 if plan else 0) + 1)
    found, rows = _Findings(), None
    if config.explore:
        tell("explore", f"manifest and ledger of {store.path.name}")
        _run_explore(config, store, found)
    if plan:
        tell("load", f"reading tap {tap} of {store.path.name}")
        rows = load_rows(
            store,
            tap=tap,
            level=config.level,
            view=config.view,
            normalize=config.normalize,
            label_column=config.label,
            target_column=config.target,
        )
        _require_rows(config, rows, num_steps=int(store.num_steps[store.done_rows()].sum()))
        found.notes += rows.notes
        for name in plan:
            tell(name, f"{len(rows)} rows of {rows.vectors.shape[1]} numbers")
            _ANALYSES[name](config, rows, found)
    tell("report", str(out))
    return _write(store, config, tap, rows, found, out, began)


class _Teller:
    """Sends events; counts the parts of one probe."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, stage: str, message: str) -> None:
        if self._progress is not None:
            self._progress(Event(stage=stage, done=self._done, total=self._total, message=message))
        self._done += 1


def _plan(config: ProbeConfig) -> list[str]:
    asked = {
        "tsne": config.tsne,
        "kmeans": config.kmeans is not None,
        "knn": config.knn is not None,
        "linear": config.linear,
    }
    return [name for name, wanted in asked.items() if wanted] or ([] if config.explore else ["tsne", "knn"])


def _require_free(out: Path) -> None:
    """A former probe's files are replaced; any other file makes the folder someone else's."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; give a folder")
    others = sorted(path.name for path in out.iterdir() if path.name not in OUTPUTS) if out.exists() else []
    if others:
        raise ValueError(f"--out {out} holds files that no probe wrote ({', '.join(others[:3])}); give another folder")


def _require_rows(config: ProbeConfig, rows: ProbeRows, *, num_steps: int) -> None:
    if config.kmeans is None or config.kmeans <= len(rows):
        return
    asked = f"--kmeans {config.kmeans}: {config.kmeans} clusters asked, {len(rows)} rows found"
    if config.level == "step":
        raise ValueError(f"{asked} (steps of {rows.num_clips} clips); ask for at most {len(rows)}")
    raise ValueError(
        f"{asked} (one per clip); ask for at most {len(rows)}, or pass --level step, "
        f"which clusters their {num_steps} steps instead of clips"
    )


# --- the analyses --------------------------------------------------------------------------------


def _run_explore(config: ProbeConfig, store: Store, found: _Findings) -> None:
    from reelbank.heads.probes.exploration import explore

    found.exploration = explore(store, label=config.label, target=config.target)
    found.analyses["explore"] = found.exploration.to_json()


def _run_tsne(config: ProbeConfig, rows: ProbeRows, found: _Findings) -> None:
    from reelbank.heads.probes.embedding import tsne

    embedding = tsne(rows.vectors, perplexity=config.perplexity, seed=config.seed)
    found.embedding = embedding
    found.analyses["tsne"] = {
        name: value for name, value in vars(embedding).items() if name not in ("coordinates", "start")
    }
    if embedding.perplexity < embedding.perplexity_asked:
        found.notes.append(
            f"Perplexity {embedding.perplexity_asked:g} was asked, {embedding.perplexity:g} used: "
            f"{len(rows)} rows allow no more."
        )


def _run_kmeans(config: ProbeConfig, rows: ProbeRows, found: _Findings) -> None:
    from reelbank.heads.probes.cluster_reading import cluster_purities, read_labels, read_target, silhouette
    from reelbank.heads.probes.kmeans import kmeans

    assert config.kmeans is not None
    device = resolve_device(config.device)
    clustering = kmeans(
        rows.vectors,
        config.kmeans,
        n_init=config.n_init,
        max_iter=config.max_iter,
        seed=config.seed,
        device=device,
    )
    found.clustering = clustering
    filled = int((clustering.counts > 0).sum())
    result: dict[str, Any] = {
        "num_clusters": config.kmeans,
        "num_filled": filled,
        "inertia": clustering.inertia,
        "num_iterations": clustering.num_iterations,
        "n_init": config.n_init,
        "method": clustering.method,
        "silhouette": silhouette(rows.vectors, clustering.labels, seed=config.seed),
    }
    if filled < config.kmeans:
        found.notes.append(
            f"Only {filled} of {config.kmeans} clusters hold rows: the rows have no more distinct vectors."
        )
    labelled = rows.labels != ""
    if labelled.any():
        clusters, labels = clustering.labels[labelled], rows.labels[labelled]
        result["labels"] = read_labels(clusters, labels, seed=config.seed)
        result["purities"] = cluster_purities(clusters, labels, config.kmeans)
    if rows.target is not None:
        result["target"] = read_target(rows, clustering, seed=config.seed)
    found.analyses["kmeans"] = result


def _run_knn(config: ProbeConfig, rows: ProbeRows, found: _Findings) -> None:
    from reelbank.heads.probes.neighbours import knn, make_protocol

    if config.knn is None and len(set(rows.labels[rows.labels != ""].tolist())) < 2:
        found.notes.append("Nearest neighbours were left out: the store has fewer than two labels.")
        return
    found.analyses["knn"] = knn(rows, make_protocol(rows), config.knn or DEFAULT_K, seed=config.seed)


def _run_linear(config: ProbeConfig, rows: ProbeRows, found: _Findings) -> None:
    from reelbank.heads.probes.neighbours import linear, make_protocol

    found.analyses["linear"] = linear(rows, make_protocol(rows), seed=config.seed)
    if not found.analyses["linear"]["converged"]:
        found.notes.append("The linear probe stopped at 1,000 iterations before it converged.")


_ANALYSES = {"tsne": _run_tsne, "kmeans": _run_kmeans, "knn": _run_knn, "linear": _run_linear}


# --- the folder ----------------------------------------------------------------------------------


def _write(
    store: Store, config: ProbeConfig, tap: str, rows: ProbeRows | None, found: _Findings, out: Path, began: float
) -> ProbeResult:
    from reelbank.heads.probes.figures import draw
    from reelbank.heads.probes.report import probe_page, verdict
    from reelbank.heads.reports.drawing import Heading
    from reelbank.store.description import random_weights_warning

    warning = random_weights_warning([store.spec.backbone]) if store.weights_are_random else ""
    source = f"{store.path.name} · {store.spec.backbone}"
    if rows is not None:
        count = f"n = {len(rows)} {'clips' if config.level == 'clip' else f'steps of {rows.num_clips} clips'}"
        heading = Heading(source=f"{source} · tap {tap}", count=count, warning=warning)
        found.pictures = draw(rows, found.embedding, found.clustering, found.analyses, heading)
    if found.exploration is not None:
        from reelbank.heads.probes.exploration_figures import draw_exploration

        # Every clip of the manifest, with features or not, instead of the pictures of those that were read.
        heading = Heading(source=source, count=f"n = {len(found.exploration)} clips", warning=warning)
        found.pictures |= draw_exploration(found.exploration, heading)
    found.pictures = {name: found.pictures[name] for name in PICTURES if name in found.pictures}
    found.analyses.get("kmeans", {}).pop("purities", None)
    read_tap = tap if rows is not None else None
    results: dict[str, Any] = {
        "format_version": 1,
        "store": store.path.name,
        "backbone": store.spec.backbone,
        "weights": dict(store.spec.weights),
        "sampling": store.spec.sampling,
        "spec_digest": store.spec_digest,
        "weights_are_random": store.weights_are_random,
        "warning": warning,
        "config": {name: _plain(value) for name, value in asdict(config).items()} | {"tap": read_tap},
        **_counts(rows if rows is not None else found.exploration),
        "analyses": found.analyses,
        "notes": found.notes,
        "seconds": round(time.monotonic() - began, 3),
    }
    results["verdict"] = list(verdict(results))
    names = [*found.pictures, *(["coordinates.csv"] if rows is not None else []), "index.html", "results.json"]
    results["files"] = names
    page = probe_page(store, rows, found.embedding, found.clustering, results, found.pictures)
    out.mkdir(parents=True, exist_ok=True)
    for stale in OUTPUTS:
        (out / stale).unlink(missing_ok=True)
    for name, content in found.pictures.items():
        (out / name).write_bytes(content)
    if rows is not None:
        _write_coordinates(out / "coordinates.csv", rows, found)
    (out / "index.html").write_text(page, encoding="utf-8")
    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
    (out / "results.json").write_text(text + "\n", encoding="utf-8")
    return ProbeResult(
        out=out,
        page=out / "index.html",
        pictures=tuple(out / name for name in found.pictures),
        results=results,
        verdict=tuple(results["verdict"]),
        warning=warning,
    )


def _counts(looked_at: ProbeRows | Exploration | None) -> dict[str, Any]:
    """How much was looked at: rows of features, else the clips of the manifest."""
    assert looked_at is not None
    vectors = getattr(looked_at, "vectors", None)
    return {
        "num_rows": len(looked_at),
        "num_clips": getattr(looked_at, "num_clips", len(looked_at)),
        "num_dimensions": None if vectors is None else vectors.shape[1],
        "num_groups": len(set(looked_at.groups.tolist()) - {""}),
        "labels": sorted(set(looked_at.labels.tolist()) - {""}),
        "target_name": looked_at.target_name or None,
    }


def _write_coordinates(path: Path, rows: ProbeRows, found: _Findings) -> None:
    columns: dict[str, Sequence[Any]] = {
        "clip_id": rows.clip_ids.tolist(),
        "step": ["" if step < 0 else step for step in rows.steps.tolist()],
        "split": rows.splits.tolist(),
        "label": rows.labels.tolist(),
        "group": ["" if group.startswith("c:") else group[2:] for group in rows.groups.tolist()],
    }
    if rows.target is not None:
        columns["target"] = ["" if value != value else value for value in rows.target.tolist()]
    if found.embedding is not None:
        columns["x"] = [f"{value:.6g}" for value in found.embedding.coordinates[:, 0].tolist()]
        columns["y"] = [f"{value:.6g}" for value in found.embedding.coordinates[:, 1].tolist()]
    if found.clustering is not None:
        columns["cluster"] = found.clustering.labels.tolist()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
