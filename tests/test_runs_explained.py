"""Where heads look: maps and pictures of the same steps, what may be missing, and what is said then."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from reelbank.cli import main
from reelbank.heads import ExplainConfig, TrainConfig, TrainingError, explain, predict, train_head
from reelbank.heads.models import HEADS, HeadShape, build_head, plan_of
from reelbank.heads.models.listing import nominal_shape
from reelbank.heads.models.plans import ArrayShape
from reelbank.heads.reports.attention_maps import cam_overlay
from reelbank.heads.runs.looking import maps_of, thumbnail_of, way_of
from reelbank.store.errors import SpecMismatch
from reelbank.store.testing import write_store

HEAD = "array_head:ROW"
COUNT, STEPS, SIDE = 12, 3, 8
CLIPS = [{"clip_id": f"clip_{i:02d}", "label": "ab"[i % 2], "split": "train" if i < 8 else "val"} for i in range(COUNT)]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
pytestmark = pytest.mark.usefixtures("pictures_not_rendered")


def frames_of(num_steps: int, count: int = COUNT) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(0, 256, (num_steps, SIDE, SIDE, 3), dtype=np.uint8) for i in range(count)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of frames and of maps of the same clips, and a run on each."""
    folder = tmp_path_factory.mktemp("explained")
    rng = np.random.default_rng(0)
    write_store(
        folder / "frames.zarr", {"rgb": frames_of(STEPS)}, CLIPS, backbone="frames", frames=[[0, 10, 20]] * COUNT
    )
    maps = [rng.normal(size=(STEPS, 3, 4, 4)).astype(np.float32) for _ in range(COUNT)]
    thumbnails = [
        np.full((72, 96, 3), i + 1, np.uint8) if i != 3 else np.zeros((72, 96, 3), np.uint8) for i in range(COUNT)
    ]
    write_store(
        folder / "maps.zarr", {"maps": maps}, CLIPS, backbone="a", frames=[[0, 9, 21]] * COUNT, thumbnails=thumbnails,
        weights={"kind": "file", "sha256": "a" * 64},
    )  # fmt: skip
    for name in ("frames", "maps"):
        asked = {"head": HEAD, "target": "none", "epochs": 1, "report": False}
        train_head(TrainConfig.of(store=(folder / f"{name}.zarr",), run=folder / name, **asked))
    return folder


def explained(made: Path, run: str = "frames", **asked: Any) -> Any:
    return explain(ExplainConfig(run=made / run, **{"clip": "clip_01", "out": made / "out.png", **asked}))


def test_heat_is_of_what_the_head_reads_over_the_same_picture(made: Path) -> None:
    result = explained(made, clip=("clip_05", "clip_01"), maps=made / "maps.npz")
    assert [clip.clip_id for clip in result.clips] == ["clip_05", "clip_01"]
    for place, number in enumerate((5, 1)):
        clip, frames = result.clips[place], frames_of(STEPS)[number]
        (one,) = clip.runs
        # The attention of the test head, by hand.
        expected = ((frames / 255 - MEAN) / STD).mean(axis=3)
        np.testing.assert_allclose(one.maps, expected, rtol=0, atol=1e-5)
        assert np.array_equal(clip.pictures, frames)
        for overlay, values, image in zip(clip.overlays(one), one.maps, frames, strict=True):
            assert np.array_equal(overlay, cam_overlay(values, image))
        assert (clip.frames.tolist(), clip.label) == ([0, 10, 20], "ab"[number % 2])
    with np.load(made / "maps.npz") as stored:
        assert stored["clips"].tolist() == ["clip_05", "clip_01"]
        assert np.array_equal(stored["attention-1-0"], result.clips[1].runs[0].maps)
        assert stored["frame_index-1-0"].tolist() == [0, 10, 20]


def test_predictions_are_those_of_predict(made: Path) -> None:
    found = predict(made / "frames", made / "frames.zarr")
    assert found.predicted is not None and found.probability is not None
    for place, clip in enumerate(explained(made, clip=tuple(one["clip_id"] for one in CLIPS[:4])).clips):
        said = clip.runs[0].prediction
        assert said["predicted"] == found.predicted[place]
        assert said["probability"] == pytest.approx(found.probability[place], abs=1e-6)


