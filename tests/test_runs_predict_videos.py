"""The place for what spans both stages: a head applied to videos, whose features a function from outside makes."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from reelbank.cli import main
from reelbank.extract import FeaturizeConfig, extract_as, featurize
from reelbank.heads import TrainConfig, predict, predict_videos, train_head
from reelbank.heads.runs.checkpoints import Predictor
from reelbank.store import FeatureSpec, SpecMismatch


def _manifest(folder: Path, videos: Sequence[Path]) -> Path:
    lines = ["clip_id,video,split", *(f"{video.stem},{video},test" for video in videos)]
    (folder / "videos.csv").write_text("\n".join(lines) + "\n")
    return folder / "videos.csv"


@pytest.fixture(scope="module")
def run(synth_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    common = {"manifest": synth_set / "manifest.csv", "sampling": ("uniform:2",), "workers": 1}
    featurize(FeaturizeConfig(model=("flow:dis",), out=str(folder / "s.zarr"), **common))  # type: ignore[arg-type]
    config = TrainConfig.of(store=(folder / "s.zarr",), run=folder / "run", epochs=2, bins=20, report=False)
    return train_head(config).directory


def test_videos_get_the_predictions_of_their_rows(run: Path, synth_set: Path) -> None:
    videos = sorted((synth_set / "videos").glob("*.mp4"))[:3]
    direct = predict_videos(run, videos, extract=extract_as)
    stored = predict(run, run.parent / "s.zarr")
    expected = dict(zip(stored.clip_ids.tolist(), stored.probabilities["label"].tolist(), strict=True))
    assert direct.clip_ids.tolist() == [video.stem for video in videos]
    for clip, probabilities in zip(direct.clip_ids.tolist(), direct.probabilities["label"].tolist(), strict=True):
        assert probabilities == pytest.approx(expected[clip], abs=1e-6)


def test_other_features_are_refused(run: Path, synth_set: Path) -> None:
    def other(specs: Sequence[FeatureSpec], videos: Sequence[Path], folder: Path, **rest: Any) -> list[Path]:
        options = {"sampling": ("uniform:3",), "workers": 1, "out": str(folder / "s.zarr")}
        manifest = _manifest(folder, videos)
        featurize(FeaturizeConfig(model=(specs[0].backbone,), manifest=manifest, root=videos[0].parent, **options))  # type: ignore[arg-type]
        return [folder / "s.zarr"]

    videos = sorted((synth_set / "videos").glob("*.mp4"))[:1]
    with pytest.raises(SpecMismatch, match="sampling: the run 'uniform:2', the store 'uniform:3'"):
        predict_videos(run, videos, extract=other)


def test_command_takes_videos_and_says_which_gave_nothing(run: Path, synth_set: Path, tmp_path: Path) -> None:
    video = sorted((synth_set / "videos").glob("*.mp4"))[0]
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    out = tmp_path / "found.csv"
    asked = ["predict", "--run", str(run), "--video", str(video), "--video", str(tmp_path / "damaged.mp4")]
    found = CliRunner().invoke(main, [*asked, "--csv", str(out)])
    assert found.exit_code == 1, found.output
    good, bad = csv.DictReader(out.read_text().splitlines())
    assert (good["clip_id"], good["failed"]) == (video.stem, "")
    assert float(good["probability"]) > float(good["runner_up_probability"])
    assert float(good["predicted_kcal_low"]) <= float(good["predicted_kcal_high"])
    assert (bad["clip_id"], bad["predicted"]) == ("damaged", "")
    assert bad["failed"].startswith("not a video file")
    assert "damaged: failed, not a video file" in found.output
    assert "left out" not in found.output
    assert max(map(len, found.stdout.splitlines()[:-1])) <= 80  # the last is a path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.mp4", "none.mp4: there is no such file or folder"),
        ("damaged.mp4", r"(?s)the clip gives no features:\n  damaged: not a video file"),
    ],
)
def test_videos_that_give_nothing_are_an_error(name: str, message: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=message):
        predict_videos(run, [tmp_path / name], extract=extract_as)


def test_files_of_one_name_are_called_by_their_paths(run: Path, synth_set: Path, tmp_path: Path) -> None:
    videos = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        videos.append(shutil.copy(sorted((synth_set / "videos").glob("*.mp4"))[0], tmp_path / folder / "x.mp4"))
    found = predict_videos(run, videos, extract=extract_as)
    assert found.clip_ids.tolist() == [str(tmp_path / folder / "x") for folder in ("a", "b")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either videos or --store: what to predict"),
        (["--store", "s", "v.mp4"], "give either videos or --store: what to predict"),
        (["--store", "s", "--weights", "w"], "--weights and --keep are for videos: a store has its features"),
        (["--store", "s", "--keep", "k"], "--weights and --keep are for videos: a store has its features"),
        (["v.mp4", "--csv", "none/x.csv"], "--csv none/x.csv: there is no folder none; make it"),
    ],
)
def test_command_takes_stores_or_videos(options: list[str], message: str, run: Path) -> None:
    found = CliRunner().invoke(main, ["predict", "--run", str(run), *options])
    assert found.exit_code == 2
    assert message in found.output


def test_folder_and_table_are_predicted_as_json(run: Path, synth_set: Path, tmp_path: Path) -> None:
    videos = sorted((synth_set / "videos").glob("*.mp4"))[:2]
    for place, video in zip(("x.mp4", "below/y.MP4"), videos, strict=True):
        (tmp_path / "new" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, tmp_path / "new" / place)
    (tmp_path / "new/notes.txt").write_text("no video")
    asked = ["predict", "--run", str(run), "--json"]
    found = CliRunner().invoke(main, [*asked, str(tmp_path / "new"), str(tmp_path / "new/x.mp4")])
    assert found.exit_code == 0, found.output
    data = json.loads(found.stdout)
    assert [clip["clip_id"] for clip in data["clips"]] == ["x", "below/y"]
    first = data["clips"][0]
    assert set(first) == {
        *("clip_id", "predicted", "probability", "runner_up", "runner_up_probability", "predicted_kcal", "interval"),
    }
    assert (data["target_unit"], data["interval_levels"]) == ("kcal/h", [0.05, 0.95])
    assert "not taken, neither a video nor an image by suffix: 'notes.txt'" in data["notes"]
    assert f"named twice and taken once: {tmp_path / 'new/x.mp4'}" in data["notes"]
    assert not [path for path in run.iterdir() if path.name.startswith((".", "predictions-"))]
    rows = ["whole,new/x.mp4,,,test", "half,new/x.mp4,0.2,0.8,test"]
    table = tmp_path / "parts.csv"
    table.write_text("\n".join(["clip_id,video,start_seconds,end_seconds,split", *rows]) + "\n")
    parts = CliRunner().invoke(main, [*asked, str(table), "--keep", str(tmp_path / "kept")])
    assert parts.exit_code == 0, parts.output
    whole, half = json.loads(parts.stdout)["clips"]
    assert {**whole, "clip_id": "x"} == first
    assert half["probability"] != whole["probability"]
    kept = predict(run, tmp_path / "kept/0/flow-dis.zarr")
    assert kept.clip_ids.tolist() == ["whole", "half"]


def test_all_stores_of_a_run_with_views_are_extracted(synth_set: Path, tmp_path: Path) -> None:
    """One of them has views: two passes, of view 0 alone, as on the stores themselves."""
    common: dict[str, Any] = {
        "manifest": synth_set / "manifest.csv",
        "workers": 2,
        "out": str(tmp_path / "{model}.zarr"),
    }
    featurize(FeaturizeConfig(model=("flow:dis",), sampling=("uniform:2",), **common))
    views: dict[str, Any] = {"weights": "random", "views": "flip", "sampling": ("uniform:1",), "seed": 5}
    featurize(FeaturizeConfig(model=("resnet18",), **common, **views))
    stores = (tmp_path / "flow-dis.zarr", tmp_path / "resnet18.zarr")
    config = TrainConfig.of(store=stores, run=tmp_path / "run", epochs=1, bins=20, report=False)
    train_head(config)
    video = sorted((synth_set / "videos").glob("*.mp4"))[0]
    found = predict_videos(tmp_path / "run", [video], extract=extract_as)
    stored = predict(tmp_path / "run", stores)
    place = stored.clip_ids.tolist().index(video.stem)
    for output, values in found.probabilities.items():
        np.testing.assert_allclose(values[0], stored.probabilities[output][place], atol=1e-6)


def test_a_video_called_as_a_clip_of_the_training_is_not_said_to_have_trained(
    run: Path, synth_set: Path, tmp_path: Path
) -> None:
    """Where folds were averaged, clips of those names are found in the run's predictions."""
    shutil.copytree(run, tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    fold = {**results["training"], "train": 1, "val": 1, "test": 1, "metrics": {}}
    results["folds"] = [{**fold, "fold": number} for number in (0, 1)]
    (tmp_path / "run/results.json").write_text(json.dumps(results))
    for number in (0, 1):
        (tmp_path / f"run/fold-{number}").mkdir()
        shutil.copy(run / "best.safetensors", tmp_path / f"run/fold-{number}")
    video = sorted((synth_set / "videos").glob("*.mp4"))[0]
    rows = (run / "predictions.csv").read_text().splitlines()
    (tmp_path / "run/predictions.csv").write_text(
        "\n".join([rows[0], rows[1].replace(rows[1].split(",")[0], video.stem)])
    )
    found = predict_videos(tmp_path / "run", [video], extract=extract_as)
    assert found.notes == ("Mean of the heads of 2 folds.",)
    assert predict_videos(run, [video], extract=extract_as).notes == ()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["sweep", "v.mp4"], r"sweep is not a finished run; it holds 1 runs, name one of them, such as .*sweep/one"),
        (["run", "s.zarr"], r"s.zarr is a store: give it as --store .*s.zarr"),
        (["run", "empty"], "empty holds no video and no image: it is empty"),
        (["run", "gone.mp4", "away"], "gone.mp4: there is no such file or folder, as of 1 more"),
        (["imported", "v.mp4"], "the features were imported from x.h5: no video gives them"),
        (["older", "v.mp4"], r"preprocess.side: then 7, now None"),
    ],
)
def test_wrong_input_is_a_sentence(asked: list[str], message: str, run: Path, synth_set: Path, tmp_path: Path) -> None:
    shutil.copy(sorted((synth_set / "videos").glob("*.mp4"))[0], tmp_path / "v.mp4")
    (tmp_path / "empty").mkdir()
    shutil.copytree(run.parent / "s.zarr", tmp_path / "s.zarr")
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(run, tmp_path / "sweep/one")
    for name, change in (
        ("imported", {"weights": {"kind": "imported", "source": "x.h5"}}),
        ("older", {"preprocess": {"side": 7}}),
    ):
        shutil.copytree(run, tmp_path / name)
        predictor = Predictor.load(run / "best.safetensors")
        sources = tuple({**source, "spec": {**source["spec"], **change}} for source in predictor.sources)
        replace(predictor, sources=sources).save(tmp_path / name / "best.safetensors")
    found = CliRunner().invoke(main, ["predict", "--run", *(str(tmp_path / name) for name in asked)])
    assert found.exit_code == 2
    assert re.search(message, found.output.replace("\n", " ")), found.output
    assert not list((tmp_path / asked[0]).glob(".*"))


def test_the_seam_loads_no_decoder() -> None:
    code = "import sys, reelbank.heads; reelbank.heads.predict_videos; sys.exit('av' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
