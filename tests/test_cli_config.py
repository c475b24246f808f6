"""--config: options from a file are those of the command line, a run's record does the run again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from click.core import ParameterSource
from click.testing import CliRunner, Result
from docs_pages import parse
from planted import planted_store

from reelbank import cli
from reelbank.heads.config import TrainConfig


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.main, [*words])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    planted_store(tmp_path / "flow.zarr", num=48)
    return tmp_path


FILE = """
store = "flow.zarr"
--lr = 1e-2
early-stop = 5
epochs = 2
range = [0, 900]
metric = []
report = false
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('store = "a.zarr"\nlr = 1e-2', "--store a.zarr --lr 1e-2"),
        ('store = ["a.zarr", "b.zarr"]\nweight_decay = 0', "--store a.zarr --store b.zarr --weight-decay 0"),
        ('store = "a.zarr"\nearly-stop = 3\nmilestone = [4, 9]', "--store a.zarr --early-stop 3 --milestone 4 "
         "--milestone 9"),
        ('store = "a.zarr"\nearly_stop_epochs = 3\nrange = "0:900"', "--store a.zarr --early-stop 3 --range 0:900"),
        ('store = "a.zarr"\nrange = [0.25, 9]\nreport = false', "--store a.zarr --range 0.25:9 --no-report"),
        ('store = "a.zarr"\nshuffle-labels = true\nhead = "linear"', "--store a.zarr --shuffle-labels --head linear"),
        ('store = "a.zarr"\nsweep = "lr=1e-3,1e-4"\nrepeats = 3', "--store a.zarr --sweep lr=1e-3,1e-4 --repeats 3"),
    ],
)  # fmt: skip
def test_file_gives_what_its_line_gives(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(text)
    from_file = parse(cli.main, ["train-head", "--config", str(tmp_path / "run.toml")])
    assert from_file == parse(cli.main, ["train-head", *line.split()])


def test_command_line_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('store = ["a.zarr", "b.zarr"]\nepochs = 3\nlr = 0.1')
    line = ["train-head", "--config", str(tmp_path / "run.toml"), "--store", "c.zarr", "--epochs", "7"]
    found = parse(cli.main, line)
    assert (found["store"], found["epochs"], found["lr"]) == ((Path("c.zarr"),), 7, 0.1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3", "No such option '--epoch'. Did you mean '--epochs'?\n  run.toml has 'epoch'"),
        ("learning_rate = 3", "No such option '--learning-rate'. Did you mean '--lr'?\n  run.toml has 'learning_rate'"),
        ('epochs = "many"', "'--epochs': 'many' is not a valid integer.\n  --epochs is from run.toml"),
        ("epochs = 1.5", "'--epochs': '1.5' is not a valid integer.\n  --epochs is from run.toml"),
        ("epochs = true", "'--epochs': 'true' is not a valid integer.\n  --epochs is from run.toml"),
        ("epochs = [1, 2]", "'--epochs': [1, 2]: one value is needed, not a list\n"),
        ("epochs = 0", "--epochs 0 must be 1 or more\n  --epochs is from run.toml"),
        ('select-on = "tests"', "'tests' is not one of 'reported-set', 'validation'.\n  --select-on is from run.toml"),
        ('range = "wide"', "'wide' is not of the form A:B, e.g. 0:1000\n  --range is from run.toml"),
        ('report = "perhaps"', "'--report': 'perhaps' is not a valid boolean"),
        ("early-stop = 3\nearly_stop_epochs = 4", "run.toml has --early-stop twice"),
        ("[optimizer]\nlr = 3", "'--optimizer': a table; options stand at the top of the file"),
        ("lr = ", "run.toml: Invalid value (at end of document)"),
        ('store = "nope.zarr"', "no store at nope.zarr; featurize makes one\n  --store nope.zarr is from run.toml"),
        ('recipe = "calories/beyond"\nlr = 1e-2', "--lr is from run.toml"),
        ("json = true", "No such option '--json'"),
    ],
)  # fmt: skip
def test_wrong_file_is_the_error_of_its_line_with_the_name_of_the_file(text: str, said: str, folder: Path) -> None:
    Path("run.toml").write_text(text)
    more = [] if "store" in text else ["--store", "flow.zarr"]
    result = call("train-head", "--config", "run.toml", *more)
    assert result.exit_code == cli.WRONG_USE
    assert said in result.stderr
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [("nope.toml", "nope.toml: No such file"), (".", "a folder; did you mean config.json?"), ("n.json", "n.json: ")],
)  # fmt: skip
def test_file_that_cannot_be_read_is_named(path: str, said: str, folder: Path) -> None:
    Path("n.json").write_text("[" * 100_000)
    result = call("train-head", "--config", path, "--json")
    assert (result.exit_code, said in json.loads(result.stdout)["error"]) == (cli.WRONG_USE, True)


