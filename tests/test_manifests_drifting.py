"""The rendered sets of outline x direction: what one frame tells, what the motion tells, their folders."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from reelbank.manifests import Manifest, ManifestError, read
from reelbank.manifests.datasets.hmdb51 import FOLDS, read_hmdb51
from reelbank.manifests.datasets.stanford40 import read_stanford40
from reelbank.manifests.events import Event
from reelbank.manifests.rendered import synth_hmdb51, synth_stanford40
from reelbank.manifests.rendered.drifting import CLASSES, DIRECTIONS, OUTLINES
from reelbank.manifests.rendered.synth_hmdb51 import MIDDLE, NUM_FRAMES, Planned, frames, held_out_subjects, plan
from reelbank.testing import check_dataset

SMALL = {"subjects": 3, "clips_per_class": 3, "seed": 3}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return synth_hmdb51.render(tmp_path_factory.mktemp("drifting"), **SMALL)


@pytest.fixture(scope="module")
def planned() -> list[Planned]:
    return plan(**SMALL)


def _decoded(path: Path, format: str = "rgb24") -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format=format) for frame in container.decode(video=0)]


def _mean_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean of Farneback's field between two grey frames at 224 x 224, (x, y) in px."""
    small = [cv2.resize(frame, (224, 224), interpolation=cv2.INTER_LINEAR) for frame in (first, second)]
    field = cv2.calcOpticalFlowFarneback(small[0], small[1], None, 0.5, 3, 15, 3, 5, 1.2, 0)
    return np.asarray(field.mean(axis=(0, 1)))


def test_flow_tells_the_direction_and_not_the_outline(rendered: Manifest, planned: list[Planned]) -> None:
    flows: dict[tuple[int, str], dict[str, np.ndarray]] = defaultdict(dict)
    for one in planned:
        outline, direction = one.label.split("_")
        seen = _decoded(rendered.root / one.file, "gray")
        flows[one.subject, direction][outline] = _mean_flow(seen[MIDDLE], seen[MIDDLE + 1])
    for (subject, direction), own in flows.items():
        speed_px = next(one.scene.look.speed_px for one in planned if one.subject == subject)
        true = np.array(DIRECTIONS[direction]) * speed_px * np.array([224 / 160, 224 / 120])
        assert set(own) == set(OUTLINES)
        for flow in own.values():
            np.testing.assert_allclose(flow, true, atol=0.25 * np.abs(true).max(), err_msg=f"{subject} {direction}")
        spread = np.ptp(list(own.values()), axis=0).max()
        assert spread < 0.1 * np.abs(true).max(), "the mean flow of one picture must not depend on the outline in it"


def test_one_frame_tells_the_outline_and_not_the_direction(rendered: Manifest, planned: list[Planned]) -> None:
    middles: dict[tuple[int, str], set[bytes]] = defaultdict(set)
    for one in planned:
        seen = _decoded(rendered.root / one.file)
        assert len(seen) == NUM_FRAMES
        middles[one.subject, one.label.split("_")[0]].add(seen[MIDDLE].tobytes())
    with av.open(str(rendered.root / planned[0].file)) as container:
        assert all(frame.key_frame for frame in container.decode(video=0)), "a frame holds traces of the one before"
    assert {len(own) for own in middles.values()} == {1}, "decoded middle frames of four directions are one picture"
    assert len(set.union(*middles.values())) == 3 * len(OUTLINES)


@pytest.mark.parametrize("pair", [("left", "right"), ("up", "down")])
def test_opposite_directions_are_each_other_backwards(pair: tuple[str, str], planned: list[Planned]) -> None:
    clips = {(one.label, one.subject): list(frames(one)) for one in planned}
    for outline in OUTLINES:
        first, second = (clips[f"{outline}_{direction}", 2] for direction in pair)
        np.testing.assert_array_equal(first, second[::-1])
        assert not np.array_equal(first[0], second[0])


def test_places_are_uniform_in_every_frame() -> None:
    ones = plan(subjects=3, clips_per_class=300)[:: len(CLASSES)]
    for axis, size_px in ((0, 160), (1, 120)):
        starts = np.array([spot[axis] for one in ones for spot in one.scene.spots])
        counts, _ = np.histogram(starts, bins=6, range=(0, size_px))
        assert counts.sum() == 1200
        assert (np.abs(counts - 200) < 60).all()


def test_subjects_differ_and_every_one_has_every_class() -> None:
    ones = plan()
    assert Counter(one.label for one in ones) == dict.fromkeys(CLASSES, 20)
    assert Counter((one.subject, one.label) for one in ones) == {
        (subject, label): 2 for subject in range(1, 11) for label in CLASSES
    }
    looks = {one.subject: one.scene.look for one in ones}
    for name in ("ground", "line", "scale_px", "line_px"):
        assert len({getattr(look, name) for look in looks.values()}) == 10, name
    assert {look.speed_px for look in looks.values()} == {2, 3, 4}
    assert ones[: 12 * 10] == plan(clips_per_class=10)


