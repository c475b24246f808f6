"""Neighbours of a picture or a video: its features are those that the store has of the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from remembered import write_store

import reelbank.store
from reelbank.cli import main
from reelbank.extract import FeaturizeConfig, extract_as, featurize
from reelbank.extract.errors import ExtractionError
from reelbank.heads import FindConfig, find


@pytest.fixture(scope="module")
def motion(synth_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("motion") / "flow.zarr"
    sampling = {"sampling": ("uniform:2",), "workers": 1, "out": str(path)}
    featurize(FeaturizeConfig(model=("flow:dis",), manifest=synth_set / "manifest.csv", **sampling))  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures and their store: a network of random weights tells pictures apart, too."""
    folder = tmp_path_factory.mktemp("stills")
    lines = ["clip_id,video,label,split"]
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, size=(1 + 7 * i, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(folder / f"p{i}.png")
        lines.append(f"p{i},p{i}.png,{'ab'[i % 2]},train")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    common = {"weights": "random", "sampling": ("uniform:1",), "workers": 1, "out": str(folder / "net.zarr")}
    featurize(FeaturizeConfig(model=("resnet18",), manifest=folder / "manifest.csv", **common))  # type: ignore[arg-type]
    return folder / "net.zarr"


@pytest.mark.parametrize("level", ["clip", "step"])
def test_video_of_a_clip_finds_that_clip(motion: Path, synth_set: Path, tmp_path: Path, level: str) -> None:
    video = synth_set / "videos" / "clip_00003.mp4"
    out = str(tmp_path / "found")
    asked = ["find", "--store", str(motion), "--video", str(video), "--level", level, "--out", out, "--count", "2"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    assert f"Nearest to '{video}': 'clip_00003', cosine 1.000" in result.stdout
    page = (tmp_path / "found" / "index.html").read_text()
    assert page.count("data:image/jpeg") == 3
    assert [path.name for path in motion.parent.iterdir()] == ["flow.zarr"]  # what was made for it is gone


def test_picture_finds_the_clip_of_the_same_picture(stills: Path, tmp_path: Path) -> None:
    picture = stills.parent / "p4.png"
    found = find(FindConfig(store=stills, image=picture, out=tmp_path / "found"), extract=extract_as).results
    first = found["neighbours"][0]
    assert (first["clip_id"], round(first["cosine"], 6), found["num_searched"]) == ("p4", 1.0, 6)
    assert found["query"] == {"name": str(picture), "label": "", "group": "", "split": ""}
    assert "RANDOM WEIGHTS" in found["warning"]


FILES: list[tuple[dict[str, Any], str]] = [
    ({"image": "p0.png"}, r"holds features of motion \(flow:dis reads frames that follow each other\)"),
    ({"video": "p0.png"}, r"the clip gives no features:\n  p0: "),
    ({"video": "none.mp4"}, r"--video none\.mp4: there is no such file"),
    ({"video": "m.csv"}, r"--video m\.csv is a table; give one picture or video"),
    ({"video": "a.mp4", "clip": "c"}, r"give one of --clip ID, .*; here are --clip and --video"),
    ({"clip": "c", "weights": (Path("w"),)}, r"--weights belongs to --image and --video"),
    ({"video": "a.mp4", "other_groups": True}, r"--other-groups belongs to --clip"),
]


@pytest.mark.parametrize(("asked", "message"), FILES, ids=[message for _, message in FILES])
def test_file_that_cannot_be_compared_is_said(
    motion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "red").save("p0.png")
    Path("m.csv").write_text("video\np0.png\n")
    paths = {name: Path(value) if name in ("image", "video") else value for name, value in asked.items()}
    with pytest.raises(ValueError, match=message):
        find(FindConfig(store=motion, **paths), extract=extract_as)


@pytest.mark.parametrize(
    ("extract", "message"),
    [
        (extract_as, r"has \d+ frames; give it as --video"),
        (None, r"--image: pass extract=reelbank\.extract\.extract_as"),
    ],
)
def test_video_given_as_a_picture_and_no_one_who_extracts_are_said(
    stills: Path, synth_set: Path, tmp_path: Path, extract: Any, message: str
) -> None:
    video = synth_set / "videos" / "clip_00003.mp4"
    with pytest.raises(ValueError, match=message):
        find(FindConfig(store=stills, image=video, out=tmp_path / "found"), extract=extract)


def test_imported_features_give_no_file_a_vector(tmp_path: Path) -> None:
    clips = [{"clip_id": f"c{i}"} for i in range(3)]
    write_store(
        tmp_path / "a.zarr", {"pool": [np.eye(3, dtype=np.float32)[i : i + 1] for i in range(3)]}, clips,
        backbone="s3d", weights={"kind": "imported", "source": "s3d/"},
    )  # fmt: skip
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    config = FindConfig(store=tmp_path / "a.zarr", image=tmp_path / "p.png", out=tmp_path / "out")
    with pytest.raises(ExtractionError, match="the features were imported from s3d/: no video gives them"):
        find(config, extract=extract_as)
    assert reelbank.store.open(tmp_path / "a.zarr").num_clips == 3
