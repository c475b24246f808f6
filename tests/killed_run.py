"""A run of featurize that test_run_resume.py kills: small units, so that commits fall into the run too."""

import sys
from pathlib import Path

if __name__ == "__main__":
    from pipeline import run

    from reelbank.store import layout

    layout.MAX_UNIT_CLIPS = 5
    run(Path(sys.argv[1]))
