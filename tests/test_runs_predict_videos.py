"""The place for what spans both stages: a head applied to videos, whose features a function from outside makes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from reelbank.extract import FeaturizeConfig, featurize
from reelbank.heads import TrainConfig, predict, predict_videos, train_head
from reelbank.store import FeatureSpec, SpecMismatch

MODEL = "frames:112"


def _manifest(folder: Path, videos: Sequence[Path]) -> Path:
    lines = ["clip_id,video,split", *(f"{video.stem},{video},test" for video in videos)]
    (folder / "videos.csv").write_text("\n".join(lines) + "\n")
    return folder / "videos.csv"


def extract(spec: FeatureSpec, videos: Sequence[Path], store: Path) -> None:
    """As the run's own store was made."""
    featurize(
        FeaturizeConfig(
            model=(spec.backbone,), manifest=_manifest(store.parent, videos), root=videos[0].parent, out=str(store),
            tap=tuple(tap.name for tap in spec.taps), sampling=(spec.sampling,), workers=1, seed=spec.seed,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(synth_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    common = {"manifest": synth_set / "manifest.csv", "sampling": ("uniform:2",), "workers": 1}
    featurize(FeaturizeConfig(model=("flow:dis",), out=str(folder / "s.zarr"), **common))  # type: ignore[arg-type]
    config = TrainConfig.of(store=(folder / "s.zarr",), run=folder / "run", epochs=2, bins=20, report=False)
    return train_head(config).directory


def test_videos_get_the_predictions_of_their_rows(run: Path, synth_set: Path) -> None:
    videos = sorted((synth_set / "videos").glob("*.mp4"))[:3]
    direct = predict_videos(run, videos, extract=extract)
    stored = predict(run, run.parent / "s.zarr")
    expected = dict(zip(stored.clip_ids.tolist(), stored.probabilities["label"].tolist(), strict=True))
    assert direct.clip_ids.tolist() == [video.stem for video in videos]
    for clip, probabilities in zip(direct.clip_ids.tolist(), direct.probabilities["label"].tolist(), strict=True):
        assert probabilities == pytest.approx(expected[clip], abs=1e-6)


def test_other_features_are_refused(run: Path, synth_set: Path) -> None:
    def other(spec: FeatureSpec, videos: Sequence[Path], store: Path) -> None:
        options = {"sampling": ("uniform:3",), "workers": 1, "out": str(store)}
        manifest = _manifest(store.parent, videos)
        featurize(FeaturizeConfig(model=(spec.backbone,), manifest=manifest, root=videos[0].parent, **options))  # type: ignore[arg-type]

    videos = sorted((synth_set / "videos").glob("*.mp4"))[:1]
    with pytest.raises(SpecMismatch, match="sampling: the run 'uniform:2', the store 'uniform:3'"):
        predict_videos(run, videos, extract=other)


def test_the_seam_loads_no_decoder() -> None:
    code = "import sys, reelbank.heads; reelbank.heads.predict_videos; sys.exit('av' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
