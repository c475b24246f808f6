"""Recipes whose rows start from each other and read arrays: waves, stores by what a head reads, the short form."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from recipe_stores import shorten

from reelbank.heads import RecipeConfig, TrainConfig, TrainingError, run_recipe, train_head
from reelbank.heads.examples.prepared import prepare
from reelbank.heads.judging.opposites import WITHIN_PAIR, pairs, partner, told_apart
from reelbank.heads.recipes import RECIPES, announcement, passes, quick
from reelbank.heads.recipes import run as recipe_run
from reelbank.heads.recipes.egocentric.study import EGOCENTRIC
from reelbank.heads.recipes.options import row_config
from reelbank.heads.recipes.quick import QUICK_PASSES, QUICK_STEPS, short_form
from reelbank.heads.recipes.recipe import Published, Recipe, RecipeRow, waves
from reelbank.heads.recipes.rows import read_clips
from reelbank.heads.recipes.stores import GivenStores
from reelbank.heads.recipes.tables import table_of
from reelbank.heads.stored import read_tensors
from reelbank.heads.sweeps.member_pool import train_member
from reelbank.store.testing import write_store

HEAD = "array_head:ROW"
CLASSES = ("open_jar", "close_jar", "stir_tea")
NAME = "egocentric/tiny"


def _row(
    name: str, options: dict[str, Any], starts_from: tuple[str, ...] = (), accuracy: float | None = None
) -> RecipeRow:
    return RecipeRow(
        name=name,
        cells={"row": name},
        options=options,
        starts_from=starts_from,
        stores="matching",
        published=Published() if accuracy is None else Published(values={"accuracy": accuracy}),
    )


STAGE_1 = {"stage": "1"}
STAGE_2 = {"stage": "2", "lr": 0.01}
MOTION = ("motion=true",)
TINY = Recipe(
    name=NAME,
    study=EGOCENTRIC,
    title="Tiny",
    text="Two stages of a small head.",
    features="",
    options={
        "head": HEAD, "target": "none", "epochs": 6, "lr": 0.05, "batch": 8, "keep": "best-accuracy",
        "schedule": "multistep", "milestones": (2, 4), "factor": 0.5, "early_stop_epochs": 0,
    },
    rows=(
        _row("base", STAGE_1),
        _row("again", STAGE_1),
        _row("plain", STAGE_2, ("base",), 41.38),
        _row("plain-again", STAGE_2, ("again",)),
        _row("moving", {**STAGE_2, "head_option": MOTION}, ("base",)),
        _row("stacks", {**STAGE_1, "head_option": ("stacks=true",)}),
        _row("on-stacks", {**STAGE_2, "head_option": ("stacks=true",)}, ("stacks",)),
    ),
    repeats=2,
)  # fmt: skip


def _clips() -> list[dict[str, Any]]:
    return [
        {
            "clip_id": f"c{i}",
            "label": CLASSES[i % 3],
            "group": f"S{1 + i // 9}",
            "split": "test" if i // 9 == 1 else "train",
        }
        for i in range(36)
    ]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Maps of four users whose channels tell the class, and where something moves in them."""
    folder, rng = tmp_path_factory.mktemp("stores"), np.random.default_rng(1)
    maps = []
    for i in range(36):
        one = rng.normal(size=(3, 3, 4, 4)) * 0.4
        one[:, i % 3] += 1.5
        maps.append(one.astype(np.float32))
    moving = [(one[:, 0] > 0).astype(np.float32) for one in maps]
    write_store(folder / "maps.zarr", {"maps": maps}, _clips(), backbone="a")
    write_store(folder / "moving.zarr", {"moving": moving}, _clips(), backbone="b")
    return folder / "maps.zarr", folder / "moving.zarr"


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, NAME, TINY)  # type: ignore[arg-type]
        shorten(patch, pictures=True)
        yield


def _config(stores: tuple[Path, ...], run: Path, **values: Any) -> RecipeConfig:
    return RecipeConfig.of(store=stores, recipe=NAME, run=run, **{"workers": 1, **values})


def _rows(data: Any) -> dict[str, Any]:
    return {row["name"]: row for row in data["rows"]}


