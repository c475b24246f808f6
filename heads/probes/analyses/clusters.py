"""k-means clusters, and what they say of labels and target beside what shuffled labels would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from reelbank.heads.examples.targets import UNITS
from reelbank.heads.judging.intervals import interval_notes
from reelbank.heads.probes import Finding, Question
from reelbank.heads.probes.cluster_reading import cluster_purities, read_labels, read_target, silhouette
from reelbank.heads.probes.kmeans import kmeans
from reelbank.heads.reports import figures
from reelbank.heads.reports.html import fact_table, paragraphs, section, table
from reelbank.heads.reports.wording import title, units_of, with_interval, with_unit
from reelbank.store.devices import resolve_device

_READINGS = ("cluster_mean_label", "nearest_train", "cluster_id", "shuffled_cluster_id")


def clusters(question: Question) -> Finding:
    """`kmeans` clusters, the best of `n_init` starts of at most `max_iter` Lloyd steps."""
    rows, asked = question.rows, question.options["kmeans"]
    clustering = kmeans(
        rows.vectors,
        asked,
        n_init=question.options["n_init"],
        max_iter=question.options["max_iter"],
        seed=question.seed,
        device=resolve_device(question.device),
    )
    filled = int((clustering.counts > 0).sum())
    numbers: dict[str, Any] = {
        "num_clusters": asked,
        "num_filled": filled,
        "inertia": clustering.inertia,
        "num_iterations": clustering.num_iterations,
        "n_init": question.options["n_init"],
        "method": clustering.method,
        "silhouette": silhouette(rows.vectors, clustering.labels, seed=question.seed),
    }
    notes = []
    if filled < asked:
        notes.append(f"Only {filled} of {asked} clusters hold rows: the rows have no more distinct vectors.")
    pictures = {}
    labelled = rows.labels != ""
    if 0 < len(set(rows.labels[labelled].tolist())) < 2:
        notes.append(
            "NMI, ARI and purity are not shown: all labelled rows have one label, which any clusters agree with."
        )
    elif labelled.any():
        numbers["labels"] = read_labels(clustering.labels[labelled], rows.labels[labelled], seed=question.seed)
        counts = np.unique(rows.labels[labelled], return_counts=True)[1]
        figure = figures.cluster_sizes(
            clustering.counts,
            cluster_purities(clustering.labels[labelled], rows.labels[labelled], asked),
            majority_share=float(counts.max() / counts.sum()),
            heading=question.heading,
        )
        pictures["kmeans-clusters.png"] = figures.png(figure)
    if rows.target is not None:
        numbers["target"] = read_target(rows, clustering, seed=question.seed)
        if not numbers["target"]["parts"]:
            notes.append(
                f"{rows.target_name} is not read from the clusters: that needs it in 2 training rows, "
                f"found {numbers['target']['num_train']}."
            )
        notes += interval_notes(
            {name: {**part, "metrics": part["mae"]} for name, part in numbers["target"]["parts"].items()}
        )
    return Finding(
        numbers=numbers,
        sentences=list(_sentences(numbers)),
        notes=notes,
        page=_page(numbers),
        pictures=pictures,
        columns={"cluster": clustering.labels.tolist()},
    )


def _sentences(entry: Mapping[str, Any]) -> Iterator[str]:
    text = f"k-means, {entry['num_clusters']} clusters: inertia {entry['inertia']:.6g}"
    if "labels" in entry:
        value, shuffled = entry["labels"]["value"], entry["labels"]["shuffled_labels"]
        text += "; " + ", ".join(
            f"{name.upper() if name != 'purity' else name} {value[name]:.3f} (shuffled labels {shuffled[name]:.3f})"
            for name in ("nmi", "ari", "purity")
        )
    yield text + "."
    for split, part in entry.get("target", {}).get("parts", {}).items():
        mae = {name: with_interval(part["mae"][name], units_of(part)) for name in _READINGS}
        yield (
            f"{entry['target']['target']} on {split}: {title('mae')} {mae['cluster_mean_label']} from cluster means, "
            f"{mae['cluster_id']} from cluster numbers, {mae['shuffled_cluster_id']} from numbers drawn at random; "
            f"constant median {part['baselines']['constant_median']:.4g}, "
            f"random bin {part['baselines']['uniform_random_bin']:.4g}."
        )


def _page(entry: Mapping[str, Any]) -> str:
    facts = [
        ("clusters", f"{entry['num_clusters']} ({entry['num_filled']} with rows)"),
        ("inertia", entry["inertia"]),
        ("starts", entry["n_init"]),
        ("Lloyd steps", entry["num_iterations"]),
        ("silhouette", entry["silhouette"]),
    ]
    labels = entry.get("labels", {})
    agreement = [
        [kind.replace("_", " "), values["nmi"], values["ari"], values["purity"]] for kind, values in labels.items()
    ]
    parts = [fact_table(facts), table(["against the labels", "NMI", "ARI", "purity"], agreement)]
    for split, part in entry.get("target", {}).get("parts", {}).items():
        unit = UNITS.get(entry["target"]["target"], "target")
        rows = [[name.replace("_", " "), with_interval(part["mae"][name], units_of(part))] for name in _READINGS]
        rows += [[f"baseline: {title(name)}", value] for name, value in part["baselines"].items()]
        caption = (
            f"{entry['target']['target']} on {split} ({part['num_rows']} rows, "
            f"{part['num_without_training_row_in_cluster']} in clusters without a training row):"
        )
        parts += [paragraphs([caption]), table(["reading", f"{with_unit('mae', unit)} [95 % interval]"], rows)]
    return section("Clusters", *parts)
