"""Huge numbers: every count says at once that it is too large; what no disk holds is refused with nothing made."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner
from pipeline import copy_set, read_lines, run, store_of
from test_cli_json import COMMANDS

import reelbank.store
from reelbank import cli
from reelbank.extract.config import FeaturizeConfig
from reelbank.extract.errors import DiskFullError
from reelbank.extract.run import sizing
from reelbank.heads.config import TrainConfig
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.sweeps.config import SweepConfig
from reelbank.manifests.rendered import RENDERED
from reelbank.store import SpecMismatch, building
from reelbank.store.exchange.options import ExportConfig
from reelbank.store.layout import DONE, MISSING

SEEDS = ("--seed",)
"""No counts: any number that libraries take."""
NEEDED = {
    "featurize": "--model flow:dis", "train-head": "--store a.zarr --repeats 2", "probe": "--store a.zarr",
    "find": "--clip a",
    "store export": "a.zarr a.h5", "store retry": "a.zarr",
    **dict.fromkeys((f"manifest {name}" for name in RENDERED), "made"),
}  # fmt: skip
INTS = [
    (name, param.opts[0], param.name)
    for name, command in COMMANDS.items()
    for param in command.params
    if isinstance(param, click.Option) and isinstance(param.type, click.types.IntParamType) and not param.is_flag
]


def test_there_are_whole_numbers_to_try() -> None:
    assert len(INTS) > 25


@pytest.mark.parametrize(("command", "flag", "field"), INTS)
def test_huge_number_is_refused_by_its_name_at_once(
    command: str, flag: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    needed = NEEDED.get(command, "x.csv").split()
    for value in (10**9, 10**12)[flag in SEEDS :]:
        began = time.monotonic()
        result = CliRunner().invoke(cli.main, [*command.split(), *needed, flag, str(value)])
        assert (result.exit_code, time.monotonic() - began < 1.0) == (cli.WRONG_USE, True)
        assert flag in result.stderr.splitlines()[-1], result.stderr
        assert str(value) in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "values", "said"),
    [
        (FeaturizeConfig, {"model": ("flow",), "workers": "2"}, "--workers '2' must be a whole number"),
        (FeaturizeConfig, {"model": ("flow",), "resize": "pil?"}, "--resize 'pil?' is not one of"),
        (FeaturizeConfig, {"model": ("flow",), "workers": 100_000}, "--workers 100000 must be 1024 or less"),
        (FeaturizeConfig, {"model": ("flow",), "seed": True}, "--seed True must be a whole number"),
        (TrainConfig.of, {"store": ("a",), "epochs": 1.5}, "--epochs 1.5 must be a whole number"),
        (TrainConfig.of, {"store": ("a",), "lr": "fast"}, "--lr 'fast' must be a number"),
        (TrainConfig.of, {"store": ("a",), "milestones": (10**9,)}, "--milestone 1000000000 must be 1000000 or less"),
        (TrainConfig.of, {"store": ("a",), "report": 1}, "--report 1 must be True or False"),
        (SweepConfig.of, {"store": ("a",), "repeats": 10**9}, "--repeats 1000000000 must be"),
        (ProbeConfig, {"kmeans": 2.0}, "--kmeans 2.0 must be a whole number"),
        (ProbeConfig, {"perplexity": float("nan")}, "--perplexity nan must be above 0"),
        (ExportConfig, {"view": -1}, "--view -1 must be 0 or more"),
    ],
)
def test_python_gets_the_sentences_of_the_command_line(config: Any, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        config(**values)
    assert str(refused.value).startswith(said)


def test_what_no_disk_holds_is_refused_before_anything_is_made(synth_set: Path, tmp_path: Path) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 2))
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(DiskFullError, match=r"1,000,000 steps of each of 2 clips take .* or more, and its disk has"):
        run(folder, sampling=("uniform:1000000",), tap=("flow",), model=("flow:dis",))
    assert sorted(path.name for path in folder.iterdir()) == before


def test_growth_that_no_disk_holds_leaves_the_store(
    synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 2))
    first = read_lines(folder)[1][0].partition(",")[0]
    run(folder, clip=(first,))
    monkeypatch.setattr(sizing.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    run(folder, clip=(first,))  # nothing is left to do, so nothing has to fit
    with pytest.raises(DiskFullError, match=r"4 steps of each of 1 clip take 1\.6 kB or more"):
        run(folder)
    assert reelbank.store.open(store_of(folder)).clips.status.tolist() == [DONE, MISSING]


def test_empty_store_of_another_specification_is_replaced_and_it_is_said(
    synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 2))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("reelbank.extract.run.pool.Pool.run", interrupted)
        run(folder, sampling=("uniform:900",))
    assert reelbank.store.open(store_of(folder)).spec.sampling == "uniform:900"
    report = run(folder)
    (note,) = [note for note in report.notes if "another specification" in note]
    assert note == f"{store_of(folder).name}: a store of another specification (sampling) was here without any " \
        "feature: replaced"  # fmt: skip
    assert reelbank.store.open(store_of(folder)).spec.sampling == "uniform:4"
    with pytest.raises(SpecMismatch):  # it has features now
        run(folder, sampling=("uniform:2",))


def test_store_with_a_staged_clip_or_a_file_of_another_is_not_empty(
    synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 2))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("reelbank.extract.run.pool.Pool.run", interrupted)
        run(folder)
    staged = store_of(folder) / "staging/000000001/record.json"
    staged.parent.mkdir()
    staged.write_text("{}")
    with pytest.raises(SpecMismatch):
        run(folder, sampling=("uniform:2",))
    staged.unlink()
    staged.parent.rmdir()
    mine = store_of(folder) / "mine.txt"
    mine.write_text("mine")
    with pytest.raises(SpecMismatch):
        run(folder, sampling=("uniform:2",))
    assert mine.read_text() == "mine"


def test_store_that_lost_its_status_is_not_taken_for_empty(synth_set: Path, tmp_path: Path) -> None:
    """What is not there reads as fill, which is that of clips that were never tried: features would be removed."""
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 2))
    run(folder)
    features = sorted(file for file in (store_of(folder) / "features").rglob("*") if file.is_file())
    shutil.rmtree(store_of(folder) / "clips/status/c")
    with pytest.raises(SpecMismatch):
        run(folder, sampling=("uniform:2",))
    assert all(file.is_file() for file in features)


def test_kill_while_an_empty_store_is_replaced_leaves_nothing_in_the_way(
    synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_set(synth_set, tmp_path / "set", slice(0, 2))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("reelbank.extract.run.pool.Pool.run", interrupted)
        run(folder, sampling=("uniform:900",))

    def killed(path: Path) -> None:
        shutil.rmtree(path / "clips")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(building, "_clear", killed)
        run(folder)
    assert run(folder).stores[0].num_extracted == 2
    assert reelbank.store.open(store_of(folder)).spec.sampling == "uniform:4"


def interrupted(*arguments: Any) -> None:
    raise KeyboardInterrupt
