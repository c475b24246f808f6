"""Pictures of a recipe beside its curves: rates of every batch, confusion of several rows, Grad-CAM of classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelbank.heads import TrainingError
from reelbank.heads.recipes import RECIPES, gallery, seeing
from reelbank.heads.recipes.recipe import Recipe

CLASSES = ["clap", "climb", "run"]
LINE = {
    "fold": None, "learning_rate": 1e-4, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "val_mae": None,
    "seconds": 1.0, "best": False,
}  # fmt: skip


def _recipe(directory: Path, rates: dict[str, Sequence[float]]) -> gallery.Material:
    """Two rows of a run each, with predictions of six test clips: `second` is right on all but the first of each."""
    rows = []
    for name, own in rates.items():
        run = directory / "rows" / name / "seed=0"
        run.mkdir(parents=True)
        lines = [{**LINE, "epoch": epoch, "batch_learning_rates": [rate]} for epoch, rate in enumerate(own, start=1)]
        lines = lines or [{**LINE, "epoch": 1}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        counts = np.diag([1, 2, 3])
        counts[0, 1] = 1
        (run / "confusion.json").write_text(json.dumps({"test": {"labels": CLASSES, "counts": counts.tolist()}}))
        found = ["clip_id,split,group,label,predicted,probability,correct"]
        found += [f"{name}-{i},test,g{i},{CLASSES[i % 3]},run,0.5,{int(i > 2)}" for i in range(6)]
        (run / "predictions.csv").write_text("\n".join(found) + "\n")
        rows.append({"name": name, "runs": [str(run.relative_to(directory))], "shared_with": ""})
    study = RECIPES["two-stream/grad-cam"].study
    judged = {"accuracy": {"value": 50.0}}
    data = {
        "recipe": "two-stream/grad-cam", "rows": rows, "best": "second", "study": study.to_json(), "judged": judged,
        "warning": "", "quick": False, "stores": ["a.zarr"], "kind": "train",
    }  # fmt: skip
    return gallery.Material(directory, data)


def test_the_rate_of_every_batch_is_drawn_of_the_rows_that_have_one(tmp_path: Path) -> None:
    of = _recipe(tmp_path, {"first": [], "second": [1e-4, 2.8e-4, 4.6e-4]})
    figure = gallery._rates(of)
    assert figure is not None
    (line,) = figure.axes[0].lines
    assert (line.get_label(), list(line.get_ydata())) == ("second", [1e-4, 2.8e-4, 4.6e-4])
    assert gallery._rates(_recipe(tmp_path / "none", {"first": [], "second": []})) is None


def test_confusion_of_the_best_row_comes_first_with_its_share(tmp_path: Path) -> None:
    figure = gallery._confusion(_recipe(tmp_path, {"first": [], "second": []}))
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["second: 85.7 % of 7 clips", "first: 85.7 % of 7 clips"]
    shares = figure.axes[0].images[0].get_array()
    assert shares is not None
    np.testing.assert_allclose(shares, [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("asked", "classes", "clips"),
    [
        (("climb", "clap"), ["climb", "clap"], ["second-4", "second-3"]),
        (("jump",), ["clap", "climb"], ["second-3", "second-4"]),
    ],
)
def test_grad_cam_is_of_a_clip_that_the_best_row_gets_right(
    asked: tuple[str, ...], classes: list[str], clips: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = _recipe(tmp_path, {"first": [], "second": []})
    given: dict[str, Any] = {}

    def drawn(runs: list[Path], names: list[str], wanted: list[str], *, picture: Path) -> Any:
        given.update(runs=runs, picture=picture)
        picture.write_bytes(b"a PNG")
        return type("Maps", (), {"notes": ("a note",)})

    monkeypatch.setattr(seeing, "class_maps", drawn)
    chosen = replace(_chosen(), seen_classes=asked)
    found = seeing.draw_grad_cams(tmp_path, chosen, of.data)
    assert found == {"classes": classes, "clips": clips, "notes": ["a note"]}
    assert [run.parent.name for run in given["runs"]] == ["first", "second"]
    assert gallery._grad_cam(gallery.Material(tmp_path, {**of.data, "grad_cam": found})) == b"a PNG"
    assert seeing.draw_grad_cams(tmp_path, replace(chosen, seen_classes=()), of.data) is None


def test_a_head_without_grad_cam_costs_the_picture_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise TrainingError("this head has none")

    monkeypatch.setattr(seeing, "class_maps", refused)
    of = _recipe(tmp_path, {"first": [], "second": []})
    found = seeing.draw_grad_cams(tmp_path, replace(_chosen(), seen_classes=("clap",)), of.data)
    assert found == {"error": "this head has none"}
    assert gallery._grad_cam(gallery.Material(tmp_path, {**of.data, "grad_cam": found})) is None


def _chosen() -> Recipe:
    """The recipe with rows of these names."""
    recipe = RECIPES["two-stream/grad-cam"]
    first, second = (replace(row, starts_from=(), against="") for row in recipe.rows[1:3])
    return replace(recipe, rows=(replace(first, name="first"), replace(second, name="second")))
