"""The place for what spans both stages: a head applied to videos, whose features a function from outside makes."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reelbank.cli import main
from reelbank.extract import FeaturizeConfig, extract_as, featurize
from reelbank.heads import TrainConfig, predict, predict_videos, train_head
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
    found = CliRunner().invoke(main, [*asked, "--out", str(out)])
    assert found.exit_code == 0, found.output
    assert [row["clip_id"] for row in csv.DictReader(out.read_text().splitlines())] == [video.stem]
    assert "1 clips are left out: failed: " in found.output


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
        ([], "give either --store or --video: what to predict"),
        (["--store", "s", "--video", "v"], "give either --store or --video: what to predict"),
        (["--store", "s", "--weights", "w"], "--weights goes with --video"),
    ],
)
def test_command_takes_stores_or_videos(options: list[str], message: str, run: Path) -> None:
    found = CliRunner().invoke(main, ["predict", "--run", str(run), *options])
    assert found.exit_code == 2
    assert message in found.output


def test_the_seam_loads_no_decoder() -> None:
    code = "import sys, reelbank.heads; reelbank.heads.predict_videos; sys.exit('av' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
