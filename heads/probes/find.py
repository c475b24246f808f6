"""Nearest neighbours of a clip or a file, as a table and as a page with their pictures.

`find(config)` fills one folder:

`results.json`  (written last) what was asked, the query, `neighbours` (nearest first: clip_id, row, label, group,
                split, cosine, distance, own_group, and seconds, query_seconds with --level step), warnings, notes
`index.html`    the same with thumbnails, as one page that needs no network
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelbank.heads.probes.probe import require_free
from reelbank.heads.reports.html import (
    beside,
    cards,
    details,
    document,
    fact_table,
    items,
    paragraphs,
    section,
    stored_in,
    table,
    thumbnail_source,
)
from reelbank.heads.reports.wording import warnings_first
from reelbank.manifests.events import Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store.files import filling

if TYPE_CHECKING:
    from reelbank.heads.extraction import Extract
    from reelbank.heads.probes.search import Found, Neighbour
    from reelbank.heads.probes.search_config import FindConfig
    from reelbank.store.reader import Store

OUTPUTS = ("index.html", "results.json")
OWN_GROUP = "*"


@dataclass(frozen=True, kw_only=True)
class FindResult:
    """Neighbours and where they are shown.

    Attributes:
        out: the folder.
        page: its index.html.
        results: the content of results.json.
    """

    out: Path
    page: Path
    results: dict[str, Any]

    def text(self) -> str:
        """The neighbours for a person: sentences, a table, notes, and where the page is."""
        found = self.results
        head, rows = _table(found["neighbours"])
        cells = [head, *([_short(value) for value in row] for row in rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
        said = [*filter(None, [found["warning"]]), *found["verdict"]]
        return "\n".join([*said, "", *(line.rstrip() for line in lines), "", *found["notes"], f"Page: {self.page}"])


@with_bar("find")
def find(config: FindConfig, progress: Progress | None = None, *, extract: Extract | None = None) -> FindResult:
    """Finds what `config` asks for and writes the folder described above.

    Args:
        config: the query and what is searched.
        progress: called with an Event after every block of clips.
        extract: makes the features of a file, for `image` and `video`: `reelbank.extract.extract_as`; from outside,
            because `heads` imports no decoder.

    Raises:
        ValueError: no or several stores, no such clip, tap or column, an output folder that holds other files, or a
            file that gives no features like the store's.
        StoreError: a path that is not a store.
    """
    import reelbank.store
    from reelbank.heads.probes.rows import default_store
    from reelbank.heads.probes.search import search
    from reelbank.store.description import random_weights_warning

    began = time.monotonic()
    store = reelbank.store.open(config.store or default_store(Path.cwd()))
    out = config.out or Path(f"{store.path.name.removesuffix('.zarr')}-find")
    require_free(out, {*OUTPUTS}, writer="find")
    tap = config.tap or store.default_tap
    found = search(store, tap, config, progress, extract=extract)
    query = found.query
    asked = json.loads(json.dumps(asdict(config), default=str))
    results: dict[str, Any] = {
        "format_version": 1,
        "store": store.path.name,
        "backbone": store.spec.backbone,
        "weights": dict(store.spec.weights),
        "spec_digest": store.spec_digest,
        "warning": random_weights_warning([store.spec.backbone]) if store.weights_are_random else "",
        "config": asked | {"tap": tap},
        "query": {"name": query.name, "label": query.label, "group": query.group, "split": query.split},
        "num_searched": found.num_searched,
        "neighbours": [one.to_json() for one in found.neighbours],
        "notes": list(found.notes),
        "verdict": found.sentences(),
        "files": [*OUTPUTS],
        "seconds": round(time.monotonic() - began, 3),
    }
    page = _page(store, found, results, out)
    with filling(out, stale=OUTPUTS, last="results.json") as made:
        (made / "index.html").write_text(page, encoding="utf-8")
        text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
        (made / "results.json").write_text(text + "\n", encoding="utf-8")
    return FindResult(out=out, page=out / "index.html", results=results)


def _table(neighbours: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Heads and rows, nearest first; with times where steps were compared."""
    has_steps = neighbours[0]["seconds"] is not None
    head = ["", "cosine", "distance", "clip", "label", "group", *(["at s", "query at s"] if has_steps else [])]
    rows = [
        [
            str(place),
            f"{one['cosine']:.4f}",
            f"{one['distance']:.4g}",
            one["clip_id"],
            one["label"],
            f"{one['group']} {OWN_GROUP}" if one["own_group"] else one["group"],
            *([f"{one['seconds']:.2f}", f"{one['query_seconds']:.2f}"] if has_steps else []),
        ]
        for place, one in enumerate(neighbours, start=1)
    ]
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]  # without labels or groups where none has any
    return [head[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _short(text: str) -> str:
    """One line of a table: a clip may be called anything."""
    return " ".join(text.split())


def _page(store: Store, found: Found, results: dict[str, Any], out: Path) -> str:
    query, config = found.query, results["config"]
    facts = [
        *stored_in(store, out),
        ("backbone", f"{results['backbone']} (weights: {results['weights'].get('kind', 'unknown')})"),
        ("tap", config["tap"]),
        ("searched", f"{found.num_searched} clips"),
        ("compared", "the mean of each clip" if config["level"] == "clip" else "of each clip its most similar step"),
        ("normalisation", config["normalize"]),
        ("order", "cosine, largest first; of equal ones the earlier clip of the store"),
        ("distance", "Euclidean, between the normalised vectors"),
    ]
    said = " · ".join(filter(None, [query.label, query.group]))
    asked = (query.name, thumbnail_source(query.picture), said)
    neighbours = [_card(store, place, one) for place, one in enumerate(found.neighbours, start=1)]
    warnings, notes = warnings_first(results["notes"])
    body = (
        paragraphs(results["verdict"], kind="verdict")
        + section("Nearest clips", cards([("Query", [asked]), ("Nearest first", neighbours)]))
        + section("Table", table(*_table(results["neighbours"])))
        + section("What was searched", fact_table(facts))
        + section("Notes", items(notes))
        + section("Files", items([beside("results.json")]), details("configuration", json.dumps(config, indent=2)))
    )
    return document(
        title=f"Nearest to {query.name}",
        subtitle=f"{results['store']} · {results['backbone']} · tap {config['tap']}",
        warnings=[results["warning"], *warnings],
        body=body,
    )


def _card(store: Store, place: int, one: Neighbour) -> tuple[str, str, str]:
    """Name, picture and text of a clip that was found."""
    group = f"{one.group} {OWN_GROUP}" if one.own_group else one.group
    lines = [one.label, group, f"cosine {one.cosine:.4f}"]
    if one.seconds is not None:
        lines.append(f"at {one.seconds:.2f} s, the query at {one.query_seconds:.2f} s")
    return f"{place}. {one.clip_id}", thumbnail_source(store.thumbnail(one.row)), " · ".join(filter(None, lines))
