"""A finished run applied to a store: the heads it kept, the features it was trained on, what is said of the rows."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import BINS, config, planted_store
from remembered import write_store
from safetensors.torch import save_file

import reelbank.store
from reelbank.heads import TrainingError, predict, predict_videos, train_head
from reelbank.heads.examples.normalization import Normalization
from reelbank.heads.judging import intervals
from reelbank.heads.models import HeadShape, build_head
from reelbank.heads.runs.checkpoints import Predictor, write_tensors
from reelbank.heads.runs.directory import name_of_run, open_directory, read_json, refuse_other_config, write_json
from reelbank.heads.runs.predicting import refuse_other_features
from reelbank.heads.runs.predictions import PredictResult
from reelbank.heads.stored import read_tensors
from reelbank.manifests.events import Event
from reelbank.store import FeatureSpec, SpecMismatch

OPTIONS: dict[str, Any] = {"head": "linear", "epochs": 2, "bins": 21, "batch": 16, "lr": 0.05}


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    """No bound is looked at here, and drawing is what takes the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", 4)
        patch.setattr(intervals, "WHOLE_RESAMPLES", 4)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_store(tmp_path_factory.mktemp("store") / "s.zarr", num=48)


def _run(store: Path | tuple[Path, ...], run: Path, **options: Any) -> Path:
    stores = store if isinstance(store, tuple) else (store,)
    return train_head(config(store=stores, run=run, **{**OPTIONS, **options})).directory