def test_reader_of_the_layout_reads_it(rendered: Manifest) -> None:
    official = check_dataset("hmdb51", rendered.root, groups="films")
    assert official.clips == rendered.clips == read(rendered.root / "manifest.csv").clips
    assert rendered.notes == ()
    assert "group: 3 sources by file names, 0 of them on both sides of train and test" in official.notes
    assert Counter(clip.split for clip in official.clips) == {"train": 24, "test": 12}
    for fold in FOLDS:
        made = read_hmdb51(rendered.root, fold=fold, groups="films")
        assert made.column("split") == rendered.column(f"split_{fold}")
        assert {clip.group for clip in made.clips if clip.split == "test"} == {f"subject_{fold:03d}"}
    assert all(path is not None and path.is_file() for path in map(official.video_path, official.clips))


def test_splits_test_three_tenths_of_the_subjects_and_share_nobody() -> None:
    assert [list(held_out_subjects(10, fold)) for fold in FOLDS] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert [list(held_out_subjects(3, fold)) for fold in FOLDS] == [[1], [2], [3]]


def test_stills_show_the_direction_by_a_trail(tmp_path: Path) -> None:
    events: list[Event] = []
    manifest = synth_stanford40.render(tmp_path / "a", images_per_class=5, progress=events.append)
    assert read_stanford40(tmp_path / "a").clips == manifest.clips
    assert Counter((clip.label, clip.split) for clip in manifest.clips) == {
        (label, part): n for label in CLASSES for part, n in (("train", 2), ("test", 3))
    }
    assert [event.done for event in events] == [1, 2, 3, 4, 5]
    for outline in OUTLINES:
        left, right, up = (
            np.asarray(Image.open(tmp_path / "a" / "JPEGImages" / f"{outline}_{direction}_001.jpg"), dtype=np.float64)
            for direction in ("left", "right", "up")
        )
        assert np.abs(left - right).mean() > 2
        assert np.abs(left - up).mean() > 2
    again = synth_stanford40.render(tmp_path / "b", images_per_class=2)
    images = {name: digest for name, digest in _hashes(again.root).items() if name.endswith(".jpg")}
    assert len(images) == 24
    assert images.items() <= _hashes(manifest.root).items()
    with pytest.raises(ManifestError, match="images_per_class = 1000"):
        synth_stanford40.render(tmp_path / "c", images_per_class=1000)


def _hashes(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_same_seed_gives_same_bytes_and_another_seed_does_not(rendered: Manifest, tmp_path: Path) -> None:
    again = synth_hmdb51.render(tmp_path / "again", **SMALL)
    assert _hashes(again.root) == _hashes(rendered.root)
    other = synth_hmdb51.render(tmp_path / "other", **SMALL | {"seed": 4})
    videos = {digest for name, digest in _hashes(other.root).items() if name.endswith(".avi")}
    assert videos.isdisjoint(_hashes(rendered.root).values())


def test_earlier_set_is_replaced_whole_and_only_where_asked(tmp_path: Path) -> None:
    synth_hmdb51.render(tmp_path, subjects=3, clips_per_class=4)
    with pytest.raises(ManifestError, match=r"manifest\.csv is there already.*--overwrite"):
        synth_hmdb51.render(tmp_path, **SMALL)
    (tmp_path / "manifest.csv").unlink()
    with pytest.raises(ManifestError, match=r"circle_down/subject_001_.*is there already"):
        synth_hmdb51.render(tmp_path, **SMALL)
    synth_hmdb51.render(tmp_path, overwrite=True, **SMALL)
    assert len(list(tmp_path.rglob("*.avi"))) == 36


@pytest.mark.parametrize(
    "foreign", ["circle_left/film_circle_left_f_cm_np1_fr_med_0.avi", "splits/run_test_split1.txt"]
)
def test_what_was_not_rendered_is_never_replaced(foreign: str, tmp_path: Path) -> None:
    file = tmp_path / foreign
    file.parent.mkdir(parents=True)
    file.write_bytes(b"true data")
    with pytest.raises(ManifestError, match="is not of a rendered set"):
        synth_hmdb51.render(tmp_path, overwrite=True, **SMALL)
    assert _hashes(tmp_path) == {foreign: hashlib.sha256(b"true data").hexdigest()}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"subjects": 2}, "subjects = 2"),
        ({"seed": -1}, "seed = -1"),
        ({"subjects": 8, "clips_per_class": 7}, "every subject needs a clip of each class; render 8 clips per class"),
    ],
)
def test_argument_out_of_range_is_refused_before_anything_is_made(
    wrong: dict[str, int], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=said):
        synth_hmdb51.render(tmp_path / "set", **wrong)
    assert list(tmp_path.iterdir()) == []
