"""Training in stages: what is trained, what stays, with which rates; what a stage begins with; what is kept."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from reelbank.cli import main
from reelbank.heads import SweepConfig, predict, sweep, train_head
from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.prepared import prepare
from reelbank.heads.runs.checkpoints import Predictor, load_progress, save_progress
from reelbank.heads.stored import read_tensors
from reelbank.heads.training.flat import FlatParameters
from reelbank.heads.training.job import make_job
from reelbank.heads.training.trainer import Trainer
from reelbank.store.testing import write_store

HEAD = "array_head:ROW"
COUNT = 48


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Maps whose first channel tells the class, and where something moves in them."""
    folder = tmp_path_factory.mktemp("stores")
    rng = np.random.default_rng(0)
    splits = ["train"] * 32 + ["val"] * 8 + ["test"] * 8
    clips = [{"clip_id": f"c{i}", "label": "ab"[i % 2], "split": splits[i]} for i in range(COUNT)]
    maps, moving = [], []
    for i in range(COUNT):
        steps = int(rng.integers(2, 6))
        one = rng.normal(size=(steps, 3, 4, 4)) * 0.5
        one[:, 0] += 2 * (i % 2) - 1
        maps.append(one.astype(np.float32))
        moving.append((one[:, 1] > 0).astype(np.float32))
    write_store(folder / "maps.zarr", {"maps": maps}, clips, backbone="a")
    write_store(folder / "moving.zarr", {"moving": moving}, clips, backbone="b")
    return folder / "maps.zarr", folder / "moving.zarr"


def config(stores: tuple[Path, ...], **values: Any) -> TrainConfig:
    return TrainConfig.of(**{"store": stores, "head": HEAD, "target": "none", "report": False, **values})


def trainer(stores: tuple[Path, ...], **values: Any) -> Trainer:
    prepared = prepare(config(stores, **values))
    return Trainer(make_job(prepared, prepared.partitions[0]))


def state(head: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in head.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: torch.nn.Module) -> set[str]:
    return {name for name, value in after.state_dict().items() if not torch.equal(before[name], value)}


# --- what is trained


def test_a_stage_trains_its_tensors_and_no_other_bit(stores: tuple[Path, Path]) -> None:
    """Under weight decay; batch norms that a stage evaluates keep their statistics, those that it trains do not."""
    first = trainer(stores[:1], optimizer="adam")
    before = state(first.head)
    first.run_epoch()
    assert changed(before, first.head) == {"classifiers.label.weight", "classifiers.label.bias"}
    second = trainer(stores[:1], stage="2", init_from=("none",))
    before = state(second.head)
    second.run_epoch()
    assert changed(before, second.head) == set(before)


@pytest.mark.parametrize("optimizer", ["adam", "radam", "sgd", "adamw", "rmsprop"])
def test_groups_have_their_own_rate_and_decay(stores: tuple[Path, Path], optimizer: str) -> None:
    made = trainer(stores, stage="2", init_from=("none",), head_option=("motion=true",), optimizer=optimizer, lr=0.02)
    groups = [(round(group["lr"], 9), group["weight_decay"]) for group in made.optimizer.param_groups]
    assert groups == [(0.02, 0.1), (0.002, 0.1), (0.02, 0.0)]
    given = trainer(
        stores,
        stage="2",
        init_from=("none",),
        head_option=("motion=true",),
        group_lr=("conv=0.5",),
        optimizer=optimizer,
    )
    assert [group["lr"] for group in given.optimizer.param_groups] == [0.01, 0.5, 0.01]
    record = given.run_epoch()
    assert record.learning_rates == {"head": 0.01, "conv": 0.5, "motion": 0.01}


def test_groups_together_are_the_update_of_torch(stores: tuple[Path, Path]) -> None:
    """Adam over flat vectors of two groups, against torch's own over the tensors."""
    made = trainer(stores[:1], stage="2", init_from=("none",), epochs=1, batch=32)
    theirs = trainer(stores[:1], stage="2", init_from=("none",), epochs=1, batch=32)
    groups = [
        {"params": [p for name, p in theirs.head.named_parameters() if name.startswith("classifiers")], "lr": 0.01},
        {"params": [p for name, p in theirs.head.named_parameters() if name.startswith("net")], "lr": 0.001},
    ]
    theirs.optimizer = torch.optim.Adam(groups, weight_decay=0.1)
    made.run_epoch()
    theirs.run_epoch()
    for ours, expected in zip(made.head.parameters(), theirs.head.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)


