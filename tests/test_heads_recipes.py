"""Recipes: the table as data, every recipe end to end in a short form, its report, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelbank.heads import RecipeConfig, TrainConfig, TrainingError, run_recipe
from reelbank.heads.events import Event
from reelbank.heads.judging import intervals
from reelbank.heads.models import HeadShape, build_head
from reelbank.heads.recipes import RECIPES, judging, listing, listing_text
from reelbank.heads.recipes import kmeans as recipe_kmeans
from reelbank.heads.recipes import report as recipe_page
from reelbank.heads.recipes import run as recipe_run
from reelbank.heads.recipes.recipe import Published
from reelbank.heads.recipes.tables import latex_table, latex_text, markdown_table, table_of
from reelbank.heads.reports import html
from reelbank.heads.runs import watching
from reelbank.store.options import options as options_of_config
from reelbank.store.testing import write_store

Change = Callable[[list[dict[str, Any]]], None]
NAMES = (
    *("beyond", "figures-3.1-3.14", "figures-3.15-3.35", "figures-3.48-3.49", "kmeans"),
    *("table-3.1", "table-3.2", "table-3.3", "table-3.4-stepwise"),
)


def _write(
    path: Path, *, views: bool = True, change: Change | None = None, width: int = 6, backbone: str = "toy"
) -> Path:
    """48 clips of 4 steps whose mean feature tells the kcal, with known and unknown classes and stored views."""
    random = np.random.default_rng(3)
    clips, features = [], []
    for i in range(48):
        split = ("train", "train", "train", "val", "test", "unknown")[(i // 2) % 6]
        kcal = float(random.uniform(100, 800))
        label = f"novel {i % 2}" if split == "unknown" else f"class {i % 2}"
        clips.append({"clip_id": f"c{i}", "split": split, "label": label, "group": f"s{i // 2}", "kcal": kcal})
        steps = random.normal(size=(4, width)) * 0.3
        steps[:, 0] += kcal / 200
        features.append(steps.astype(np.float16))
    if change is not None:
        change(clips)
    train = [clip["split"] == "train" for clip in clips]
    copies = {"cls": [a if own else None for a, own in zip(features, train, strict=True)]}
    others = dict.fromkeys(("flip", "rotation", "jitter"), copies) if views else None
    write_store(path, {"cls": features}, clips, backbone=backbone, weights={"kind": "pretrained"}, views=others)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("store") / "toy.zarr")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs a row, rough intervals, no map, no pictures: what they look like has a test of its own."""
    monkeypatch.setattr(recipe_run, "QUICK_SHARE", 0.001)
    monkeypatch.setattr(recipe_run, "QUICK_CLIPS", 12)
    monkeypatch.setattr(intervals, "RESAMPLES", 40)
    monkeypatch.setattr(intervals, "WHOLE_RESAMPLES", 20)
    monkeypatch.setattr(recipe_run, "vector_map", lambda prepared, seed: {})
    monkeypatch.setattr(recipe_page, "_pictures", lambda directory, data: {})


def _run(store: Path, run: Path, name: str, **options: Any) -> Any:
    given = {"bins": 30, "workers": 1, "quick": True, **options}
    return run_recipe(RecipeConfig.of(store=(store,), recipe=f"calories/{name}", run=run, **given))


def test_the_recipes_of_the_publication_are_all_there() -> None:
    assert sorted(RECIPES) == sorted(f"calories/{name}" for name in NAMES)
    counts = {name.removeprefix("calories/"): one.num_rows for name, one in RECIPES.items()}
    assert counts["table-3.1"] == 6
    assert counts["table-3.2"] == 11
    assert counts["table-3.3"] == 6
    assert counts["table-3.4-stepwise"] == 12
    assert counts["figures-3.1-3.14"] == 14
    assert counts["figures-3.15-3.35"] == 21
    assert counts["figures-3.48-3.49"] == 2
    assert set(json.loads(json.dumps(listing()))) == set(RECIPES)
    assert len(listing_text().splitlines()) == len(RECIPES)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_row_is_a_training_that_can_be_asked_for(name: str) -> None:
    recipe, known = RECIPES[name], set(options_of_config(TrainConfig))
    config = TrainConfig.of(store=(Path("a"),))
    assert recipe.fields <= known
    names = [row.name for row in recipe.rows]
    assert len(set(names)) == len(names)
    for row in recipe.rows:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", row.name)
        assert row.published == Published() or row.cells
        config.but(**{**recipe.options, **row.options})
    for step in recipe.steps:
        assert len(step.published) == len(step.values)
        for value in step.values:
            config.but(**{**recipe.options, step.field: value})


