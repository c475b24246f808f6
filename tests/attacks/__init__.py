"""Attacks on what reelbank promises, each a module with one function.

    attack(count: int, seed: int) -> Iterator[Tried]

`COUNT` of a module is what the guarantees are stated with, `tests/test_*.py` try a few of each. All of them, from the
root of a clone:

    PYTHONPATH=build/types:tests python -m attacks [NAME ...] [--count N] [--seed S] [--json FOLDER]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ATTACKS: Mapping[str, str] = {
    "crash_points": "kills at moments of writing a store",
    "power_cut": "states of a disk after power cuts",
    "killed_featurize": "kills of real runs",
    "training_cut": "power cuts and kills of trainings",
    "files_cut": "of exports, imports and manifests written",
    "leftovers": "commands killed and run again",
    "full_disk": "full disks",
    "bit_flips": "flipped bits of stores",
    "damaged_media": "damaged and cut videos and pictures",
    "hangs": "FIFOs, devices and bombs",
    "hostile": "hostile inputs",
}
"""{module of this folder: what is counted, as README's sentence says it}, in that order."""


SHM = Path("/dev/shm")
"""Where a sync costs nothing."""


@contextmanager
def memory_folder(prefix: str) -> Iterator[Path]:
    """An empty folder, in memory where the system has such a place; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=SHM if SHM.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def same_path() -> dict[str, str]:
    """The environment in which a new Python finds what this one does, however it found it."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What was tried of one kind, and what of it did not hold.

    Attributes:
        kind: what was done to what, as a row of the table in the guarantees says it.
        tried: how often.
        not_held: a sentence for each that did not hold, with what makes it again.
        facts: {what: how often}: how the others ended, for instance `noticed` and `harmless`.
    """

    kind: str
    tried: int
    not_held: tuple[str, ...] = ()
    facts: Mapping[str, int] = field(default_factory=dict)