def test_run_beside_is_drawn_at_its_nearest_frames(made: Path) -> None:
    """Of another store, whose steps are of frames 0, 9 and 21."""
    result = explained(made, beside=(made / "maps",))
    (clip,) = result.clips
    assert [Path(one.run).name for one in clip.runs] == ["frames", "maps"]
    assert any("maps reads other frames" in note for note in result.notes)
    own = clip.runs[1]
    expected = [cam_overlay(values, image) for values, image in zip(own.maps, clip.pictures, strict=True)]
    assert own.frames.tolist() == [0, 9, 21]
    tied = clip.overlays(replace(own, frames=np.array([0, 9, 11])))[1]
    assert np.array_equal(tied, cam_overlay(own.maps[2], clip.pictures[1])), "of two the later"
    assert np.array_equal(np.stack(clip.overlays(own)), np.stack(expected))


def test_pictures_are_of_a_store_of_frames_and_of_the_nearest_where_one_is_missing(made: Path) -> None:
    result = explained(made, "maps", frames=made / "frames.zarr")
    assert np.array_equal(result.clips[0].pictures, frames_of(STEPS)[1])
    assert any("2 of 3 pictures are of the nearest frame" in note for note in result.notes)


def test_without_frames_the_thumbnail_stands_in_every_column_and_that_is_said(made: Path) -> None:
    result = explained(made, "maps")
    assert any(note.startswith("Every column shows the middle frame") for note in result.notes)
    assert result.clips[0].source == "thumbnail"
    assert np.unique(result.clips[0].pictures).tolist() == [2] and len(result.clips[0].pictures) == STEPS
    with pytest.raises(TrainingError, match=r"clip 'clip_03': .*maps.zarr holds no picture of it; give a store of"):
        explained(made, "maps", clip="clip_03")


def test_thumbnail_is_cut_to_what_the_backbone_saw() -> None:
    """A frame twice as wide as high stands on black; of its short side the backbone saw seven eighths."""
    picture = np.zeros((72, 96, 3), np.uint8)
    picture[12:60] = 200
    picture[12:60, 27:69] = 90  # 48 x 7/8 = 42 in the middle
    picture[12:15], picture[57:60] = 200, 200
    store: Any = SimpleNamespace(
        thumbnail=lambda row: picture,
        spec=SimpleNamespace(preprocess={"short_side_px": 256, "crop_px": 224}),
        clips=SimpleNamespace(arrays={"width_px": np.array([640]), "height_px": np.array([320])}),
    )
    shown = thumbnail_of(store, 0)
    assert shown is not None
    assert shown.shape == (224, 224, 3) and np.unique(shown).tolist() == [90]


def test_of_many_steps_eight_are_shown(made: Path, tmp_path: Path) -> None:
    write_store(tmp_path / "long.zarr", {"rgb": frames_of(20)}, CLIPS, backbone="frames")
    result = explained(made, store=(tmp_path / "long.zarr",))
    (clip,) = result.clips
    assert clip.frames.tolist() == [0, 3, 5, 8, 11, 14, 16, 19]
    assert np.array_equal(clip.pictures, frames_of(20)[1][clip.frames])
    assert np.array_equal(clip.overlays(clip.runs[0])[1], cam_overlay(clip.runs[0].maps[3], clip.pictures[1]))
    assert "clip_01: 8 of 20 steps are shown." in result.notes


# --- what is refused


def test_clip_that_is_not_there_is_answered_with_the_nearest_ids(made: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"--clip 'clip_9': .*frames.zarr has no such clip among the 12 with featur.*'clip_09'"
    ):
        explained(made, clip="clip_9")


def test_head_without_attention_is_refused_with_those_that_have_it(made: Path, tmp_path: Path) -> None:
    vectors = [np.random.default_rng(i).normal(size=(2, 4)).astype(np.float32) for i in range(COUNT)]
    write_store(tmp_path / "v.zarr", {"cls": vectors}, CLIPS)
    run = tmp_path / "linear"
    train_head(TrainConfig.of(store=(tmp_path / "v.zarr",), head="linear", epochs=1, report=False, run=run))
    with pytest.raises(
        TrainingError, match=r"linear: head 'linear' does not say where .* heads that do: ego-rnn, ego-two-stream"
    ):
        explain(ExplainConfig(run=run, clip="clip_01"))


def test_store_of_other_weights_is_refused_with_both_hashes(made: Path, tmp_path: Path) -> None:
    maps = [np.zeros((STEPS, 3, 4, 4), np.float32)] * COUNT
    weights = {"kind": "file", "sha256": "b" * 64}
    write_store(tmp_path / "other.zarr", {"maps": maps}, CLIPS, backbone="a", weights=weights)
    with pytest.raises(SpecMismatch, match=f"{'a' * 64}.*{'b' * 64}"):
        explained(made, "maps", store=(tmp_path / "other.zarr",))


