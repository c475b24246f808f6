"""The example package under docs/: installed as its users would, run by the commands, its own tests included."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import reelbank.store
from reelbank.manifests.plugins import sha256_of

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "docs" / "example_plugin"
PUBLIC = (
    *("reelbank", "reelbank.extract.backbones", "reelbank.heads.judging.metrics", "reelbank.heads.losses"),
    *("reelbank.heads.models", "reelbank.manifests.datasets"),
)

PROGRAM = """
import contextlib, io, json, sys
from pathlib import Path
from click.testing import CliRunner
from reelbank import cli
answers = []
for line in json.loads(Path(sys.argv[1]).read_text()):
    if line[0] == "pytest":
        import pytest
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            answers.append((int(pytest.main(line[1:])), shown.getvalue(), ""))
        continue
    result = CliRunner().invoke(cli.main, line, prog_name="reelbank")
    answers.append((result.exit_code, result.stdout, result.stderr))
Path(sys.argv[1]).write_text(json.dumps(answers))
"""
"""Commands one after another in one process, which imports everything once; `pytest` is one of them."""


class Answer(NamedTuple):
    """What a command gave."""

    status: int
    stdout: str
    stderr: str


Run = Callable[..., list[Answer]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed package; it is built from a copy, so that the tree stays clean."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    command = [*pip, "--no-build-isolation", "--target", str(folder / "lib"), str(folder / "source")]
    subprocess.run(command, check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def environment(installed: Path) -> dict[str, str]:
    """Of a process that sees the package. It runs in another folder: what is inherited is made absolute."""
    inherited = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    paths = [str(installed / "lib"), str(ROOT / "tests"), *inherited]
    made = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    made.pop("REELBANK_MANIFEST", None)
    return made


@pytest.fixture(scope="module")
def run(installed: Path, environment: dict[str, str]) -> Run:
    """Commands in the package's folder, in one new process."""

    def call(*lines: tuple[str, ...]) -> list[Answer]:
        file = installed / "lines.json"
        file.write_text(json.dumps(lines))
        command = [sys.executable, "-c", PROGRAM, str(file)]
        done = subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return [Answer(*answer) for answer in json.loads(file.read_text())]

    return call


SHOWN = {
    "backbones": "colours: plug-in, reelbank_example.colours:ROW of reelbank-example 1.0; one step reads",
    "heads": "(plug-in: reelbank_example.cosine:ROW of reelbank-example 1.0)",
    "losses": "(plug-in: reelbank_example.earth_mover:earth_mover of reelbank-example 1.0)",
    "metrics": "(plug-in: reelbank_example.tolerance:WITHIN_TENTH of reelbank-example 1.0)",
}
"""{command that lists a table: what it says of the plug-in}."""
FEW = ("--metric", "within_tenth", "--epochs", "3", "--bins", "50", "--no-report", "--run")
TRAIN = ("train-head", "--store", "colours.zarr", "--head", "cosine", "--head-option", "scale=8", "--loss", "emd", *FEW)
KEPT = ("train-head", "--head", "cosine", "--epochs", "2", "--bins", "20", "--no-report", "--run", "kept")
KEPT = (*KEPT, "--store", "colours-8.zarr")
PREDICT_KEPT = ("predict", "--run", "kept", "--store", "colours-8.zarr")


def featurize(synth_set: Path, model: str, workers: int) -> tuple[str, ...]:
    manifest = ("--manifest", str(synth_set / "manifest.csv"))
    return ("featurize", *manifest, "--model", model, "--sampling", "uniform:2", "--workers", str(workers))


