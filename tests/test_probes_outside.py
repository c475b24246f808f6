"""An analysis that is one file and one row: asked for by its name or as module:attribute, drawn, kept, and checked."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from probe_stores import clustered_store

from reelbank import cli
from reelbank.heads.probes import PROBES, Probe
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.probe import probe

MODULE = "principal_components_of_a_test"
TEXT = '''
import numpy as np
from reelbank.heads.probes import Finding, Probe

ROW = Probe(
    target=__name__ + ":analyse", summary="two principal components", title="PCA", is_map=True, options={"scale": 1.0}
)

def analyse(question):
    """First two principal components."""
    centred = question.rows.vectors - question.rows.vectors.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    kept = float((values[:2] ** 2).sum() / (values ** 2).sum())
    return Finding(
        numbers={"share": kept, "scale": question.options["scale"]},
        sentences=[f"PCA: two components keep {kept:.2f} of the variance."],
        coordinates=centred @ axes[:2].T * question.options["scale"],
        columns={"norm": np.linalg.norm(centred, axis=1).tolist()},
    )

def few(question):
    return Finding(numbers={}, columns={"one": [1]})

def bare(question):
    return {"share": 1.0}
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    clustered_store(tmp_path / "toy.zarr", num_clips=24)
    (tmp_path / f"{MODULE}.py").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path


def call(line: str) -> Result:
    return CliRunner().invoke(cli.main, line.split())


def test_analysis_of_a_module_is_drawn_written_and_named(folder: Path) -> None:
    name = f"{MODULE}:ROW"
    result = call(f"probe --store toy.zarr --knn 3 --analysis {name} --analysis-option {name}.scale=2 --out out")
    assert result.exit_code == cli.OK, result.output
    assert "PCA: two components keep" in result.stdout
    stored = json.loads((folder / "out" / "results.json").read_text())
    assert stored["analyses"][name]["scale"] == 2.0
    assert [(one["name"], len(one["sha256"])) for one in stored["plugins"]] == [(name, 64)]
    assert f"{MODULE}-ROW-class.png" in stored["files"]
    page = (folder / "out" / "index.html").read_text()
    assert "PCA coloured by class" in page and ">Map</h2>" in page
    with (folder / "out" / "coordinates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"x", "y", "norm"} <= set(rows[0])
    # Another probe into the same folder replaces also what only the former plug-in wrote.
    assert call("probe --store toy.zarr --knn 3 --out out").exit_code == cli.OK
    assert not (folder / "out" / f"{MODULE}-ROW-class.png").exists()


def test_a_row_of_the_table_is_all_that_an_analysis_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Probe(target=f"{MODULE}:analyse", summary="two components", title="PCA", is_map=True, options={"scale": 1.0})
    monkeypatch.setitem(PROBES._rows, "pca", row)
    config = ProbeConfig(store=folder / "toy.zarr", tsne=True, analysis=("pca",), out=folder / "out")
    result = probe(config)
    assert list(result.results["analyses"]) == ["tsne", "pca"]
    assert {"pca-class.png", "tsne-class.png"} <= set(result.results["files"])
    page = result.page.read_text()
    assert [f'id="{place}{end}"' in page for place in ("scatter", "scatter-2") for end in ("", "-data")] == [True] * 4
    assert "Map by t-SNE" in page and "Map by PCA" in page
    header = (folder / "out" / "coordinates.csv").read_text().splitlines()[0]
    assert header.endswith("x,y,pca_x,pca_y,norm")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--analysis tsne", "--analysis tsne: it has a flag of its own, --tsne"),
        ("--analysis umop", f"no analysis 'umop'; choose one of {', '.join(sorted(PROBES))}, or give module:function"),
        (f"--analysis {MODULE}:bare", f"{MODULE}:bare gave a dict, expected a Finding"),
        (f"--analysis {MODULE}:few", "Finding.columns['one'] has 1 values, expected 24"),
        (f"--analysis {MODULE}:analyse", "KeyError: 'scale'"),
        ("--analysis-option pca.scale=2", "is not NAME.OPTION=VALUE of one asked; --analysis has none"),
        (
            f"--analysis {MODULE}:ROW --analysis-option {MODULE}:ROW.size=2",
            f"--analysis-option size: analysis '{MODULE}:ROW' has no such option; it has scale",
        ),
    ],
)
def test_wrong_analysis_is_a_sentence(options: str, message: str, folder: Path) -> None:
    result = call(f"probe --store toy.zarr {options} --out out")
    assert result.exit_code == cli.WRONG_USE
    assert message in result.stderr, result.stderr
    assert not (folder / "out").exists()