def test_further_losses_have_targets_of_another_store_and_weights(stores: tuple[Path, Path]) -> None:
    records = {}
    for weight in ("0", "1", "3"):
        made = trainer(stores, head_option=("motion=true",), aux_weight=(f"motion={weight}",), batch=32, epochs=1)
        records[weight] = made.run_epoch()
    assert records["0"].losses["motion"] == 0
    assert records["3"].losses["motion"] == pytest.approx(3 * records["1"].losses["motion"])
    for record in records.values():
        assert record.train_loss == pytest.approx(sum(record.losses.values()))
        assert 0 <= record.train_accuracy <= 1
    learnt = trainer(stores, head_option=("motion=true",), epochs=40, lr=0.05, stage="2", init_from=("none",))
    losses = [learnt.run_epoch().losses["motion"] for _ in range(40)]
    assert losses[-1] < 0.8 * losses[0]


# --- settings


def test_a_stage_has_settings_where_no_option_is_given(stores: tuple[Path, Path]) -> None:
    plain = config(stores[:1])
    assert (plain.optimizer.epochs, plain.optimizer.lr, plain.optimizer.keep) == (3, 0.02, "best-accuracy")
    assert config(stores[:1], stage="2", init_from=("none",)).optimizer.lr == 0.01
    assert config(stores[:1], lr=1e-3).optimizer.lr == 1e-3, "also where it is the default of the option"
    assert TrainConfig.from_json(plain.to_json()) == plain
    with pytest.raises(TrainingError, match="--stage 3: this head has 1, 2"):
        config(stores[:1], stage="3")


def test_the_command_tells_given_options_from_defaults(stores: tuple[Path, Path], tmp_path: Path) -> None:
    for given, expected in (((), 0.02), (("--lr", "0.001"), 0.001)):
        run = tmp_path / f"run{len(given)}"
        line = [
            "train-head",
            "--store",
            str(stores[0]),
            "--head",
            HEAD,
            "--run",
            str(run),
            "--epochs",
            "1",
            "--no-report",
        ]
        made = CliRunner().invoke(main, [*line, *given], catch_exceptions=False)
        assert made.exit_code == 0, made.output
        stored = json.loads((run / "config.json").read_text())["config"]
        assert (stored["lr"], stored["epochs"], stored["keep"]) == (expected, 1, "best-accuracy")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"aux_weight": ("motion=1",)}, "--aux-weight motion: head 'array_head:ROW' has none there"),
        ({"group_lr": ("conv=1",)}, "--group-lr conv: head 'array_head:ROW' has head there"),
        ({"group_lr": ("head=x",)}, "--group-lr 'head=x' is not of the form NAME=NUMBER"),
        ({"augment": ("noise",)}, "--augment has no meaning for head 'array_head:ROW', which reads arrays"),
        ({"segments": "segments:16"}, "--segments has no meaning"),
        ({"normalize": "l2"}, "--normalize l2 has no meaning"),
        ({"refit": "yes"}, "--refit has no meaning"),
    ],
)
def test_options_that_a_head_cannot_follow_are_refused(
    stores: tuple[Path, Path], values: dict[str, Any], said: str
) -> None:
    with pytest.raises(TrainingError, match=said):
        config(stores[:1], **values)


def test_options_of_arrays_are_refused_for_heads_of_vectors(stores: tuple[Path, Path]) -> None:
    for values in ({"steps": 7}, {"stage": "2"}, {"init_from": ("x",)}, {"aux_weight": ("a=1",)}):
        with pytest.raises(TrainingError, match=f"--{next(iter(values)).replace('_', '-')}"):
            TrainConfig.of(store=stores[:1], head="mlp", **values)


# --- what a stage begins with


def test_a_stage_begins_with_the_weights_of_a_run(stores: tuple[Path, Path], tmp_path: Path) -> None:
    first = train_head(config(stores[:1], run=tmp_path / "first")).directory
    tensors = read_tensors(first / "best.safetensors")[0]
    second = trainer(stores[:1], stage="2", init_from=(first,))
    for name, value in second.head.state_dict().items():
        assert torch.equal(value, tensors[f"head.{name}"])
    assert "Starts from" in " ".join(prepare(config(stores[:1], stage="2", init_from=(first,))).notes)