def test_published_rows_are_those_of_the_publication() -> None:
    rows = {row.name: row.published for row in RECIPES["calories/table-3.1"].rows}
    assert rows["kld-700"] == Published(
        accuracy=33,
        mae_known=154,
        spc_known=0.239,
        nll_known=6.52,
        mae_unknown=256,
        spc_unknown=0.04,
        nll_unknown=11.23,
    )
    steps = RECIPES["calories/table-3.4-stepwise"].steps
    assert [step.field for step in steps] == ["lr", "weight_decay", "betas", "eps"]
    assert steps[0].published[0].outcome == "overfit"
    longest = [row for row in RECIPES["calories/figures-3.15-3.35"].rows if row.options["epochs"] == 700]
    assert len(longest) == 7


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_runs_end_to_end(name: str, store: Path, tmp_path: Path) -> None:
    result = _run(store, tmp_path / "run", name, markdown=True, latex=True)
    data = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert not result.has_failures, [row["error"] for row in data["rows"]]
    assert len(data["rows"]) == RECIPES[f"calories/{name}"].num_rows
    assert data["best"] in {row["name"] for row in data["rows"]}
    assert set(data["baselines"]) == {"known", "unknown"}
    for row in data["rows"]:
        assert np.isfinite(row["ours"]["mae_known"]["value"])
        assert np.isfinite(row["ours"]["mae_unknown"]["value"])
    own = sum(not row.get("shared_with") for row in data["rows"])  # a training that two rows share counts once
    assert all(int(count) == own for count in re.findall(r"of (\d+) rows beat", " ".join(data["sentences"])))
    if name != "kmeans":
        assert any(text.startswith(f"Spearman over clips, {data['best']}: ") for text in data["sentences"])
    html = (tmp_path / "run" / "report.html").read_text()
    assert "http" not in re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", html).replace("http-equiv", "")
    assert ("QUICK" in html) == (name != "kmeans")
    assert "constant predictor" in html
    _assert_markdown((tmp_path / "run" / "table.md").read_text(), len(data["rows"]))
    _assert_latex((tmp_path / "run" / "table.tex").read_text())
    assert data["recipe"] in result.text()
    assert max(map(len, result.text().splitlines()[1:3])) < 220


def _assert_markdown(text: str, least: int) -> None:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) > least
    assert len({line.count("|") for line in lines}) == 1
    assert "does not beat the constant" in text