def test_run_is_done_again_to_the_same_bits(folder: Path) -> None:
    Path("run.toml").write_text(FILE.replace("--lr", '"--lr"'))
    first = call("train-head", "--config", "run.toml", "--seed", "4", "--run", "a")
    assert first.exit_code == cli.OK, first.output
    said = "of run.toml: --store, --metric, --range, --lr, --epochs, --early-stop, --report; of the command line: --run"
    assert f"Options: {said}" in first.stdout.replace("--seed, ", "")
    again = call("train-head", "--config", "a/config.json", "--run", "b", "--json")
    assert again.exit_code == cli.OK, again.output
    assert json.loads(again.stdout)["options"]["from_command_line"] == ["--run"]
    for name in ("best.safetensors", "predictions.csv"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    records = [json.loads(Path(run, "config.json").read_text()) | {"notes": []} for run in "ab"]
    assert records[0].pop("config") | {"run": "b"} == records[1].pop("config")
    assert records[0] == records[1]


def test_what_the_defaults_chose_is_chosen_again(folder: Path) -> None:
    for line in (("--store", "flow.zarr", "--run", "a"), ("--config", "a/config.json", "--run", "b")):
        result = call("train-head", *line, "--no-report")
        assert result.exit_code == cli.OK, result.output
    assert Path("a/predictions.csv").read_bytes() == Path("b/predictions.csv").read_bytes()


def test_replay_says_where_the_data_are_others(folder: Path) -> None:
    assert call("train-head", "--store", "flow.zarr", "--epochs", "1", "--no-report", "--run", "a").exit_code == cli.OK
    shutil.move("flow.zarr", "moved.zarr")
    lost = call("train-head", "--config", "a/config.json")
    assert lost.exit_code == cli.WRONG_USE
    assert "no store at flow.zarr" in lost.stderr
    assert "--store flow.zarr is from a/config.json; if it lies elsewhere now, give --store beside it" in lost.stderr
    same = call("train-head", "--config", "a/config.json", "--store", "moved.zarr", "--run", "b")
    assert same.exit_code == cli.OK, same.output
    assert "No replay" not in same.stdout
    planted_store(folder / "other.zarr", num=40)
    other = call("train-head", "--config", "a/config.json", "--store", "other.zarr", "--run", "c")
    assert "No replay: clips, labels or spec of the stores differ from those of a/config.json" in other.stdout


def test_replay_pins_what_was_a_default(folder: Path) -> None:
    record: dict[str, Any] = TrainConfig.of(store=(Path("flow.zarr"),)).to_json() | {"epochs": 7, "target": None}
    Path("config.json").write_text(json.dumps({"config": record}))
    found: click.Command = cli.main.commands["train-head"]
    context = found.make_context("train-head", ["--config", "config.json"])
    asked = {name: context.params[name] for name in record if name not in ("run", "resume", "overwrite")}
    assert TrainConfig.of(**asked).to_json() == record
    assert {context.get_parameter_source(name) for name in asked} == {ParameterSource.DEFAULT_MAP}


def test_probe_and_featurize_take_files(folder: Path) -> None:
    Path("look.toml").write_text('kmeans = 4\nstore = "flow.zarr"\nout = "one"')
    assert call("probe", "--config", "look.toml").exit_code == cli.OK
    again = call("probe", "--config", "one/results.json", "--out", "two")
    assert again.exit_code == cli.OK, again.output
    assert Path("one/coordinates.csv").read_bytes() == Path("two/coordinates.csv").read_bytes()
    Path("f.toml").write_text('model = ["flow", "frames"]\nsampling = "uniform:4"\nsquare-pixels = true\nworkers = 2')
    found = parse(cli.main, ["featurize", "--config", "f.toml", "--model", "flow"])
    assert (found["model"], found["sampling"], found["square_pixels"]) == (("flow",), ("uniform:4",), True)