def test_a_stage_without_its_run_or_with_another_is_refused(stores: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--stage 2 .* starts from a run of array_head:ROW, stage 1: give it as"):
        prepare(config(stores[:1], stage="2"))
    with pytest.raises(TrainingError, match=r"best\.safetensors is missing"):
        prepare(config(stores[:1], stage="2", init_from=(tmp_path / "nowhere",)))
    vectors = write_store(
        tmp_path / "v.zarr",
        {"cls": [np.random.default_rng(i).normal(size=(2, 4)).astype(np.float32) for i in range(12)]},
        [{"clip_id": str(i), "label": "ab"[i % 2], "split": "train" if i < 8 else "val"} for i in range(12)],
    )
    other = train_head(TrainConfig.of(store=(vectors.path,), head="linear", epochs=1, report=False, run=tmp_path / "o"))
    with pytest.raises(
        TrainingError, match=r"--init-from .*o: its head is 'linear'; this one starts from runs of array"
    ):
        prepare(config(stores[:1], stage="2", init_from=(other.directory,)))


def test_each_fold_begins_with_its_own_fold(stores: tuple[Path, Path], tmp_path: Path) -> None:
    """Or the first stage would have seen the clips that the second is judged on."""
    first = train_head(config(stores[:1], folds=3, run=tmp_path / "first")).directory
    prepared = prepare(config(stores[:1], folds=3, stage="2", init_from=(first,)))
    for fold, partition in enumerate(prepared.partitions):
        head = Trainer(make_job(prepared, partition)).head
        tensors = read_tensors(first / f"fold-{fold}" / "best.safetensors")[0]
        assert all(torch.equal(value, tensors[f"head.{name}"]) for name, value in head.state_dict().items())
    with pytest.raises(TrainingError, match=r"fold 0 reports 12 clips, and each of the run's 3 folds trained on some"):
        prepare(config(stores[:1], folds=4, stage="2", init_from=(first,)))
    with pytest.raises(TrainingError, match=r"it has 3 folds, and this training none.*name a fold, as .*fold-0"):
        prepare(config(stores[:1], stage="2", init_from=(first,)))


def test_a_run_that_trained_on_what_is_reported_is_refused(stores: tuple[Path, Path], tmp_path: Path) -> None:
    first = train_head(config(stores[:1], folds=3, run=tmp_path / "first")).directory
    with pytest.raises(
        TrainingError, match=r"[1-8] of 8 clips that are reported here trained it \(the first: 'c4\d'\)"
    ):
        prepare(config(stores[:1], stage="2", init_from=(first / "fold-0",)))
    with pytest.raises(TrainingError, match=r"each of the run's 3 folds trained on some"):
        prepare(config(stores[:1], folds=3, stage="2", init_from=(first,), seed=1))


def test_a_resumed_run_begins_with_the_same_run(stores: tuple[Path, Path], tmp_path: Path) -> None:
    first = train_head(config(stores[:1], run=tmp_path / "first")).directory
    asked = {"stage": "2", "init_from": (first,), "run": tmp_path / "second"}
    train_head(config(stores[:1], **asked))
    train_head(config(stores[:1], run=tmp_path / "first", overwrite=True, seed=9))
    with pytest.raises(TrainingError, match="have changed"):
        train_head(config(stores[:1], **asked, resume=True, epochs=9))


# --- what is kept


def test_the_epoch_of_the_highest_accuracy_is_kept(stores: tuple[Path, Path], tmp_path: Path) -> None:
    made = train_head(
        config(stores[:1], run=tmp_path / "run", epochs=12, lr=0.3, batch=4, stage="2", init_from=("none",))
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    accuracies = [line["val_accuracy"] for line in lines]
    assert made.results["training"]["best_epoch"] == accuracies.index(max(accuracies)) + 1, "the first of equals"
    assert made.metric("accuracy", "val") == max(accuracies)
    assert "by the validation accuracy" in made.results["selection"]["sentence"]
    assert made.results["selection"]["criterion"] == "highest validation accuracy"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"label": "none", "target": "kcal"}, r"no class is trained \(--label none\)"),
        ({"loss": "bce"}, "several labels"),
    ],
)
def test_accuracy_chooses_no_epoch_where_there_is_none(
    stores: tuple[Path, Path], values: dict[str, Any], said: str
) -> None:
    with pytest.raises(TrainingError, match=rf"--keep best-accuracy: .*{said}.*pass --keep best"):
        config(stores[:1], **values)
    assert config(stores[:1], **values, keep="best").optimizer.keep == "best"


