"""Heads that are fitted: trees as tensors, linear predictors, and what inner validation chooses of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import config
from remembered import write_store

from reelbank.heads import TrainConfig, TrainingError, predict, train_head
from reelbank.heads.defaults import resolved
from reelbank.heads.examples.targets import Bins
from reelbank.heads.fitting import forests
from reelbank.heads.fitting.choosing import CONSTANT, Candidate, Fitting, Part, choose, inner_folds, preferred
from reelbank.heads.fitting.forests import features_per_node, fit_trees
from reelbank.heads.fitting.linear import STRENGTHS, fit_linear
from reelbank.heads.fitting.tasks import Task
from reelbank.heads.models.trees import PRIOR_WEIGHT, Trees
from reelbank.heads.runs.checkpoints import Predictor, write_tensors
from reelbank.heads.stored import read_tensors

BINS = Bins(target="kcal", num_bins=101, low=0.0, high=100.0, sigma_bins=2.0)
ROWS = np.arange(90)


def vectors(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(120, 7)).astype(np.float32)


def classes(x: np.ndarray) -> Task:
    truth = np.digitize(x[:, 0] + 0.3 * x[:, 1], (-0.5, 0.5)).astype(np.int64)
    return Task(kind="classes", columns=3, truth=truth, known=truth >= 0, weights=np.ones(len(x)))


def several(x: np.ndarray) -> Task:
    truth = (x[:, :4] > 0.2).astype(np.float32)
    return Task(kind="labels", columns=4, truth=truth, known=np.ones(len(x), dtype=bool), weights=np.ones(len(x)))


def target(x: np.ndarray) -> Task:
    values = np.clip(50 + 15 * x[:, 2].astype(np.float64), 0, 100)
    return Task(kind="target", columns=101, truth=values, known=np.isfinite(values), weights=np.ones(len(x)), bins=BINS)


TASKS: dict[str, Callable[[np.ndarray], Task]] = {"classes": classes, "labels": several, "target": target}


def probabilities(module: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = module(torch.from_numpy(x)).double().numpy()
    return found


def grown(task: Task, x: np.ndarray, **options: Any) -> Trees:
    return fit_trees(x, task, ROWS, **{"trees": 30, "leaf": 2, "seed": 5, "jobs": 1, **options})


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_a_forest_predicts_what_scikit_learn_does(kind: str) -> None:
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    x = vectors()
    task = TASKS[kind](x)
    forest = {"classes": ExtraTreesClassifier, "labels": ExtraTreesRegressor}[kind](
        n_estimators=30, min_samples_leaf=2, max_features=features_per_node(90, 7, kind), random_state=5
    ).fit(x[ROWS], task.truth[ROWS])
    expected = forest.predict_proba(x) if kind == "classes" else forest.predict(x)
    found = probabilities(grown(task, x), x)
    prior = task.marginal(ROWS)
    np.testing.assert_allclose(found, (30 * expected + PRIOR_WEIGHT * prior) / (30 + PRIOR_WEIGHT), atol=1e-6)


def test_a_threshold_that_float32_cannot_hold_sends_every_clip_the_same_way() -> None:
    # Values one step apart: a threshold between them, rounded up, would be the upper one.
    low = np.float32(1000.0)
    x = np.array([[low], [np.nextafter(low, np.float32(2000))]] * 20, dtype=np.float32)
    truth = np.array([0, 1] * 20)
    task = Task(kind="classes", columns=2, truth=truth, known=truth >= 0, weights=np.ones(40))
    for seed in range(5):
        forest = fit_trees(x, task, np.arange(40), trees=10, leaf=1, seed=seed, jobs=1)
        assert (probabilities(forest, x).argmax(axis=1) == truth).all()


def test_a_forests_distribution_is_that_of_the_values_of_similar_clips() -> None:
    x = vectors()
    task = target(x)
    forest = grown(task, x, trees=200, leaf=1)
    found = probabilities(forest, x)
    np.testing.assert_allclose(found.sum(axis=1), found.sum(axis=1).mean(), rtol=1e-5)
    # A leaf of one clip holds its value: the median of the 200 trees is within the smoothing of it.
    assert np.abs(task.values(found[ROWS]) - task.truth[ROWS]).max() <= 2 * BINS.sigma_bins
    unseen = np.arange(90, 120)
    constant = np.abs(np.median(task.truth[ROWS]) - task.truth[unseen]).mean()
    assert np.abs(task.values(found[unseen]) - task.truth[unseen]).mean() < 0.75 * constant


def test_smoothing_keeps_all_mass_at_a_border() -> None:
    x = vectors()
    task = target(x)
    low = Task(kind="target", columns=101, truth=np.zeros(len(x)), known=task.known, weights=task.weights, bins=BINS)
    found = probabilities(grown(low, x), x)
    expected = BINS.distributions(np.zeros(1))[0]
    np.testing.assert_allclose(found[0] / found[0].sum(), expected, atol=1e-4)


@pytest.mark.parametrize("kind", sorted(TASKS))
def test_a_forest_does_not_depend_on_threads_or_on_how_many_trees_are_grown_at_once(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = vectors()
    task = TASKS[kind](x)
    one, two = grown(task, x), grown(task, x, jobs=2)
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize(
    ("clips", "width", "kind", "expected"),
    [
        *((90, 7, "classes", 2), (90, 7, "target", 7), (300, 400, "target", 202), (300, 400, "classes", 120)),
        *((300, 2560, "classes", 202), (100_000, 2560, "target", 50), (10, 1, "classes", 1)),
    ],
)
def test_nodes_look_at_as_many_features_as_time_allows(
    clips: int, width: int, kind: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forests, "MOST_TREES", 400)
    assert features_per_node(clips, width, kind) == expected


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_linear_predictors_solve_what_scikit_learn_solves(kind: str, wide: bool) -> None:
    from sklearn.linear_model import LogisticRegression

    x = vectors()
    if wide:  # more features than clips: solved in the space that the clips span
        x = np.concatenate([x, np.random.default_rng(1).normal(size=(120, 200)).astype(np.float32)], axis=1)
    task = TASKS[kind](x)
    own = x[ROWS].astype(np.float64)
    z = (x - own.mean(axis=0)) / own.std(axis=0)
    rank = min(len(ROWS) - 1, x.shape[1])
    unit = z[ROWS].var(axis=0).sum() / rank
    for strength, module in zip(STRENGTHS, fit_linear(x, task, ROWS), strict=True):
        found = probabilities(module, x)
        for column in range(4 if kind == "labels" else 1):
            peer = LogisticRegression(C=1 / (len(ROWS) * strength * unit), tol=1e-8, max_iter=2000)
            truth = task.truth[ROWS, column] if kind == "labels" else task.truth[ROWS]
            expected = peer.fit(z[ROWS], truth).predict_proba(z)
            ours = found[:, column] if kind == "labels" else found
            np.testing.assert_allclose(ours, expected[:, 1] if kind == "labels" else expected, atol=4e-3)


def test_a_class_that_no_clip_here_has_is_improbable_and_not_impossible() -> None:
    x = vectors()
    task = classes(x)
    rows = ROWS[task.truth[ROWS] != 2]
    modules = [fit_trees(x, task, rows, trees=20, leaf=1, seed=0, jobs=1), *fit_linear(x, task, rows)]
    for module in modules:
        found = probabilities(module, x)
        assert found.shape == (120, 3)
        assert (found[:, 2] < 0.05).all()
        assert np.isfinite(task.loss(found, np.arange(120))).all()


def test_folds_of_inner_validation_keep_groups_whole() -> None:
    x = vectors()
    groups = np.array([f"g:{i // 6}" for i in range(120)])
    folds = inner_folds(classes(x), groups, ROWS, np.arange(0), 0)
    assert folds is not None
    for group in np.unique(groups[ROWS]):
        assert len(set(folds[groups[ROWS] == group].tolist())) == 1
    assert set(folds.tolist()) == set(range(5))
    assert inner_folds(classes(x), np.array(["g:a"] * 120), ROWS, np.arange(0), 0) is None


def choice(kinds: tuple[str, ...] = ("trees", "linear"), **taps: np.ndarray) -> Any:
    x = next(iter(taps.values()))
    task = classes(vectors())
    fitting = Fitting(vectors=taps, kinds=kinds, trees=40)
    return choose(fitting, task, np.arange(len(x)).astype(str), ROWS, np.arange(0), lambda text: None)


def test_a_store_of_noise_is_dropped_and_noise_alone_gives_the_constant() -> None:
    good, noise = vectors(), vectors(9)
    both = choice(good=good, noise=noise)
    assert both.candidate.name.endswith("on good alone")
    alone = choice(("trees",), noise=noise)
    assert alone.candidate.name == CONSTANT
    assert alone.losses[CONSTANT] <= min(alone.losses.values())


def test_a_constant_distribution_is_spread_as_any_other() -> None:
    """Bins that no training clip fell into are not impossible."""
    noise = vectors(9)
    fitting = Fitting(vectors={"noise": noise}, kinds=("trees",), trees=20)
    groups = np.arange(len(noise)).astype(str)
    found = choose(fitting, target(vectors()), groups, ROWS, np.arange(0), lambda text: None)
    assert found.candidate.name == CONSTANT
    assert found.widening > 0
    assert (found.out_of_fold[:, 20:80] > 0).all()


def test_of_stores_that_are_as_good_none_is_dropped() -> None:
    x = vectors()
    noisy = [x + np.random.default_rng(i).normal(scale=1.0, size=x.shape).astype(np.float32) for i in (1, 2)]
    assert not choice(a=noisy[0], b=noisy[1]).candidate.name.endswith("alone")


def test_clips_are_judged_by_fits_that_saw_none_of_their_group() -> None:
    x = vectors()
    task = classes(x)
    # Each clip has a copy in its group: a fit that saw the copy knows the answer, and labels are noise otherwise.
    x = np.repeat(np.random.default_rng(3).normal(size=(60, 5)), 2, axis=0).astype(np.float32)
    truth = np.repeat(np.random.default_rng(4).integers(0, 3, 60), 2)
    task = Task(kind="classes", columns=3, truth=truth, known=truth >= 0, weights=np.ones(120))
    groups = np.repeat(np.arange(60), 2).astype(str)
    found = choose(Fitting(vectors={"a": x}, kinds=("trees",), trees=40), task, groups, np.arange(120), ROWS, print)
    assert found.candidate.name == CONSTANT


def test_another_candidate_is_taken_only_beyond_the_noise_of_groups() -> None:
    first, other = (Candidate(name=name, parts=(Part(kind="trees", taps=(name,)),)) for name in "ab")
    better = np.tile([0.5, -0.3], 50)
    groups = np.arange(100).astype(str)
    assert preferred({first: better, other: np.zeros(100)}, groups) == other
    # The same differences in five groups: less is known of them.
    blocks = np.repeat([0.5, -0.3, 0.5, -0.3, 0.1], 20)
    assert preferred({first: blocks, other: np.zeros(100)}, np.repeat(np.arange(5), 20).astype(str)) == first


def store(path: Path, *, noise: float = 0.3, seed: int = 0, labels: str = "one", splits: bool = True) -> Path:
    """120 clips of 30 groups; two classes and a value that the features tell, beside a column that they do not."""
    random = np.random.default_rng(seed)
    truth = np.random.default_rng(7).integers(0, 2, 120)
    parts = np.random.default_rng(8).permutation(["train"] * 20 + ["test"] * 10).repeat(4)
    features, clips = [], []
    for i in range(120):
        steps = random.normal(scale=noise, size=(3, 6)) + np.array([truth[i], 0, 0, 0, 0, 1.0])
        features.append(steps.astype(np.float32))
        name = "ab"[truth[i]] if labels == "one" else ("a;b" if truth[i] else "b")
        split = parts[i] if splits else "train"
        clips.append(
            {"clip_id": f"c{i}", "label": name, "group": f"g{i // 4}", "split": split, "kcal": 100.0 + 400 * truth[i]}
        )
    write_store(path, {"cls": features}, clips, backbone="toy", weights={"kind": "pretrained"})
    return path


def trained(path: Path, **options: Any) -> dict[str, Any]:
    result = train_head(TrainConfig.of(**{"store": (path,), "report": False, "device": "cpu", **options}))
    return json.loads((result.directory / "results.json").read_text())


@pytest.mark.parametrize("head", ["auto", "trees"])
def test_a_run_by_default_beats_its_baselines_and_predicts_the_same_from_its_file(head: str, tmp_path: Path) -> None:
    results = trained(store(tmp_path / "s.zarr"), run=tmp_path / "run", head=head)
    test = results["splits"]["test"]
    assert test["metrics"]["accuracy"]["value"] > 0.9 > test["baselines"]["majority_class"]["accuracy"]
    assert test["metrics"]["mae"]["value"] < 0.5 * test["baselines"]["constant_median"]["mae"]
    assert {entry["output"] for entry in results["choices"]} == {"label", "target"}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["head"] == head
    again = predict(tmp_path / "run", tmp_path / "s.zarr", device="cpu")
    # The validation clips were cut from split 'train' and fitted: they count in no accuracy.
    assert int(again.trained_folds.sum()) == results["splits"]["val"]["num_clips"] > 0
    assert any("trained the head, after validation, and count in no accuracy" in note for note in again.notes)
    written = (tmp_path / "run" / "predictions.csv").read_text().splitlines()
    columns = written[0].split(",")
    of_test = [dict(zip(columns, line.split(","), strict=True)) for line in written[1:]]
    ours = dict(zip(again.clip_ids.tolist(), again.probability.tolist(), strict=True))  # type: ignore[union-attr]
    for row in (row for row in of_test if row["split"] == "test"):
        assert float(row["probability"]) == pytest.approx(ours[row["clip_id"]], abs=1e-5)


def test_validation_numbers_are_out_of_fold_though_all_clips_are_fitted(tmp_path: Path) -> None:
    # Without anything to learn, a head that predicts clips that it was fitted to would be right.
    results = trained(store(tmp_path / "s.zarr", noise=30.0), run=tmp_path / "run", head="trees", target="none")
    assert results["splits"]["val"]["metrics"]["accuracy"]["value"] < 0.8
    fitted = predict(tmp_path / "run", tmp_path / "s.zarr", split="train", device="cpu")
    if results["choices"][0]["chosen"] != CONSTANT:
        assert fitted.accuracy_by_split()["train"] > 0.95


def test_without_a_test_split_the_reported_clips_take_no_part(tmp_path: Path) -> None:
    path = store(tmp_path / "s.zarr", splits=False)
    results = trained(path, run=tmp_path / "run", target="none")
    assert results["reported"] == "val"
    assert results["choices"][0]["clips"] == results["counts"]["train"]
    assert "took no part" in results["selection"]["sentence"]


@pytest.mark.parametrize("head", ["trees", "mlp"])
def test_refit_says_whether_validation_clips_are_fitted(head: str, tmp_path: Path) -> None:
    path = store(tmp_path / "s.zarr")
    options = {} if head == "trees" else {"epochs": 8}
    once = trained(path, run=tmp_path / "once", head=head, refit="no", target="none", **options)
    twice = trained(path, run=tmp_path / "twice", head=head, refit="yes", target="none", **options)
    heads = [read_tensors(tmp_path / name / "best.safetensors")[0] for name in ("once", "twice")]
    assert heads[0].keys() == heads[1].keys()
    assert any(
        heads[0][name].shape != heads[1][name].shape or not torch.equal(heads[0][name], heads[1][name])
        for name in heads[0]
    )
    assert once["splits"]["test"]["num_clips"] == twice["splits"]["test"]["num_clips"]
    assert "train and val" not in once["selection"]["sentence"]
    wording = {"trees": "of train and val", "mlp": "Then trained anew on the clips of train and val"}[head]
    assert wording in twice["selection"]["sentence"]
    if head == "mlp":  # what chose the epoch stays what validation is judged by
        assert once["splits"]["val"] == twice["splits"]["val"]


def test_training_clips_of_one_group_are_fitted_without_validation(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    features = [(random.normal(size=(2, 4)) + i % 2).astype(np.float32) for i in range(24)]
    clips = [
        {"clip_id": f"c{i}", "label": "ab"[i % 2], "group": f"g{i // 12}", "split": ("train", "test")[i // 12]}
        for i in range(24)
    ]
    write_store(tmp_path / "s.zarr", {"cls": features}, clips, backbone="toy", weights={"kind": "pretrained"})
    results = trained(tmp_path / "s.zarr", run=tmp_path / "run")
    assert results["reported"] == "test" and "val" not in results["splits"]
    assert any("too few groups for inner validation" in note for note in results["notes"])
    assert any("none can be cut from its 12 training clips: all are fitted" in note for note in results["notes"])
    with pytest.raises(TrainingError, match="no validation part can be cut"):
        trained(tmp_path / "s.zarr", head="mlp")


def test_shuffled_labels_give_no_head_that_seems_to_know_something(tmp_path: Path) -> None:
    results = trained(store(tmp_path / "s.zarr"), run=tmp_path / "run", shuffle_labels=True)
    low, high = (results["splits"]["test"]["metrics"]["accuracy"][end] for end in ("low", "high"))
    assert low <= 0.5 <= high or abs(results["splits"]["test"]["metrics"]["accuracy"]["value"] - 0.5) < 0.15


@pytest.mark.parametrize("options", [{"folds": 2}, {"class_weights": "balanced"}, {"normalize": "none"}, {"seed": 3}])
def test_auto_follows_the_options_that_it_shares_with_networks(options: dict[str, Any], tmp_path: Path) -> None:
    results = trained(store(tmp_path / "s.zarr"), run=tmp_path / "run", **options)
    assert results["splits"]["test"]["metrics"]["accuracy"]["value"] > 0.9
    assert len(results["folds"]) == options.get("folds", 0)


def test_clips_with_several_labels(tmp_path: Path) -> None:
    path = store(tmp_path / "s.zarr", labels="several")
    results = trained(path, run=tmp_path / "run", loss="bce", target="none")
    test = results["splits"]["test"]
    assert test["metrics"]["macro_ap"]["value"] > test["baselines"]["random_order"]["macro_ap"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["head"] == "auto"


def test_an_interrupted_run_is_fitted_again_and_gives_the_same(tmp_path: Path) -> None:
    path = store(tmp_path / "s.zarr")
    first = trained(path, run=tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    again = trained(path, run=tmp_path / "run", resume=True)
    assert first["splits"] == again["splits"]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "head", "pool", "estimate"),
    [
        ({}, "auto", "mean+std", "median"),
        ({"target": "none"}, "auto", "mean+std", "argmax"),
        ({"pool": "mean", "estimate": "expectation"}, "auto", "mean", "expectation"),
        ({"loss": "jsd"}, "mlp", "mean", "argmax"),
        ({"loss": "bce", "target": "none"}, "auto", "mean+std", "argmax"),
        ({"epochs": 3}, "mlp", "mean", "argmax"),
        ({"select_on": "reported-set"}, "mlp", "mean", "argmax"),
        ({"augment": ("noise",)}, "mlp", "mean", "argmax"),
        ({"head": "linear"}, "linear", "mean", "argmax"),
        ({"head": "linear", "pool": "mean+std"}, "linear", "mean+std", "argmax"),
        ({"head": "trees", "head_option": ("trees=50",)}, "trees", "mean+std", "median"),
        ({"head": "trees", "segments": "segments:2:stride=1"}, "trees", "mean+std", "median"),
    ],
)
def test_what_auto_stands_for(given: dict[str, Any], head: str, pool: str, estimate: str) -> None:
    made = resolved(TrainConfig.of(store=(Path("s.zarr"),), **given))
    assert (made.head.name, made.features.pool, made.head.estimate) == (head, pool, estimate)
    assert resolved(made) == made


@pytest.mark.parametrize("given", [{"lr": 0.1}, {"loss": "jsd"}, {"balance": "class"}, {"train_views": "all"}])
def test_an_option_of_networks_beside_trees_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is an option of networks, and head 'trees' is fitted without epochs"):
        trained(store(tmp_path / "s.zarr"), head="trees", **given)


def test_a_head_that_options_decided_is_said(tmp_path: Path) -> None:
    results = trained(store(tmp_path / "s.zarr"), run=tmp_path / "run", epochs=2)
    assert any("Head: mlp, because --epochs is an option of networks" in note for note in results["notes"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("left", 10**9), ("left", -1), ("feature", 12), ("column", 2), ("start", 10**9), ("roots", -5)],
)
def test_arrays_of_a_strangers_trees_are_not_believed(name: str, value: int, tmp_path: Path) -> None:
    trained(store(tmp_path / "s.zarr"), run=tmp_path / "run", head="trees", target="none")
    path = tmp_path / "run" / "best.safetensors"
    tensors, header = read_tensors(path)
    key = f"head.parts.label.0.{name}"
    tensors[key][0] = value
    write_tensors(path, tensors, header)
    with pytest.raises(TrainingError, match=r"best\.safetensors"):
        Predictor.load(path)


def test_the_configuration_of_tests_is_the_published_head() -> None:
    assert config().head.name == "mlp"
