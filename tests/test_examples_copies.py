"""Copies of training clips: feature augmentation, stored views, drawing; and the estimates of a distribution."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from remembered import write_store
from safetensors.torch import load_file

from reelbank.heads import TrainConfig, TrainingError, predict, train_head
from reelbank.heads.augmentation import METHODS, Augmentation, parse
from reelbank.heads.examples.copies import copies_of, draw_weights
from reelbank.heads.examples.prepared import Prepared, prepare
from reelbank.heads.examples.splits import thinned
from reelbank.heads.examples.targets import estimate_of_logits
from reelbank.heads.judging.metrics import point_estimate
from reelbank.heads.models import build_head
from reelbank.heads.models.pooled import masked_mean
from reelbank.heads.training.job import make_job

STEPS, WIDTH = 40, 30
ALL = ("dropout", "noise", "scaling", "shift")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 clips of 6 steps; the training clips have views `flip` and `jitter`, one of them `original` only."""
    random = np.random.default_rng(0)
    clips, features = [], []
    for i in range(30):
        split = ("train", "train", "val", "test", "unknown")[i % 5]
        label = "novel" if split == "unknown" else f"class {i % 2}"
        clips.append({"clip_id": f"c{i}", "split": split, "label": label, "group": f"s{i % 7}", "kcal": 100.0 + 9 * i})
        features.append(random.normal(size=(6, 5)).astype(np.float16))
    train = [clip["split"] == "train" and clip["clip_id"] != "c1" for clip in clips]
    views = {
        name: {"cls": [a + np.float16(k + 1) if own else None for a, own in zip(features, train, strict=True)]}
        for k, name in enumerate(("flip", "jitter"))
    }
    path = tmp_path_factory.mktemp("views") / "views.zarr"
    write_store(path, {"cls": features}, clips, backbone="toy", views=views)
    return path


def _prepared(store: Path, **options: Any) -> Prepared:
    return prepare(TrainConfig.of(store=(store,), bins=20, **options))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_copy_follows_from_clip_method_and_seed_alone(method: str) -> None:
    values = torch.randn(STEPS, WIDTH)
    kept = values.clone()
    made = Augmentation(method=method, amount=METHODS[method].amount)
    copy = made.copy_of(values, "clip", 0)
    assert torch.equal(values, kept)
    assert copy.shape == values.shape
    torch.rand(7)
    assert torch.equal(copy, made.copy_of(values, "clip", 0))
    others = [made.copy_of(values, name, seed) for name, seed in [(f"clip {i}", 0) for i in range(8)] + [("clip", 1)]]
    assert any(not torch.equal(copy, other) for other in others)
    nothing = Augmentation(method=method, amount=0.0)
    assert torch.equal(nothing.copy_of(values, "clip", 0), values)


