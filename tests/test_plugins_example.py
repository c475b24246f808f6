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

import pytest

import reelbank.store
from reelbank.manifests.plugins import sha256_of

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "docs" / "example_plugin"
PUBLIC = (
    *("reelbank", "reelbank.extract.backbones", "reelbank.heads.judging.metrics", "reelbank.heads.losses"),
    *("reelbank.heads.models", "reelbank.manifests.datasets"),
)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed package; it is built from a copy, so that the tree stays clean."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    command = [*pip, "--no-build-isolation", "--target", str(folder / "lib"), str(folder / "source")]
    subprocess.run(command, check=True, timeout=300)
    return folder


@pytest.fixture
def run(installed: Path, synth_set: Path) -> Run:
    """A command of reelbank in the rendered set's folder, in a process that sees the package."""
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    paths = [str(installed / "lib"), str(ROOT / "tests"), *inherited]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("REELBANK_MANIFEST", None)

    def call(*arguments: str, module: str = "") -> subprocess.CompletedProcess[str]:
        command = f"import sys; from reelbank import cli; cli.main({list(arguments)!r}, prog_name='reelbank')"
        start = ["-m", module, *arguments] if module else ["-c", command]
        return subprocess.run(
            [sys.executable, *start], cwd=installed, env=environment, capture_output=True, text=True, timeout=600
        )

    return call


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_example_tests_pass(run: Run) -> None:
    good(run("-q", "-p", "no:cacheprovider", "source/tests", module="pytest"))


def test_listings_show_the_plugins_and_where_they_come_from(run: Run) -> None:
    for command, line in {
        "backbones": "colours: plug-in, reelbank_example.colours:ROW of reelbank-example 1.0; one step reads",
        "heads": "(plug-in: reelbank_example.cosine:ROW of reelbank-example 1.0)",
        "losses": "(plug-in: reelbank_example.earth_mover:earth_mover of reelbank-example 1.0)",
        "metrics": "(plug-in: reelbank_example.tolerance:WITHIN_TENTH of reelbank-example 1.0)",
    }.items():
        assert line in good(run(command))
    assert json.loads(good(run("heads", "--json")))["cosine"]["options"] == {"scale": 16.0}
    assert "Videos named CLASS_NUMBER.mp4." in good(run("manifest", "--help"))


def test_the_whole_line_on_plugins_alone(run: Run, installed: Path, synth_set: Path) -> None:
    """Manifest, features, two members of a sweep in processes, prediction; provenance names the package."""
    read = good(run("manifest", "numbered", str(synth_set / "videos"), "--out", "numbered.csv"))
    assert "24 clips (train 20, test 4)" in read
    manifest = ("--manifest", str(synth_set / "manifest.csv"))
    good(run("featurize", *manifest, "--model", "colours", "--sampling", "uniform:2", "--workers", "2"))
    plugin = reelbank.store.open(installed / "colours.zarr").provenance["plugin"]
    assert (plugin["name"], plugin["target"]) == ("colours", "reelbank_example.colours:ROW")
    assert (plugin["distribution"], plugin["version"]) == ("reelbank-example", "1.0")
    package = installed / "lib" / "reelbank_example"
    files = {f"reelbank_example/{name}": package / name for name in ("__init__.py", "colours.py")}
    assert (plugin["sha256"], plugin["files"]) == (sha256_of(files), sorted(files))

    train = ("train-head", "--store", "colours.zarr", "--head", "cosine", "--head-option", "scale=8", "--loss", "emd")
    few = ("--metric", "within_tenth", "--epochs", "3", "--bins", "50", "--no-report", "--run")
    swept = json.loads(good(run(*train, *few, "sweep", "--sweep", "lr=1e-2,1e-3", "--workers", "2", "--json")))
    assert [member["status"] for member in swept["members"]] == ["done", "done"]
    results = json.loads(good(run(*train, *few, "run", "--json")))
    entry = results["splits"]["test"]["metrics"]["within_tenth"]
    assert (entry["higher_is_better"], entry["unit"]) == (True, "fraction")
    kept = json.loads((installed / "run" / "config.json").read_text())["plugins"]
    assert [(one["kind"], one["distribution"]) for one in kept] == [
        (kind, "reelbank-example") for kind in ("head", "loss", "metric")
    ]
    assert "24 clips predicted" in good(run("predict", "--run", "run", "--store", "colours.zarr"))


def test_changed_source_is_refused_where_numbers_would_mix(run: Run, installed: Path, synth_set: Path) -> None:
    featurize = ("featurize", "--manifest", str(synth_set / "manifest.csv"), "--model", "colours:8", "--workers", "1")
    train = ("train-head", "--head", "cosine", "--epochs", "2", "--bins", "20", "--no-report", "--run", "kept")
    good(run(*featurize, "--sampling", "uniform:2"))
    good(run(*train, "--store", "colours-8.zarr"))
    changed = [installed / "lib" / "reelbank_example" / name for name in ("colours.py", "cosine.py")]
    before = [path.read_text() for path in changed]
    try:
        for path in changed:
            path.write_text(path.read_text() + "# changed\n")
        refused = run(*featurize, "--sampling", "uniform:2")
        assert refused.returncode == 2
        assert "plugin_sha256: stored" in refused.stderr
        predict = ("predict", "--run", "kept", "--store", "colours-8.zarr")
        refused = run(*predict)
        assert refused.returncode == 2
        assert (
            "best.safetensors was trained with other code: head 'cosine' (reelbank_example.cosine:ROW" in refused.stderr
        )
        refused = run(*train, "--store", "colours-8.zarr", "--resume")
        assert "--resume: kept was trained with other code: head 'cosine'" in refused.stderr
        good(run(*predict, "--accept-changed-code"))
    finally:
        for path, text in zip(changed, before, strict=True):
            path.write_text(text)


def test_example_uses_public_modules_only() -> None:
    for path in EXAMPLE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "reelbank":
                assert node.module in PUBLIC, f"{path.name} imports {node.module}"
