"""The page of a sweep: what was chosen and how, every combination, every member."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reelbank.heads.reports import html
from reelbank.heads.reports.wording import title

MOST_MEMBERS = 1000
"""Members in the table of the page; sweep.csv has all of them."""


def sweep_page(directory: Path, results: Mapping[str, Any], picture: bytes) -> str:
    """The whole report.html.

    Args:
        directory: of the sweep; the page leads to its files and to the pages of its members.
        results: content of sweep.json.
        picture: of the grid, PNG.
    """
    winner, metric = results["winner"], results["selection"]["metric"]
    values = ", ".join(f"{name} {value}" for name, value in winner["values"].items()) or "the one configuration"
    members = results["members"]
    left_out = f"The first {MOST_MEMBERS} of {len(members)} members; sweep.csv has all." * (len(members) > MOST_MEMBERS)
    facts = [
        ("fields", [f"{name}: {', '.join(tried)}" for name, tried in results["fields"].items()]),
        ("trainings", len(members)),
        ("seeds per combination", results["repeats"]),
        ("executor", results["executor"]),
        ("time", f"{results['seconds']:.0f} s" if "seconds" in results else None),
    ]
    body = (
        html.paragraphs([f"Winner: {values}.", results["selection"]["sentence"]], kind="verdict")
        + html.section("Winner", _reported(winner), html.items(_pages(directory, winner["members"])))
        + html.section("Notes", html.items(results["notes"]))
        + html.section(
            "Combinations", html.picture(picture, f"Combinations by {title(metric)}"), _combinations(results)
        )
        + html.section("Members", _members(directory, results), html.paragraphs([left_out], kind="soft"))
        + html.section("What was tried", html.fact_table(facts))
        + html.section("Files", html.items(html.files_below(directory, deep=False)))
    )
    return html.document(
        title=f"Sweep {results['run']}",
        subtitle=f"{len(results['combinations'])} combinations, {len(members)} trainings",
        warnings=[results["warning"]],
        body=body,
    )


def _reported(winner: Mapping[str, Any]) -> str:
    rows = [
        [title(name), entry["mean"], entry["deviation"], entry["count"]] for name, entry in winner["metrics"].items()
    ]
    head = [f"metric on {winner['reported']}", "mean over seeds", "standard deviation", "seeds"]
    return html.table(head, rows)


def _pages(directory: Path, names: list[str]) -> list[html.Link | str]:
    return [
        html.link_to(directory / "members" / name / "report.html", directory, f"report of {name}") for name in names
    ]


def _combinations(results: Mapping[str, Any]) -> str:
    head = [*results["fields"], title(results["selection"]["metric"]), "standard deviation", "seeds", "failed"]
    rows = [
        [*one["values"].values(), one["mean"], one["deviation"], len(one["members"]), one["failed"]]
        for one in results["combinations"]
    ]
    return html.table(head, rows)


def _members(directory: Path, results: Mapping[str, Any]) -> str:
    measured = ("val_loss", "val_accuracy", "val_mae")
    head = ["member", *results["fields"], "seed", "status", *map(title, measured), "best epoch", "epochs", "seconds"]
    rows = [
        [
            html.link_to(directory / "members" / one["name"], directory),
            *one["values"].values(),
            one["seed"],
            one["error"] or one["status"],
            *(one[name] for name in measured),
            one["best_epoch"],
            one["epochs_run"],
            one["seconds"],
        ]
        for one in results["members"][:MOST_MEMBERS]
    ]
    return html.table(head, rows)
