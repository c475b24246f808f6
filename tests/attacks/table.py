"""Writes what the attacks found into README and the page of guarantees, from `results/*.json`.

PYTHONPATH=build/types:tests python -m attacks.table
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attacks import ATTACKS
from reelbank.benchmarks.readme import replace

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent.parent
README, PAGE = ROOT / "README.md", ROOT / "docs" / "explanation" / "guarantees.md"
SUMMARY, DETAILS = (
    tuple(f"<!-- {name}:{end} -->" for end in ("begin", "end")) for name in ("attacks", "attacks-in-full")
)


def found(results: Path) -> dict[str, list[dict[str, Any]]]:
    """{attack: its runs}; a run with another seed is another file, NAME or NAME-ANYTHING."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ATTACKS}
    for path in sorted(results.glob("*.json")):
        data = json.loads(path.read_text())
        runs[data["attack"]].append(data)
    return {name: own for name, own in runs.items() if own}


def summary(results: Path) -> str:
    """A sentence: how often each was tried, and how often something did not hold."""
    parts, bad = [], 0
    for name, runs in found(results).items():
        rows = [row for run in runs for row in run["tried"]]
        parts.append(f"{sum(row['tried'] for row in rows):,} {ATTACKS[name]}")
        bad += sum(len(row["not_held"]) for row in rows)
    return f"Tried by scripts with seeds: {'; '.join(parts)}. What did not hold: {bad or 'nothing'}."


def details(results: Path) -> str:
    """A row per kind of each attack, with how it ended."""
    rows = []
    for name, runs in found(results).items():
        kinds: dict[str, tuple[int, int, dict[str, int]]] = {}
        for row in (row for run in runs for row in run["tried"]):
            tried, bad, facts = kinds.get(row["kind"], (0, 0, {}))
            facts = {**facts, **{what: facts.get(what, 0) + count for what, count in row["facts"].items()}}
            kinds[row["kind"]] = tried + row["tried"], bad + len(row["not_held"]), facts
        seeds = ", ".join(str(run["seed"]) for run in runs)
        for kind, (tried, bad, facts) in kinds.items():
            ends = ", ".join(f"{count:,} {what}" for what, count in facts.items())
            rows.append(f"| `{name}` ({seeds}) | {kind} | {tried:,} | {bad or 'none'} | {ends} |")
    return "\n".join(
        ["| attack (seeds) | kind | tried | did not hold | how it ended |", "|---|---|---|---|---|", *rows]
    )


def main() -> None:
    """Renews both."""
    replace(README, summary(RESULTS), *SUMMARY)
    replace(PAGE, details(RESULTS), *DETAILS)


if __name__ == "__main__":
    main()