@pytest.fixture(scope="module")
def single(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(store, tmp_path_factory.mktemp("single") / "run", estimate="expectation")


@pytest.fixture(scope="module")
def folds(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(store, tmp_path_factory.mktemp("folds") / "run", folds=2)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_again_are_those_that_the_run_reported(single: Path, store: Path) -> None:
    again = predict(single, store)
    assert len(again.clip_ids) == 48
    place = {clip: i for i, clip in enumerate(again.clip_ids.tolist())}
    assert again.predicted is not None
    assert again.probability is not None
    assert again.predicted_target is not None
    assert (again.target_name, again.class_names) == ("kcal", ("class 0", "class 1", "class 2"))
    for row in _rows(single / "predictions.csv"):
        i = place[row["clip_id"]]
        assert row["predicted"] == again.predicted[i]
        assert float(row["probability"]) == pytest.approx(again.probability[i], abs=1e-6)
        assert float(row["predicted_target"]) == pytest.approx(again.predicted_target[i], rel=1e-4)
        assert (row["split"], row["label"]) == (again.splits[i], again.labels[i])
    np.testing.assert_allclose(again.probability, again.probabilities["label"].max(axis=1))
    values = np.linspace(0, 1000, 21)
    np.testing.assert_allclose(again.predicted_target, again.probabilities["target"] @ values)
    assert again.notes == ("If clips of split 'train' trained this head, what it says of them is no test.",)
    assert (again.warning, again.left_out) == ("", ())


def test_best_epoch_is_the_one_that_is_saved(single: Path, store: Path, tmp_path: Path) -> None:
    last = _run(store, tmp_path / "last", keep="last", epochs=6, head="mlp", lr=0.01)
    best = _run(store, tmp_path / "best", keep="best", epochs=6, head="mlp", lr=0.01)
    assert read_json(best / "results.json")["training"]["best_epoch"] < 6
    kept = {run.name: read_tensors(run / "best.safetensors")[0] for run in (last, best)}
    states = {run.name: read_tensors(run / "last.safetensors")[0] for run in (last, best)}
    for name in (key for key in kept["best"] if key.startswith("head.")):
        assert torch.equal(kept["last"][name], states["last"][name])
        assert torch.equal(kept["best"][name], states["best"]["best." + name.removeprefix("head.")])
    assert not all(torch.equal(kept["last"][key], kept["best"][key]) for key in kept["best"])


def test_heads_of_folds_are_averaged_each_with_its_own_statistics(folds: Path, store: Path, tmp_path: Path) -> None:
    both = predict(folds, store)
    trained = int((both.splits != "unknown").sum())
    assert both.notes[-2:] == (
        "Mean of the heads of 2 folds.",
        f"{trained} of these clips trained most of the heads and count in no accuracy; what the head that never saw a "
        "clip says of it stands in the run's predictions.csv.",
    )
    assert both.trained_folds.tolist() == (both.splits != "unknown").tolist()
    assert both.accuracy_by_split() == {}
    alone = []
    for fold in (0, 1):
        run = tmp_path / f"only-{fold}"
        run.mkdir()
        results = read_json(folds / "results.json")
        write_json(run / "results.json", {**results, "folds": []})
        (run / "config.json").write_bytes((folds / "config.json").read_bytes())
        (run / "best.safetensors").write_bytes((folds / f"fold-{fold}" / "best.safetensors").read_bytes())
        alone.append(predict(run, store))
    for output in ("label", "target"):
        mean = (alone[0].probabilities[output] + alone[1].probabilities[output]) / 2
        np.testing.assert_allclose(both.probabilities[output], mean)
    own = {row["clip_id"]: row for row in _rows(folds / "predictions.csv")}
    for i, clip in enumerate(both.clip_ids.tolist()):
        one = alone[int(own[clip]["fold"])]
        assert one.predicted is not None
        assert one.probability is not None
        assert own[clip]["predicted"] == one.predicted[i]
        assert float(own[clip]["probability"]) == pytest.approx(one.probability[i], abs=1e-6)


def test_segments_of_the_training_are_those_of_the_prediction(store: Path, tmp_path: Path) -> None:
    run = _run(store, tmp_path / "run", segments="segments:2:stride=1")
    again = predict(run, store, split="test")
    assert again.probability is not None
    own = [row["probability"] for row in _rows(run / "predictions.csv") if row["split"] == "test"]
    assert own == [f"{value:.6f}" for value in again.probability]


def test_a_store_of_other_features_is_refused(single: Path, store: Path, tmp_path: Path) -> None:
    other = planted_store(tmp_path / "s.zarr", num=12, backbone="other")
    with pytest.raises(SpecMismatch, match="backbone: the run 'toy', the store 'other'"):
        predict(single, other)


def test_one_split_can_be_asked_for(single: Path, store: Path) -> None:
    found = predict(single, store, split="test")
    assert set(found.splits.tolist()) == {"test"}
    assert found.notes == ()
    with pytest.raises(TrainingError, match="no clip of split 'x'; there are test, train, unknown, val"):
        predict(single, store, split="x")
    with pytest.raises(TrainingError, match="reads 1 stores together; 2 were given"):
        predict(single, (store, store))


def _result(**more: Any) -> PredictResult:
    options: dict[str, Any] = {
        "clip_ids": np.array(["c0", "c1", "c2", "c3", "c4"]),
        "splits": np.array(["test", "test", "val", "unknown", "test"]),
        "labels": np.array(["a", "b", "a", "new", ""]),
        "predicted": np.array(["a", "a", "b", "a", "a"]),
        "probability": np.array([0.5, 0.25, 1.0, 0.75, 0.125]),
        "probabilities": {},
        "class_names": ("a", "b"),
        "target_name": "kcal",
        "predicted_target": np.array([1.0, 2.5, 3.0, 4.0, 1234567.0]),
        "trained_folds": np.zeros(5, dtype=bool),
        "left_out": (),
        "warning": "",
        "notes": (),
    }
    return PredictResult(**{**options, **more})


def test_clips_that_trained_most_heads_count_in_no_accuracy() -> None:
    seen = np.array([True, False, True, False, False])
    assert _result(trained_folds=seen).accuracy_by_split() == {"test": 0.0}
    assert _result(trained_folds=~seen).accuracy_by_split() == {"test": 1.0, "val": 0.0}


def test_accuracy_is_of_the_clips_whose_class_the_head_knows() -> None:
    assert _result().accuracy_by_split() == {"test": 0.5, "val": 0.0}
    five = _result(splits=np.array(list("edcba")), labels=np.array(["a", "a", "b", "b", "a"]))
    assert list(five.accuracy_by_split().items()) == [("a", 1.0), ("b", 0.0), ("c", 1.0), ("d", 1.0), ("e", 1.0)]
    assert _result(predicted=None).accuracy_by_split() == {}
    assert _result(class_names=None).accuracy_by_split() == {}


def test_predictions_are_written_with_what_there_is(tmp_path: Path) -> None:
    _result().write_csv(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        "clip_id,split,label,predicted,probability,predicted_kcal",
        "c0,test,a,a,0.500000,1",
        "c1,test,b,a,0.250000,2.5",
        "c2,val,a,b,1.000000,3",
        "c3,unknown,new,a,0.750000,4",
        "c4,test,,a,0.125000,1.23457e+06",
    ]
    _result(predicted=None, probability=None).write_csv(tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text().splitlines()[1] == "c0,test,a,1"
    _result(predicted_target=None).write_csv(tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text().splitlines()[0] == "clip_id,split,label,predicted,probability"


def test_features_made_otherwise_are_refused(single: Path, store: Path, tmp_path: Path) -> None:
    spec = reelbank.store.open(store).spec
    trained = {"spec": spec.to_json(), "keys": {"cls": "cls"}}
    refuse_other_features(single, store, spec, trained)
    free = {**trained["spec"], "seed": 99, "views": ["original", "flip"]}  # type: ignore[dict-item]
    refuse_other_features(single, store, spec, {**trained, "spec": free})
    moved = json.loads(json.dumps(trained))
    moved["spec"]["weights"]["path"] = "/elsewhere/weights.pt"
    moved["spec"]["taps"].append({**moved["spec"]["taps"][0], "name": "unused"})
    refuse_other_features(single, store, spec, moved)
    for name, value in (("backbone", "other"), ("sampling", "uniform:4")):
        changed = {**trained, "spec": {**trained["spec"], name: value}}  # type: ignore[dict-item]
        with pytest.raises(SpecMismatch, match=f"{name}: the run '{value}', the store "):
            refuse_other_features(single, store, spec, changed)
    wider = json.loads(json.dumps(trained))
    wider["spec"]["taps"][0]["shape"] = [7]
    with pytest.raises(SpecMismatch, match=r"taps\[cls\]: the run '\(7,\) float16', the store '\(6,\) float16'"):
        refuse_other_features(single, store, spec, wider)


# --- a run on several stores, and videos that have none


def _pair(folder: Path, *, num: int = 24) -> tuple[Path, Path]:
    """Two stores of the same clips: of other features, the second with a tap and a view that no head reads."""
    first, second = planted_store(folder / "a.zarr", num=num), folder / "b.zarr"
    random = np.random.default_rng(9)
    names = ("clip_id", "split", "label", "group")
    columns = [reelbank.store.open(first).column(name).tolist() for name in names]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)][::-1]  # in another order
    steps = [random.normal(size=(2, 3)).astype(np.float16) for _ in rows]
    taps = {"other": steps, "unread": [array + 1 for array in steps]}
    write_store(second, taps, rows, backbone="second", views={"flip": taps})
    return first, second


def test_videos_are_predicted_with_the_features_that_the_run_reads(tmp_path: Path) -> None:
    first, second = _pair(tmp_path)
    run = _run((first, second), tmp_path / "run", tap=("cls", "other"), epochs=1, folds=2)
    asked: list[tuple[str, list[str], tuple[str, ...]]] = []
    rows = [{"clip_id": "v1", "label": "class 1", "split": "test"}, {"clip_id": "v0", "split": "test"}]

    def extract(
        specs: Sequence[FeatureSpec], videos: Sequence[Path], folder: Path, *, like: Sequence[Path], **rest: Any
    ) -> list[Path]:
        assert list(videos) == [Path("v1.mp4"), Path("v0.mp4")]
        assert list(like) == [first, second]
        for i, spec in enumerate(specs):
            asked.append((spec.backbone, [tap.name for tap in spec.taps], spec.views))
            random = np.random.default_rng(len(asked))
            shapes = {tap.name: (3, *tap.shape) for tap in spec.taps}
            features = {
                name: [random.normal(size=shape).astype(np.float16) for _ in rows] for name, shape in shapes.items()
            }
            write_store(folder / f"{i}.zarr", features, rows, backbone=spec.backbone)
            write_store(tmp_path / f"kept{i}.zarr", features, rows, backbone=spec.backbone)
        return [folder / "0.zarr", folder / "1.zarr"]

    events: list[Event] = []
    found = predict_videos(run, ["v1.mp4", "v0.mp4"], extract=extract, progress=events.append)
    assert events[-1] == Event(stage="evaluate", done=2, total=2)
    assert asked == [("toy", ["cls"], ("original",)), ("second", ["other"], ("original",))]
    assert found.clip_ids.tolist() == ["v1", "v0"]
    same = predict(str(run), (tmp_path / "kept0.zarr", tmp_path / "kept1.zarr"))
    assert found.probabilities["label"].tolist() == same.probabilities["label"].tolist()
    part = tmp_path / "part.zarr"  # a video that gave no features in one of the stores
    write_store(part, {"other": [np.ones((3, 3), np.float16)]}, rows[1:], backbone="second")
    assert predict(run, (tmp_path / "kept0.zarr", part)).clip_ids.tolist() == ["v0"]
    with pytest.raises(SpecMismatch, match=r"taps\[cls\]: the run '\(6,\) float16', the store None"):
        predict(run, (tmp_path / "kept1.zarr", tmp_path / "kept0.zarr"))


def test_labels_are_those_of_the_column_that_the_run_was_trained_on(tmp_path: Path) -> None:
    kinds = {i: {"kind": "ab"[i % 2]} for i in range(24)}
    store = planted_store(tmp_path / "s.zarr", num=24, more=kinds)
    run = _run(store, tmp_path / "run", label="kind", epochs=1)
    found = predict(run, store)
    assert found.labels.tolist() == ["a", "b"] * 12
    assert found.class_names == ("a", "b")
    assert set(found.accuracy_by_split()) == {"train", "val", "test", "unknown"}
    other = planted_store(tmp_path / "other.zarr", num=24)  # of other clips, perhaps: it need not have the column
    assert set(predict(run, other).labels.tolist()) == {""}


def test_every_head_applied_is_told_of_and_random_weights_are_said(folds: Path, store: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    predict(folds, store, progress=events.append)
    told = [(event.done, event.total) for event in events if event.stage == "evaluate"]
    assert told == [(1, 2), (2, 2)]
    assert any(event.stage == "load" for event in events)
    config_file = read_json(folds / "config.json")
    copied = tmp_path / "run"
    shutil.copytree(folds, copied)
    write_json(copied / "config.json", {**config_file, "warning": "RANDOM WEIGHTS"})
    assert predict(copied, store).warning == "RANDOM WEIGHTS"
    bare = tmp_path / "bare.zarr"  # failed clips are counted, and labels need not be
    rows = [{"clip_id": f"b{i}", "split": "test"} for i in range(3)]
    arrays = [np.ones((2, 6), np.float16), None, np.ones((2, 6), np.float16)]
    write_store(bare, {"cls": arrays}, rows, backbone="toy")
    found = predict(folds, bare)
    assert found.clip_ids.tolist() == ["b0", "b2"]
    assert [count for _, count in found.left_out] == [1]
    assert found.notes[0].startswith("1 clips are left out: ")
    assert found.accuracy_by_split() == {}
    assert (found.class_names, found.target_name) == (("class 0", "class 1", "class 2"), "kcal")


# --- the files of a run


def _predictor(kind: str) -> Predictor:
    shape = HeadShape(taps={"cls": 3}, outputs={"label": 2, "target": 11}, num_steps=1)
    options = {"trunk": "shared"}
    statistics = {"cls": torch.tensor([1.0, 2.0, 3.0])} if kind == "zscore" else {}
    return Predictor(
        head_name="mlp", options=options, shape=shape, labels=("a", "b"), bins=BINS, pool="mean+std",
        normalization=Normalization(kind=kind, mean=statistics, scale={key: 2 * v for key, v in statistics.items()}),
        sources=({"spec": {"x": 1}, "keys": {"cls": "cls"}},), head=build_head("mlp", shape, options),
        segments="segments:4:stride=2", estimate="median", unit_steps=True,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["zscore", "l2", "none"])
def test_predictor_is_read_back_as_it_was_saved(kind: str, tmp_path: Path) -> None:
    one = _predictor(kind)
    one.save(tmp_path / "best.safetensors")
    again = Predictor.load(tmp_path / "best.safetensors")
    for name in (
        "head_name",
        "options",
        "shape",
        "labels",
        "bins",
        "pool",
        "sources",
        "segments",
        "estimate",
        "unit_steps",
    ):
        assert getattr(again, name) == getattr(one, name), name
    assert again.normalization.kind == kind
    for part in ("mean", "scale"):
        saved, found = getattr(one.normalization, part), getattr(again.normalization, part)
        assert saved.keys() == found.keys()
        assert all(torch.equal(saved[key], found[key]) for key in saved)
    weights = again.head.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in one.head.state_dict().items())


def test_predictor_of_an_earlier_version_has_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    _predictor("none").save(path)
    tensors, header = read_tensors(path)
    for name in ("segments", "estimate", "unit_steps"):
        del header[name]
    write_tensors(path, tensors, {**header, "labels": None, "bins": None})
    again = Predictor.load(path)
    assert (again.segments, again.estimate, again.unit_steps, again.labels, again.bins) == (
        None,
        "argmax",
        False,
        None,
        None,
    )
    write_tensors(path, tensors, {**header, "format_version": 2})
    with pytest.raises(TrainingError, match="has format 2, this version reads format 1"):
        Predictor.load(path)
    write_tensors(path, {}, header)
    with pytest.raises(TrainingError, match="the weights do not fit head 'mlp'"):
        Predictor.load(path)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is missing: this run has no checkpoint of that kind"):
        read_tensors(tmp_path / "no.safetensors")
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "x.safetensors").write_text("{")
    with pytest.raises(TrainingError, match=r"x\.safetensors is not a checkpoint of reelbank"):
        read_tensors(tmp_path / "x.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"other\.safetensors is not a checkpoint of reelbank"):
        read_tensors(tmp_path / "other.safetensors")
    with pytest.raises(TrainingError, match=r"x\.json is damaged"):
        read_json(tmp_path / "x.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "y.json", {"mae": float("nan")})
    assert not (tmp_path / "y.json").exists()


def test_another_configuration_is_refused_field_by_field(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    asked = config(run=run)
    write_json(run / "config.json", {"config": asked.to_json()})
    refuse_other_config(run, asked)
    refuse_other_config(run, config(run=run, epochs=7, threads=2, checkpoint_seconds=0.0))
    with pytest.raises(
        TrainingError, match=r"other options:\n  batch: the run has 32, asked 8\n  seed: the run has 0, asked 3\n"
    ):
        refuse_other_config(run, config(run=run, seed=3, batch=8))
    older = asked.to_json()
    del older["estimate"]
    write_json(run / "config.json", {"config": older})
    refuse_other_config(run, asked)  # trained with what is now a default
    with pytest.raises(TrainingError, match="estimate: the run has None, asked 'median'"):
        refuse_other_config(run, config(run=run, estimate="median"))


def _open(asked: Any) -> Path:
    return open_directory(asked.run, name_of_run(asked), asked)


def test_nothing_is_overwritten_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    assert _open(config(run=run)) == run
    assert _open(config(run=run)) == run  # it is empty
    (run / "mine.txt").write_text("x")
    with pytest.raises(TrainingError, match="exists; pass --resume, --overwrite or another directory"):
        _open(config(run=run))
    for flag in ("overwrite", "resume"):
        with pytest.raises(TrainingError, match="holds no run"):
            _open(config(run=run, **{flag: True}))
    assert (run / "mine.txt").exists()
    write_json(run / "config.json", {"config": config(run=run).to_json()})
    assert _open(config(run=run, resume=True)) == run
    assert (run / "mine.txt").exists()
    with pytest.raises(TrainingError, match="trained with other options"):
        _open(config(run=run, resume=True, batch=3))
    assert _open(config(run=run, overwrite=True)) == run
    assert list(run.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(TrainingError, match="exists; pass"):
        _open(config(run=tmp_path / "file"))
    monkeypatch.chdir(tmp_path)
    two = (Path("a.zarr"), Path("b.zarr"))
    names = [_open(config(store=two)).as_posix() for _ in range(2)]
    assert names == ["runs/a+b-mlp-ce-1", "runs/a+b-mlp-ce-2"]
