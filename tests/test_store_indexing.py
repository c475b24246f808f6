"""Overlapping segments as index lists: the numbers of the published rules, and heads that read through them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reelbank.heads import SweepConfig, TrainConfig, TrainingError, predict, sweep, train_head
from reelbank.heads.examples.clips import load_table, open_sources
from reelbank.heads.examples.features import Features, load_features
from reelbank.heads.examples.normalization import fit_normalization
from reelbank.heads.examples.resident import Resident
from reelbank.heads.models import HeadShape, build_head
from reelbank.heads.models.pooled import masked_mean
from reelbank.store import Store, StoreError
from reelbank.store.indexing import SegmentRule, parse_segments
from reelbank.store.testing import write_store

GUARD, STRIDE = "segments:16:starts=guard", "segments:16:stride=8"
WIDTH = 6


def test_guard_gives_the_160_indices_of_the_published_rule() -> None:
    rule = parse_segments(GUARD)
    starts = [0, 10, 20, 30, 40, 50, 60, 70, 74, 74]  # SYSTEMS.md 1.3
    assert rule.starts(90) == starts
    assert rule.indices(90).tolist() == [start + i for start in starts for i in range(16)]
    counts = rule.multiplicities(90)
    assert (len(counts), counts.sum(), counts.min(), counts.max()) == (90, 160, 1, 4)


def test_stride_gives_160_indices_and_drops_the_last_two_steps() -> None:
    rule = parse_segments(STRIDE)
    assert rule.starts(90) == list(range(0, 73, 8))
    assert len(rule.indices(90)) == 160
    assert np.flatnonzero(rule.multiplicities(90) == 0).tolist() == [88, 89]


@pytest.mark.parametrize("text", [GUARD, STRIDE, "segments:5", "segments:16:starts=guard:hop=4", "segments:1:stride=7"])
@pytest.mark.parametrize("num_steps", [0, 1, 4, 15, 16, 17, 90, 301])
def test_indices_stay_inside_and_guard_covers_everything(text: str, num_steps: int) -> None:
    rule = parse_segments(text)
    indices = rule.indices(num_steps)
    assert ((indices >= 0) & (indices < num_steps)).all()
    assert rule.multiplicities(num_steps).sum() == len(indices)
    assert (len(indices) > 0) == (num_steps > 0)
    if rule.guarded or num_steps <= rule.length_steps:
        assert (rule.multiplicities(num_steps) > 0).all()
    assert parse_segments(rule.text) == rule


def test_table_pads_the_lists_of_shorter_clips() -> None:
    indices, mask = parse_segments(GUARD).table(np.array([90, 7, 90]))
    assert indices.shape == mask.shape == (3, 160)
    assert mask.sum(axis=1).tolist() == [160, 7, 160]
    assert not indices[1, 7:].any()


@pytest.mark.parametrize(
    "text", ["", "16", "segments", "segments:0", "segments:16:stride=0", "segments:16:starts=ends", "segments:-3",
             "segments:16:starts=guard:hop=17", "segments:16:stride=8:hop=2"],
)  # fmt: skip
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="segments"):
        parse_segments(text)
    with pytest.raises(TrainingError, match="--segments"):
        TrainConfig.of(store=(Path("s.zarr"),), segments=text)


# -- heads ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """45 clips of 90 steps and a few shorter ones; the class is in the first half of the steps only."""
    random = np.random.default_rng(0)
    features, clips = [], []
    for i in range(45):
        steps = random.normal(size=(90 if i % 5 else 9 + i, WIDTH))
        steps[: len(steps) // 2, i % 3] += 4
        features.append(steps.astype(np.float16))
        split = ("train", "train", "val", "test")[i % 4]
        clips.append({"clip_id": f"c{i}", "split": split, "label": f"k{i % 3}", "group": f"g{i}"})
    path = tmp_path_factory.mktemp("segments") / "s.zarr"
    return write_store(path, {"cls": features}, clips, backbone="toy", weights={"kind": "pretrained", "sha256": "ab"})


def load(store: Store, *, needs_steps: bool, segments: SegmentRule | None, pool: str = "mean") -> Features:
    table = load_table(open_sources([store.path], []))
    return load_features(table, needs_steps=needs_steps, pool=pool, segments=segments)


@pytest.mark.parametrize("text", [GUARD, STRIDE, "segments:4:stride=40"])
def test_mean_over_the_segments_is_the_weighted_mean_over_stored_steps(store: Store, text: str) -> None:
    rule = parse_segments(text)
    sequences = load(store, needs_steps=True, segments=rule)
    pooled = load(store, needs_steps=False, segments=rule, pool="mean+std")
    resident = Resident.load(
        sequences, fit_normalization(sequences, np.arange(len(sequences.mask)), "none"), torch.device("cpu")
    )
    arrays, mask = resident.batch(torch.arange(len(sequences.mask)))
    expected = masked_mean(arrays["cls"].double(), mask)
    torch.testing.assert_close(pooled.arrays["cls"][:, 0, :WIDTH].double(), expected, rtol=0, atol=1e-6)
    for row, (array, valid) in enumerate(zip(arrays["cls"], mask, strict=True)):
        stored = store.read("cls", row)[0]
        taken = stored[rule.indices(len(stored))]
        np.testing.assert_array_equal(array[valid].numpy(), taken.astype(np.float32))
        deviation = taken.astype(np.float64).std(axis=0)
        np.testing.assert_allclose(pooled.arrays["cls"][row, 0, WIDTH:], deviation, rtol=0, atol=1e-6)


def test_every_stored_step_lies_in_memory_once(store: Store) -> None:
    features = load(store, needs_steps=True, segments=parse_segments(GUARD))
    assert features.arrays["cls"].shape == (45, 90, WIDTH)
    assert features.mask.shape == (45, 160)


@pytest.mark.parametrize("kind", ["l2", "none", "zscore"])
def test_head_that_takes_the_index_answers_as_on_gathered_steps(store: Store, kind: str) -> None:
    features = load(store, needs_steps=True, segments=parse_segments(GUARD))
    rows = torch.tensor([0, 5, 6, 44])
    resident = Resident.load(
        features, fit_normalization(features, np.arange(len(features.mask)), kind), torch.device("cpu")
    )
    head = build_head("conv-aggregation", HeadShape(taps={"cls": WIDTH}, outputs={"label": 3}, num_steps=160))
    inputs = resident.inputs(head, rows)
    assert [inputs[0]["cls"].shape[1], inputs[1].shape[1], inputs[2].shape[1]] == [90, 160, 160]
    torch.testing.assert_close(head(*inputs), head(*resident.batch(rows)))
    plain = build_head("attentive", HeadShape(taps={"cls": WIDTH}, outputs={"label": 3}, num_steps=160))
    assert len(resident.inputs(plain, rows)) == 2


def test_segments_that_keep_every_step_once_change_nothing(store: Store) -> None:
    once = parse_segments("segments:1:stride=1")
    plain, segmented = (load(store, needs_steps=False, segments=rule) for rule in (None, once))
    torch.testing.assert_close(plain.arrays["cls"], segmented.arrays["cls"], rtol=1e-6, atol=1e-7)
    plain, segmented = (load(store, needs_steps=True, segments=rule) for rule in (None, once))
    torch.testing.assert_close(
        plain.arrays["cls"] * plain.mask[..., None], segmented.arrays["cls"] * plain.mask[..., None]
    )


def test_normalisation_statistics_are_those_of_the_stored_steps(store: Store) -> None:
    rows = np.arange(20)
    fits = [
        fit_normalization(load(store, needs_steps=steps, segments=rule), rows, "zscore")
        for steps in (False, True)
        for rule in (None, parse_segments(GUARD))
    ]
    for fit in fits[1:]:
        torch.testing.assert_close(fit.mean["cls"], fits[0].mean["cls"], rtol=0, atol=0)
        torch.testing.assert_close(fit.scale["cls"], fits[0].scale["cls"], rtol=0, atol=0)


@pytest.mark.parametrize("head", ["conv-aggregation", "mlp"])
@pytest.mark.parametrize("folds", [0, 2])
def test_run_keeps_its_segments_and_predict_reads_through_them(
    store: Store, tmp_path: Path, head: str, folds: int
) -> None:
    run = tmp_path / "run"
    options: dict[str, Any] = {"epochs": 2, "report": False, "batch": 8, "folds": folds}
    result = train_head(TrainConfig.of(store=(store.path,), run=run, head=head, segments=GUARD, **options))
    assert json.loads((run / "config.json").read_text())["config"]["segments"] == GUARD
    predicted = predict(run, store.path)
    plain = train_head(TrainConfig.of(store=(store.path,), run=tmp_path / "plain", head=head, **options))
    assert result.results["training"]["num_parameters"] == plain.results["training"]["num_parameters"]
    other = predict(tmp_path / "plain", store.path)
    assert not np.allclose(predicted.probabilities["label"], other.probabilities["label"], atol=1e-4)
    if not folds:
        written = {line.split(",")[0]: line for line in (run / "predictions.csv").read_text().splitlines()[1:]}
        assert predicted.predicted is not None
        assert predicted.probability is not None
        for name, kind, share in zip(predicted.clip_ids, predicted.predicted, predicted.probability, strict=True):
            if name in written:
                cells = written[name].split(",")
                assert kind in cells
                assert any(abs(float(cell) - share) < 1e-5 for cell in cells if cell.startswith("0."))


@pytest.mark.parametrize("executor", ["processes", "stacked"])
@pytest.mark.parametrize("head", ["conv-aggregation", "mlp"])
def test_segments_can_be_swept(store: Store, tmp_path: Path, executor: str, head: str) -> None:
    values = ("none", GUARD, STRIDE)
    config = SweepConfig.of(
        store=(store.path,), run=tmp_path / "s", head=head, sweep=(f"segments={','.join(values)}",), epochs=2,
        report=False, executor=executor, workers=1, batch=8,
    )  # fmt: skip
    assert not sweep(config).has_failures
    losses = []
    for value in values:
        (found,) = [
            folder for folder in (tmp_path / "s" / "members").iterdir()
            if json.loads((folder / "config.json").read_text())["config"]["segments"] == value
        ]  # fmt: skip
        alone = tmp_path / f"alone-{len(losses)}"
        train_head(
            TrainConfig.of(
                store=(store.path,), run=alone, head=head, segments=value, epochs=2, report=False, batch=8, seed=0
            )
        )
        lines = [(path / "metrics.jsonl").read_text().splitlines() for path in (found, alone)]
        ours, theirs = ([json.loads(line)["val_loss"] for line in part] for part in lines)
        np.testing.assert_allclose(ours, theirs, rtol=1e-3)
        losses.append(tuple(theirs))
    assert len(set(losses)) == 3
