"""Worker processes and the script that starts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pipeline import copy_set

from reelbank.store.processes import NoMainGuard
from reelbank.store.testing import write_store

CALLS = {
    "featurize": (
        "from reelbank.extract import FeaturizeConfig, featurize\n"
        "featurize(FeaturizeConfig(model='flow:dis', sampling='uniform:4', workers=2))\n"
    ),
    "sweep": (
        "from reelbank.heads import SweepConfig, sweep, train_head\n"
        "sweep(SweepConfig.of(store='s.zarr', epochs=1, sweep='lr=1,2', workers=2, device='cpu', report=False))\n"
    ),
}
"""A call of every kind of worker."""


@pytest.fixture
def folder(synth_set: Path, tmp_path: Path) -> Path:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 4))
    parts = ("train", "train", "train", "train", "val", "val", "test", "test")
    clips = [{"clip_id": str(i), "label": "ab"[i % 2], "split": part} for i, part in enumerate(parts)]
    write_store(folder / "s.zarr", {"cls": [np.full((2, 3), i, np.float32) for i in range(len(parts))]}, clips)
    return folder


@pytest.mark.parametrize("call", sorted(CALLS))
def test_a_script_without_main_guard_ends_with_one_sentence(call: str, folder: Path) -> None:
    (folder / "script.py").write_text(CALLS[call])
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [str(NoMainGuard())]
    assert 'put its calls under `if __name__ == "__main__":`' in done.stderr


def test_the_sentence_is_an_error_that_can_be_caught() -> None:
    with pytest.raises(RuntimeError, match="worker processes import the script"):
        raise NoMainGuard
