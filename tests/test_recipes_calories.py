"""The calorie study: its published rows, every recipe end to end, k-means, and rows beyond the publication."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipe_stores import Change, assert_latex, assert_markdown, calorie_store, run_calories, shorten

from reelbank.heads import TrainingError
from reelbank.heads.models import HeadShape, build_head
from reelbank.heads.recipes import RECIPES, STUDIES
from reelbank.heads.recipes.calories import kmeans as recipe_kmeans
from reelbank.heads.recipes.recipe import Published
from reelbank.heads.recipes.tables import table_of

NAMES = (
    *("beyond", "figure-3.50", "figures-3.1-3.14", "figures-3.15-3.35", "figures-3.48-3.49", "kmeans"),
    *("table-3.1", "table-3.2", "table-3.3", "table-3.4-stepwise"),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calorie_store(tmp_path_factory.mktemp("store") / "toy.zarr")


class Finished:
    """The recipes in their short form, each run when it is first asked for."""

    def __init__(self, store: Path, folder: Path) -> None:
        self._store, self._folder, self._results = store, folder, dict[str, Any]()

    def __call__(self, name: str) -> Any:
        if name not in self._results:
            # k-means reads means: a rule of segments changes nothing but a note.
            more = {"segments": "segments:2:stride=1"} if name == "kmeans" else {}
            self._results[name] = run_calories(
                self._store, self._folder / name, name, markdown=True, latex=True, **more
            )
        return self._results[name]


@pytest.fixture(scope="module")
def finished(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        patch.setattr(recipe_kmeans, "N_INIT", 2)
        yield Finished(store, tmp_path_factory.mktemp("runs"))


def test_the_recipes_of_the_publication_are_all_there() -> None:
    recipes = STUDIES["calories"]
    assert sorted(one.name for one in recipes) == sorted(f"calories/{name}" for name in NAMES)
    counts = {one.name.removeprefix("calories/"): one.num_rows for one in recipes}
    assert counts["table-3.1"] == 6
    assert counts["table-3.2"] == 11
    assert counts["table-3.3"] == 6
    assert counts["table-3.4-stepwise"] == 12
    assert counts["figures-3.1-3.14"] == 14
    assert counts["figures-3.15-3.35"] == 21
    assert counts["figures-3.48-3.49"] == 2
    assert counts["figure-3.50"] == 2
    assert counts["kmeans"] == 4


def test_published_rows_are_those_of_the_publication() -> None:
    rows = {row.name: row.published for row in RECIPES["calories/table-3.1"].rows}
    values = {"accuracy": 33, "mae_known": 154, "spc_known": 0.239, "nll_known": 6.52}
    values |= {"mae_unknown": 256, "spc_unknown": 0.04, "nll_unknown": 11.23}
    assert rows["kld-700"] == Published(values=values)
    steps = RECIPES["calories/table-3.4-stepwise"].steps
    assert [step.field for step in steps] == ["lr", "weight_decay", "betas", "eps"]
    assert steps[0].published[0].outcome == "overfit"
    longest = [row for row in RECIPES["calories/figures-3.15-3.35"].rows if row.options["epochs"] == 700]
    assert len(longest) == 7


@pytest.mark.parametrize("name", sorted(one.name for one in STUDIES["calories"] if one.kind == "train"))
def test_published_rows_keep_their_last_epoch(name: str) -> None:
    """SYSTEMS.md 1.9; of the rows beyond the publication only those of its tables do."""
    recipe = RECIPES[name]
    kept = {row.name: {**recipe.options, **row.options}.get("keep") for row in recipe.rows}
    if name == "calories/beyond":
        assert {keep for row, keep in kept.items() if row.startswith("table-")} == {"last"}
        assert {keep for row, keep in kept.items() if not row.startswith("table-")} == {"best"}
    else:
        assert set(kept.values()) <= {"last"}
        assert recipe.options["keep"] == "last"


def test_ce_is_trained_with_other_seeds_than_kld() -> None:
    """The gradients are the same, so that one seed would give one training and no noise."""
    for recipe in STUDIES["calories"]:
        for row in recipe.rows:
            loss = {**recipe.options, **row.options}.get("loss")
            assert row.seed_block == (1 if loss == "ce" else 0), (recipe.name, row.name)


def test_notes_say_what_the_document_says() -> None:
    figures = " ".join(RECIPES["calories/figures-3.15-3.35"].notes)
    assert "the stop epoch of seven: 3.24, 3.25, 3.26, 3.30, 3.31, 3.34, 3.35" in figures
    losses = " ".join(RECIPES["calories/table-3.1"].notes)
    assert "with one seed they are one training" in losses


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_runs_end_to_end(name: str, finished: Finished) -> None:
    result = finished(name)
    data = json.loads((result.directory / "recipe.json").read_text())
    assert not result.has_failures, [row["error"] for row in data["rows"]]
    assert len(data["rows"]) == RECIPES[f"calories/{name}"].num_rows
    assert data["best"] in {row["name"] for row in data["rows"]}
    assert set(data["baselines"]) == {"known", "unknown"}
    for row in data["rows"]:
        assert np.isfinite(row["ours"]["mae_known"]["value"])
        assert np.isfinite(row["ours"]["mae_unknown"]["value"])
    own = sum(not row["shared_with"] for row in data["rows"])  # a training that two rows share counts once
    assert all(int(count) == own for count in re.findall(r"of (\d+) rows beat", " ".join(data["sentences"])))
    if name != "kmeans":
        assert any(text.startswith(f"Spearman over clips, {data['best']}: ") for text in data["sentences"])
    html = (result.directory / "report.html").read_text()
    assert "http" not in re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", html).replace("http-equiv", "")
    assert ("QUICK" in html) == (name != "kmeans")
    assert "constant predictor" in html
    assert_markdown((result.directory / "table.md").read_text(), len(data["rows"]))
    assert_latex((result.directory / "table.tex").read_text())
    assert data["recipe"] in result.text()
    lines = result.text().splitlines()
    table = lines[1 : next(i for i, line in enumerate(lines) if line.startswith("† does not"))]  # what its marks mean
    assert len(table) > 2 and max(map(len, table)) <= 100  # named by sentences; every value with its deviation


def test_stepwise_goes_on_from_the_value_that_it_kept(finished: Finished) -> None:
    rows = finished("table-3.4-stepwise").results["rows"]
    kept = {row["cells"]["varied"]: row for row in rows if row["chosen"]}
    assert list(kept) == ["lr", "wd", "betas", "eps"]
    assert [row["step"] for row in rows] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    rate = kept["lr"]["options"]["lr"]
    assert all(row["options"]["lr"] == rate for row in rows if row["step"] > 0)
    assert f"lr {rate:.0e}".replace("e-0", "e-") in kept["wd"]["cells"]["others"]
    distinct = {tuple(row["runs"]) for row in rows}
    assert len(distinct) == 9  # 12 cells


def test_a_row_beside_the_constant_and_the_layout(finished: Finished) -> None:
    data = finished("table-3.1").results
    head, rows = table_of(data)
    assert head[:3] == ["loss", "epochs", ""]
    first = rows[: rows.index(next(row for row in rows[1:] if row[2] == "theirs"))]
    assert [row[2] for row in first] in (["theirs", "ours"], ["theirs", "ours", "at chosen epoch"])
    assert rows[0][3:5] == ["22", "181"]
    assert {row[0] for row in rows if row[2] == "baseline"} >= {
        "constant: median of train",
        "random bin",
        "class-mean oracle",
    }
    for row in data["rows"]:
        verdict = row["beside"]["mae_unknown"]
        expected = "beats" if verdict["high"] < 0 else "worse" if verdict["low"] > 0 else "unclear"
        assert verdict["verdict"] == expected
    said = " ".join(data["sentences"])
    assert "On unknown activities" in said


def test_kld_and_ce_are_two_trainings(finished: Finished) -> None:
    result = finished("table-3.1")
    runs = {row["name"]: row["runs"] for row in result.results["rows"]}
    assert runs["ce-200"] == ["rows/ce-200/seed=1000"]
    assert runs["kld-200"] == ["rows/kld-200/seed=0"]
    ours = {row["name"]: row["ours"]["nll_known"]["value"] for row in result.results["rows"]}
    assert ours["ce-200"] != ours["kld-200"]


def _no_split(name: str) -> Change:
    return lambda clips: [clip.update(split="train") for clip in clips if clip["split"] == name]  # type: ignore[func-returns-value]


def _set(split: str, **values: Any) -> Change:
    return lambda clips: [clip.update(values) for clip in clips if clip["split"] == split]  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _no_split("unknown"),
            r"--recipe calories/table-3\.1 reports two test sets, .* no split 'unknown'",
        ),
        (_no_split("test"), "the store has no split 'test'"),
        (_set("test", label="other"), "none of the 8 clips of split 'test' has a class that training knows"),
        (_set("unknown", kcal=float("nan")), "no clip of split 'unknown' has a target 'kcal'"),
        (_set("train", kcal=float("nan")), "is empty or not finite in 24 of 24 training clips"),
        (_set("train", kcal=1500.0), "lie outside 0:1000"),
        (lambda clips: [clip.pop("kcal") for clip in clips], "needs a numeric target"),
    ],
    ids=["no-unknown", "no-test", "no-known-class", "nan-unknown", "nan-train", "range", "no-target"],
)
def test_data_that_a_recipe_cannot_use_is_refused(change: Change, message: str, tmp_path: Path) -> None:
    path = calorie_store(tmp_path / "bad.zarr", views=False, change=change)
    with pytest.raises(TrainingError, match=message):
        run_calories(path, tmp_path / "run", "table-3.1")
    assert not (tmp_path / "run").exists()


def test_a_target_that_was_switched_off_is_asked_for(store: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"calories/table-3\.1 predicts a numeric target; leave out --target"):
        run_calories(store, tmp_path / "run", "table-3.1", target="none")


def test_k_means_is_judged_like_the_trained_rows(finished: Finished) -> None:
    data = finished("kmeans").results
    assert any("--segments is not used" in note for note in data["notes"])
    assert not any(row["chosen"] for row in data["rows"])  # nothing is selected
    assert not any("undefined" in text for text in data["sentences"])
    median = float(data["judged"]["mae_known"]["says"].removesuffix(" kcal/h"))
    for row in data["rows"]:
        for key, verdict in row["beside"].items():
            read = data["readings"][key.removeprefix("mae_")]
            errors = np.abs(np.array(read[row["name"]]) - np.array(read["truth"]))
            assert row["ours"][key]["value"] == pytest.approx(errors.mean(), abs=1e-2)
            constant = np.abs(np.array(read["truth"]) - median)
            assert verdict["difference"] == pytest.approx((errors - constant).mean(), abs=0.06)
            assert verdict["low"] <= verdict["difference"] <= verdict["high"]


def test_the_proposed_row_is_compared_with_the_best_of_the_tables(finished: Finished) -> None:
    data = finished("beyond").results
    assert data["best"] == data["proposed"] == "additive"
    entry = data["against_references"]
    assert entry["name"].startswith("table-")
    assert entry["key"] == "mae_unknown"
    ours = {row["name"]: row["ours"]["mae_unknown"]["value"] for row in data["rows"]}
    at_chosen = [row["at_chosen_epoch"].get("mae_unknown", row["ours"]["mae_unknown"])["value"] for row in data["rows"]]
    both = zip(ours.items(), at_chosen, strict=True)
    assert entry["value"] == min(min(value, other) for (name, value), other in both if name.startswith("table-"))
    assert entry["epoch"] in ("last", "chosen")
    assert entry["difference"] == pytest.approx(ours["additive"] - entry["value"])
    assert any("proposed by the recipe, differs by" in text for text in data["sentences"])


def test_numbers_of_clusters_are_also_drawn_at_random(finished: Finished) -> None:
    """SYSTEMS.md 1.14: k-means++ numbers dense clusters first, so that the number itself may say something."""
    data = finished("kmeans").results
    assert [row["name"] for row in data["rows"]][:2] == ["cluster_id", "shuffled_cluster_id"]
    read = data["readings"]["known"]
    assert read["cluster_id"] != read["shuffled_cluster_id"]
    step = 1000 / (round(24 * 1000 / 2476) - 1)
    numbers = np.array(read["shuffled_cluster_id"]) / step
    assert numbers == pytest.approx(np.round(numbers), abs=1e-3)
    same = {(a, b) for a, b in zip(read["cluster_id"], read["shuffled_cluster_id"], strict=True)}
    assert len(same) == len({a for a, _ in same}) == len({b for _, b in same})  # one number for another


COUNTS = [
    ("mlp", {}, {"x": 1536}, 160, 985_219),
    ("mlp", {}, {"x": 512}, 90, 460_931),
    ("mlp", {}, {"x": 384}, 90, 395_395),
    ("mlp", {"trunk": "shared"}, {"x": 1536}, 160, 558_851),
    ("mlp", {"trunk": "shared"}, {"x": 512}, 90, 296_707),
    ("mlp", {"trunk": "shared"}, {"x": 384}, 90, 263_939),
    ("conv-aggregation", {}, {"x": 1536}, 160, 3_049_856 + 985_219),
    ("conv-aggregation", {}, {"x": 512}, 90, 1_344_896 + 460_931),
    ("conv-aggregation", {"aggregation": "flatten"}, {"x": 1536}, 160, 6_785_408 + 985_219),
    ("conv-aggregation", {"aggregation": "flatten"}, {"x": 512}, 90, 2_000_256 + 460_931),
]


@pytest.mark.parametrize(("head", "options", "taps", "steps", "count"), COUNTS)
def test_parameters_are_as_many_as_published(
    head: str, options: dict[str, Any], taps: dict[str, int], steps: int, count: int
) -> None:
    import torch

    shape = HeadShape(taps=taps, outputs={"label": 27, "target": 1000}, num_steps=steps)
    with torch.device("meta"):
        built = build_head(head, shape, options)
    assert sum(parameter.numel() for parameter in built.parameters()) == count


@pytest.mark.parametrize(("width", "count"), [(1536, 429_851), (512, 167_707), (384, 134_939)])
def test_one_block_has_as_many_parameters_as_published(width: int, count: int) -> None:
    built = build_head("mlp", HeadShape(taps={"x": width}, outputs={"label": 27}, num_steps=1))
    assert sum(parameter.numel() for parameter in built.parameters()) == count
    calories = build_head("mlp", HeadShape(taps={"x": width}, outputs={"target": 1000}, num_steps=1))
    difference = sum(p.numel() for p in calories.parameters()) - count
    assert difference == 129 * (1000 - 27)
