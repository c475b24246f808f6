"""Three kinds of study as a file of rows each: accuracies, folds that leave a user out, a metric of one's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe_stores import assert_latex, calorie_store, class_store, run, shorten

from reelbank.heads import TrainingError
from reelbank.heads.recipes import RECIPES
from reelbank.heads.recipes.measures import Clips, Guesser, Measure
from reelbank.heads.recipes.recipe import Published, Recipe, RecipeRow
from reelbank.heads.recipes.study import Column, Part, Selection, Study
from reelbank.heads.recipes.tables import markdown_table, table_of

TEST = Part(name="test", split="test", said="the test set")
CLASSES: dict[str, Any] = {"target": "none", "batch": 8, "lr": 1e-2, "keep": "last", "early_stop_epochs": 0}

ACCURACIES = Recipe(
    name="actions/mean-mlp",
    study=Study(
        name="actions",
        parts=(TEST,),
        columns=(
            Column(
                key="accuracy", head="acc. %", part="test", metric="accuracy", scale=100, digits=2,
                beats="majority_class",
            ),
            Column(key="f1", head="macro F1", part="test", metric="macro_f1", digits=4),
        ),
        selection=Selection(validation="val_accuracy", column="accuracy"),
        baselines={"majority_class": "most frequent class", "uniform_random_class": "random class"},
        by_class={"majority_class": "most frequent class"},
        captions={"loss.png": "Loss", "validation.png": "Accuracy", "classes.png": "By class", "tsne.png": "Map"},
    ),
    title="Mean and MLP",
    text="A perceptron on the mean over time.",
    features="GoogLeNet, 16 frames",
    shape=(16, 1024),
    options=CLASSES,
    rows=(
        RecipeRow(
            name="mlp", cells={"model": "MLP"}, options={"epochs": 60},
            published=Published(values={"accuracy": 55.63, "f1": 0.5522}),
        ),
        RecipeRow(name="linear", cells={"model": "linear"}, options={"head": "linear", "epochs": 40}),
    ),
)  # fmt: skip

FOLDS = Recipe(
    name="users/leave-one-out",
    study=Study(
        name="users",
        parts=(Part(name="left-out", split="test", said="the user left out"),),
        columns=(
            Column(key="S2", head="S2", part="left-out", metric="accuracy", scale=100, digits=2, group="S2"),
            Column(
                key="mean", head="mean of users", part="left-out", metric="accuracy", scale=100, digits=2, over="folds",
                beats="majority_class",
            ),
            Column(key="f1", head="mean F1", part="left-out", metric="macro_f1", digits=3, over="folds"),
        ),
        selection=Selection(validation="val_accuracy", column="mean"),
        baselines={"majority_class": "most frequent class"},
        folds="groups",
        captions={"loss.png": "Loss"},
    ),
    title="One user left out",
    text="Four users, four folds.",
    features="",
    options=CLASSES,
    rows=(
        RecipeRow(name="mlp", cells={"frames": "7"}, options={"epochs": 30}, published=Published(values={"S2": 41.38})),
        RecipeRow(name="linear", cells={"frames": "16"}, options={"head": "linear", "epochs": 20}),
    ),
)  # fmt: skip


def near(clips: Clips) -> np.ndarray:
    """1 where the predicted value is within a fifth of the true one: what PCK is to keypoints."""
    errors = np.abs(clips.numbers("predicted_target") - clips.numbers("target"))
    found: np.ndarray = (errors <= 0.2 * clips.numbers("target")).astype(np.float64)
    return found


def _half(clips: Clips, training: Any) -> Clips:
    return clips.but(predicted_target=np.nanmax(training.targets) / 2)


OWN_METRIC = Recipe(
    name="poses/near",
    study=Study(
        name="poses",
        parts=(TEST,),
        columns=(
            Column(key="near", head="near @ 0.2", part="test", metric="near", scale=100, digits=1, beats="half"),
            Column(key="furthest", head="furthest", part="test", metric="furthest"),
        ),
        selection=Selection(validation="val_mae", column="near"),
        baselines={"half": "half of the largest"},
        measures={
            "near": Measure(title="share within 20 %", higher_is_better=True, per_clip=near),
            "furthest": Measure(
                title="largest error",
                higher_is_better=False,
                whole=lambda clips: float(np.abs(clips.numbers("predicted_target") - clips.numbers("target")).max()),
            ),
        },
        guessers={"half": Guesser(title="half of the largest value", guess=_half)},
        by_class={"half": "half", "class_mean_oracle": "class mean"},
        needs_target=True,
        captions={"distributions.png": "Values", "compared.png": "Two rows", "classes.png": "By class"},
    ),
    title="A metric of its own",
    text="Rows judged by a function over predictions.",
    features="",
    options={"bins": 50, "batch": 8, "lr": 1e-2, "early_stop_epochs": 0, "estimate": "expectation"},
    rows=(
        RecipeRow(name="mlp", cells={"model": "a"}, options={"epochs": 40}, published=Published(values={"near": 80.0})),
        RecipeRow(name="linear", cells={"model": "b"}, options={"head": "linear", "epochs": 20}),
    ),
    compared=("mlp", "linear"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for recipe in (ACCURACIES, FOLDS, OWN_METRIC):
            patch.setitem(RECIPES, recipe.name, recipe)  # type: ignore[arg-type]
        shorten(patch, pictures=True)
        yield


def _page(result: Any) -> str:
    text = str((result.directory / "report.html").read_text())
    return re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)  # chance may write any word into a picture


@pytest.fixture(scope="module")
def accuracies(folder: Path) -> Any:
    path = class_store(folder / "classes.zarr")
    return run(path, folder / "accuracies", "actions/mean-mlp", quick=False, markdown=True, latex=True)


def test_a_study_of_accuracies_runs_end_to_end(accuracies: Any) -> None:
    data = accuracies.results
    assert not accuracies.has_failures
    assert data["target"]["name"] == ""
    head, rows = table_of(data)
    assert head == ["model", "", "acc. % (1 group)", "macro F1", "epoch", "remark"]
    assert rows[0] == ["MLP", "theirs", "55.63", "0.5522", "", ""]
    assert [row[0] for row in rows if row[1] == "baseline"] == ["most frequent class", "random class"]
    assert data["judged"]["accuracy"]["guesser"] == "majority_class"
    assert data["judged"]["accuracy"]["value"] == pytest.approx(100 / 3)
    assert {row[0]: row[2] for row in rows if row[1] == "baseline"} == {
        "most frequent class": "33.33",
        "random class": "33.33",
    }
    ours = data["rows"][0]["ours"]["accuracy"]["value"]
    stored = json.loads((accuracies.directory / data["rows"][0]["runs"][0] / "results.json").read_text())
    assert ours == pytest.approx(100 * stored["splits"]["test"]["metrics"]["accuracy"]["value"])
    assert ours > 60
    assert data["best"] in ("mlp", "linear")
    assert [entry["label"] for entry in data["classes"]] == ["class 0", "class 1", "class 2"]
    assert data["classes"][0]["guesses"]["majority_class"] in (0, 100)


def test_the_files_of_a_study_of_accuracies_name_no_target(accuracies: Any) -> None:
    files = {path.name for path in (accuracies.directory / "figures").iterdir()}
    assert files == {"loss.png", "validation.png", "classes.png"}
    text = (accuracies.directory / "table.md").read_text()
    assert_latex((accuracies.directory / "table.tex").read_text(), lost="the most frequent class")
    page = _page(accuracies)
    for shown in (page, text, accuracies.text()):
        assert "kcal" not in shown
        assert "MAE" not in shown
        assert "constant" not in shown.replace("constant rate", "")
        assert "the most frequent class" in shown
    assert "published: 16 steps of 1024" in page
    assert "On the test set no row beats the most frequent class (&#39;class 0&#39;: accuracy 33.33)." in page
    assert "FEW GROUPS: 1 group on the test set" in page


def test_with_one_group_there_is_no_interval_and_no_verdict(accuracies: Any) -> None:
    for row in accuracies.results["rows"]:
        assert row["ours"]["accuracy"]["low"] is None
        assert row["beside"]["accuracy"]["verdict"] == "unclear"


@pytest.fixture(scope="module")
def folds(folder: Path) -> Any:
    path = class_store(folder / "users.zarr", users=6, split=False)
    return run(path, folder / "folds", "users/leave-one-out", quick=False)


def test_folds_leave_one_user_out(folds: Any) -> None:
    data = folds.results
    assert not folds.has_failures, [row["error"] for row in data["rows"]]
    for row in data["rows"]:
        values = row["folds"]["mean"]
        assert list(values) != []
        assert set(values) == {f"S{i}" for i in range(1, 7)}
        assert row["ours"]["mean"]["value"] == pytest.approx(np.mean(list(values.values())))
        assert row["ours"]["S2"]["value"] == pytest.approx(values["S2"])
        assert row["ours"]["mean"]["num_groups"] == 6
        assert row["ours"]["f1"]["value"] is not None
        assert len(row["epochs"]) == 6
        stored = json.loads((folds.directory / row["runs"][0] / "results.json").read_text())
        per_fold = [100 * fold["metrics"]["accuracy"] for fold in stored["folds"]]
        assert sorted(values.values()) == pytest.approx(sorted(per_fold))
        assert row["ours"]["f1"]["value"] == pytest.approx(
            np.mean([fold["metrics"]["macro_f1"] for fold in stored["folds"]])
        )
    head, rows = table_of(data)
    assert head == ["frames", "", "S2", "mean of users (6 groups)", "epoch", "remark"]
    assert rows[0][:3] == ["7", "theirs", "41.38"]
    page = _page(folds)
    assert "Fold by fold" in page
    assert "mean of folds" in page
    assert "FEW GROUPS" not in page


def test_clips_without_a_user_cannot_be_left_out(folder: Path) -> None:
    path = calorie_store(
        folder / "bare.zarr", views=False, change=lambda clips: [clip.update(group="") for clip in clips[:3]]
    )
    with pytest.raises(TrainingError, match="leaves one group out at a time, and 3 of 40 clips have no group"):
        run(path, folder / "bare", "users/leave-one-out")
    with pytest.raises(TrainingError, match="decides --folds itself"):
        run(path, folder / "bare", "users/leave-one-out", folds=3)


def test_a_study_of_classes_needs_them(folder: Path) -> None:
    path = calorie_store(
        folder / "mute.zarr", views=False, change=lambda clips: [clip.update(label="") for clip in clips]
    )
    with pytest.raises(TrainingError, match="needs at least 2 classes"):
        run(path, folder / "mute", "actions/mean-mlp")


@pytest.fixture(scope="module")
def own_metric(folder: Path) -> Any:
    path = calorie_store(folder / "values.zarr", views=False)
    return run(path, folder / "own", "poses/near", quick=False, latex=True)


def test_a_metric_of_a_function_over_predictions(own_metric: Any) -> None:
    data = own_metric.results
    assert not own_metric.has_failures
    rows = {row["name"]: row for row in data["rows"]}
    path = own_metric.directory / rows["mlp"]["runs"][0] / "predictions.csv"
    head, *lines = [line.split(",") for line in path.read_text().splitlines()]
    test = [dict(zip(head, line, strict=True)) for line in lines if line[head.index("split")] == "test"]
    truth = np.array([float(row["target"]) for row in test])
    errors = np.abs(np.array([float(row["predicted_target"]) for row in test]) - truth)
    share = 100 * (errors <= 0.2 * truth).mean()
    assert rows["mlp"]["ours"]["near"]["value"] == pytest.approx(share)
    assert rows["mlp"]["ours"]["furthest"]["value"] == pytest.approx(errors.max())
    assert rows["mlp"]["ours"]["furthest"]["low"] is None
    entry = rows["mlp"]["beside"]["near"]
    guess = 100 * (np.abs(data["judged"]["near"]["value"]) / 100)
    assert entry["difference"] == pytest.approx(share - guess)
    expected = "beats" if entry["low"] > 0 else "worse" if entry["high"] < 0 else "unclear"
    assert entry["verdict"] == expected


def test_a_metric_of_ones_own_is_said_and_drawn(own_metric: Any) -> None:
    files = {path.name for path in (own_metric.directory / "figures").iterdir()}
    assert files == {"distributions.png", "compared.png", "classes.png"}
    text = markdown_table(own_metric.results)
    assert "half of the largest value" in text
    assert "| half of the largest |" in text
    assert_latex((own_metric.directory / "table.tex").read_text(), lost="half of the largest value")
    assert "share within 20 %" in own_metric.text()
    assert "points against half of the largest value" in own_metric.text()