def test_resumed_training_equals_an_uninterrupted_one(stores: tuple[Path, Path], tmp_path: Path) -> None:
    """Of two groups, further losses, dropout, batch norms, drawn starts; the file holds what training changes alone."""
    asked = {
        "head_option": ("motion=true",), "stage": "2", "init_from": ("none",), "epochs": 5, "schedule": "cyclic",
        "cycle_batches": 3,
    }  # fmt: skip
    whole, cut = trainer(stores, **asked), trainer(stores, **asked)
    expected = [whole.run_epoch() for _ in range(5)]
    for _ in range(2):
        cut.run_epoch()
    save_progress(tmp_path / "last.safetensors", cut)
    again = trainer(stores, **asked)
    load_progress(tmp_path / "last.safetensors", again)
    found = [again.run_epoch() for _ in range(3)]
    assert [replace(record, val_mae=0.0) for record in found] == [
        replace(record, val_mae=0.0) for record in expected[2:]
    ]
    assert not changed(state(whole.head), again.head)


def test_frozen_tensors_are_in_no_progress_file(stores: tuple[Path, Path], tmp_path: Path) -> None:
    made = trainer(stores[:1])
    made.run_epoch()
    save_progress(tmp_path / "last.safetensors", made)
    names = {name for name in read_tensors(tmp_path / "last.safetensors")[0] if name.startswith(("head.", "best."))}
    assert names == {f"{part}.classifiers.label.{what}" for part in ("head", "best") for what in ("bias", "weight")}


def test_predictions_need_no_targets(stores: tuple[Path, Path], tmp_path: Path) -> None:
    run = train_head(config(stores, head_option=("motion=true",), run=tmp_path / "run")).directory
    found = predict(run, stores[0])
    stored = {row["clip_id"]: row for row in _rows(run / "predictions.csv")}
    assert len(stored) == 16
    for place, clip in enumerate(found.clip_ids.tolist()):
        if clip in stored:
            assert found.predicted is not None and found.predicted[place] == stored[clip]["predicted"]
    with pytest.raises(TrainingError, match="reads 1 stores together; 2 were given"):
        predict(run, stores)
    assert Predictor.load(run / "best.safetensors").stage == "1"


def _rows(path: Path) -> list[dict[str, str]]:
    import csv

    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- memory and schedules


def test_training_from_the_stores_equals_training_from_memory(stores: tuple[Path, Path], tmp_path: Path) -> None:
    """To the bit, on one thread: every epoch, the kept weights, the predictions."""
    told = []
    for name, memory in (("held", 0.0), ("read", 25e-6)):
        run = tmp_path / name
        made = train_head(
            config(stores, head_option=("motion=true",), run=run, memory=memory, stage="2", init_from=("none",))
        )
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        tensors = read_tensors(run / "best.safetensors")[0]
        told.append(([line | {"seconds": 0} for line in lines], tensors, (run / "predictions.csv").read_bytes()))
        assert any("read from the stores in every epoch" in note for note in made.results["notes"]) == (name == "read")
    (lines, tensors, predictions), (other_lines, other_tensors, other_predictions) = told
    assert (lines, predictions) == (other_lines, other_predictions)
    assert all(torch.equal(tensors[name], other_tensors[name]) for name in tensors)


CYCLES = [1, 2.8, 4.6, 6.4, 8.2, 10, 8.2, 6.4, 4.6, 2.8, 1, 1.9, 2.8, 3.7, 4.6, 5.5, 4.6, 3.7, 2.8, 1.9, 1, 1.45, 1.9,
          2.35, 2.8, 3.25, 2.8, 2.35, 1.9, 1.45, 1]  # fmt: skip
