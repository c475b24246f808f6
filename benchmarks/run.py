"""Runs every benchmark, one after another in processes of their own, and writes their tables in the docs.

`python benchmarks/run.py` (make bench) takes under 15 minutes on two cores; `--full` (make bench-full) scales
nothing down. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from reelbank.benchmarks import readme
from reelbank.benchmarks.measuring import INPUTS, RESULTS, SCALES


def main() -> int:
    """Exit status: 0, or 1 where a script failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help=f"only these (default: all of {', '.join(readme.ORDER)})"
    )
    parser.add_argument("--full", action="store_const", const="full", dest="scale", help="the same as --scale full")
    parser.add_argument("--scale", choices=SCALES, help="how much is measured (default: normal)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--work", type=Path, default=INPUTS, help="folder for rendered clips and stores")
    arguments = parser.parse_args()
    failed = []
    for stage in arguments.stages or readme.ORDER:
        started = time.monotonic()
        print(f"--- {stage}", flush=True)
        command = [
            sys.executable, str(Path(__file__).with_name(f"{stage}.py")), "--scale", arguments.scale or "normal",
            "--out", str(arguments.out), "--work", str(arguments.work),
        ]  # fmt: skip
        if subprocess.run(command).returncode:
            failed.append(stage)
        print(f"    {time.monotonic() - started:.0f} s", flush=True)
    if arguments.out == RESULTS:
        readme.regenerate(RESULTS)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
