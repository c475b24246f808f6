"""Running a recipe: rows as trainings, resumed and interrupted, what is refused, what rows under way are told of."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe_stores import assert_latex, calorie_store, run_calories, shorten

from reelbank.heads import RecipeConfig, TrainConfig, TrainingError, run_recipe
from reelbank.heads.recipes import RECIPES
from reelbank.heads.recipes import run as recipe_run
from reelbank.heads.recipes.calories.study import CALORIES
from reelbank.heads.recipes.recipe import Recipe, RecipeRow
from reelbank.heads.recipes.tables import latex_table, markdown_table, table_of
from reelbank.heads.runs import watching
from reelbank.manifests.events import Event


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calorie_store(tmp_path_factory.mktemp("store") / "toy.zarr")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


@pytest.mark.usefixtures("short")
def test_a_stopped_recipe_goes_on_to_the_same_numbers(store: Path, tmp_path: Path) -> None:
    whole = run_calories(store, tmp_path / "whole", "table-3.3").results
    assert list((tmp_path / "whole").rglob("best.safetensors"))
    assert not list((tmp_path / "whole").rglob("last.safetensors")), "a finished row goes no further"
    run_calories(store, tmp_path / "part", "table-3.3")
    (tmp_path / "part" / "rows" / "radam" / "seed=0" / "results.json").unlink()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "part" / "rows").rglob("results.json")}
    again = run_calories(store, tmp_path / "part", "table-3.3", resume=True).results
    assert [row["ours"] for row in again["rows"]] == [row["ours"] for row in whole["rows"]]
    assert all(path.stat().st_mtime_ns == moment for path, moment in times.items())


@pytest.mark.usefixtures("short")
def test_an_interrupt_says_how_to_go_on(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "WATCH_SECONDS", 3600.0)  # the interrupt shall not come in the watching thread
    run = tmp_path / "my run"

    def stop(event: Event) -> None:
        if event.stage == "recipe":
            raise KeyboardInterrupt

    config = RecipeConfig.of(store=(store,), recipe="calories/table-3.1", run=run, bins=30, workers=1, quick=True)
    with pytest.raises(KeyboardInterrupt) as stopped:
        run_recipe(config, stop)
    assert stopped.value.__notes__[-1] == f"--run '{run}' --resume"
    assert run_recipe(config.but(resume=True)).results["rows"]


def test_runs_under_way_are_told_of_while_they_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "WATCH_SECONDS", 0.005)
    config = TrainConfig.of(store=(Path("s"),), run=tmp_path / "kld-700" / "seed=0", epochs=700)
    heard = threading.Event()
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        if "120" in text:  # the file may be found while it is still empty
            heard.set()

    with watching.watched([config], (), tell):
        config.run.given_directory.mkdir(parents=True)
        (config.run.given_directory / "metrics.jsonl").write_text("{}\n" * 120)
        assert heard.wait(timeout=30)
    assert said[-1] == "kld-700/seed=0: epoch 120 of 700"


def test_only_runs_under_way_are_named(tmp_path: Path) -> None:
    shared = TrainConfig.of(store=(Path("s"),), epochs=7, folds=2)
    configs = [shared.but(run=tmp_path / name / "seed=0") for name in "abcdef"]
    for config in configs[:-1]:
        config.run.given_directory.mkdir(parents=True)
        (config.run.given_directory / "metrics.jsonl").write_text("{}\n" * 3)
    assert watching.epochs_text(configs[:1]) == "a/seed=0: epoch 3 of 14"
    (tmp_path / "a" / "seed=0" / "results.json").write_text("{}")
    shown = ", ".join(f"{name}/seed=0: epoch 3 of 14" for name in "bcd")
    assert watching.epochs_text(configs) == f"{shown} and 1 more"
    assert watching.epochs_text(configs, {tmp_path / "e" / "seed=0"}) == shown  # that one failed
    assert watching.epochs_text(configs[:1]) == ""


@pytest.mark.usefixtures("short")
def test_repeats_give_mean_and_deviation(store: Path, tmp_path: Path) -> None:
    data = run_calories(store, tmp_path / "run", "figures-3.48-3.49", repeats=2).results
    row = data["rows"][0]
    assert len(row["runs"]) == 2
    assert row["ours"]["mae_known"]["deviation"] >= 0
    assert row["ours"]["mae_known"]["low"] <= row["ours"]["mae_known"]["value"] <= row["ours"]["mae_known"]["high"]
    values = [
        json.loads((tmp_path / "run" / run / "results.json").read_text())["splits"]["test"]["metrics"]["mae"]["value"]
        for run in row["runs"]
    ]
    assert row["ours"]["mae_known"]["value"] == pytest.approx(np.mean(values), abs=1e-3)
    assert "±" in markdown_table(data)
    assert r"$\pm$" in latex_table(data)


@pytest.mark.usefixtures("short")
def test_the_published_protocol_is_said(store: Path, tmp_path: Path) -> None:
    data = run_calories(store, tmp_path / "run", "figures-3.48-3.49", select_on="reported-set").results
    config = json.loads((tmp_path / "run" / data["rows"][0]["runs"][0] / "config.json").read_text())["config"]
    assert config["keep"] == "last"
    assert "too good" in data["selection"]
    assert "Selected on the reported sets" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.usefixtures("short")
def test_rows_that_the_store_cannot_give_are_not_run_and_said(tmp_path: Path) -> None:
    path = calorie_store(tmp_path / "bare.zarr", views=False)
    result = run_calories(path, tmp_path / "run", "figures-3.1-3.14", markdown=True, latex=True)
    rows = {row["name"]: row for row in result.results["rows"]}
    lost = ["fig-3.8", "fig-3.9", "fig-3.10", "fig-3.11"]
    assert [name for name, row in rows.items() if row["not_run"]] == lost
    assert [name for name, row in rows.items() if not row["ours"]] == lost
    assert result.has_failures
    said = "Not run (4 of 14 rows): fig-3.8, fig-3.9, fig-3.10, fig-3.11: video augmentation"
    page_text = (tmp_path / "run" / "report.html").read_text()
    for text in (result.text(), page_text, (tmp_path / "run" / "table.md").read_text()):
        assert said in text
        assert "bare.zarr holds original" in text
        assert "featurize --views augment" in text
    assert_latex((tmp_path / "run" / "table.tex").read_text())
    head, cells = table_of(result.results)
    assert head[:5] == ["figure", "loss", "epochs", "settings", "theirs"]  # curves only: what is said of them, no row
    assert not any("theirs" in line for line in cells)
    assert cells[0][4] == "overfit"
    assert [line[-1] for line in cells if line[head.index("")] == "ours"].count("not run") == 4
    assert not any((tmp_path / "run" / "rows" / name).exists() for name in lost)
    with pytest.raises(TrainingError, match="--tap pose: no store holds it"):
        run_calories(path, tmp_path / "other", "table-3.1", tap=("pose",))
    shutil.rmtree(path)
    again = run_calories(
        calorie_store(path), tmp_path / "run", "figures-3.1-3.14", resume=True
    )  # views have come: the rest is run
    assert not again.has_failures


def test_options_that_a_recipe_decides_are_refused(store: Path) -> None:
    with pytest.raises(TrainingError, match="decides --lr itself"):
        run_recipe(RecipeConfig.of(store=(store,), recipe="calories/table-3.1", lr=0.1))
    with pytest.raises(TrainingError, match="no such recipe; there are calories/beyond"):
        run_recipe(RecipeConfig.of(store=(store,), recipe="calories/table-9"))


def _rows_of_stores(**changed: Any) -> Recipe:
    """Three rows of the calorie study, one for each choice of stores; the last two are ours."""
    rows = [
        RecipeRow(
            name=stores, cells={"stores": stores}, options={"head": head}, stores=stores, reference=stores == "first"
        )
        for stores, head in (("first", "mlp"), ("all", "linear"), ("last", "linear"))
    ]  # fmt: skip
    return Recipe(
        name="calories/stores", study=CALORIES, title="t", text="t", features="", options={"epochs": 2},
        rows=tuple(rows), proposed="last", **changed,
    )  # fmt: skip


@pytest.mark.usefixtures("short")
def test_rows_read_the_stores_that_they_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "calories/stores", _rows_of_stores())  # type: ignore[misc]
    stores = tuple(calorie_store(tmp_path / f"{name}.zarr", views=False, backbone=name) for name in ("still", "motion"))
    data = run_calories(stores, tmp_path / "run", "stores").results
    for row in data["rows"]:
        read = json.loads((tmp_path / "run" / row["runs"][0] / "config.json").read_text())["config"]["store"]
        expected = {"all": stores, "first": stores[:1], "last": stores[1:]}[row["cells"]["stores"]]
        assert read == [str(path) for path in expected]
    assert data["best"] == "last"
    assert data["against_references"]["name"] == "first"
    assert [(entry["store"], entry["backbone"]) for entry in data["inputs"]] == [
        ("still.zarr", "still"),
        ("motion.zarr", "motion"),
    ]


@pytest.mark.usefixtures("short")
def test_a_proposed_row_that_failed_is_not_called_proposed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "calories/stores", _rows_of_stores())  # type: ignore[misc]
    real = recipe_run.prepare

    def prepare(config: TrainConfig, *others: Any) -> Any:
        if config.head.name == "linear":
            raise TrainingError("no linear head today")
        return real(config, *others)

    monkeypatch.setattr(recipe_run, "prepare", prepare)
    data = run_calories(store, tmp_path / "run", "stores").results
    assert data["proposed"] == ""
    assert data["against_references"] is None
    assert data["best"] == "first"
    assert "Not run (2 of 3 rows): all, last: no linear head today" in data["sentences"]


@pytest.mark.usefixtures("short")
def test_rows_that_all_fail_are_an_error(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "calories/stores", _rows_of_stores(shape=None))  # type: ignore[misc]
    real, calls = recipe_run.prepare, list[str]()

    def prepare(config: TrainConfig, *others: Any) -> Any:
        calls.append(config.head.name)
        if len(calls) > 1:  # the first looks at the stores
            raise TrainingError("nothing today")
        return real(config, *others)

    monkeypatch.setattr(recipe_run, "prepare", prepare)
    with pytest.raises(TrainingError, match=r"no row of calories/stores could be trained; the first: nothing today"):
        run_calories(store, tmp_path / "run", "stores")
