"""Fixtures every test file shares."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests run in at least as many processes as there are cores. More threads in each, of OpenMP and of OpenBLAS, spin
# while they wait for one another: a third of the suite's time. Read when libraries are loaded, by subprocesses too.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The libraries leave a million objects behind, and looking through them every 700 new ones took a tenth of the time.
gc.set_threshold(50_000)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What a test writes need not outlive a power cut: the attack by power cuts has a disk of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_server_for_all_workers() -> None:
    """Workers are forked from a server that imports what the first caller asks for: here, what any caller will."""
    from reelbank.extract.run.featurize import WORKER_MODULES
    from reelbank.heads.sweeps.member_pool import MEMBER_MODULES
    from reelbank.store import processes

    processes._asked.extend(dict.fromkeys((*WORKER_MODULES, *MEMBER_MODULES)))


@pytest.fixture(autouse=True, scope="session")
def _small_forests() -> Iterator[None]:
    """The default head grows a dozen forests: a twentieth of their trees prove the same."""
    from reelbank.heads.fitting import forests

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forests, "MOST_TREES", 24)
        patch.setattr(forests, "LEAST_TREES", 12)
        yield


@pytest.fixture(autouse=True, scope="session")
def _few_resamples() -> Iterator[None]:
    """Every training is judged: a tenth of the resamples says the same, but where intervals themselves are tested."""
    from reelbank.heads.judging import intervals

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", intervals.RESAMPLES // 10)
        patch.setattr(intervals, "WHOLE_RESAMPLES", intervals.WHOLE_RESAMPLES // 10)
        yield


@pytest.fixture
def all_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the product draws."""
    from reelbank.heads.judging import intervals

    monkeypatch.setattr(intervals, "RESAMPLES", intervals.RESAMPLES * 10)
    monkeypatch.setattr(intervals, "WHOLE_RESAMPLES", intervals.WHOLE_RESAMPLES * 10)


@pytest.fixture(scope="module")
def pictures_not_rendered() -> Iterator[None]:
    """Figures are made and their files written, as blank pictures: rendering takes most of a short training's time."""
    import io

    from PIL import Image

    from reelbank.heads.reports import drawing

    blank = io.BytesIO()
    Image.new("RGB", (8, 8)).save(blank, "png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_png", lambda figure: blank.getvalue())
        yield


@pytest.fixture(autouse=True)
def _restore_global_rng() -> Iterator[None]:
    """No test may depend on the random state that another one left behind."""
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.random.set_rng_state(states[2])


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real clips and official split files, named by REELBANK_DATA."""
    root = os.environ.get("REELBANK_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("REELBANK_DATA names no folder of real evaluation material")
    return Path(root)


@pytest.fixture(scope="session")
def synth_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered set of 24 clips: folder with manifest.csv and videos/. Copy it before changing it."""
    from reelbank.manifests.rendered import synth

    folder = tmp_path_factory.mktemp("synth")
    synth.render(folder, clips=24, seed=3)
    return folder