def test_the_methods_do_what_the_publication_says() -> None:
    values = torch.randn(STEPS, WIDTH) + 5
    drawn = {
        name: [Augmentation(method=name, amount=METHODS[name].amount).copy_of(values, f"c{i}", 0) for i in range(60)]
        for name in METHODS
    }
    noise = torch.stack(drawn["noise"]) - values
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    dropped = torch.stack(drawn["dropout"])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(dropped[dropped != 0], values.expand_as(dropped)[dropped != 0])  # no rescaling
    factors = [float((copy / values).mean()) for copy in drawn["scaling"]]
    assert 0.9 < min(factors) < 0.93
    assert 1.07 < max(factors) < 1.1
    shifts = set()
    for copy in drawn["shift"]:
        empty = (copy == 0).all(dim=1)
        count = int(empty.sum())
        if count == 0:
            assert torch.equal(copy, values)
        elif empty[0]:
            assert torch.equal(copy[count:], values[:-count])
            shifts.add(count)
        else:
            assert torch.equal(copy[:-count], values[count:])
            shifts.add(-count)
    assert shifts == {-2, -1, 1, 2}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("blur",), "no method 'blur'; choose from dropout, noise, scaling, shift"),
        (("noise=much",), "'much' is no number"),
        (("dropout=1",), "from 0 to below 1"),
        (("shift=1.5",), "a whole number"),
        (("noise", "noise=0.1"), "twice adds nothing"),
    ],
)
def test_augmentations_that_there_are_not_are_refused(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        parse(texts)
    with pytest.raises(TrainingError, match=message):
        TrainConfig.of(store=(Path("a"),), augment=texts)


def test_four_methods_make_five_times_the_rows_and_only_of_training_clips(store: Path) -> None:
    prepared = _prepared(store, augment=ALL)
    (partition,) = prepared.partitions
    job = make_job(prepared, partition)
    assert len(job.train) == 5 * len(partition.train)
    assert set((job.train % len(prepared.table)).tolist()) == set(partition.train.tolist())
    assert job.val.tolist() == partition.val.tolist()
    assert job.val.max() < len(prepared.table)
    assert "60 training rows: 12 clips" in " ".join(prepared.notes)


def test_pooled_copies_are_the_means_of_the_copies_of_the_sequence(store: Path) -> None:
    pooled = _prepared(store, augment=ALL)
    steps = _prepared(store, augment=ALL, head="conv-aggregation")
    jobs = [make_job(one, one.partitions[0]) for one in (pooled, steps)]
    rows = torch.from_numpy(jobs[0].train)
    assert jobs[0].train.tolist() == jobs[1].train.tolist()
    vectors = jobs[0].resident.vectors()[rows]
    arrays, mask = jobs[1].resident.batch(rows)
    torch.testing.assert_close(vectors, masked_mean(arrays["cls"], mask), atol=2e-3, rtol=1e-3)
    count = len(pooled.partitions[0].train)
    assert not torch.allclose(vectors[:count], vectors[count : 2 * count], atol=1e-3)


def test_stored_views_of_training_clips_are_training_rows(store: Path) -> None:
    prepared = _prepared(store, train_views="all", normalize="none", head="attentive")
    (partition,) = prepared.partitions
    job = make_job(prepared, partition)
    count = len(partition.train)
    assert len(job.train) == count + 2 * (count - 1)  # c1 has its first view only
    arrays, _ = job.resident.batch(torch.from_numpy(job.train))
    first, flipped, jittered = arrays["cls"].split([count, count - 1, count - 1])
    has = prepared.table.clip_ids[partition.train] != "c1"
    torch.testing.assert_close(flipped, first[has] + 1, atol=0.02, rtol=0)
    torch.testing.assert_close(jittered, first[has] + 2, atol=0.02, rtol=0)
    pooled = _prepared(store, train_views="all", normalize="none")
    vectors = make_job(pooled, pooled.partitions[0]).resident.vectors()[torch.from_numpy(job.train)]
    torch.testing.assert_close(vectors, arrays["cls"].mean(dim=1), atol=2e-3, rtol=0)


def test_asking_for_views_that_no_store_has_says_which_there_are(store: Path, tmp_path: Path) -> None:
    clips = [{"clip_id": f"c{i}", "split": "train", "label": f"class {i % 2}", "kcal": float(i)} for i in range(12)]
    write_store(tmp_path / "one.zarr", {"cls": [np.zeros((2, 3), np.float16)] * 12}, clips)
    with pytest.raises(TrainingError, match=r"--train-views all\) .*holds original; .*--views augment"):
        _prepared(tmp_path / "one.zarr", train_views="all")
    with pytest.raises(TrainingError, match="view 7 is not stored"):
        _prepared(store, view=7)
    with pytest.raises(TrainingError, match="--tap pose: no store holds it; there are cls"):
        _prepared(store, tap=("pose",))


def test_augmentation_before_a_mean_that_it_cannot_make_is_refused() -> None:
    with pytest.raises(TrainingError, match="needs --pool mean"):
        TrainConfig.of(store=(Path("a"),), augment=("noise",), pool="mean+std")
    TrainConfig.of(store=(Path("a"),), augment=("noise",), head="conv-aggregation", normalize="l2")


@pytest.mark.parametrize(("head", "normalize"), [("conv-aggregation", "zscore"), ("mlp", "zscore"), ("mlp", "l2")])
def test_training_with_copies_is_the_same_twice_and_predicts_as_the_run_did(
    head: str, normalize: str, store: Path, tmp_path: Path
) -> None:
    options = {"head": head, "normalize": normalize, "augment": ALL, "train_views": "all", "epochs": 2, "bins": 20}
    options |= {"report": False, "batch": 8, "estimate": "expectation"}
    runs = [train_head(TrainConfig.of(store=(store,), run=tmp_path / str(i), **options)).directory for i in range(2)]
    left, right = (load_file(run / "best.safetensors") for run in runs)
    assert all(torch.equal(left[key], right[key]) for key in left)
    plain = train_head(TrainConfig.of(store=(store,), run=tmp_path / "plain", **{**options, "augment": ()})).directory
    assert any(not torch.equal(left[key], load_file(plain / "best.safetensors")[key]) for key in left)
    predicted = predict(runs[0], store)
    assert predicted.predicted_target is not None
    values = dict(zip(predicted.clip_ids, predicted.predicted_target, strict=True))
    with (runs[0] / "predictions.csv").open(newline="") as file:
        written = {row["clip_id"]: float(row["predicted_target"]) for row in csv.DictReader(file)}
    assert written
    assert {clip: values[clip] for clip in written} == pytest.approx(written, rel=1e-4)


def test_balanced_drawing_gives_every_class_the_same_weight() -> None:
    labels = {"class": np.array(["a", "a", "a", "b"]), "group": np.array(["g", "g", "h", "h"])}
    clips = np.array([0, 1, 2, 3, 0])
    assert draw_weights(labels, "none", clips) is None
    weights = draw_weights(labels, "class", clips)
    assert weights is not None
    assert weights.sum() == pytest.approx(1)
    assert weights[3] == pytest.approx(0.5)
    assert weights[[0, 1, 4]].sum() == pytest.approx(0.375)


def test_balance_is_used_in_training(store: Path) -> None:
    prepared = _prepared(store, balance="group")
    job = make_job(prepared, prepared.partitions[0])
    assert job.draw_weights is not None
    assert len(job.draw_weights) == len(job.train)
    assert copies_of(prepared.config.features, prepared.table.clip_ids, (), 0) is None


def test_fewer_training_clips_keep_every_class() -> None:
    labels = np.array(["a"] * 20 + ["b"] * 3 + ["c"])
    kept = thinned(np.arange(24), labels, 6, seed=0)
    assert len(kept) == 6
    assert sorted(set(labels[kept].tolist())) == ["a", "b", "c"]
    assert kept.tolist() == sorted(kept.tolist())
    assert thinned(np.arange(24), labels, 100, seed=0).tolist() == list(range(24))


@pytest.mark.parametrize("kind", ["argmax", "expectation", "median"])
def test_estimates_of_a_distribution_agree_in_numpy_and_torch(kind: str) -> None:
    random = np.random.default_rng(0)
    q, values = random.dirichlet(np.ones(11) * 0.3, size=50), np.linspace(-2, 8, 11)
    ours = point_estimate(q, values, kind)
    logits = torch.from_numpy(np.log(q + 1e-300))
    assert estimate_of_logits(logits, torch.from_numpy(values), kind).numpy() == pytest.approx(ours)
    sharp = np.eye(11)[[3, 7]]
    assert point_estimate(sharp, values, kind) == pytest.approx(values[[3, 7]])


def test_estimates_are_mean_and_median() -> None:
    q, values = np.array([[0.4, 0.3, 0.0, 0.3]]), np.array([0.0, 1.0, 2.0, 10.0])
    assert point_estimate(q, values, "argmax").tolist() == [0.0]
    assert point_estimate(q, values, "expectation") == pytest.approx(3.3)
    assert point_estimate(q, values, "median").tolist() == [1.0]


def test_additive_head_takes_its_knots_from_training_clips_and_stays_bounded(store: Path, tmp_path: Path) -> None:
    options = {"head": "additive", "epochs": 2, "bins": 20, "report": False}
    run = train_head(TrainConfig.of(store=(store,), run=tmp_path / "run", **options)).directory
    knots = load_file(run / "best.safetensors")["head.knots"]
    prepared = _prepared(store, head="additive")
    job = make_job(prepared, prepared.partitions[0])
    vectors = job.resident.vectors()[torch.from_numpy(job.train)]
    torch.testing.assert_close(knots[0], vectors.min(dim=0).values)
    torch.testing.assert_close(knots[-1], vectors.max(dim=0).values)
    head = build_head("additive", prepared.shape)
    head.fit(vectors)  # type: ignore[operator]
    far, farther = ({"cls": torch.full((1, 1, 5), value)} for value in (1e3, 1e6))
    mask = torch.ones(1, 1, dtype=torch.bool)
    torch.testing.assert_close(head(far, mask)["target"], head(farther, mask)["target"])