def test_store_that_has_moved_is_asked_for(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "frames", tmp_path / "run")
    described = (tmp_path / "run" / "config.json").read_text()
    (tmp_path / "run" / "config.json").write_text(described.replace("frames.zarr", "gone.zarr"))
    result = CliRunner().invoke(main, ["explain", "--run", str(tmp_path / "run"), "--clip", "clip_01"])
    assert result.exit_code == 2
    assert "gone.zarr" in result.stderr and "say where it is now with --store" in result.stderr
    line = ["explain", "--run", str(tmp_path / "run"), "--clip", "clip_01", "--store", str(made / "frames.zarr")]
    assert CliRunner().invoke(main, line).exit_code == 0


def test_frames_must_be_frames_of_the_clip(made: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--frames .*maps.zarr is a with maps; pictures are in stores of"):
        explained(made, frames=made / "maps.zarr")
    write_store(tmp_path / "few.zarr", {"rgb": frames_of(STEPS, 1)}, CLIPS[:1], backbone="frames")
    with pytest.raises(TrainingError, match=r"few.zarr has no frames of clip 'clip_01'; featurize it there"):
        explained(made, frames=tmp_path / "few.zarr")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"clip": ()}, "give --clip ID"),
        ({"out": "a.jpg"}, "--out a.jpg: a .png file is written; name it a.png"),
        ({"maps": "nowhere/a.npz"}, "--maps nowhere/a.npz: there is no folder nowhere"),
    ],
)
def test_config_is_refused_before_anything_is_read(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        ExplainConfig(**{"run": "r", "clip": "a", **asked})


# --- heads


def test_rows_say_which_heads_have_attention() -> None:
    """What the message above lists, against the heads themselves."""
    for name, row in HEADS.items():
        if row.is_fitted:
            assert not row.has_attention
            continue
        shape = nominal_shape(name, row.options, outputs=2, width=4)
        with torch.device("meta"):
            head = build_head(name, shape)
        assert hasattr(head, "attention") == row.has_attention, name


def test_ego_rnn_looks_at_each_valid_frame() -> None:
    """The real network, from layer3, on a clip of two steps and one of padding."""
    layer3 = ArrayShape(backbone="resnet34", tap="layer3", shape=(256, 14, 14), dtype="float16", num_steps=3)
    shape = HeadShape(taps={}, outputs={"label": 2}, num_steps=0, arrays={"frames": layer3})
    torch.manual_seed(0)
    head = build_head("ego-rnn", shape)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    way = way_of("ego-rnn", head, plan_of("ego-rnn", {}))
    arrays, masks = {"frames": torch.rand(1, 3, 256, 14, 14)}, {"frames": torch.tensor([[True, True, False]])}
    maps = maps_of(way, [head], arrays, masks, "frames")
    assert maps.shape == (2, 7, 7)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, rtol=1e-5)
    assert not np.array_equal(maps[0], maps[1])
    other = build_head("ego-rnn", shape, {"attention": "none"})
    with pytest.raises(TrainingError, match="attention=none: this head looks at all of a frame alike"):
        maps_of(way, [other], arrays, masks, "frames")


def test_maps_that_are_attended_already_are_refused_with_what_to_use() -> None:
    attended = ArrayShape(backbone="resnet34", tap="ego-attended", shape=(512, 7, 7), dtype="float16", num_steps=1)
    head = build_head(
        "ego-rnn", HeadShape(taps={}, outputs={"label": 2}, num_steps=0, arrays={"frames": attended})
    )  # fmt: skip
    way = way_of("ego-rnn", head, plan_of("ego-rnn", {}))
    with pytest.raises(TrainingError, match="attended already; attention is seen from layer3 or frames"):
        maps_of(way, [head], {"frames": torch.rand(1, 1, 512, 7, 7)}, {"frames": torch.ones(1, 1) > 0}, "frames")


# --- the command


def test_command_writes_a_picture_and_says_what_was_predicted(made: Path) -> None:
    line = ["explain", "--run", str(made / "frames"), "--clip", "clip_01", "--beside", str(made / "maps"), "--json"]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["picture"] == str(made / "frames" / "attention-clip_01.png")
    with Image.open(found["picture"]) as picture:
        assert picture.format == "PNG"
    (clip,) = found["clips"]
    assert clip["frame_index"] == [0, 10, 20]
    assert [set(one) for one in clip["runs"]] == [{"run", "predicted", "probability"}] * 2
    said = CliRunner().invoke(main, line[:-1])
    assert f"Picture: {found['picture']}" in said.stdout and "clip_01 (train), true label b" in said.stdout