@pytest.fixture(scope="module")
def answers(run: Run, synth_set: Path) -> dict[str, Answer]:
    """What a process says that sees the package as it was installed."""
    lines = {
        **{name: (name,) for name in SHOWN},
        "heads as JSON": ("heads", "--json"),
        "readers": ("manifest", "--help"),
        "read": ("manifest", "numbered", str(synth_set / "videos"), "--out", "numbered.csv"),
        "extracted": featurize(synth_set, "colours", 2),
        "swept": (*TRAIN, "sweep", "--sweep", "lr=1e-2,1e-3", "--workers", "2", "--json"),
        "trained": (*TRAIN, "run", "--json"),
        "predicted": ("predict", "--run", "run", "--store", "colours.zarr"),
        "extracted to change": featurize(synth_set, "colours:8", 1),
        "trained to change": KEPT,
        "example's tests": ("pytest", "-q", "-p", "no:cacheprovider", "source/tests"),
    }
    return dict(zip(lines, run(*lines.values()), strict=True))


def good(answer: Answer) -> str:
    assert answer.status == 0, answer.stdout + answer.stderr
    return answer.stdout


def test_example_tests_pass(answers: dict[str, Answer]) -> None:
    assert "5 passed" in good(answers["example's tests"])


def test_listings_show_the_plugins_and_where_they_come_from(answers: dict[str, Answer]) -> None:
    for name, line in SHOWN.items():
        assert line in good(answers[name])
    assert json.loads(good(answers["heads as JSON"]))["cosine"]["options"] == {"scale": 16.0}
    assert "Videos named CLASS_NUMBER.mp4." in good(answers["readers"])


def test_the_whole_line_on_plugins_alone(answers: dict[str, Answer], installed: Path) -> None:
    """Manifest, features, two members of a sweep in processes, prediction; provenance names the package."""
    assert "24 clips (train 20, test 4)" in good(answers["read"])
    good(answers["extracted"])
    plugin = reelbank.store.open(installed / "colours.zarr").provenance["plugin"]
    assert (plugin["name"], plugin["target"]) == ("colours", "reelbank_example.colours:ROW")
    assert (plugin["distribution"], plugin["version"]) == ("reelbank-example", "1.0")
    package = installed / "lib" / "reelbank_example"
    files = {f"reelbank_example/{name}": package / name for name in ("__init__.py", "colours.py")}
    assert (plugin["sha256"], plugin["files"]) == (sha256_of(files), sorted(files))

    assert [member["status"] for member in json.loads(good(answers["swept"]))["members"]] == ["done", "done"]
    entry = json.loads(good(answers["trained"]))["splits"]["test"]["metrics"]["within_tenth"]
    assert (entry["higher_is_better"], entry["unit"]) == (True, "fraction")
    kept = json.loads((installed / "run" / "config.json").read_text())["plugins"]
    assert [(one["kind"], one["distribution"]) for one in kept] == [
        (kind, "reelbank-example") for kind in ("head", "loss", "metric")
    ]
    assert "24 clips predicted" in good(answers["predicted"])


def test_changed_source_is_refused_where_numbers_would_mix(
    answers: dict[str, Answer], run: Run, installed: Path, synth_set: Path
) -> None:
    good(answers["extracted to change"])
    good(answers["trained to change"])
    changed = [installed / "lib" / "reelbank_example" / name for name in ("colours.py", "cosine.py")]
    before = [path.read_text() for path in changed]
    try:
        for path in changed:
            path.write_text(path.read_text() + "# changed\n")
        mixed, applied, resumed, accepted = run(
            featurize(synth_set, "colours:8", 1),
            PREDICT_KEPT,
            (*KEPT, "--resume"),
            (*PREDICT_KEPT, "--accept-changed-code"),
        )
        assert mixed.status == 2
        assert "plugin_sha256: stored" in mixed.stderr
        assert applied.status == 2
        assert (
            "best.safetensors was trained with other code: head 'cosine' (reelbank_example.cosine:ROW" in applied.stderr
        )
        assert "--resume: kept was trained with other code: head 'cosine'" in resumed.stderr
        good(accepted)
    finally:
        for path, text in zip(changed, before, strict=True):
            path.write_text(text)


def test_example_uses_public_modules_only() -> None:
    for path in EXAMPLE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "reelbank":
                assert node.module in PUBLIC, f"{path.name} imports {node.module}"