@pytest.fixture(scope="module")
def published(stores: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_recipe(_config(stores, tmp_path_factory.mktemp("runs") / "published", select_on="reported-set"))


def test_a_run_starts_from_that_of_its_base_with_the_same_seed(published: Any) -> None:
    """And a base that is the run of another row is that one."""
    rows = _rows(published.results)
    for name, base in (("plain", "base"), ("moving", "base")):
        assert [Path(run).name for run in rows[name]["runs"]] == ["seed=0", "seed=1"]
        for run, before in zip(rows[name]["runs"], rows[base]["runs"], strict=True):
            config = json.loads((published.directory / run / "config.json").read_text())["config"]
            assert config["init_from"] == [str(published.directory / before)]
            assert config["stage"] == "2"
    assert rows["again"]["shared_with"] == "base"
    assert rows["plain-again"]["shared_with"] == "plain"
    assert rows["plain-again"]["runs"] == rows["plain"]["runs"]
    assert rows["plain"]["settings"]["starts from"] == "base"
    first, second = (read_tensors(published.directory / run / "best.safetensors")[0] for run in rows["plain"]["runs"])
    assert not np.array_equal(first["head.net.0.weight"], second["head.net.0.weight"])


def test_a_row_reads_the_stores_that_have_its_inputs(stores: tuple[Path, Path], published: Any) -> None:
    rows = _rows(published.results)
    for name, expected in (("base", stores[:1]), ("moving", stores)):
        config = json.loads((published.directory / rows[name]["runs"][0] / "config.json").read_text())["config"]
        assert config["store"] == [str(path) for path in expected]
    assert rows["stacks"]["not_run"]
    assert "the head reads stacks (*/fields), and none of the stores has it" in rows["stacks"]["error"]
    assert "maps.zarr is a with maps; moving.zarr is b with moving" in rows["stacks"]["error"]
    assert rows["on-stacks"]["error"].startswith("it starts from stacks, which was not run: the head reads stacks")
    assert published.has_failures
    remarks = [line[-1] for line in table_of(published.results)[1]]
    assert remarks.count("not run") == 2


def test_stores_are_opened_once(stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(stores, tmp_path / "run", quick=True)
    given, opened, real = GivenStores(config, TINY), list[Path](), recipe_run.recipe
    import reelbank.store

    whole = reelbank.store.open
    monkeypatch.setattr(reelbank.store, "open", lambda path: [opened.append(path), whole(path)][1])
    for row in real(NAME).rows[:5]:
        row_config(config, row, TINY, given)
    assert opened == list(stores)


def test_the_published_protocol_has_the_stores_split_and_intervals_over_clips(published: Any) -> None:
    data = published.results
    assert data["interval_units"] == "clips"
    config = json.loads((published.directory / _rows(data)["plain"]["runs"][0] / "config.json").read_text())["config"]
    assert (config["folds"], config["select_on"], config["keep"]) == (0, "reported-set", "best-accuracy")
    assert _rows(data)["plain"]["ours"]["accuracy"]["num_groups"] == 9
    assert _rows(data)["plain"]["ours"]["accuracy"]["low"] is not None
    head, lines = table_of(data)
    assert head[2:4] == ["acc. % (9 clips)", "within pairs % (6 clips)"]
    assert ["plain", "theirs", "41.38", "", "", ""] in lines
    page = (published.directory / "report.html").read_text()
    assert "Selected on the reported sets" in page
    assert "FEW GROUPS" not in page
    assert "bootstrap over clips: they say nothing about other groups" in page


def test_by_default_each_user_is_left_out_once(stores: tuple[Path, Path], tmp_path: Path) -> None:
    short = replace(TINY, rows=(TINY.rows[0], TINY.rows[2]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, NAME, short)  # type: ignore[arg-type]
        data = run_recipe(_config(stores[:1], tmp_path / "run", repeats=1)).results
    row = _rows(data)["plain"]
    assert set(row["folds"]["accuracy"]) == {"S1", "S2", "S3", "S4"}
    assert data["interval_units"] == "groups"
    clips = read_clips(tmp_path / "run" / row["runs"][0], "test")
    assert len(clips) == 36
    assert row["ours"]["accuracy"]["value"] == pytest.approx(np.mean(list(row["folds"]["accuracy"].values())))
    for run in row["runs"]:
        assert (
            json.loads((tmp_path / "run" / run / "results.json").read_text())["selection"]["select_on"] == "validation"
        )


@pytest.fixture(scope="module")
def left_out(stores: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first stage that leaves each user out."""
    run = tmp_path_factory.mktemp("folds") / "first"
    train_head(_stage(stores, run=run, folds=4, seed=5))
    return run


def _stage(stores: tuple[Path, Path], **values: Any) -> TrainConfig:
    given = {"store": stores[:1], "head": HEAD, "target": "none", "report": False, "epochs": 2, "seed": 5}
    return TrainConfig.of(**{**given, **values})


def test_a_fold_starts_from_the_fold_that_left_out_its_clips(
    stores: tuple[Path, Path], left_out: Path, tmp_path: Path
) -> None:
    """Whatever its number is there: with another seed the folds are others."""
    numbers = set()
    for seed in (5, 6, 7):
        prepared = prepare(_stage(stores, stage="2", init_from=(left_out,), folds=4, seed=seed))
        for part in prepared.partitions:
            tested = set(prepared.table.clip_ids[part.test].tolist())
            clips = read_clips(left_out, "test")
            (number,) = {f for f, c in zip(clips.texts("fold"), clips.texts("clip_id"), strict=True) if c in tested}
            expected = read_tensors(left_out / f"fold-{number}" / "best.safetensors")[0]
            start = prepared.start_of(part)
            assert start is not None
            for name, value in start.trained.items():
                assert value.equal(expected[f"head.{name}"])
            numbers.add((part.fold, int(number)))
    assert any(here != there for here, there in numbers)


def test_a_run_that_may_have_trained_on_what_a_fold_tests_is_refused(
    stores: tuple[Path, Path], left_out: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    train_head(_stage(stores, run=whole))
    with pytest.raises(TrainingError, match="of 9 clips that are reported here trained it"):
        prepare(_stage(stores, stage="2", init_from=(whole,), folds=4))
    with pytest.raises(TrainingError, match="fold 0 reports 18 clips, and each of the run's 4 folds"):
        prepare(_stage(stores, stage="2", init_from=(left_out,), folds=2))


def test_fewer_clips_are_judged_and_training_has_the_same(stores: tuple[Path, Path]) -> None:
    whole, fewer = prepare(_stage(stores)), prepare(_stage(stores, judge_clips=3))
    (before,), (part,) = whole.partitions, fewer.partitions
    assert part.train.tolist() == before.train.tolist()
    assert (len(part.val), len(part.test)) == (3, 3)
    assert set(part.test.tolist()) < set(before.test.tolist())
    assert {fewer.table.labels[row] for row in part.test} == set(CLASSES)
    assert "At most 3 clips of each other part are judged (--judge-clips)." in fewer.notes


def test_a_base_that_fails_costs_only_what_starts_from_it(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = replace(TINY, rows=(TINY.rows[0], TINY.rows[2], _row("other", {**STAGE_1, "lr": 0.04})))
    monkeypatch.setitem(RECIPES, NAME, chosen)  # type: ignore[misc]

    def failing(config: Any, cache: Any) -> str | None:
        return "no more today" if config.run.given_directory.parent.name == "base" else train_member(config, cache)

    monkeypatch.setattr("reelbank.heads.sweeps.member_pool.train_member", failing)
    run = tmp_path / "run"
    data = run_recipe(_config(stores[:1], run, quick=True)).results
    rows = _rows(data)
    assert (rows["base"]["error"], rows["base"]["not_run"]) == ("no more today", False)
    assert rows["plain"]["error"] == "it starts from base, which failed: no more today"
    assert rows["plain"]["not_run"]
    assert rows["other"]["runs"]
    monkeypatch.setattr("reelbank.heads.sweeps.member_pool.train_member", train_member)
    kept = (run / rows["other"]["runs"][0] / "results.json").stat().st_mtime_ns
    again = _rows(run_recipe(_config(stores[:1], run, quick=True, resume=True)).results)
    assert not any(row["error"] for row in again.values())
    assert (run / rows["other"]["runs"][0] / "results.json").stat().st_mtime_ns == kept


def test_a_recipe_stopped_in_a_later_stage_goes_on_to_the_same_numbers(
    stores: tuple[Path, Path], tmp_path: Path, published: Any
) -> None:
    run = tmp_path / "moved"
    shutil.copytree(published.directory, run)
    for path in (run / "rows").rglob("config.json"):  # what the runs start from lies in the copy
        path.write_text(path.read_text().replace(str(published.directory), str(run)))
    (run / "rows" / "plain" / "seed=1" / "results.json").unlink()
    (run / "rows" / "moving" / "seed=0").rename(tmp_path / "lost")
    again = run_recipe(_config(stores, run, select_on="reported-set", resume=True)).results
    ours = {name: row["ours"] for name, row in _rows(published.results).items()}
    assert {name: row["ours"] for name, row in _rows(again).items()} == ours


def test_rows_are_trained_after_those_they_start_from() -> None:
    names = [[row.name for row in wave] for wave in waves(TINY.rows)]
    assert names == [["base", "again", "stacks"], ["plain", "plain-again", "moving", "on-stacks"]]
    chain = (_row("a", {}), _row("b", {}, ("a",)), _row("c", {}, ("a", "b")))
    assert [len(wave) for wave in waves(chain)] == [1, 1, 1]
    assert waves(()) == []
    with pytest.raises(ValueError, match="b starts from 'c', which is no row before it"):
        replace(TINY, rows=(chain[0], replace(chain[1], starts_from=("c",)), chain[2]))
    with pytest.raises(ValueError, match="no row 'z'"):
        replace(TINY, corners=("z",))


# --- the short form


GRID = replace(
    TINY,
    rows=(
        TINY.rows[0],
        *(_row(f"g{i}", {**STAGE_2, "factor": 0.1 * (i + 1), "steps": 16, "epochs": 100}, ("base",)) for i in range(6)),
    ),
    corners=("g0", "g5"),
)


def test_the_short_form_is_at_most_so_many_clip_passes(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "QUICK_SHARE", 0.05)
    monkeypatch.setattr(quick, "QUICK_CLIPS", 64)
    for name, chosen in RECIPES.items():
        if chosen.reads_arrays:
            for repeats in (1, 3):
                form = short_form(chosen, repeats)
                config = _config(stores, tmp_path / "run", quick=True)
                total = 0
                for row in chosen.rows:
                    values = form.options({**chosen.options, **row.options}, config.train)
                    total += repeats * values["epochs"] * values["train_clips"] * (row.name in chosen.trained_in_short)
                    assert values.get("steps", 0) <= QUICK_STEPS, name
                    assert values["epochs"] >= 1
                    assert values["train_clips"] >= 1
                    assert all(1 <= epoch <= values["epochs"] for epoch in values.get("milestones", ()))
                assert QUICK_PASSES // 2 < total <= QUICK_PASSES, name


def test_the_short_form_of_a_grid_trains_its_corners_and_projects_the_whole(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tuple(replace(row, options={k: v for k, v in row.options.items() if k != "steps"}) for row in GRID.rows)
    monkeypatch.setitem(RECIPES, NAME, replace(GRID, rows=rows))  # type: ignore[misc]
    monkeypatch.setattr(passes, "epochs_of", lambda run: [[{"epoch": 1, "seconds": 8.0}, {"epoch": 2, "seconds": 8.0}]])
    result = run_recipe(_config(stores, tmp_path / "run", quick=True))
    data, found = result.results, _rows(result.results)
    assert [name for name, row in found.items() if row["runs"]] == ["base", "g0", "g5"]
    assert [name for name, row in found.items() if row["left_out"]] == ["g1", "g2", "g3", "g4"]
    assert not result.has_failures
    counts = json.loads((tmp_path / "run" / found["g0"]["runs"][0] / "results.json").read_text())["counts"]
    assert counts["val"] <= 8
    rate = 8.0 / (counts["train"] + counts["val"] / 3)
    assert found["g0"]["seconds_per_pass"] == pytest.approx(rate, abs=1e-3)
    # The whole has four folds; of three users one is cut off for validation: 18 clips are trained on, 9 are judged.
    whole = rate * 2 * 4 * (18 + 9 / 3)
    assert found["base"]["projected_seconds"] == pytest.approx(whole * 6, rel=1e-3)
    assert found["g2"]["projected_seconds"] == pytest.approx(whole * 100, rel=1e-3)
    assert data["projected"]["whole_seconds"] == pytest.approx(whole * 606, rel=1e-3)
    text = result.text()
    assert "QUICK form: at most 200 clip-passes" in text
    assert "Projected: " in text
    assert "Of the grid only the corners are trained in this form: g0, g5." in data["notes"]
    assert [line[-1] for line in table_of(data)[1]].count("not in the QUICK form") == 4


def test_frames_that_the_short_form_leaves_out_count_in_the_projection() -> None:
    assert passes.clip_passes(6, 3) == 7
    assert [passes.duration(s) for s in (90, 7500, 200_000)] == ["2 minutes", "2.1 hours", "2.3 days"]


def test_the_number_of_repeats_is_the_recipes_where_none_is_given(stores: tuple[Path, Path], tmp_path: Path) -> None:
    assert _config(stores, tmp_path).members.repeats == 2
    assert _config(stores, tmp_path, repeats=1).members.repeats == 1
    assert _config(stores, tmp_path, quick=True).members.repeats == 1
    assert "7 rows x 2 repeats" in announcement(NAME)
    assert "7 of 7 rows, at most 200 clip-passes" in announcement(NAME, repeats=1, is_quick=True)
    assert "It reads the first store only" not in announcement(NAME, num_stores=2)


def test_what_a_row_starts_from_is_not_asked_for(stores: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="decides --milestone itself"):
        run_recipe(_config(stores, tmp_path / "run", milestones=(3,)))


# --- what is shown


def test_curves_of_accuracy_loss_and_motion_are_drawn(published: Any) -> None:
    files = {path.name for path in (published.directory / "figures").iterdir()}
    assert files == {"loss.png", "validation.png", "motion.png", "classes.png"}


def test_vertical_lines_stand_after_the_epochs_of_the_schedule(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from reelbank.heads.recipes import gallery

    given: list[Any] = []
    monkeypatch.setattr(gallery.figures, "curves", lambda rows, **options: given.append((rows, options)))
    of = gallery.Material(published.directory, published.results)
    gallery.PICTURES["motion.png"](of)
    gallery.PICTURES["validation.png"](of)
    (motion, options), (_, more) = given
    assert list(motion) == ["moving"]
    assert len(motion["moving"]) == 2
    assert all(line["train_motion"] > 0 for lines in motion["moving"] for line in lines)
    assert options["marks"] == {"moving": [2, 4]}
    assert more["marks"] == {name: [2, 4] for name in ("base", "plain", "moving")}
    monkeypatch.undo()
    figure = gallery.PICTURES["validation.png"](of)
    panel = figure.axes[0]
    upright = [
        line.get_xdata()[0] for line in panel.lines if len(line.get_xdata()) == 2 and len(set(line.get_xdata())) == 1
    ]
    assert upright == [2.5, 4.5]
    legend = next(axes.get_legend() for axes in figure.axes if axes.get_legend())
    assert {"train", "validation", "rate reduced"} <= {text.get_text() for text in legend.get_texts()}
    of_motion = gallery.PICTURES["motion.png"](of)
    assert "Motion loss on the training clips" in [text.get_text().split("\n")[0] for text in of_motion.findobj(Text)]
    named = next(axes.get_legend() for axes in of_motion.axes if axes.get_legend())
    assert "validation" not in {text.get_text() for text in named.get_texts()}


# --- pairs of opposites


def test_opposites_are_found_by_one_word() -> None:
    names = (
        "close_jar",
        "fold_cloth",
        "open_jar",
        "open_tin",
        "put_cup",
        "take_cup,plate",
        "turn_off_tap",
        "turn_on_tap",
    )
    assert pairs(names) == (("close_jar", "open_jar"), ("turn_off_tap", "turn_on_tap"))
    assert pairs(("open", "close", "up", "down")) == (("open", "close"),)
    assert pairs(("Take bread", "put bread", "unfold x", "fold x", "opener_jar")) == (
        ("Take bread", "put bread"),
        ("unfold x", "fold x"),
    )
    assert partner("take_cup", ("put_cup", "take_cup")) == "put_cup"
    assert partner("put_spoon", ("put_spoon", "take_fork")) == ""


def test_a_pair_is_told_apart_whatever_else_is_more_probable() -> None:
    names = ("close_jar", "open_jar", "stir")
    assert told_apart(np.array([0.1, 0.2, 0.7]), "open_jar", names) is True
    assert told_apart(np.array([0.1, 0.2, 0.7]), "close_jar", names) is False
    assert told_apart(np.array([0.2, 0.2, 0.6]), "close_jar", names) is False
    assert told_apart(np.array([0.1, 0.2, 0.7]), "stir", names) is None
    assert told_apart(np.array([0.1, 0.2, 0.7]), "unseen", names) is None


def test_the_accuracy_within_pairs_stands_beside_every_accuracy(published: Any) -> None:
    data = published.results
    rows = _rows(data)
    clips = read_clips(published.directory / rows["plain"]["runs"][0], "test")
    found, labels = clips.texts(WITHIN_PAIR), clips.texts("label")
    assert (found == "").tolist() == (labels == "stir_tea").tolist()
    right = clips.texts("predicted") == labels
    assert (found[right & (labels != "stir_tea")] == "1").all()
    values = [
        100 * np.nanmean(read_clips(published.directory / run, "test").numbers(WITHIN_PAIR))
        for run in rows["plain"]["runs"]
    ]
    assert rows["plain"]["ours"]["pair_accuracy"]["value"] == pytest.approx(np.mean(values))
    assert data["judged"]["pair_accuracy"]["value"] == 50
    assert any("1 pair of 3 classes: close_jar / open_jar." in note for note in data["notes"])


def test_a_set_without_opposites_is_judged_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, NAME, replace(TINY, rows=TINY.rows[:1]))  # type: ignore[misc]
    maps = [np.full((2, 3, 4, 4), i % 2, dtype=np.float32) for i in range(36)]
    clips = [{**clip, "label": "ab"[i % 2]} for i, clip in enumerate(_clips())]
    write_store(tmp_path / "maps.zarr", {"maps": maps}, clips, backbone="a")
    result = run_recipe(_config((tmp_path / "maps.zarr",), tmp_path / "run", quick=True))
    assert "pair_accuracy" not in result.results["rows"][0]["ours"]
    assert "within pairs" not in result.text()
    assert any("there is nothing to tell" in note for note in result.results["notes"])


# --- a row of another set, which others may begin with


OTHER = "egocentric/other-set"
BEGUN = replace(
    TINY,
    name=OTHER,
    rows=(
        replace(_row("stills", STAGE_1), stores="other-set", is_optional=True),
        replace(_row("clips", STAGE_2, ("stills",)), published=Published()),
    ),
    repeats=1,
)


@pytest.fixture(scope="module")
def other_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps of other clips, whose channels tell the class far better."""
    folder, rng = tmp_path_factory.mktemp("other"), np.random.default_rng(2)
    maps = [rng.normal(size=(1, 3, 4, 4)).astype(np.float32) * 0.1 for _ in range(36)]
    for i, one in enumerate(maps):
        one[:, i % 3] += 3
    clips = [{**clip, "clip_id": f"still-{clip['clip_id']}"} for clip in _clips()]
    write_store(folder / "stills.zarr", {"maps": maps}, clips, backbone="a")
    return folder / "stills.zarr"


@pytest.fixture
def _begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, OTHER, BEGUN)  # type: ignore[arg-type]


@pytest.mark.usefixtures("_begun")
def test_a_row_of_another_set_reads_it_and_is_not_judged_beside_the_others(
    stores: tuple[Path, Path], other_set: Path, tmp_path: Path
) -> None:
    asked = _config((stores[0], other_set), tmp_path / "run", select_on="reported-set").but(recipe=OTHER)
    data = run_recipe(asked).results
    rows = _rows(data)
    for name, store in (("stills", other_set), ("clips", stores[0])):
        config = json.loads((tmp_path / "run" / rows[name]["runs"][0] / "config.json").read_text())["config"]
        assert config["store"] == [str(store)]
    assert rows["clips"]["settings"]["starts from"] == "stills"
    assert rows["clips"]["group_overlap"]["test"] == {"clips": 9, "shared": 0, "share": 0.0}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "clips whose group was trained on" in page and "test 0 of 9 (0.0 %)" in page
    assert rows["stills"]["ours"]["accuracy"]["value"] >= rows["clips"]["ours"]["accuracy"]["value"]
    assert data["best"] == "clips"  # of equals the first would be
    assert rows["stills"]["beside"] == {} and rows["clips"]["beside"]
    assert any("1 of 1 rows beat the most frequent class" in sentence for sentence in data["sentences"])


@pytest.mark.usefixtures("_begun")
def test_without_another_set_rows_begin_with_the_backbone_and_that_is_said(
    stores: tuple[Path, Path], tmp_path: Path
) -> None:
    asked = _config(stores[:1], tmp_path / "run", select_on="reported-set").but(recipe=OTHER)
    data = run_recipe(asked).results
    rows = _rows(data)
    assert rows["stills"]["not_run"] and not rows["clips"]["error"]
    assert "reads a store of another data set than maps.zarr" in rows["stills"]["error"]
    assert rows["clips"]["settings"]["starts from"] == "the backbone's weights"
    assert "clips began without stills, with the weights of the backbone alone." in data["sentences"]
