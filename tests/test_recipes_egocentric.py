"""The egocentric recipes as data: every published number, and what every row trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from reelbank.cli import main
from reelbank.heads import RecipeConfig, TrainConfig, TrainingError
from reelbank.heads.config import stage_settings
from reelbank.heads.judging.opposites import WITHIN_PAIR
from reelbank.heads.models import plan_of
from reelbank.heads.models.listing import describe_head
from reelbank.heads.recipes import RECIPES, STUDIES
from reelbank.heads.recipes.egocentric.study import EGOCENTRIC
from reelbank.heads.recipes.measures import Clips
from reelbank.heads.recipes.options import row_config
from reelbank.heads.recipes.stores import GivenStores
from reelbank.store.testing import write_store

OURS = {one.name: one for one in STUDIES["egocentric"]}
FIGURES = {
    "figure-7": {
        "o-rnn-stage-1-7": 29.89, "o-rnn-stage-1-16": 27.87, "o-rnn-stage-2-7": 50.00, "o-rnn-stage-2-16": 50.57,
        "ego-rnn-stage-1-7": 41.38, "ego-rnn-stage-1-16": 46.84, "ego-rnn-stage-2-7": 58.91,
        "ego-rnn-stage-2-16": 65.52, "flow-resnet34": 46.26, "two-stream-7": 57.76, "two-stream-16": 66.38,
    },
    "figure-12-13": {
        "stage-1-7": 44.83, "stage-1-16": 50.86, "binary-7": 60.63, "binary-16": 62.07, "regression-7": 59.77,
        "regression-16": 66.38,
    },
    "figure-21": {
        "stage-1-7": None, "7-bw-binary": 56.47, "7-bw-regression": 62.07, "7-gray-regression": 61.21,
        "14-bw-binary": 63.22, "14-gray-regression": 69.25, "28-bw-binary": 54.60, "28-gray-regression": 52.30,
    },
    "figure-24": {
        "stage-1-7": None, "configuration-1": 55.46, "configuration-2": 56.03, "configuration-3": 56.90,
        "configuration-4": 64.08,
    },
    "figure-25": {
        "ego-rnn-stage-1-7": None, "ego-rnn-stage-2-7": None, "flow-resnet34": None, "o-rnn-stage-1-7": None,
        "stage-1-7": None, "two-stream-7": 57.76, "representation-flow": 51.72, "discriminator": 64.08,
        "motion-14-gray": 69.25,
    },
}  # fmt: skip
GRIDS = {
    "grid-14": """
        1e-4 4e-3 30 70   73.28 64.66 65.52
        1e-4 4e-3 40 80   67.24 75.00 67.24
        1e-4 4e-3 50 100  67.24 67.24 68.10
        1e-4 4e-5 30 70   62.07 68.97 65.52
        1e-4 4e-5 40 80   67.24 68.97 66.38
        1e-4 4e-5 50 100  65.52 67.24 67.24
        5e-4 4e-3 30 70   68.10 64.66 70.69
        5e-4 4e-3 40 80   65.52 62.93 63.79
        5e-4 4e-3 50 100  62.45 65.52 66.38
        5e-4 4e-5 30 70   64.66 65.52 61.23
        5e-4 4e-5 40 80   65.52 66.38 62.07
        5e-4 4e-5 50 100  68.97 62.45 67.24
    """,
    "grid-15": """
        1e-4 4e-3 30 80  62.07 62.93 62.07
        1e-4 4e-3 40 90  66.38 68.97 64.66
        1e-4 4e-5 30 80  60.34 62.07 67.24
        1e-4 4e-5 40 90  62.93 66.38 64.66
        5e-4 4e-3 30 80  64.66 61.23 67.24
        5e-4 4e-3 40 90  65.52 66.38 71.55
        5e-4 4e-5 30 80  68.10 56.03 72.41
        5e-4 4e-5 40 90  66.38 65.52 68.10
        5e-5 4e-3 30 80  61.21 63.79 62.07
        5e-5 4e-5 30 80  61.21 62.07 66.38
    """,
}


def _cells(name: str) -> dict[tuple[float, float, tuple[int, int], float], float]:
    """{(rate, weight decay, milestones, gamma): accuracy} of the grid that is written out above."""
    found = {}
    for line in GRIDS[name].strip().splitlines():
        lr, decay, first, second, *values = line.split()
        for gamma, value in zip((0.1, 0.2, 0.5), values, strict=True):
            found[float(lr), float(decay), (int(first), int(second)), gamma] = float(value)
    return found


def _of_recipe(name: str) -> dict[tuple[float, float, tuple[int, int], float], float]:
    """The same of the rows of a recipe."""
    recipe = OURS[f"egocentric/{name}"]
    found = {}
    for row in recipe.rows:
        if row.published.values:
            options = {**recipe.options, **row.options}
            key = options["lr"], options["weight_decay"], options["milestones"], options["factor"]
            found[key] = row.published.values["accuracy"]
    return found


def _fits(value: float, videos: int) -> bool:
    """Whether a number of clips of so many gives this share, in percent with two digits."""
    return any(abs(round(100 * count / videos, 2) - value) < 1e-9 for count in range(videos + 1))


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_every_published_number_of_a_figure_stands_in_its_row(name: str) -> None:
    rows = OURS[f"egocentric/{name}"].rows
    assert {row.name: row.published.values.get("accuracy") for row in rows} == FIGURES[name]


@pytest.mark.parametrize("name", sorted(GRIDS))
def test_every_published_number_of_a_grid_stands_beside_its_options(name: str) -> None:
    assert _of_recipe(name) == _cells(name)
    assert len(_cells(name)) == {"grid-14": 36, "grid-15": 30}[name]


def test_bests_and_column_means_of_the_grids_are_those_of_the_text() -> None:
    cells = _of_recipe("grid-14")
    means = {
        gamma: round(sum(value for key, value in cells.items() if key[3] == gamma) / 12, 2) for gamma in (0.1, 0.2, 0.5)
    }
    assert means == {0.1: 66.48, 0.2: 66.63, 0.5: 65.95}
    assert max(cells, key=lambda key: cells[key]) == (1e-4, 4e-3, (40, 80), 0.2)
    assert max(cells.values()) == 75.00
    cells = _of_recipe("grid-15")
    assert max(cells, key=lambda key: cells[key]) == (5e-4, 4e-5, (30, 80), 0.5)
    assert max(cells.values()) == 72.41


def test_published_numbers_are_shares_of_the_videos_that_were_tested() -> None:
    """Single runs of 116, means of three runs of 348; the exceptions of SYSTEMS.md 2.1."""
    singles = [value for name in GRIDS for value in _of_recipe(name).values()]
    assert sorted(value for value in singles if not _fits(value, 116)) == [61.23, 61.23, 62.45, 62.45]
    means = {value for values in FIGURES.values() for value in values.values() if value is not None}
    assert [value for value in means if not _fits(value, 348)] == [56.47]
    assert _fits(56.47, 232)


def test_what_was_never_printed_has_no_published_number() -> None:
    for name in ("beyond", "combined", "rendered", "stage-1-tuning"):
        assert not any(row.published.values for row in OURS[f"egocentric/{name}"].rows)
    outcomes = {row.name: row.published.outcome for row in OURS["egocentric/stage-1-tuning"].rows}
    assert [name for name, outcome in outcomes.items() if outcome] == ["50-100_0.1"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_recipe_is_printed_with_its_numbers(name: str) -> None:
    printed = json.loads(CliRunner().invoke(main, ["recipes", name, "--json"]).stdout)
    assert [row["published"]["values"] for row in printed["rows"]] == [
        dict(row.published.values) for row in OURS[name].rows
    ]
    assert printed["repeats"] == (1 if name.rpartition("/")[2] in ("stage-1-tuning", "grid-14", "grid-15") else 3)


# --- what is trained


def _options(name: str, row: str) -> dict[str, Any]:
    recipe = OURS[f"egocentric/{name}"]
    return {**recipe.options, **next(one for one in recipe.rows if one.name == row).options}


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_row_is_a_valid_training_of_a_stage(name: str) -> None:
    recipe = OURS[name]
    by_name = {row.name: row for row in recipe.rows}
    for row in recipe.rows:
        values = {**recipe.options, **row.options}
        config = TrainConfig.of(store=(Path("a"),), init_from=("none",) if row.starts_from else (), **values)
        stage = config.head.trained_stage
        assert stage is not None
        assert row.stores == "matching"
        assert config.optimizer.watches == "accuracy"
        batch = 8 if name == "egocentric/rendered" else 32
        assert (config.optimizer.batch, config.optimizer.early_stop_epochs, config.data.target) == (batch, 0, "none")
        wanted = [(head, at) for head, at in stage.starts_from]
        given = [{**recipe.options, **by_name[base].options} for base in row.starts_from]
        assert len(given) == len(wanted), row.name
        for (head, at), base in zip(wanted, given, strict=True):
            assert (base["head"], at) in ((head, base["stage"]), (head, "")), row.name
            assert base.get("steps", 0) in (0, values.get("steps", 0)), row.name


@pytest.mark.parametrize(
    ("name", "row", "changed"),
    [
        ("figure-7", "ego-rnn-stage-1-7", {}),
        ("figure-7", "ego-rnn-stage-2-16", {}),
        ("figure-7", "o-rnn-stage-2-7", {}),
        ("figure-7", "flow-resnet34", {}),
        ("figure-7", "two-stream-16", {}),
        ("figure-24", "configuration-1", {}),
        ("figure-25", "representation-flow", {}),
        ("figure-12-13", "binary-16", {}),
        ("figure-12-13", "stage-1-16", {"epochs": 150, "milestones": (50, 100)}),
        ("figure-21", "14-gray-regression", {"milestones": (30, 80), "factor": 0.2}),
        ("grid-14", "5e-4_4e-3_40-80_0.2", {
            "epochs": 100, "lr": 5e-4, "weight_decay": 4e-3, "milestones": (40, 80), "factor": 0.2,
        }),
    ],
)  # fmt: skip
def test_a_row_has_the_settings_of_its_stage_or_says_which_differ(name: str, row: str, changed: dict[str, Any]) -> None:
    options = _options(name, row)
    settings = {**stage_settings({**options, "init_from": ("none",)}), **changed}
    assert {field: options[field] for field in settings} == settings


def test_rates_and_frames_are_the_published_ones() -> None:
    assert _options("figure-7", "two-stream-7")["group_lr"] == ("flow=1e-4",)
    assert {_options(name, row.name)["steps"] for name in GRIDS for row in OURS[f"egocentric/{name}"].rows} == {16}
    assert {row.options["steps"] for row in OURS["egocentric/figure-21"].rows} == {7}
    assert {row.options.get("steps") for row in OURS["egocentric/combined"].rows} == {16, 25, None}
    assert "steps" not in _options("figure-7", "flow-resnet34")


def test_motion_segmentation_and_the_discriminator_are_where_they_are_said_to_be() -> None:
    found = {}
    for row in OURS["egocentric/figure-21"].rows[1:]:
        options = dict(text.split("=") for text in row.options["head_option"])
        found[row.name] = (row.cells["size"], options["motion"], options["motion_target"], options["motion_loss"])
    assert found == {
        "7-bw-binary": ("7x7", "conv5", "bw", "binary"),
        "7-bw-regression": ("7x7", "conv5", "bw", "regression"),
        "7-gray-regression": ("7x7", "conv5", "gray", "regression"),
        "14-bw-binary": ("14x14", "conv4", "bw", "binary"),
        "14-gray-regression": ("14x14", "conv4", "gray", "regression"),
        "28-bw-binary": ("28x28", "conv3", "bw", "binary"),
        "28-gray-regression": ("28x28", "conv3", "gray", "regression"),
    }
    reach = [
        (row.options["head_option"][-1], row.options["aux_weight"]) for row in OURS["egocentric/figure-24"].rows[1:]
    ]
    assert reach == [
        ("discriminator=conv5", ("dynamic=1.0",)),
        ("discriminator=convlstm", ("dynamic=1.0",)),
        ("discriminator=convlstm", ("dynamic=0.5",)),
        ("discriminator=convlstm", ("dynamic=0.1",)),
    ]


def test_the_combined_network_has_all_of_it() -> None:
    options = _options("combined", "combined-25")
    plan = plan_of("ego-two-stream", dict(text.split("=") for text in options["head_option"]) | _whole())
    assert plan is not None
    assert [one.name for one in plan.inputs] == ["frames", "flow", "motion"]
    assert [one.name for one in plan.auxiliary] == ["motion", "dynamic"]
    (stage,) = plan.stages
    for tensor in ("rgb.motion.0.weight", "rgb.discriminator.0.weight", "rgb.net.layer3.0.conv1.weight"):
        group = stage.group_of(tensor)
        assert group is not None
        assert group.name == "rgb"
    plain = plan_of("ego-two-stream", _whole())
    assert plain is not None
    assert [one.name for one in plain.inputs] == ["frames", "flow"]
    assert plain.stages[0].group_of("rgb.net.layer3.0.conv1.weight") is None
    assert plain.stages[0].group_of("rgb.motion.0.weight") is None


def _whole() -> dict[str, Any]:
    return {"all_of_conv5": False, "pixelwise": False}


def test_guesses_within_pairs_are_those_of_a_coin() -> None:
    clips = Clips(columns={"clip_id": _texts("a", "b", "c"), WITHIN_PAIR: _texts("1", "", "0")})
    measure = EGOCENTRIC.measures["pair_accuracy"].per_clip
    assert measure is not None
    assert measure(clips).tolist()[::2] == [1.0, 0.0]
    guessed = measure(EGOCENTRIC.guesser("coin").guess(clips, None))  # type: ignore[arg-type]
    assert guessed.tolist()[::2] == [0.5, 0.5]
    assert guessed[1] != guessed[1]


def test_beyond_is_paired_with_the_second_stage_of_ego_rnn() -> None:
    """One row of reference, which starts from the first stage; what is proposed is a small head of its own."""
    recipe = OURS["egocentric/beyond"]
    assert [(row.name, row.starts_from) for row in recipe.rows if row.reference] == [("ego-rnn-7", ("stage-1-7",))]
    small = {row.name: row.options.get("head_option", ()) for row in recipe.rows if not row.starts_from}
    assert small.pop("stage-1-7") == ()
    assert small == {
        "maps": (), "maps-motion": ("motion=true",), "maps-flow": ("flow=true",),
        "maps-motion-flow": ("motion=true", "flow=true"),
    }  # fmt: skip
    assert recipe.proposed == "maps-motion-flow" and recipe.repeats == 3
    for options in small.values():
        assert describe_head("map-transformer", options, outputs=61)["parameters"]["total"] < 3_000_000


def test_the_gaps_on_the_rendered_set_are_between_rows_that_differ_in_one_thing() -> None:
    recipe = OURS["egocentric/rendered"]
    assert [row.name for row in recipe.rows if row.starts_from == ("stage-1",)] == ["stage-2", "motion"]
    assert {row.name: row.against for row in recipe.rows if row.against} == {
        "stage-2": "stage-1", "motion": "stage-2", "maps": "maps-unordered", "maps-motion-flow": "stage-2",
    }  # fmt: skip
    same = ("epochs", "lr", "milestones", "batch")
    first, second = (_options("rendered", name) for name in ("stage-2", "motion"))
    assert {name: first[name] for name in same} == {name: second[name] for name in same}
    ordered, unordered = (_options("rendered", name) for name in ("maps", "maps-unordered"))
    assert {**ordered, "head_option": ("order=false",)} == unordered


def _texts(*texts: str) -> Any:
    return np.array(texts, dtype=str)


def test_the_table_of_recipes_has_them() -> None:
    assert set(OURS) == {
        f"egocentric/{name}"
        for name in (*FIGURES, *GRIDS, "stage-1-tuning", "combined", "beyond", "rendered")
    }  # fmt: skip
    assert set(OURS) <= set(RECIPES)


# --- the stores of a row


def _stores(folder: Path, **backbones: tuple[str, tuple[int, ...], str]) -> tuple[Path, ...]:
    """Stores of one clip each, by name: (backbone, shape of a step, tap); all of random weights."""
    paths = []
    for name, (backbone, shape, tap) in backbones.items():
        values = np.zeros((3, *shape), dtype=np.uint8 if backbone != "resnet34" else np.float16)
        clips = [{"clip_id": "a", "label": "open_jar", "split": "train", "group": "S1"}]
        write_store(folder / name, {tap: [values]}, clips, backbone=backbone, weights={"kind": "random", "seed": 0})
        paths.append(folder / name)
    return tuple(paths)


@pytest.fixture(scope="module")
def all_stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return _stores(
        tmp_path_factory.mktemp("all"),
        frames=("frames", (8, 8, 3), "rgb"),
        maps=("resnet34", (4, 2, 2), "layer3"),
        flow=("warp-flow", (2, 8, 8), "flow-8bit"),
        bits=("motion-map", (7, 7), "bits7"),
    )


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("figure-7", "ego-rnn-stage-1-7", ["maps"]),
        ("figure-7", "ego-rnn-stage-2-16", ["maps"]),
        ("figure-7", "flow-resnet34", ["flow"]),
        ("figure-7", "two-stream-7", ["maps", "flow"]),
        ("figure-12-13", "binary-7", ["maps", "bits"]),
        ("figure-25", "representation-flow", ["frames"]),
    ],
)
def test_a_row_reads_the_stores_that_its_head_prefers(
    all_stores: tuple[Path, ...], name: str, row: str, expected: list[str]
) -> None:
    config = RecipeConfig.of(store=all_stores, recipe=f"egocentric/{name}", select_on="reported-set")
    recipe = OURS[f"egocentric/{name}"]
    chosen = next(one for one in recipe.rows if one.name == row)
    made = row_config(config, chosen, recipe, GivenStores(config, recipe))
    assert [path.name for path in made.data.store] == expected
    assert made.head.options["weights"] == "random"
    given = RecipeConfig.of(
        store=all_stores, recipe=f"egocentric/{name}", select_on="reported-set", backbone_weights="ours.pth"
    )
    assert row_config(given, chosen, recipe, GivenStores(given, recipe)).head.options["weights"] == "ours.pth"


def test_what_the_stores_lack_for_a_row_is_named(all_stores: tuple[Path, ...]) -> None:
    config = RecipeConfig.of(store=all_stores[1:], recipe="egocentric/figure-21", select_on="reported-set")
    recipe = OURS["egocentric/figure-21"]
    given = GivenStores(config, recipe)
    lacking = {}
    for row in recipe.rows:
        try:
            given.read_by(row, {**recipe.options, **row.options})
        except TrainingError as error:
            lacking[row.name] = str(error)
    assert set(lacking) == {row.name for row in recipe.rows} - {"stage-1-7", "7-bw-binary", "7-bw-regression"}
    assert "RGB frames or their maps (frames*/rgb, resnet34/layer2)" in lacking["14-bw-binary"]
    assert "motion maps (motion-map*/grid28), and none of the stores has it" in lacking["7-gray-regression"]