def _assert_latex(text: str) -> None:
    """Balanced, every row as wide as the columns declared, no character left that LaTeX would take as a command."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert code.count(r"\begin{") == code.count(r"\end{") == 1
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", code):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    width = len(re.search(r"\\begin{tabular}{([lr]+)}", code).group(1))  # type: ignore[union-attr]
    for row in re.findall(r"^(.*) \\\\$", code, re.MULTILINE):
        spanned = sum(int(count) - 1 for count in re.findall(r"\\multicolumn{(\d+)}", row))
        assert len(re.split(r"(?<!\\)&", row)) + spanned == width
    plain = re.sub(r"\$\\(pm|dagger)\$|\$[<>]\$", "", code)
    assert not re.search(r"(?<!\\)[$#_%~^]|[^\x00-\x7f]", plain)
    assert "does not beat the constant" in code


def test_latex_text_has_no_commands_in_it() -> None:
    assert latex_text("a_b & 5 % ±† --select-on {x} <1>") == (
        r"a\_b \& 5 \% $\pm$$\dagger$ -{}-select-on \{x\} $<$1$>$"
    )
    assert latex_text("\\") == r"\textbackslash{}"


def test_the_name_of_a_baseline_runs_over_the_leading_columns() -> None:
    made = html.table(["a", "b", "c"], [["x", "y", 1], ["constant", "", 2], ["", "z", 3]], lead=2)
    assert made.count("colspan") == 1
    assert '<td colspan="2">constant</td><td class="n">2</td>' in made


def test_the_page_shows_every_picture(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_run, "QUICK_SHARE", 0.02)
    _run(store, tmp_path / "run", "figures-3.48-3.49")
    files = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert files == set(recipe_page.CAPTIONS)
    data = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert data["map"]["stores"] == [store.name]
    run = tmp_path / "run" / data["rows"][0]["runs"][0]
    constant = json.loads((run / "results.json").read_text())["splits"]["val"]["baselines"]["constant_median"]["mae"]
    assert recipe_page._validation_constant(run) == constant  # of the clips that the curve is about
    html = (tmp_path / "run" / "report.html").read_text()
    assert html.count("<img") == len(files)


@pytest.mark.usefixtures("short")
def test_stepwise_goes_on_from_the_value_that_it_kept(store: Path, tmp_path: Path) -> None:
    rows = _run(store, tmp_path / "run", "table-3.4-stepwise").results["rows"]
    kept = {row["cells"]["varied"]: row for row in rows if row["chosen"]}
    assert list(kept) == ["lr", "wd", "betas", "eps"]
    assert [row["step"] for row in rows] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    rate = kept["lr"]["options"]["lr"]
    assert all(row["options"]["lr"] == rate for row in rows if row["step"] > 0)
    assert f"lr {rate:.0e}".replace("e-0", "e-") in kept["wd"]["cells"]["others"]
    distinct = {tuple(row["runs"]) for row in rows}
    assert len(distinct) == 9  # 12 cells


@pytest.mark.usefixtures("short")
def test_a_stopped_recipe_goes_on_to_the_same_numbers(store: Path, tmp_path: Path) -> None:
    whole = _run(store, tmp_path / "whole", "table-3.3").results
    _run(store, tmp_path / "part", "table-3.3")
    (tmp_path / "part" / "rows" / "radam" / "seed=0" / "results.json").unlink()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "part" / "rows").rglob("results.json")}
    again = _run(store, tmp_path / "part", "table-3.3", resume=True).results
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
    data = _run(store, tmp_path / "run", "figures-3.48-3.49", repeats=2).results
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
    data = _run(store, tmp_path / "run", "figures-3.48-3.49", select_on="reported-set").results
    config = json.loads((tmp_path / "run" / data["rows"][0]["runs"][0] / "config.json").read_text())["config"]
    assert config["keep"] == "last"
    assert "too good" in data["selection"]
    assert "Selected on the reported sets" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.usefixtures("short")
def test_a_row_beside_the_constant_and_the_layout(store: Path, tmp_path: Path) -> None:
    data = _run(store, tmp_path / "run", "table-3.1").results
    head, rows = table_of(data)
    assert head[:3] == ["loss", "epochs", ""]
    assert [row[2] for row in rows[:4]] == ["theirs", "ours", "theirs", "ours"]
    assert rows[0][3:5] == ["22", "181"]
    assert {row[0] for row in rows if row[2] == "baseline"} >= {
        "constant: median of train",
        "random bin",
        "class-mean oracle",
    }
    for row in data["rows"]:
        verdict = row["against_constant"]["unknown"]
        expected = "beats" if verdict["high"] < 0 else "worse" if verdict["low"] > 0 else "unclear"
        assert verdict["verdict"] == expected
    said = " ".join(data["sentences"])
    assert "On unknown activities" in said


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
    path = _write(tmp_path / "bad.zarr", views=False, change=change)
    with pytest.raises(TrainingError, match=message):
        _run(path, tmp_path / "run", "table-3.1")
    assert not (tmp_path / "run").exists()


def test_a_target_that_was_switched_off_is_asked_for(store: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"calories/table-3\.1 predicts a numeric target; leave out --target"):
        _run(store, tmp_path / "run", "table-3.1", target="none")


@pytest.mark.usefixtures("short")
def test_rows_that_the_store_cannot_give_are_not_run_and_said(tmp_path: Path) -> None:
    path = _write(tmp_path / "bare.zarr", views=False)
    result = _run(path, tmp_path / "run", "figures-3.1-3.14", markdown=True, latex=True)
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
    _assert_latex((tmp_path / "run" / "table.tex").read_text())
    head, cells = table_of(result.results)
    assert head[:5] == ["figure", "loss", "epochs", "settings", "theirs"]  # curves only: what is said of them, no row
    assert not any("theirs" in line for line in cells)
    assert cells[0][4] == "overfit"
    assert [line[-1] for line in cells if line[head.index("")] == "ours"].count("not run") == 4
    assert not any((tmp_path / "run" / "rows" / name).exists() for name in lost)
    with pytest.raises(TrainingError, match="--tap pose: no store holds it"):
        _run(path, tmp_path / "other", "table-3.1", tap=("pose",))
    shutil.rmtree(path)
    again = _run(_write(path), tmp_path / "run", "figures-3.1-3.14", resume=True)  # views have come: the rest is run
    assert not again.has_failures


@pytest.mark.usefixtures("short")
def test_a_proposed_row_that_failed_is_not_called_proposed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = recipe_run.prepare

    def prepare(config: TrainConfig, *others: Any) -> Any:
        if config.head.name == "additive":
            raise TrainingError("no additive head today")
        return real(config, *others)

    monkeypatch.setattr(recipe_run, "prepare", prepare)
    data = _run(store, tmp_path / "run", "beyond").results
    assert data["proposed"] == ""
    assert data["against_tables"] is None
    assert data["best"] != "additive"
    assert any(text.startswith("Not run (2 of 17 rows): additive-all, additive: no") for text in data["sentences"])


@pytest.mark.parametrize(
    ("ours", "constant", "said"),
    [
        ((1.0, 2.0), (3.0, 4.0), "do not overlap"),
        ((5.0, 6.0), (3.0, 4.0), "do not overlap"),
        ((1.0, 3.5), (3.0, 4.0), "intervals overlap"),
        ((None, None), (3.0, 4.0), ""),
    ],
)
def test_intervals_on_either_side_do_not_overlap(
    ours: tuple[float, float], constant: tuple[float, float], said: str
) -> None:
    text = judging._overlap(*({"low": low, "high": high} for low, high in (ours, constant)))
    assert text.endswith(said)
    assert bool(text) == bool(said)


@pytest.mark.usefixtures("short")
def test_k_means_is_judged_like_the_trained_rows(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(recipe_run, "vector_map", lambda prepared, seed: {})
    monkeypatch.setattr(intervals, "RESAMPLES", 40)
    monkeypatch.setattr(recipe_kmeans, "N_INIT", 2)
    data = _run(store, tmp_path / "run", "kmeans", segments="segments:2:stride=1").results
    assert any("--segments is not used" in note for note in data["notes"])
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} == {"classes.png", "distributions.png"}
    assert "QUICK" not in (tmp_path / "run" / "report.html").read_text()  # k-means has no short form
    for row in data["rows"]:
        for part, verdict in row["against_constant"].items():
            read = data["readings"][part]
            errors = np.abs(np.array(read[row["name"]]) - np.array(read["truth"]))
            assert row["ours"][f"mae_{part}"]["value"] == pytest.approx(errors.mean(), abs=1e-2)
            constant = np.abs(np.array(read["truth"]) - data["constant"])
            assert verdict["difference"] == pytest.approx((errors - constant).mean(), abs=1e-2)
            assert verdict["low"] <= verdict["difference"] <= verdict["high"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-3, "1e-3"), (1e-9, "1e-9"), ((0.85, 0.995), "(0.85, 0.995)"), (2.5e-4, "2.5e-4"), (0.5, "0.5")],
)
def test_values_are_written_as_published(value: Any, text: str) -> None:
    assert recipe_run._cell(value) == text


def test_options_that_a_recipe_decides_are_refused(store: Path) -> None:
    with pytest.raises(TrainingError, match="decides --lr itself"):
        run_recipe(RecipeConfig.of(store=(store,), recipe="calories/table-3.1", lr=0.1))
    with pytest.raises(TrainingError, match="no such recipe; there are calories/beyond"):
        run_recipe(RecipeConfig.of(store=(store,), recipe="calories/table-9"))


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


@pytest.mark.usefixtures("short")
def test_rows_read_the_stores_that_they_ask_for(tmp_path: Path) -> None:
    stores = tuple(_write(tmp_path / f"{name}.zarr", views=False, backbone=name) for name in ("still", "motion"))
    options = {"recipe": "calories/beyond", "quick": True, "bins": 30, "workers": 1}
    data = run_recipe(RecipeConfig.of(store=stores, run=tmp_path / "run", **options)).results
    for row in data["rows"]:
        read = json.loads((tmp_path / "run" / row["runs"][0] / "config.json").read_text())["config"]["store"]
        expected = {"all": stores, "first": stores[:1], "last": stores[1:]}[row["cells"]["stores"]]
        assert read == [str(path) for path in expected]
    assert data["best"] == "additive"
    assert data["against_tables"]["name"].startswith("table-")
