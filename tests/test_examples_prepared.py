"""The published training protocol: numbers of its tables, what an early stop keeps, schedules, weights, bad parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reelbank.heads import OptimizerConfig, TrainConfig, TrainingError, train_head
from reelbank.heads.examples.prepared import prepare
from reelbank.heads.recipes import RECIPES
from reelbank.heads.runs import results
from reelbank.heads.training import optimization
from reelbank.heads.training.job import make_job
from reelbank.heads.training.trainer import Progression, total_loss
from reelbank.store.testing import write_store

Change = Callable[[list[dict[str, Any]]], None]
FREE: dict[str, Any] = {"report": False, "bins": 30, "batch": 8}
COLUMNS = ("accuracy", "mae_known", "spc_known", "nll_known", "mae_unknown", "spc_unknown", "nll_unknown")


def _write(path: Path, change: Change | None = None) -> Path:
    """40 clips of 3 steps, 8 of each part; class 0 has three quarters of the training clips."""
    random = np.random.default_rng(5)
    clips, features = [], []
    for i in range(40):
        split = ("train", "train", "val", "test", "unknown")[i // 8]
        label = "novel" if split == "unknown" else f"class {int(i % 4 == 0)}"
        kcal = float(random.uniform(100, 800))
        clips.append({"clip_id": f"c{i}", "split": split, "label": label, "group": f"s{i // 2}", "kcal": kcal})
        features.append(random.normal(size=(3, 6)).astype(np.float16))
    if change is not None:
        change(clips)
    write_store(path, {"cls": features}, clips, backbone="toy", weights={"kind": "pretrained"})
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("protocol") / "toy.zarr")


@pytest.mark.parametrize(
    ("table", "sums"),
    [
        ("3.1", (590, 3530, 4.571, 158.95, 4979, 1.23, 241.87)),
        ("3.2", (1675, 11061, 13.357, 530.42, 14451, 6.264, 854.358)),
        ("3.3", (529, 3746, 4.969, 162.1, 4358, 0.99, 243.89)),
    ],
)
def test_every_published_number_of_a_table_stands_in_its_row(table: str, sums: tuple[float, ...]) -> None:
    """Sums of a column, each number times the number of its row: one wrong digit or two swapped rows change them."""
    rows = RECIPES[f"calories/table-{table}"].rows
    for column, expected in zip(COLUMNS, sums, strict=True):
        found = sum(i * row.published.values[column] for i, row in enumerate(rows, start=1))
        assert found == pytest.approx(expected, abs=1e-6), column


def test_every_published_number_of_the_stepwise_table_stands_beside_its_value() -> None:
    steps = RECIPES["calories/table-3.4-stepwise"].steps
    cells = {
        (step.field, value): tuple(published.values.get(key) for key in ("mae_known", "mae_unknown"))
        for step in steps
        for value, published in zip(step.values, step.published, strict=True)
    }
    assert cells == {
        ("lr", 1e-3): (None, None),
        ("lr", 1e-4): (155, 191),
        ("lr", 1e-5): (220, 238),
        ("weight_decay", 1e-4): (172, 213),
        ("weight_decay", 1e-5): (155, 191),
        ("weight_decay", 1e-6): (153, 190),
        ("betas", (0.85, 0.995)): (172, 199),
        ("betas", (0.9, 0.999)): (153, 190),
        ("betas", (0.98, 0.9995)): (160, 242),
        ("eps", 1e-7): (154, 206),
        ("eps", 1e-8): (153, 190),
        ("eps", 1e-9): (149, 200),
    }


def test_rows_of_the_second_table_have_their_schedules_and_stop_epochs() -> None:
    table = RECIPES["calories/table-3.2"]
    found = []
    for row in table.rows:
        options = {**table.options, **row.options}
        schedule = (options["factor"], options["patience_epochs"]) if "schedule" in options else None
        found.append((options["loss"], schedule, options["epochs"], options["lr"], options["weight_decay"]))
    assert found == [
        ("kld", None, 200, 1e-4, 1e-5),
        ("kld", (0.5, 5), 88, 1e-4, 1e-5),
        ("kld", (0.5, 10), 167, 1e-4, 1e-5),
        ("kld", (0.5, 15), 173, 1e-4, 1e-5),
        ("jsd", None, 200, 1e-4, 1e-5),
        ("jsd", None, 300, 1e-4, 1e-5),
        ("jsd", (0.5, 15), 159, 1e-4, 1e-5),
        ("jsd", (0.5, 50), 223, 1e-4, 1e-5),
        ("ce", None, 200, 1e-4, 1e-5),
        ("ce", (0.75, 15), 187, 1e-4, 1e-5),
        ("ce", (0.75, 15), 98, 2e-4, 1e-6),
    ]


def test_every_published_figure_of_a_run_is_in_a_recipe() -> None:
    rows = {row.cells["figure"] for recipe in RECIPES.values() for row in recipe.rows if "figure" in row.cells}
    assert rows == {f"3.{i}" for i in (*range(1, 36), 48, 49)}
    assert "figures 3.36 to 3.39" in " ".join(RECIPES["calories/table-3.3"].notes)
    assert "figures 3.40 to 3.47" in " ".join(RECIPES["calories/table-3.4-stepwise"].notes)


def _schedule(**options: Any) -> tuple[Any, Any]:
    values = torch.nn.Parameter(torch.zeros(1))
    values.grad = torch.zeros(1)
    optimizer = optimization.make_optimizer(values, config := OptimizerConfig(lr=1e-4, **options))
    optimizer.step()
    return optimizer, optimization.make_schedule(optimizer, config)


@pytest.mark.parametrize(("factor", "patience"), [(0.5, 5), (0.75, 15), (0.5, 50)])
def test_plateau_reduces_after_its_patience_without_a_lower_loss(factor: float, patience: int) -> None:
    optimizer, schedule = _schedule(schedule="plateau", factor=factor, patience_epochs=patience)
    rates = []
    for epoch in range(2 * patience + 4):
        # Lower by less than a ten thousandth is not lower.
        optimization.advance(schedule, 1.0 - 1e-5 * (epoch > 0))
        rates.append(optimization.learning_rate(optimizer))
    changes = [1 + i for i in range(1, len(rates)) if rates[i] != rates[i - 1]]
    assert changes == [patience + 2, 2 * patience + 3]
    assert rates[-1] == pytest.approx(1e-4 * factor**2)
    optimization.advance(schedule, 0.5)
    assert optimization.learning_rate(optimizer) == rates[-1]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_early_stop_keeps_the_weights_that_were_asked_for(keep: str, store: Path, tmp_path: Path) -> None:
    options = {**FREE, "keep": keep, "early_stop_epochs": 3, "lr": 0.02, "epochs": 60}
    made = train_head(TrainConfig.of(store=(store,), run=tmp_path / "run", **options))
    training = made.results["training"]
    assert training["stopped_early"]
    assert training["epochs_run"] == training["best_epoch"] + 3
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert training["best_epoch"] == min(lines, key=lambda line: line["val_loss"])["epoch"]
    kept = lines[training["best_epoch" if keep == "best" else "epochs_run"] - 1]
    assert made.metric("mae", "val") == pytest.approx(kept["val_mae"], rel=1e-5)
    assert made.metric("accuracy", "val") == pytest.approx(kept["val_accuracy"], rel=1e-5)
    assert f"the {keep} epoch's weights" in made.results["selection"]["sentence"]


@pytest.mark.parametrize(("last", "overfit"), [(1.0, False), (1.049, False), (1.051, True)])
def test_a_run_overfits_from_five_percent_above_its_lowest_loss(last: float, overfit: bool) -> None:
    assert results._training_entry(Progression(best_loss=1.0, last_loss=last))["overfit"] == overfit


def test_balanced_class_weights_reach_the_action_loss_and_it_alone(store: Path) -> None:
    losses = {}
    for weights in ("balanced", "none"):
        for target in ("kcal", "none"):
            options = {**FREE, "class_weights": weights, "target": target}
            prepared = prepare(TrainConfig.of(store=(store,), **options))
            job = make_job(prepared, prepared.partitions[0])
            rows = torch.from_numpy(job.train)
            generator = torch.Generator().manual_seed(0)
            logits = {
                name: torch.randn(len(rows), size, generator=generator) for name, size in prepared.shape.outputs.items()
            }
            losses[weights, target] = total_loss(prepared.config.objective, job.labels, logits, rows, complete=True)
            if weights == "balanced":
                assert job.labels.class_weights is not None
                assert job.labels.class_weights.tolist() == pytest.approx([16 / (2 * 12), 16 / (2 * 4)])
                plain = torch.nn.functional.cross_entropy(
                    logits["label"], job.labels.classes[rows], weight=job.labels.class_weights
                )
                if target == "none":
                    torch.testing.assert_close(losses[weights, target], plain)
    differences = [losses["balanced", target] - losses["none", target] for target in ("kcal", "none")]
    assert differences[0].abs() > 1e-3
    torch.testing.assert_close(differences[0], differences[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["l2", "none", "zscore"])
def test_normalisation_is_what_its_name_says(kind: str, store: Path) -> None:
    prepared = prepare(TrainConfig.of(store=(store,), normalize=kind, **FREE))
    job = make_job(prepared, prepared.partitions[0])
    raw = torch.from_numpy(prepared.features.means["cls"]).float()
    every = prepare(TrainConfig.of(store=(store,), head="attentive", **FREE)).features.arrays["cls"].double()
    steps = every[job.train]
    expected = {
        "l2": (every / every.norm(dim=2, keepdim=True)).mean(dim=1),  # per row (SYSTEMS.md 1.3), not of the mean
        "none": raw,
        "zscore": (raw - steps.mean(dim=(0, 1))) / steps.std(dim=(0, 1), correction=0),
    }[kind]
    torch.testing.assert_close(job.resident.vectors(), expected.float(), atol=1e-4, rtol=1e-4)


def _set(split: str, number: int | None = None, **values: Any) -> Change:
    def change(clips: list[dict[str, Any]]) -> None:
        for clip in [clip for clip in clips if clip["split"] == split][:number]:
            clip.update(values)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("test", label="other"), "none of the 8 clips of split 'test' has a class that training knows .*'other'"),
        (_set("val", label="other"), "none of the 8 clips of the validation part has a class that training knows"),
        (_set("val", kcal=float("nan")), "none of the 8 validation clips has a target 'kcal': nothing can choose"),
        (_set("train", 1, kcal=float("nan")), "'kcal' is empty or not finite in 1 of 16 training clips"),
        (_set("train", 2, kcal=-5.0), "2 of 16 training clips lie outside 0:1000 .*--range LOW:HIGH"),
    ],
    ids=["no-known-class-test", "no-known-class-val", "nan-val", "nan-train", "outside"],
)
def test_parts_that_cannot_be_used_are_refused(change: Change, message: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "bad.zarr", change)
    with pytest.raises(TrainingError, match=message):
        train_head(TrainConfig.of(store=(path,), run=tmp_path / "run", **FREE))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (_set("test", 3, kcal=1500.0), "3 clips of 'test' have a target outside 0 to 1000"),
        (_set("test", 3, kcal=float("nan")), "3 clips of 'test' have no target"),
        (_set("unknown", 2, label="class 0"), "2 clips of 'unknown' have a class that training knows"),
    ],
    ids=["outside", "nan", "known"],
)
def test_single_clips_that_cannot_be_judged_are_said(change: Change, note: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "odd.zarr", change)
    made = train_head(TrainConfig.of(store=(path,), run=tmp_path / "run", epochs=1, **FREE))
    assert any(note in one for one in made.results["notes"])