"""Rates times 10,000 of the published schedule, SYSTEMS.md 5.6."""


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 batches of 2 training clips, as frames, and 8 clips for validation."""
    rng = np.random.default_rng(1)
    clips = [{"clip_id": f"c{i}", "label": "ab"[i % 2], "split": "train" if i < 48 else "val"} for i in range(56)]
    pixels = [rng.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8) for _ in clips]
    path = tmp_path_factory.mktemp("frames") / "frames.zarr"
    write_store(path, {"rgb": pixels}, clips, backbone="frames")
    return path


def epochs_of(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize("restart", [False, True])
def test_metrics_have_the_rate_of_every_batch_also_of_a_resumed_run(
    frames: Path, tmp_path: Path, restart: bool
) -> None:
    """And pictures are changed by the same draws."""
    cyclic = {"schedule": "cyclic", "lr": 1e-4, "batch": 2, "restart_each_epoch": restart}
    given = {**cyclic, "epochs": 3, "pixel_augment": ("flip", "crop", "brightness")}
    train_head(config((frames,), **given, run=tmp_path / "whole"))
    whole = epochs_of(tmp_path / "whole")
    rates = [[rate * 1e4 for rate in line["batch_learning_rates"]] for line in whole]
    assert [len(one) for one in rates] == [24, 24, 24]
    if restart:
        assert rates == [pytest.approx(CYCLES[:24])] * 3
    else:
        assert (rates[0] + rates[1])[: len(CYCLES)] == pytest.approx(CYCLES)
        assert rates[2][0] == pytest.approx(1 + 9 * (48 % 10 / 5 if 48 % 10 <= 5 else 2 - 48 % 10 / 5) / 2**4)
    assert [line["learning_rate"] for line in whole] == [line["batch_learning_rates"][0] for line in whole]
    for epochs in (1, 2, 3):
        train_head(config((frames,), **{**given, "epochs": epochs}, run=tmp_path / "cut", resume=epochs > 1))
    assert epochs_of(tmp_path / "cut") == whole
    with pytest.raises(TrainingError, match="--cycle-restart is for --schedule cyclic, not for none"):
        config((frames,), restart_each_epoch=True)


def test_cyclic_rates_are_those_of_the_published_schedule(
    stores: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step per batch, on across epochs."""
    expected = CYCLES
    made = trainer(stores[:1], schedule="cyclic", lr=1e-4, batch=8, epochs=8, weight_decay=0.0)
    rates: list[float] = []
    plain = Trainer._advance_batch

    def noted(self: Trainer) -> None:
        rates.append(self.optimizer.param_groups[0]["lr"] * 1e4)
        plain(self)

    monkeypatch.setattr(Trainer, "_advance_batch", noted)
    for _ in range(8):  # of 4 batches
        made.run_epoch()
    assert rates[: len(expected)] == pytest.approx(expected)
    with pytest.raises(TrainingError, match=r"--max-lr 0\.001 must be above --lr 0.01"):
        config(stores[:1], schedule="cyclic", lr=0.01, max_lr=0.001)


def test_a_drawn_view_reaches_heads_of_vectors_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    splits = ["train"] * 30 + ["val"] * 10
    clips = [{"clip_id": str(i), "label": "ab"[i % 2], "split": splits[i]} for i in range(40)]
    base = [rng.normal(size=(2, 4)).astype(np.float32) for _ in range(40)]
    views = {f"v{k}": {"cls": [a + k if i < 30 else None for i, a in enumerate(base)]} for k in (1, 2)}
    store = write_store(tmp_path / "s.zarr", {"cls": base}, clips, views=views)
    prepared = prepare(TrainConfig.of(store=(store.path,), head="linear", train_views="draw", epochs=1))
    made = Trainer(make_job(prepared, prepared.partitions[0]))
    torch.manual_seed(0)
    rows = torch.cat([made.draw_order() for _ in range(200)])
    places = torch.bincount(rows // 40, minlength=3)
    assert places[0] == 0
    assert abs(int(places[1]) - 3000) < 3 * math.sqrt(6000 / 4)
    assert sorted((rows[:30] % 40).tolist()) == list(range(30))
    made.run_epoch()


def test_a_stack_refuses_heads_that_read_arrays(stores: tuple[Path, Path], tmp_path: Path) -> None:
    asked = {"store": stores[:1], "head": HEAD, "target": "none", "epochs": 1, "run": tmp_path / "sweep"}
    with pytest.raises(TrainingError, match=r"--executor stacked .* head 'array_head:ROW', which reads arrays"):
        sweep(SweepConfig.of(**asked, sweep=("lr=0.1,0.2",), executor="stacked"))
    made = sweep(SweepConfig.of(**asked, sweep=("lr=0.1,0.2",), workers=1))
    assert [member["status"] for member in made.results["members"]] == ["done", "done"]


@pytest.mark.parametrize("alone", [{"schedule": "cyclic"}, {"keep": "best-accuracy"}, {"train_views": "draw"}])
def test_what_a_stack_does_not_follow_is_trained_by_itself(stores: tuple[Path, Path], alone: dict[str, Any]) -> None:
    plain = TrainConfig.of(store=stores[:1], head="mlp")
    assert plain.can_be_stacked and not plain.but(**alone).can_be_stacked


def test_a_parameter_without_an_axis_is_trained_like_any_other() -> None:
    head = torch.nn.Linear(2, 1)
    head.scale = torch.nn.Parameter(torch.tensor(3.0))
    flat = FlatParameters(head, frozenset({"weight", "scale"}))
    assert head.scale.shape == ()
    (2 * head.scale + head.weight.sum()).backward()
    assert sorted(value for value in flat.gradient.tolist() if value) == [1.0, 1.0, 2.0]
