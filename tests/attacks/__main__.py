"""Runs attacks, prints what did not hold and writes what was tried as JSON; exit status 1 if something did not."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from attacks import ATTACKS

SHOWN = 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="attacks", description=__doc__)
    parser.add_argument("name", nargs="*", default=list(ATTACKS), help=f"of {', '.join(ATTACKS)}; default: all")
    parser.add_argument("--count", type=int, help="attempts; default: what the guarantees are stated with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="folder for NAME.json")
    asked = parser.parse_args()
    failed = 0
    for name in asked.name:
        if name not in ATTACKS:
            parser.error(f"no attack {name!r}; there are {', '.join(ATTACKS)}")
        module = importlib.import_module(f"attacks.{name}")
        found = []
        for tried in module.attack(asked.count or module.COUNT, asked.seed):
            found.append(tried)
            failed += len(tried.not_held)
            facts = "".join(f", {count} {what}" for what, count in tried.facts.items())
            print(f"{name}: {tried.kind}: {tried.tried} tried, {len(tried.not_held)} did not hold{facts}", flush=True)
            for sentence in tried.not_held[:SHOWN]:
                print(f"  {sentence}", flush=True)
        if asked.json:
            asked.json.mkdir(parents=True, exist_ok=True)
            written = {
                "attack": name,
                "seed": asked.seed,
                "date": datetime.now(UTC).date().isoformat(),
                "versions": {"python": platform.python_version(), **{p: version(p) for p in ("av", "torch", "zarr")}},
                "tried": [{**vars(tried), "facts": dict(tried.facts)} for tried in found],
            }
            (asked.json / f"{name}.json").write_text(json.dumps(written, indent=1) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
