"""Worker processes and the script that starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pipeline import copy_set

from reelbank.store.processes import HAS_FORK_SERVER, NoMainGuard
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


@pytest.mark.skipif(not HAS_FORK_SERVER, reason="workers are spawned here")
def test_what_cannot_be_imported_ahead_ends_no_server(tmp_path: Path) -> None:
    """multiprocessing passes over ImportError alone: a torchvision that does not fit torch raises RuntimeError."""
    (tmp_path / "broken.py").write_text("raise RuntimeError('operator does not exist')\n")
    (tmp_path / "asked.py").write_text("import sys\ndef loaded(names):\n    print([n in sys.modules for n in names])\n")
    (tmp_path / "script.py").write_text(
        "import asked\nfrom reelbank.store.processes import import_ahead, worker_context\n"
        "if __name__ == '__main__':\n"
        "    import_ahead(['broken', 'asked', 'colorsys'])\n"
        "    worker = worker_context().Process(target=asked.loaded, args=(['broken', 'colorsys'],))\n"
        "    worker.start()\n    worker.join()\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[False, True]\n", "")
