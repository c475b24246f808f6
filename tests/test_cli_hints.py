"""What a person meant: wrong names and numbers get a sentence that goes on."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from planted import config, planted_store
from test_cli_json import COMMANDS

import reelbank.store
from reelbank import cli
from reelbank.extract import FeaturizeConfig, featurize
from reelbank.heads import TrainConfig, TrainingError, train_head
from reelbank.heads.judging import intervals
from reelbank.manifests.registry import meant
from reelbank.store import console
from reelbank.store.devices import DeviceError

pytestmark = pytest.mark.usefixtures("pictures_not_rendered")

NAMES = ("clip", "dinov2", "dinov3", "flow", "resnet18", "resnet50", "warp-flow")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dinov", "did you mean 'dinov"), ("DINOv2", "did you mean 'dinov2'? "),
        ("resnet-50", "did you mean 'resnet50'? "),
        ("flow,resnet18", "give each by itself: flow and resnet18; "), ("WarpFlow", "did you mean 'warp-flow'? "),
        ("flow,nothing", ""), ("vjepa", ""), ("", ""), (",", ""),
    ],
)  # fmt: skip
def test_name_that_is_nearly_one_is_hinted_at(name: str, hint: str) -> None:
    found = meant(name, NAMES)
    assert found.startswith(hint) if hint else found == ""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return planted_store(tmp_path / "flow.zarr", num=48)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "featurize --model DINOv2 --manifest SET",
            "backbone 'DINOv2' is not known; did you mean 'dinov2'? choose one of",
        ),
        ("train-head --store flow", "no store at flow; did you mean flow.zarr?"),
        ("train-head --store nothing", "no store at nothing; featurize makes one"),
        ("train-head --store s3://bucket/a.zarr", "s3:/bucket/a.zarr is a URL; stores are read from folders"),
        ("featurize --model flow --out s3://bucket/a.zarr", "--out 's3://bucket/a.zarr' is a URL; stores are written"),
        ("train-head --store flow.zarr --head lineer", "did you mean 'linear'?"),
        ("train-head --store flow.zarr --bins 100000000", "--bins 100000000 must be 100000 or less"),
        ("train-head --store flow.zarr --target none --estimate median", "--estimate median reads the target's bins"),
        ("featurize --model flow --sampling uniform:999999999", "uniform takes 1,000,000 at most, found 999,999,999"),
        ("train-head --learning-rate 3", "No such option '--learning-rate'. Did you mean '--lr'?"),
        ("train-head --epoch 3", "Did you mean '--epochs'?"),
        ("train-head --bs=3", "Did you mean '--batch'?"),
        ("train-head --gpu", "Did you mean '--device'?"),
        ("train-head --output x", "Did you mean '--run'?"),
        ("featurize -o x", "Did you mean '--out'?"),
        ("featurize --zzzz", "No such option '--zzzz'."),
        ("probe --lin", "Did you mean '--linear' or"),
        ("store info --weights", "No such option '--weights'."),
        ("store import flow.zarr x.zarr --root y", "No such option '--root'."),
        ("featurize --model flow --workers 100000", "--workers 100000 must be 1024 or less"),
    ],
)
def test_line_that_goes_wrong_says_how_to_go_on(line: str, said: str, store: Path, synth_set: Path) -> None:
    result = CliRunner().invoke(cli.main, line.replace("SET", str(synth_set / "manifest.csv")).split())
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_every_synonym_is_of_an_option_and_is_none_itself() -> None:
    flags = {name: {flag for param in command.params for flag in param.opts} for name, command in COMMANDS.items()}
    every = set().union(*flags.values())
    assert set(console.SYNONYMS) <= every
    for name in ("featurize", "probe", "train-head"):  # where the hint would else name what is there already
        own = flags[name]
        assert [s for flag in own for s in console.SYNONYMS.get(flag, ()) if s in own] == []


def test_weights_of_the_environment_are_named_as_such(
    synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REELBANK_WEIGHTS", "typo")
    line = ["featurize", "--model", "resnet18", "--manifest", str(synth_set / "manifest.csv")]
    monkeypatch.chdir(tmp_path)
    for more, said in (([], "$REELBANK_WEIGHTS typo"), (["--weights", "typ2"], "--weights typ2")):
        assert f"Error: {said}: no such file" in CliRunner().invoke(cli.main, [*line, *more]).stderr


def test_overlapping_groups_can_be_accepted_where_the_sentence_says_so(tmp_path: Path) -> None:
    (tmp_path / "arrays").mkdir()
    for name in ("a", "b"):
        np.save(tmp_path / f"arrays/{name}.npy", np.zeros((2, 3), dtype=np.float32))
    (tmp_path / "m.csv").write_text("clip_id,video,split,group\na,a.mp4,train,g\nb,b.mp4,test,g\n")
    line = ["store", "import", *(str(tmp_path / name) for name in ("arrays", "s.zarr")), "--manifest"]
    refused = CliRunner().invoke(cli.main, [*line, str(tmp_path / "m.csv")])
    assert "accept it with --allow-group-overlap (of `featurize`, `store import`" in " ".join(refused.stderr.split())
    accepted = CliRunner().invoke(cli.main, [*line, str(tmp_path / "m.csv"), "--allow-group-overlap"])
    assert accepted.exit_code == cli.OK, accepted.output
    for name, command in (("featurize", cli.featurize), ("store import", cli.import_)):
        assert "--allow-group-overlap" in [flag for param in command.params for flag in param.opts], name


def test_predict_says_what_the_run_read_and_the_store_holds(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 4)
    train_head(config(store=(store,), run=Path("run"), epochs=1))
    Path("arrays").mkdir()
    np.save("arrays/a.npy", np.zeros((2, 3), dtype=np.float32))
    made = CliRunner().invoke(cli.main, ["store", "import", "arrays", "other.zarr", "--tap", "mine"])
    assert made.exit_code == cli.OK
    result = CliRunner().invoke(cli.main, ["predict", "--run", "run", "--store", "other.zarr"])
    assert result.exit_code == cli.WRONG_USE
    assert "--tap" not in result.stderr
    assert "run cannot be applied to other.zarr" in result.stderr and "the store None" in result.stderr


def test_device_that_is_not_here_is_refused_where_no_model_uses_it(synth_set: Path, tmp_path: Path) -> None:
    asked = FeaturizeConfig(
        model=("flow:dis",), manifest=synth_set / "manifest.csv", device="cuda:77", out=str(tmp_path / "flow.zarr")
    )
    with pytest.raises(DeviceError, match="--device cuda:77: torch"):
        featurize(asked)
    assert not (tmp_path / "flow.zarr").exists()


def test_checkpoints_may_be_read_by_whom_the_umask_says(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 4)
    before = os.umask(0o027)
    try:
        train_head(config(store=(store,), run=Path("run"), epochs=1))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path("run").iterdir() if path.is_file()}
    assert {"best.safetensors", "last.safetensors", "results.json"} <= set(modes)
    assert set(modes.values()) == {0o640}


def test_python_gets_the_same_sentences(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--bins 100000000 must be 100000 or less"):
        TrainConfig.of(store=("a.zarr",), bins=100_000_000)
    with pytest.raises(ValueError, match=r"no store at .*flow; featurize makes one"):
        reelbank.store.open(tmp_path / "flow")


@pytest.mark.parametrize(
    ("name", "shown", "hidden"),
    [("dinov2", "dinov2:vitl14", "googlenet"), ("VITL", "clip:vitl14", "flow:"), ("timm", "timm:", "clip")],
)
def test_backbones_of_a_name_are_those_that_hold_it(name: str, shown: str, hidden: str) -> None:
    said = CliRunner().invoke(cli.main, ["backbones", name])
    assert (said.exit_code, shown in said.stdout, hidden in said.stdout) == (cli.OK, True, False), said.output
    listed = json.loads(CliRunner().invoke(cli.main, ["backbones", name, "--json"]).stdout)
    assert all(name.lower() in one for one in listed)


def test_backbone_that_is_not_there_is_hinted_at() -> None:
    said = CliRunner().invoke(cli.main, ["backbones", "dinvo2"])
    assert said.exit_code == cli.WRONG_USE
    assert "no backbone's name holds 'dinvo2'; did you mean 'dinov2'?" in said.stderr
