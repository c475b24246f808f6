"""Training runs end to end on stores that the real writer made."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from remembered import write_store
from safetensors.torch import load_file

from reelbank.heads import RecipeConfig, SweepConfig, TrainConfig, TrainingError, predict, train_head
from reelbank.heads.defaults import resolved
from reelbank.heads.examples.clips import load_table, open_sources
from reelbank.heads.examples.features import load_features
from reelbank.heads.judging.metrics import names_of
from reelbank.heads.losses import LOSSES
from reelbank.heads.models import HEADS
from reelbank.heads.optimizers import OPTIMIZERS, SCHEDULES
from reelbank.heads.runs.checkpoints import Predictor, write_tensors
from reelbank.heads.stored import read_tensors
from reelbank.manifests.events import Event
from reelbank.store import SpecMismatch, Store
from reelbank.store.devices import DeviceError
from reelbank.store.options import options as options_of_config

OF_VECTORS = [name for name in sorted(HEADS) if not HEADS[name].plan]
WIDTH = 12
FREE = {"report": False, "epochs": 6, "bins": 40, "batch": 16}


def _clip(i: int, split: str, label: str, kcal: float | None) -> dict[str, Any]:
    clip = {"clip_id": f"c{i:03d}", "split": split, "label": label, "group": f"s{i // 6}"}
    return clip if kcal is None else clip | {"kcal": kcal}


def _write(
    path: Path,
    *,
    num: int = 180,
    signal: float = 1.0,
    kcal: bool = True,
    val: bool = True,
    weights: str = "pretrained",
    seed: int = 0,
    failed: tuple[int, ...] = (),
) -> Store:
    """Clips of 3 classes whose mean feature tells the class (and so the kcal); the last fifth is `unknown`."""
    random = np.random.default_rng(seed)
    clips, features = [], []
    for i in range(num):
        kind, part = i % 3, (i // 6) % 5
        split = ("train", "train", "val" if val else "train", "test", "unknown")[part]
        label = "novel" if split == "unknown" else f"class {kind}"
        clips.append(_clip(i, split, label, 200.0 + 200 * kind + float(random.normal()) if kcal else None))
        steps = random.normal(size=(4 + i % 5, WIDTH))
        steps[:, kind] += signal
        features.append(None if i in failed else steps.astype(np.float16))
    other = [None if array is None else array[:, :5] for array in features]
    return write_store(
        path, {"cls": features, "pool": other}, clips, backbone="toy", weights={"kind": weights, "sha256": "ab"}
    )


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("stores")
    _write(root / "clear.zarr", signal=3.0)
    _write(root / "noisy.zarr", signal=1.0, kcal=False)
    _write(root / "random.zarr", signal=3.0, weights="random", val=False, kcal=False, failed=(0, 7))
    return {path.stem: path for path in root.iterdir()}


def _train(store: Path, run: Path, **options: Any) -> Any:
    asked = {"head": "mlp", **FREE, **options}
    if HEADS[asked["head"]].is_fitted:
        asked = {name: value for name, value in asked.items() if name not in ("batch", "epochs", "lr")}
    return train_head(TrainConfig.of(store=(store,), run=run, **asked))


def _epochs(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def _same_tensors(a: Path, b: Path) -> bool:
    left, right = load_file(a), load_file(b)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("head", OF_VECTORS)
def test_every_head_learns_a_planted_signal(head: str, stores: dict[str, Path], tmp_path: Path) -> None:
    result = _train(stores["clear"], tmp_path / "run", head=head, epochs=30, lr=3e-3)
    test = result.results["splits"]["test"]
    accuracy = test["metrics"]["accuracy"]
    assert accuracy["low"] > test["baselines"]["majority_class"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert test["metrics"]["mae"]["high"] < test["baselines"]["constant_median"]["mae"]
    assert "beats the majority class baseline" in result.verdict
    assert result.warning == ""


def test_shuffled_labels_teach_nothing(stores: dict[str, Path], tmp_path: Path) -> None:
    options = {"head": "linear", "epochs": 20, "folds": 5, "target": "none"}
    real = _train(stores["noisy"], tmp_path / "real", **options).results
    control = _train(stores["noisy"], tmp_path / "control", shuffle_labels=True, **options).results
    real_low, majority = real["splits"]["test"]["metrics"]["accuracy"]["low"], 1 / 3
    assert real_low > majority
    assert control["splits"]["test"]["metrics"]["accuracy"]["low"] <= majority
    assert control["shuffled_labels"]
    assert control["verdict"].startswith("CONTROL")


def test_unknown_split_has_target_metrics_only(stores: dict[str, Path], tmp_path: Path) -> None:
    result = _train(stores["clear"], tmp_path / "run").results
    assert set(result["splits"]["test"]["metrics"]) >= {"accuracy", "macro_f1", "mae", "nll"}
    unknown = result["splits"]["unknown"]
    assert set(unknown["metrics"]) == set(names_of("target"))
    assert "majority_class" not in unknown["baselines"]
    assert (result["target_name"], result["target_unit"]) == ("kcal", "kcal/h")


def test_training_clips_are_judged_on_request(stores: dict[str, Path], tmp_path: Path) -> None:
    config = TrainConfig.of(store=stores["clear"], head="linear", run=tmp_path / "run", **FREE)
    without = train_head(config).results
    judged = config.but(run=tmp_path / "judged", judge_train=True, metric=("cross_entropy",))
    results = train_head(judged).results
    assert set(results["splits"]) == {*without["splits"], "train"}
    assert results["splits"]["train"]["num_clips"] == results["counts"]["train"]
    assert results["verdict"] == without["verdict"]
    with (tmp_path / "judged" / "predictions.csv").open(newline="") as file:
        right = [int(row["correct"]) for row in csv.DictReader(file) if row["split"] == "train"]
    metrics = results["splits"]["train"]["metrics"]
    assert metrics["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert 0 < metrics["cross_entropy"]["value"] < results["splits"]["test"]["metrics"]["cross_entropy"]["value"]
    with pytest.raises(TrainingError, match="--judge-train reports one training part"):
        TrainConfig.of(store=stores["clear"], judge_train=True, folds=2)


def test_run_directory_holds_the_documented_files(stores: dict[str, Path], tmp_path: Path) -> None:
    events: list[Event] = []
    config = TrainConfig.of(store=(stores["clear"],), run=tmp_path / "run", **FREE)
    result = train_head(config, progress=events.append)
    names = {path.name for path in result.directory.iterdir()}
    assert names == {
        "best.safetensors", "config.json", "confusion.json", "last.safetensors", "metrics.jsonl", "predictions.csv",
        "results.json",
    }  # fmt: skip
    stored = json.loads((result.directory / "config.json").read_text())
    assert TrainConfig.from_json(stored["config"]) == resolved(config)
    assert stored["labels"] == ["class 0", "class 1", "class 2"]
    assert stored["bins"]["high"] == 1000
    assert len(_epochs(result.directory)) == 6
    with (result.directory / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows} == {"val", "test", "unknown"}
    assert all((row["correct"] == "") == (row["split"] == "unknown") for row in rows)
    test = [row for row in rows if row["split"] == "test"]
    share = sum(row["correct"] == "1" for row in test) / len(test)
    assert share == pytest.approx(result.metric("accuracy"))
    table = json.loads((result.directory / "confusion.json").read_text())["test"]
    assert np.trace(np.array(table["counts"])) / len(test) == pytest.approx(share)
    assert [event.done for event in events if event.stage == "train"] == [1, 2, 3, 4, 5, 6]


def test_same_configuration_gives_the_same_bits(stores: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        _train(stores["clear"], tmp_path / name)
        torch.rand(3)  # the caller's random state must not matter
    assert _same_tensors(tmp_path / "a" / "best.safetensors", tmp_path / "b" / "best.safetensors")
    assert _epochs(tmp_path / "a") == _epochs(tmp_path / "b")
    other = _train(stores["clear"], tmp_path / "c", seed=1).directory
    assert not _same_tensors(tmp_path / "a" / "last.safetensors", other / "last.safetensors")


class _Stop(RuntimeError):
    pass


@pytest.mark.parametrize(
    "options",
    [
        *({"target": "none", "optimizer": name} for name in OPTIMIZERS),
        *({"schedule": name, "milestones": (2, 4), "step_epochs": 2, "patience_epochs": 0} for name in SCHEDULES),
        {"folds": 2},
        {"head": "conv-aggregation", "early_stop_epochs": 2, "lr": 0.02},
    ],
    ids=str,
)
def test_resumed_run_equals_an_uninterrupted_one(
    options: dict[str, Any], stores: dict[str, Path], tmp_path: Path
) -> None:
    options = {"checkpoint_seconds": 0.0, **options}
    whole = _train(stores["clear"], tmp_path / "whole", **options)

    def stop(event: Event) -> None:
        if event.stage == "train" and event.done >= stop_at:
            raise _Stop

    for stop_at in (3, 8) if "folds" in options else (3,):
        resume = {"resume": stop_at > 3}
        with pytest.raises(_Stop):
            train_head(
                TrainConfig.of(store=(stores["clear"],), run=tmp_path / "cut", **{**FREE, **options, **resume}),
                progress=stop,
            )
    resumed = _train(stores["clear"], tmp_path / "cut", resume=True, **options)
    assert _epochs(tmp_path / "cut") == _epochs(tmp_path / "whole")
    folders = ["fold-0", "fold-1"] if "folds" in options else ["."]
    for folder in folders:
        for name in ("best.safetensors", "last.safetensors"):
            assert _same_tensors(tmp_path / "cut" / folder / name, tmp_path / "whole" / folder / name)
    for key in ("splits", "folds", "notes", "verdict"):
        assert resumed.results[key] == whole.results[key]


def test_finished_run_can_be_continued_with_more_epochs(stores: dict[str, Path], tmp_path: Path) -> None:
    _train(stores["clear"], tmp_path / "run", epochs=3)
    _train(stores["clear"], tmp_path / "run", epochs=6, resume=True)
    _train(stores["clear"], tmp_path / "whole", epochs=6)
    assert _epochs(tmp_path / "run") == _epochs(tmp_path / "whole")


def test_resume_refuses_other_options_and_overwrite_needs_a_run(stores: dict[str, Path], tmp_path: Path) -> None:
    _train(stores["clear"], tmp_path / "run", epochs=1)
    with pytest.raises(TrainingError, match=r"lr: the run has 0.001, asked 0.5"):
        _train(stores["clear"], tmp_path / "run", lr=0.5, resume=True)
    with pytest.raises(TrainingError, match=r"the stores of .* have changed"):
        _train(stores["noisy"], tmp_path / "run", resume=True)
    with pytest.raises(TrainingError, match="exists; pass --resume, --overwrite"):
        _train(stores["clear"], tmp_path / "run")
    _train(stores["clear"], tmp_path / "run", epochs=1, overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(TrainingError, match="holds no run"):
        _train(stores["clear"], tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_runs_without_a_name_are_numbered(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [
        train_head(TrainConfig.of(store=(stores["clear"],), loss="jsd", **{**FREE, "epochs": 1})).directory
        for _ in range(2)
    ]
    assert names == [Path("runs/clear-mlp-jsd-1"), Path("runs/clear-mlp-jsd-2")]


def test_folds_predict_every_known_clip_once(stores: dict[str, Path], tmp_path: Path) -> None:
    result = _train(stores["clear"], tmp_path / "run", folds=3, head="linear")
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    known = [row for row in rows if row["split"] == "test"]
    assert len(known) == len({row["clip_id"] for row in known}) == 144
    assert len(rows) == 180
    fold_of = {}
    for row in known:
        assert fold_of.setdefault(row["group"], row["fold"]) == row["fold"]
    assert [entry["fold"] for entry in result.results["folds"]] == [0, 1, 2]
    assert sum(entry["test"] for entry in result.results["folds"]) == 144
    assert predict(result.directory, stores["clear"]).clip_ids.shape == (180,)


def test_random_weights_are_said_everywhere_and_failed_clips_are_counted(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    result = _train(stores["random"], tmp_path / "run")
    config = json.loads((result.directory / "config.json").read_text())
    for text in (result.verdict, result.warning, config["warning"]):
        assert text.startswith("RANDOM WEIGHTS: toy was never trained")
    assert config["weights_are_random"] is result.results["weights_are_random"] is True
    assert result.results["counts"]["left_out"] == [{"reason": "failed: no features given", "count": 2}]
    assert "2 clips are left out: failed: no features given." in result.results["notes"]
    assert any("no split 'val'" in note for note in result.results["notes"])
    assert predict(result.directory, stores["random"]).warning == result.warning


@pytest.mark.parametrize("head", OF_VECTORS)
def test_predictions_of_the_reloaded_run_are_those_it_stored(
    head: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    run = _train(stores["clear"], tmp_path / "run", head=head).directory
    again = predict(run, stores["clear"], split="test")
    with (run / "predictions.csv").open(newline="") as file:
        stored = {row["clip_id"]: row for row in csv.DictReader(file) if row["split"] == "test"}
    assert sorted(stored) == sorted(again.clip_ids)
    assert again.predicted is not None
    assert again.predicted_target is not None
    for clip, predicted, kcal in zip(again.clip_ids, again.predicted, again.predicted_target, strict=True):
        assert stored[clip]["predicted"] == predicted
        assert float(stored[clip]["predicted_target"]) == pytest.approx(kcal, rel=1e-5)
    again.write_csv(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("clip_id,split,label,predicted,probability,predicted_kcal,")


def test_predict_refuses_features_made_differently(stores: dict[str, Path], tmp_path: Path) -> None:
    run = _train(stores["clear"], tmp_path / "run", epochs=1).directory
    with pytest.raises(SpecMismatch, match=r"weights\.kind: the run 'pretrained', the store 'random'"):
        predict(run, stores["random"])
    with pytest.raises(TrainingError, match="no clip of split 'dev'; there are test, train, unknown, val"):
        predict(run, stores["clear"], split="dev")
    with pytest.raises(TrainingError, match=r"not a finished run; it holds 1 runs, name one of them, such as .*/run$"):
        predict(tmp_path, stores["clear"])
    with pytest.raises(TrainingError, match=r"not a finished run$"):
        predict(tmp_path / "nowhere", stores["clear"])


def test_damaged_checkpoint_is_an_error_that_names_it(stores: dict[str, Path], tmp_path: Path) -> None:
    run = _train(stores["clear"], tmp_path / "run", epochs=1).directory
    (run / "best.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(TrainingError, match=r"best\.safetensors is not a checkpoint of reelbank"):
        predict(run, stores["clear"])


def test_a_saved_head_that_reads_lengths_of_means_goes_on_doing_so(stores: dict[str, Path], tmp_path: Path) -> None:
    """Such heads were saved before --normalize l2 divided every step: their header says nothing of steps."""
    run = _train(stores["clear"], tmp_path / "run", epochs=1, normalize="l2", tap=("cls",)).directory
    new = predict(run, stores["clear"]).probabilities["label"]
    tensors, header = read_tensors(run / "best.safetensors")
    assert header.pop("unit_steps")
    write_tensors(run / "best.safetensors", tensors, header)
    old = predict(run, stores["clear"])
    table = load_table(open_sources((stores["clear"],), ("cls",)), label_column="label", join="inner")
    means = load_features(table, needs_steps=False).arrays["cls"]
    assert table.clip_ids.tolist() == old.clip_ids.tolist()
    head = Predictor.load(run / "best.safetensors").head.eval()
    unit = torch.nn.functional.normalize(means, dim=2)
    with torch.no_grad():
        logits = head({"cls": unit}, torch.ones(len(unit), 1, dtype=torch.bool))["label"]
    np.testing.assert_allclose(old.probabilities["label"], logits.softmax(dim=1).numpy(), atol=1e-3)
    assert np.abs(old.probabilities["label"] - new).max() > 5e-3


def test_a_checkpoint_with_weights_of_another_layout_is_not_gone_on_from(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    options = {"head": "conv-aggregation", "tap": ("cls",)}
    run = _train(stores["clear"], tmp_path / "run", epochs=1, **options).directory
    tensors, header = read_tensors(run / "last.safetensors")
    name = "head.aggregator.convs.0.weight"
    write_tensors(run / "last.safetensors", tensors | {name: tensors[name].permute(1, 2, 0)}, header)
    with pytest.raises(TrainingError, match=r"do not fit head 'conv-aggregation', .*--overwrite in place of --resume"):
        _train(stores["clear"], run, epochs=2, resume=True, **options)


def test_two_stores_are_joined_by_clip(stores: dict[str, Path], tmp_path: Path) -> None:
    both = tmp_path / "short.zarr"
    _write(both, num=150, signal=3.0, seed=5)
    config = {"report": False, "epochs": 1, "tap": ("cls",)}
    with pytest.raises(TrainingError, match="'toy/cls' comes from more than one store"):
        train_head(TrainConfig.of(store=(stores["clear"], both), run=tmp_path / "a", **config))
    random = np.random.default_rng(0)
    clips = [
        _clip(i, ("train", "train", "val", "test", "unknown")[(i // 6) % 5], f"class {i % 3}", None) for i in range(150)
    ]
    clips = [clip | {"label": "novel"} if clip["split"] == "unknown" else clip for clip in clips]
    other = tmp_path / "flow.zarr"
    write_store(other, {"hof": [random.normal(size=(3, 4)).astype(np.float16) for _ in clips]}, clips, backbone="flow")
    with pytest.raises(TrainingError, match="30 clips have features in only one"):
        train_head(TrainConfig.of(store=(stores["clear"], other), run=tmp_path / "b", report=False))
    options: dict[str, Any] = {"join": "inner", "report": False, "epochs": 2, "bins": 20}
    result = train_head(TrainConfig.of(store=(stores["clear"], other), run=tmp_path / "c", **options))
    assert result.results["counts"]["clips"] == 150
    assert result.results["counts"]["left_out"] == [{"reason": "not in every store (--join inner)", "count": 30}]
    assert len(predict(result.directory, (stores["clear"], other)).clip_ids) == 150


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tap": ("patch",)}, "--tap patch: no store holds it; there are cls, pool"),
        ({"target": "speed"}, "--target speed: the store has no such target column; it has kcal"),
        ({"label": "kcal"}, "this column is numeric; pass it as --target kcal"),
        ({"range": (0.0, 300.0)}, "lie outside 0:300"),
        ({"folds": 40}, "40 folds need at least 40 groups, found 24"),
        ({"device": "tpu"}, "not one of auto, cpu, cuda"),
        ({"lr": 1e30, "optimizer": "sgd", "normalize": "none"}, "a smaller --lr"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_an_error_that_says_what_to_do(
    options: dict[str, Any], message: str, stores: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises((TrainingError, DeviceError), match=message):
        _train(stores["clear"], tmp_path / "run", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"pool": "mean+std", "normalize": "none"},
        {"normalize": "l2", "class_weights": "balanced", "label_smoothing": 0.1},
        {"target_labels": "hard", "reduction": "mean", "loss": "kld"},
        {"label": "none", "loss": "jsd"},
        {"target": "none", "loss": "jsd"},
        {"keep": "last", "early_stop_epochs": 1, "lr": 0.1},
        {"select_on": "reported-set"},
        {"select_on": "reported-set", "folds": 3},
        {"tap": ("cls", "pool"), "class_loss": "jsd", "trunk": "shared"},
        {"head": "conv-aggregation", "aggregation": "flatten"},
    ],
    ids=str,
)
def test_every_option_trains_and_reloads(options: dict[str, Any], stores: dict[str, Path], tmp_path: Path) -> None:
    result = _train(stores["clear"], tmp_path / "run", **options)
    test = result.results["splits"]["test"]["metrics"]
    assert ("accuracy" in test) == (options.get("label") != "none")
    assert ("mae" in test) == (options.get("target") != "none")
    assert all(entry["value"] is not None for entry in test.values())
    sentence = result.results["selection"]["sentence"]
    assert ("reported set itself" in sentence) == (options.get("select_on") == "reported-set")
    assert sentence in result.text()
    again = predict(result.directory, stores["clear"])
    assert str(len(again.clip_ids)) in again.text()
    json.dumps(again.to_json())


def test_class_in_a_single_group_is_said_to_be_untrained(tmp_path: Path) -> None:
    clips = [_clip(i, "train", f"k{i % 2}" if i < 42 else "rare", None) for i in range(48)]
    features = [np.full((2, 3), i % 7, np.float16) for i in range(48)]
    write_store(tmp_path / "s.zarr", {"cls": features}, clips)
    notes = _train(tmp_path / "s.zarr", tmp_path / "run", folds=2, epochs=1).results["notes"]
    assert any("is tested on 1 classes it never trains on ('rare')" in note for note in notes)


def test_view_that_is_not_stored_leaves_no_clip(stores: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="180 x view 2 is not stored"):
        _train(stores["clear"], tmp_path / "run", view=2)


def test_report_is_written_at_the_end(stores: dict[str, Path], tmp_path: Path) -> None:
    result = _train(stores["random"], tmp_path / "run", report=True, epochs=2)
    page = (result.directory / "report.html").read_text()
    assert "RANDOM WEIGHTS" in page
    assert "Report: " in result.text()


def test_bad_stores_are_errors(tmp_path: Path) -> None:
    features = {"cls": [np.ones((2, 3), np.float16) * i for i in range(8)], "map": [np.ones((2, 3, 2), np.uint8)] * 8}
    clips = [_clip(i, "train", f"k{i % 2}", float("nan") if i < 3 else 1.0) for i in range(8)]
    write_store(tmp_path / "nan.zarr", features, clips)
    with pytest.raises(TrainingError, match="'kcal' is empty or not finite in"):
        _train(tmp_path / "nan.zarr", tmp_path / "run", select_on="validation")
    clips = [_clip(i, "train", f"k{i % 2}", float("nan") if i == 5 else 1.0) for i in range(8)]
    write_store(tmp_path / "few.zarr", {"cls": features["cls"]}, [*clips, _clip(8, "val", "k1", 1.0)][:8])
    for train_clips in (0, 2):  # the clips that are drawn must not hide what is wrong with the others
        with pytest.raises(TrainingError, match=f"in 1 of .* training clips \\({clips[5]['clip_id']!r}\\)"):
            _train(tmp_path / "few.zarr", tmp_path / "run", train_clips=train_clips, select_on="validation")
    with pytest.raises(TrainingError, match=r"tap 'map' .* \(3, 2\) uint8 per step; .* taps here .*: cls"):
        _train(tmp_path / "nan.zarr", tmp_path / "run", tap=("map",))
    write_store(tmp_path / "one.zarr", {"cls": features["cls"]}, [_clip(i, "train", "k", None) for i in range(8)])
    with pytest.raises(TrainingError, match="at least 2 classes"):
        _train(tmp_path / "one.zarr", tmp_path / "run")
    write_store(
        tmp_path / "inf.zarr", {"cls": features["cls"]}, [_clip(i, "train", f"k{i % 2}", None) for i in range(8)]
    )
    # The writer refuses such values; a store of another hand may hold them.
    zarr.open_array(tmp_path / "inf.zarr" / "mean" / "cls", mode="r+")[5] = np.nan
    with pytest.raises(TrainingError, match=r"1 clips are not finite \(the first: 'c005'\)"):
        _train(tmp_path / "inf.zarr", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"store": ()}, "--store names no store"),
        (
            {"head": "gru"},
            f"--head: no head 'gru'; choose one of {', '.join(sorted(HEADS))}, or give",
        ),
        ({"loss": "mse"}, f"--loss: no loss 'mse'; choose one of {', '.join(sorted(LOSSES))}, or give"),
        ({"epochs": 0}, "--epochs 0 must be 1 or more"),
        ({"lr": -1.0}, "--lr -1.0 must be above 0"),
        ({"folds": 1}, "--folds 1 leaves nothing to train on"),
        ({"range": (5.0, 5.0)}, "LOW must be below HIGH"),
        ({"schedule": "multistep"}, "needs at least one --milestone"),
        ({"label": "none", "target": "none"}, "leaves nothing to predict"),
        ({"resume": True}, "need --run DIR"),
        ({"resume": True, "overwrite": True, "run": Path("x")}, "give one of them"),
        ({"pool": "mean+std", "head": "conv-aggregation"}, "no meaning for head 'conv-aggregation'"),
        ({"label_smoothing": 1.0}, "--label-smoothing 1.0 must be in"),
        ({"betas": (0.9, 1.0)}, "must both be in"),
    ],
    ids=str,
)
def test_configuration_refuses_what_cannot_be_trained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        TrainConfig.of(**{"store": (Path("s.zarr"),), **options})


def test_every_field_says_what_it_is_for() -> None:
    for one in {**options_of_config(RecipeConfig), **options_of_config(SweepConfig)}.values():
        assert one.entry.metadata["help"]
        assert one.flag.startswith("--")


def test_configuration_loads_no_heavy_module() -> None:
    code = (
        "import sys, reelbank.heads; from reelbank.heads import TrainConfig; "
        "print(sorted({'torch', 'zarr', 'av', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
