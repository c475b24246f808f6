"""Views: the same draws for all frames of a clip, in every run; and pixels that an independent pipeline gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pipeline import run, store_of
from zarr import open_array

import reelbank.store
from reelbank.extract import backbones
from reelbank.extract.config import FeaturizeConfig
from reelbank.extract.inputs import views
from reelbank.extract.inputs.preprocess import Preprocess, make
from reelbank.extract.run.repeating import retry_config
from reelbank.extract.run.sizing import frames_advice
from reelbank.extract.video.decode import Video
from reelbank.extract.weights import torchvision_shim
from reelbank.manifests.rendered import synth
from reelbank.store.description import describe

SAMPLING = "uniform:3"
FRAMES = Preprocess(short_side_px=256, interpolation="bilinear", crop_px=224)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    synth.render(folder, clips=6)
    return folder


def featurized(clips: Path, out: Path, **options: Any) -> reelbank.store.Store:
    settings: dict[str, Any] = {"model": ("frames",), "sampling": (SAMPLING,), "out": str(out / "{model}.zarr")}
    run(clips, **settings | options)
    return reelbank.store.open(store_of(out, "frames"))


def full_frames(clips: Path, store: reelbank.store.Store, row: int) -> list[np.ndarray]:
    with Video(clips / str(store.column("video")[row])) as video:
        wanted = store.frame_index(row)
        return [frame.rgb.copy() for _, frame in video.frames(np.unique(wanted))]


def first_of(store: reelbank.store.Store, split: str) -> int:
    return int(np.flatnonzero(store.column("split") == split)[0])


@pytest.fixture(scope="module")
def augmented(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> reelbank.store.Store:
    return featurized(clips, tmp_path_factory.mktemp("augment"), views="augment")


def test_only_clips_of_the_split_get_views(clips: Path, augmented: reelbank.store.Store, tmp_path: Path) -> None:
    train = augmented.column("split") == "train"
    assert train.any() and not train.all()
    assert augmented.spec.views == ("original", "flip", "rotation", "jitter")
    assert augmented.clips.num_views.tolist() == np.where(train, 4, 1).tolist()
    plain = featurized(clips, tmp_path, view_split="test")  # without views it changes nothing
    assert plain.spec.views == ("original",)
    assert plain.clips.num_views.tolist() == [1] * 6
    for row in plain.done_rows().tolist():
        np.testing.assert_array_equal(augmented.read("rgb", row)[0], plain.read("rgb", row)[0])
    assert not reelbank.store.verify(augmented.path).problems


def test_views_are_the_same_however_the_work_is_cut(
    clips: Path, augmented: reelbank.store.Store, tmp_path: Path
) -> None:
    other = featurized(clips, tmp_path, views="augment", workers=1, batch=5, forward="parent")
    np.testing.assert_array_equal(augmented.checksums("rgb"), other.checksums("rgb"))


def test_another_seed_draws_other_views(clips: Path, augmented: reelbank.store.Store, tmp_path: Path) -> None:
    other = featurized(clips, tmp_path, views="augment", seed=1)
    row = first_of(augmented, "train")
    ours, theirs = augmented.read("rgb", row), other.read("rgb", row)
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert (ours[2] != theirs[2]).any() and (ours[3] != theirs[3]).any()


def test_flips_are_of_whole_clips_and_happen_to_half_of_them(clips: Path, augmented: reelbank.store.Store) -> None:
    exact = make(FRAMES, "exact")
    for row in np.flatnonzero(augmented.column("split") == "train").tolist():
        clip_id = str(augmented.column("clip_id")[row])
        expected = augmented.read("rgb", row)[0]
        if views.flips("flip", clip_id, 0):
            from reelbank.extract.video.frame import frame_of_rgb

            expected = np.stack([exact(frame_of_rgb(rgb[:, ::-1])) for rgb in full_frames(clips, augmented, row)])
        np.testing.assert_array_equal(augmented.read("rgb", row)[1], expected)
    draws = [views.flips("flip", f"clip {i}", 0) for i in range(400)]
    assert 160 < sum(draws) < 240
    assert all(views.flips("flip-always", f"clip {i}", 0) for i in range(20))


def test_rotation_turns_as_pillow_does(clips: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = np.asarray(Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((320, 240)))
    for angle in (-27.0, 3.0, 30.0):
        ours = views.rotated(pixels, angle).astype(int)
        theirs = np.asarray(Image.fromarray(pixels).rotate(angle, Image.Resampling.BILINEAR)).astype(int)
        inside = np.s_[60:180, 90:230]
        assert np.abs(ours[inside] - theirs[inside]).mean() < 1.0
        assert not ours[0, 0].any(), "a corner is outside the turned frame"
        assert np.abs(ours[inside] - views.rotated(pixels, -angle).astype(int)[inside]).mean() > 5


def test_jitter_is_one_draw_per_clip(clips: Path, augmented: reelbank.store.Store) -> None:
    row = first_of(augmented, "train")
    clip_id = str(augmented.column("clip_id")[row])
    apply = views.changed("jitter", FRAMES, clip_id, 0)
    frames = [frame for _, frame in _frames(clips, augmented, row)]
    np.testing.assert_array_equal(np.stack([apply(frame) for frame in frames]), augmented.read("rgb", row)[3])
    np.testing.assert_array_equal(apply(frames[0]), apply(frames[0]))
    other = views.changed("jitter", FRAMES, clip_id + "x", 0)
    assert (apply(frames[0]) != other(frames[0])).any()


def test_draws_fill_the_published_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """SYSTEMS.md 1.12: rotation (-30, 30) degrees; brightness, contrast, saturation, hue 0.2, 0.2, 0.2, 0.1."""
    drawn: dict[str, list[tuple[float, ...]]] = {"jitter": [], "rotation": []}
    monkeypatch.setattr(views, "rotated", lambda pixels, *values: drawn["rotation"].append(values))
    monkeypatch.setattr(views, "_jittered", lambda pixels, *values: drawn["jitter"].append(values))
    for name in drawn:
        for i in range(600):
            views._augmentation(name, f"clip {i}", 0)(np.zeros((2, 2, 3), np.uint8))
    for values, centre, most in zip(
        (*zip(*drawn["rotation"], strict=True), *zip(*drawn["jitter"], strict=True)),
        (0, 1, 1, 1, 0),
        (30, 0.2, 0.2, 0.2, 0.1),
        strict=True,
    ):
        offsets = (np.asarray(values) - centre) / most
        assert -1 <= offsets.min() < -0.97 and 0.97 < offsets.max() <= 1
        assert abs(offsets.mean()) < 5 * 0.577 / 600**0.5  # five standard deviations of a uniform mean


def test_jitter_with_other_ranges_is_a_view_of_its_own() -> None:
    """Register of readings, 14: the document gives no ranges."""
    assert views.parse("jitter,jitter-0.4-0.4-0.4-0.2") == ("original", "jitter", "jitter-0.4-0.4-0.4-0.2")
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    changed = {name: views._augmentation(name, "clip", 0)(pixels) for name in ("jitter", "jitter-0.2-0.2-0.2-0.1")}
    np.testing.assert_array_equal(changed["jitter"], changed["jitter-0.2-0.2-0.2-0.1"])
    np.testing.assert_array_equal(views._augmentation("jitter-0-0-0-0", "clip", 0)(pixels), pixels)
    assert (views._augmentation("jitter-0.9-0.9-0.9-0.5", "clip", 0)(pixels) != changed["jitter"]).any()
    for text in ("jitter-0.4", "jitter-2-0-0-0", "jitter-0-0-0-0.6", "jitter-a-b-c-d", "jitter-"):
        with pytest.raises(ValueError, match="is no view; choose"):
            views.parse(text)


def _frames(clips: Path, store: reelbank.store.Store, row: int) -> list[tuple[int, Any]]:
    with Video(clips / str(store.column("video")[row])) as video:
        return list(video.frames(np.unique(store.frame_index(row))))


def test_corner_crops_equal_those_of_torchvision(clips: Path, tmp_path: Path) -> None:
    torchvision_shim.ensure()
    from torchvision.transforms.v2 import functional

    store = featurized(clips, tmp_path, views="corners")
    assert len(store.spec.views) == 41
    row = first_of(store, "train")
    got = store.read("rgb", row)  # (41, 3, 224, 224, 3)
    rgb = full_frames(clips, store, row)[0]
    planes = torch.from_numpy(rgb).permute(2, 0, 1)
    small = functional.resize(planes, [256], antialias=True)
    for name, ours in zip(store.spec.views[1:], got[1:, 0], strict=True):
        _, scale, position = name.removesuffix("-flip").split("-", 2)
        image = functional.horizontal_flip(small) if name.endswith("-flip") else small
        side = int(256 * float(scale))
        height, width = image.shape[1:]
        corner = {
            "top-left": (0, 0),
            "top-right": (0, width - side),
            "bottom-left": (height - side, 0),
            "bottom-right": (height - side, width - side),
            "centre": ((height - side) // 2, (width - side) // 2),
        }[position]
        expected = functional.resized_crop(image, *corner, side, side, [224, 224], antialias=True)
        np.testing.assert_array_equal(ours, expected.permute(1, 2, 0).numpy(), err_msg=name)
    assert len({view.tobytes() for view in got[1:, 0]}) == 36, "top and bottom coincide at scale 1 in landscape frames"


def test_any_corners_are_another_subset_for_each_clip(clips: Path, tmp_path: Path) -> None:
    names = views.parse("corners:8")
    assert len(names) == 9
    chosen = [tuple(views.corner_of(name, f"clip {i}", 0) for name in names[1:]) for i in range(30)]
    assert all(len(set(one)) == 8 and set(one) <= set(views.CORNERS) for one in chosen)
    assert len(set(chosen)) == 30
    store = featurized(clips, tmp_path, views="corners:2")
    row = first_of(store, "train")
    clip_id = str(store.column("clip_id")[row])
    expected = views.changed(views.corner_of(names[1], clip_id, 0), FRAMES, "", 0)
    np.testing.assert_array_equal(store.read("rgb", row)[1, 0], expected(_frames(clips, store, row)[0][1]))


def test_looping_clips_get_every_view_in_step_order(clips: Path, tmp_path: Path) -> None:
    """`consecutive` longer than the clip loops: features are held and put into step order, view by view."""
    store = featurized(clips, tmp_path, views="flip-always", sampling=("consecutive:100:zero",))
    row = first_of(store, "train")
    got, index = store.read("rgb", row), store.frame_index(row)
    assert len(index) == 100 and len(np.unique(index)) < 100
    same = index == index[0]
    for view in got:
        np.testing.assert_array_equal(view[same], np.repeat(view[:1], same.sum(), axis=0))
    assert (got[0] != got[1]).any()


def test_frame_box_is_stored(clips: Path, tmp_path: Path) -> None:
    store = featurized(clips, tmp_path)
    box = np.asarray(open_array(store.path / "clips" / "frame_box", mode="r")[0])
    assert box.tolist() == [0, 0, 224, 224]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"views": "mirror"}, ("'mirror' is no view", "augment", "rotation")),
        ({"views": "corners:41"}, ("from 1 to 40",)),
        ({"views": "flip,flip"}, ("twice",)),
        ({"views": "flip", "view_split": "trian"}, ("trian", "train")),
        ({"views": "corners", "model": ("flow",)}, ("squashes", "crops")),
    ],
)
def test_bad_views_are_refused(clips: Path, tmp_path: Path, options: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as refused:
        featurized(clips, tmp_path, **options)
    assert all(word in str(refused.value) for word in words), refused.value
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["original", "augment", "corners", "corners:8", "flip,corner-1-centre"])
def test_views_of_a_store_can_be_asked_for_again(text: str) -> None:
    assert views.parse(views.text_of(views.parse(text))) == views.parse(text)


def test_retry_of_a_store_with_views_asks_for_its_views(clips: Path, tmp_path: Path) -> None:
    table = (clips / "manifest.csv").read_text()
    (tmp_path / "manifest.csv").write_text(table)  # the videos are not there: every clip fails
    run(tmp_path, model=("frames",), sampling=(SAMPLING,), views="corners:2", view_split="all")
    again = retry_config(store_of(tmp_path, "frames"))
    assert again is not None and (again.views, again.view_split) == ("corners:2", "all")
    text = describe(store_of(tmp_path, "frames")).text()
    assert "views     3 for every clip: original, corner-any-1, corner-any-2" in text


def test_taps_of_several_models_go_to_those_that_have_them() -> None:
    has = {"flow": ("flow", "hof"), "resnet34": ("layer3", "pool"), "resnet18": ("layer3",)}
    config = FeaturizeConfig(model=tuple(has), tap=("layer3", "resnet34=pool"))
    assert [config.taps_of(model, has) for model in has] == [(), ("layer3", "pool"), ("layer3",)]
    with pytest.raises(ValueError, match="--tap layer9: no model has it; flow has flow, hof; resnet34 has"):
        FeaturizeConfig(model=tuple(has), tap=("layer9",)).taps_of("flow", has)
    with pytest.raises(ValueError, match="'clip=embed' is for model 'clip', asked are flow"):
        FeaturizeConfig(model=tuple(has), tap=("clip=embed",))


def test_frames_are_recommended_for_layers_only() -> None:
    layer = backbones.describe("resnet34").taps["stem"]
    assert "in all views" not in str(frames_advice((layer,), 1)) and "in all views" in str(frames_advice((layer,), 4))
    for model, tap in (("flow", "flow"), ("pose", "heatmaps")):
        assert frames_advice((backbones.describe(model).taps[tap],), 1) is None
