"""The page and the sentences of a probe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from reelbank.heads.probes import exploration, scatter, stored_views
from reelbank.heads.probes.figures import PICTURES
from reelbank.heads.reports.html import (
    data_block,
    details,
    document,
    items,
    paragraphs,
    picture,
    section,
    table,
    with_interval,
)

if TYPE_CHECKING:
    from reelbank.heads.probes.embedding import Embedding
    from reelbank.heads.probes.kmeans import Clustering
    from reelbank.heads.probes.rows import ProbeRows
    from reelbank.store.reader import Store

_READINGS = ("cluster_mean_label", "nearest_train", "cluster_id", "shuffled_cluster_id")
_SUMMARY = ("mean", "std", "min", "q1", "median", "q3", "max")
_NAMES = {"knn": "Nearest neighbours", "linear": "Linear probe"}


def verdict(results: Mapping[str, Any]) -> Iterator[str]:
    """What a person wants to know first: one sentence per analysis, each with its baseline."""
    analyses = results["analyses"]
    if "explore" in analyses:
        yield from exploration.sentences(analyses["explore"])
    if "views" in analyses:
        yield stored_views.sentence(analyses["views"])
    for name in ("knn", "linear"):
        if name in analyses:
            entry = analyses[name]
            accuracy = entry["metrics"]["accuracy"]
            chance = entry["baselines"]["majority_class"].get("accuracy")
            what = f"{_NAMES[name]} (k = {entry['k']}, cosine)" if name == "knn" else _NAMES[name]
            yield (
                f"{what}: accuracy {with_interval(accuracy)} on {entry['reported']} ({entry['num_rows']} rows, "
                f"{entry['num_groups']} groups); always the commonest class: {chance:.4g}.{_beats(accuracy, chance)}"
            )
    if "kmeans" in analyses:
        yield from _kmeans_verdict(analyses["kmeans"])
    if "tsne" in analyses:
        entry = analyses["tsne"]
        yield (
            f"t-SNE of {results['num_rows']} rows: perplexity {entry['perplexity']:g}, "
            f"KL divergence {entry['kl_divergence']:.3f}."
        )


def _beats(metric: Mapping[str, Any], chance: float) -> str:
    if metric.get("low") is None:
        return " Too few groups for an interval."
    if metric["low"] > chance:
        return " The 95 % interval lies above it."
    return " The 95 % interval does not lie above it."


def _kmeans_verdict(entry: Mapping[str, Any]) -> Iterator[str]:
    text = f"k-means, {entry['num_clusters']} clusters: inertia {entry['inertia']:.6g}"
    if "labels" in entry:
        value, shuffled = entry["labels"]["value"], entry["labels"]["shuffled_labels"]
        text += "; " + ", ".join(
            f"{name.upper() if name != 'purity' else name} {value[name]:.3f} (shuffled labels {shuffled[name]:.3f})"
            for name in ("nmi", "ari", "purity")
        )
    yield text + "."
    for split, part in entry.get("target", {}).get("parts", {}).items():
        mae = {name: with_interval(part["mae"][name]) for name in _READINGS}
        yield (
            f"{entry['target']['target']} on {split}: MAE {mae['cluster_mean_label']} from cluster means, "
            f"{mae['cluster_id']} from cluster numbers, {mae['shuffled_cluster_id']} from numbers drawn at random; "
            f"constant median {part['baselines']['constant_median']:.4g}, "
            f"random bin {part['baselines']['uniform_random_bin']:.4g}."
        )


def probe_page(
    store: Store,
    rows: ProbeRows | None,
    embedding: Embedding | None,
    clustering: Clustering | None,
    results: Mapping[str, Any],
    pictures: Mapping[str, bytes],
) -> str:
    """The whole index.html; `rows` is None where only the manifest was explored."""
    analyses = results["analyses"]
    config = results["config"]
    tap = f"tap {config['tap']}" if rows is not None else ""
    unit = "clips" if config["level"] == "clip" else "steps"
    facts = [
        ("store", results["store"]),
        ("backbone", f"{results['backbone']} (weights: {results['weights'].get('kind', 'unknown')})"),
        ("tap", f"{config['tap']}, {results['num_dimensions']} numbers per row" if rows is not None else None),
        ("rows", f"{results['num_rows']} ({unit} of {results['num_clips']} clips)"),
        ("groups", results["num_groups"]),
        ("labels", len(results["labels"])),
        ("target", results["target_name"]),
        ("sampling", results["sampling"]),
        ("normalisation", config["normalize"] if rows is not None else None),
        ("seed", config["seed"]),
    ]
    body = (
        paragraphs(results["verdict"], kind="verdict")
        + (_explored(analyses["explore"]) if "explore" in analyses else "")
        + (_map(store, rows, embedding, config["seed"]) if rows is not None and embedding is not None else "")
        + section("Classification", *(_classification(name, analyses[name]) for name in _NAMES if name in analyses))
        + (_clusters(analyses["kmeans"]) if clustering is not None else "")
        + section("Pictures", *(picture(pictures[name], PICTURES[name]) for name in pictures))
        + section("What was looked at", table(["", ""], [row for row in facts if row[1] not in (None, "")]))
        + section("Notes", items(results["notes"]))
        + section("Files", items(results["files"]), details("configuration", json.dumps(dict(config), indent=2)))
    )
    return document(
        title=f"Probe of {results['store']}",
        subtitle=" · ".join(part for part in (results["backbone"], tap, f"{results['num_rows']} {unit}") if part),
        warnings=[results["warning"]],
        body=body,
        scripts=scatter.scripts() if embedding is not None else (),
    )


def _explored(found: Mapping[str, Any]) -> str:
    splits = list(found["splits"])
    shown = [name or "(none)" for name in splits]
    clips = [[label, *(counts.get(split, 0) for split in splits)] for label, counts in found["classes"].items()]
    total = ["all clips", *found["splits"].values()]
    names = {**exploration.SIZES, "target": found.get("target", {}).get("name")}
    summaries = {**found["sizes"], **({"target": found["target"]["splits"]} if "target" in found else {})}
    numbers = [
        [names[key], split or "(none)", *(part[column] for column in ("n", *_SUMMARY))]
        for key, parts in summaries.items()
        for split, part in parts.items()
    ]
    return section(
        "Exploration",
        table(["of", "split", "n", *_SUMMARY], numbers),
        table(["clips of class", *shown], [*clips, total]),
        paragraphs(["Sizes: of clips with features. Standard deviations have n in the denominator."], kind="soft"),
    )


def _map(store: Store, rows: ProbeRows, embedding: Embedding, seed: int) -> str:
    item, num_points = scatter.item(store, rows, embedding.coordinates, seed=seed)
    keys = "".join(
        f'<span><b style="color:{color}">{mark}</b> {escape(name or "(no label)")}</span>'
        for name, color, mark in scatter.legend(rows.labels)
    )
    hint = "Point at a mark to see its clip. Hollow marks: split 'unknown'."
    if num_points < len(rows):
        hint += f" A random {num_points} of {len(rows)} rows are shown."
    return section(
        "Map",
        f'<div id="scatter" data-expected="{num_points}"></div>\n<div class="keys">{keys}</div>\n',
        paragraphs([hint], kind="soft"),
        data_block("scatter-data", item),
    )


def _classification(name: str, entry: Mapping[str, Any]) -> str:
    baselines = entry["baselines"]
    rows = [
        [metric, with_interval(value), *(baseline.get(metric) for baseline in baselines.values())]
        for metric, value in entry["metrics"].items()
    ]
    head = ["metric", "value [95 % interval over groups]", *(key.replace("_", " ") for key in baselines)]
    what = (
        f"{_NAMES[name]} (k = {entry['k']}, cosine)." if name == "knn" else f"{_NAMES[name]}, C = {_strengths(entry)}."
    )
    return paragraphs([f"{what} {entry['sentence']}"]) + table(head, rows)


def _strengths(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(set(entry["strength"])))


def _clusters(entry: Mapping[str, Any]) -> str:
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
    parts = [table(["", ""], facts), table(["against the labels", "NMI", "ARI", "purity"], agreement)]
    for split, part in entry.get("target", {}).get("parts", {}).items():
        rows = [[name.replace("_", " "), with_interval(part["mae"][name])] for name in _READINGS]
        rows += [[f"baseline: {name.replace('_', ' ')}", value] for name, value in part["baselines"].items()]
        caption = (
            f"{entry['target']['target']} on {split} ({part['num_rows']} rows, "
            f"{part['num_without_training_row_in_cluster']} in clusters without a training row):"
        )
        parts += [paragraphs([caption]), table(["reading", "MAE [95 % interval over groups]"], rows)]
    return section("Clusters", *parts)
