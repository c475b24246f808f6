"""The page of a probe: what its analyses found, in the table's order, around what is common to all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelbank.heads.probes import PROBES, Finding, exploration, scatter, stored_views
from reelbank.heads.reports.drawing import outside_text
from reelbank.heads.reports.html import (
    beside,
    data_block,
    details,
    document,
    fact_table,
    items,
    paragraphs,
    picture,
    point_map,
    section,
    stored_in,
    table,
)
from reelbank.heads.reports.wording import warnings_first

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reelbank.heads.probes.rows import ProbeRows
    from reelbank.store.reader import Store

_SUMMARY = ("mean", "std", "min", "q1", "median", "q3", "max")


def verdict(results: Mapping[str, Any], findings: Mapping[str, Finding]) -> Iterator[str]:
    """What a person wants to know first: of exploration and stored views, then of every analysis; maps come last."""
    if "explore" in results["analyses"]:
        yield from exploration.sentences(results["analyses"]["explore"])
    if "views" in results["analyses"]:
        yield stored_views.sentence(results["analyses"]["views"])
    for finding in sorted(findings.values(), key=lambda finding: finding.coordinates is not None):
        yield from finding.sentences


def probe_page(
    store: Store,
    rows: ProbeRows | None,
    findings: Mapping[str, Finding],
    results: Mapping[str, Any],
    pictures: Mapping[str, tuple[bytes, str]],
    out: Path,
) -> str:
    """The whole index.html.

    Args:
        rows: None where no features were read.
        findings: of the analyses; those with coordinates are maps that show clips under the pointer.
        pictures: {file name: (PNG, caption)}.
        out: the folder that the page will lie in.
    """
    analyses = results["analyses"]
    config = results["config"]
    tap = f"tap {config['tap']}" if rows is not None else ""
    unit = "clips" if config["level"] == "clip" else "steps"
    facts = [
        *stored_in(store, out),
        ("backbone", f"{results['backbone']} (weights: {results['weights'].get('kind', 'unknown')})"),
        ("tap", f"{config['tap']}, {results['num_dimensions']} numbers per row" if rows is not None else None),
        ("rows", f"{results['num_rows']} ({unit} of {results['num_clips']} clips)"),
        ("groups", results["num_groups"] or "none"),
        ("labels", len(results["labels"])),
        ("target", results["target_name"]),
        ("sampling", results["sampling"]),
        ("normalisation", config["normalize"] if rows is not None else None),
        ("seed", config["seed"]),
    ]
    files = items(map(beside, results["files"]))
    maps = {name: found.coordinates for name, found in findings.items() if found.coordinates is not None}
    warnings, notes = warnings_first(results["notes"])
    body = (
        paragraphs(results["verdict"], kind="verdict")
        + (_explored(analyses["explore"]) if "explore" in analyses else "")
        + (_maps(store, rows, maps, config["seed"]) if rows is not None else "")
        + "".join(finding.page for finding in findings.values())
        + section("Pictures", *(picture(content, caption) for content, caption in pictures.values()))
        + section("What was looked at", fact_table(facts))
        + section("Notes", items(notes))
        + section("Files", files, details("configuration", json.dumps(dict(config), indent=2)))
    )
    return document(
        title=f"Probe of {results['store']}",
        subtitle=" · ".join(part for part in (results["backbone"], tap, f"{results['num_rows']} {unit}") if part),
        warnings=[results["warning"], *warnings],
        body=body,
        scripts=scatter.scripts() if maps else (),
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


def _maps(store: Store, rows: ProbeRows, maps: Mapping[str, NDArray[np.floating]], seed: int) -> str:
    """A section for each map; their points share what pictures a page may hold."""
    made = ""
    for number, (name, coordinates) in enumerate(maps.items(), start=1):
        place = "scatter" if number == 1 else f"scatter-{number}"
        heading = "Map" if len(maps) == 1 else f"Map by {PROBES.row(name).title or name}"
        made += _map(store, rows, coordinates, seed, heading, place, scatter.MAX_THUMBNAILS // len(maps))
    return made


def _map(
    store: Store,
    rows: ProbeRows,
    coordinates: NDArray[np.floating],
    seed: int,
    heading: str,
    place: str,
    most_thumbnails: int,
) -> str:
    item, num_points = scatter.item(store, rows, coordinates, seed=seed, place=place, most_thumbnails=most_thumbnails)
    keys = [(name or "(no label)", color, mark) for name, color, mark in scatter.legend(rows.labels, rows.highlight)]
    hint = "Point at a mark to see its clip."
    if outside := outside_text(rows.splits.tolist()):
        hint += f" Hollow marks take no part in training and test: {outside}."
    if num_points < len(rows):
        hint += f" A random {num_points} of {len(rows)} rows are shown."
    return section(
        heading,
        point_map(num_points, keys, place),
        paragraphs([hint], kind="soft"),
        data_block(f"{place}-data", item),
    )
