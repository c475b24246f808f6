"""The rendered first-person set: what tells its classes apart and what does not, its camera, its folders."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from reelbank.manifests import Manifest, ManifestError, read
from reelbank.manifests.datasets.gtea61 import MIN_FRAMES, read_gtea61
from reelbank.manifests.events import Event
from reelbank.manifests.rendered.brush import Canvas, Place
from reelbank.manifests.rendered.handiwork import ACTIONS, BACKWARDS, USED, draw, table_of
from reelbank.manifests.rendered.head_camera import MIN_SHIFT, Camera, table_shifts
from reelbank.manifests.rendered.kitchen import TABLES, TEXELS, THINGS
from reelbank.manifests.rendered.synth_gtea61 import HEIGHT_PX, USERS, Planned, frames, plan, render

SMALL = {"width_px": 48, "height_px": 36}
PAIRS = sorted((forwards, backwards) for backwards, forwards in BACKWARDS.items())
NUM_SEEN = 8


@pytest.fixture(scope="module")
def planned() -> list[Planned]:
    return plan()


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return render(tmp_path_factory.mktemp("first_person"), clips=9, seed=3, **SMALL)


def _action(one: Planned) -> str:
    return one.clip_id.split("/")[1]


def _seen(one: Planned) -> tuple[np.ndarray, np.ndarray]:
    """A few frames from the first to the last, and where each shows anything but the table: (T, H, W, 3), (T, H, W)."""
    texture, take = table_of(one.take.user), one.take
    shown, things = [], []
    for index in np.linspace(0, take.num_frames - 1, NUM_SEEN).round().astype(int).tolist():
        shown.append(draw(take, index, texture, **SMALL))
        bare = Canvas(texture, TEXELS, take.cameras[index], **SMALL).picture * np.array(take.user.light)
        things.append(np.abs(shown[-1] - np.clip(bare, 0, 255)).max(axis=2) > 12)
    return np.stack(shown).astype(np.float64), np.stack(things).astype(np.float64)


def _blocks(pictures: np.ndarray) -> np.ndarray:
    """Means over blocks of 6 x 6 px of pictures (H, W, ...), as one vector."""
    high, wide = pictures.shape[0] // 6, pictures.shape[1] // 6
    return pictures.reshape(high, 6, wide, 6, -1).mean(axis=(1, 3)).ravel()


def _accuracy(features: list[np.ndarray], labels: list[str], users: list[str]) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    return float(cross_val_score(model, np.stack(features), labels, groups=users, cv=LeaveOneGroupOut()).mean())


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_mean_frame_does_not_tell_a_pair_apart_and_the_order_does(
    pair: tuple[str, str], planned: list[Planned]
) -> None:
    ones = [one for one in planned if _action(one) in pair]
    labels, users = [_action(one) for one in ones], [one.clip_id.split("/")[0] for one in ones]
    seen = [_seen(one) for one in ones]
    mean = [_blocks(shown.mean(axis=0)) for shown, _ in seen]
    # Where something is in the first half and not in the second, and the other way.
    half = NUM_SEEN // 2
    order = [_blocks(things[:half].mean(axis=0) - things[half:].mean(axis=0)) for _, things in seen]
    assert Counter(labels) == dict.fromkeys(pair, 20)
    assert _accuracy(mean, labels, users) <= 0.6
    assert _accuracy(order, labels, users) >= 0.8


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_second_of_a_pair_is_the_first_played_backwards(pair: tuple[str, str], planned: list[Planned]) -> None:
    clips = {one.clip_id: one for one in planned}
    for user in USERS:
        first, second = (list(frames(clips[f"{user}/{action}/2"], **SMALL)) for action in pair)
        np.testing.assert_array_equal(first, second[::-1])
        assert not np.array_equal(first, second)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_table_moves_by_two_pixels_or_more_between_all_frames(seed: int) -> None:
    assert pytest.approx(2.0) == MIN_SHIFT * HEIGHT_PX
    for one in plan(seed=seed):
        shifts_px = np.array(table_shifts(one.take.cameras)) * HEIGHT_PX
        assert len(shifts_px) == one.take.num_frames - 1
        assert shifts_px.min() >= 2.0 - 1e-9, one.clip_id
        assert shifts_px.max() < 12.0, one.clip_id


@pytest.mark.parametrize("which", range(4))
def test_camera_path_is_the_one_that_is_seen(which: int, planned: list[Planned]) -> None:
    take = planned[which].take
    grey = np.full((288, 288, 3), 100.0, dtype=np.float32)
    for camera in take.cameras[::6]:
        canvas = Canvas(grey, TEXELS, camera, width_px=192, height_px=144)
        canvas.disc(Place(x=0.1, y=-0.05), (0.0, 0.0), (0.06, 0.06), (200.0, 200.0, 200.0))
        weight = canvas.picture[..., 0] - 100.0
        rows, columns = np.mgrid[:144, :192]
        found = np.array([(weight * (columns + 0.5)).sum(), (weight * (rows + 0.5)).sum()]) / weight.sum()
        x, y = camera.to_picture(0.1, -0.05)
        np.testing.assert_allclose(found, [x * 144 + 96, y * 144 + 72], atol=0.05)
        np.testing.assert_allclose(camera.to_table(x, y), (0.1, -0.05), atol=1e-12)


def test_table_shift_is_that_of_a_known_step() -> None:
    still = Camera(x=0.1, y=0.0, radians=0.2, zoom=1.0)
    assert table_shifts([still, still]) == pytest.approx([0.0], abs=1e-12)
    assert table_shifts([still, replace(still, x=0.13, y=0.04)]) == pytest.approx([0.05])
    assert table_shifts([still, replace(still, zoom=2.0)])[0] > 0.3


def test_default_is_five_clips_of_every_class_and_user(planned: list[Planned]) -> None:
    names = [one.clip_id.split("/") for one in planned]
    assert len({one.clip_id for one in planned}) == len(planned) == 160
    assert Counter((user, action) for user, action, _ in names) == dict.fromkeys(
        ((user, action) for user in USERS for action in ACTIONS), 5
    )
    assert plan(clips=32) == planned[:32]
    assert {_action(one) for one in planned[:32]} == set(ACTIONS)
    lengths = [one.take.num_frames for one in planned]
    assert MIN_FRAMES <= min(lengths) <= 12 < 24 <= np.median(lengths) <= max(lengths) == 40


def test_users_differ_and_colours_tell_no_class(planned: list[Planned]) -> None:
    users = {one.clip_id[:2]: one.take.user for one in planned}
    for look in ("skin", "sleeve", "table", "light", "elbow", "hand_size", "rounds"):
        assert len({getattr(user, look) for user in users.values()}) == 4, look
    for action in ACTIONS:
        colors = np.array([one.take.thing.color for one in planned if _action(one) == action])
        assert (colors.std(axis=0) > 25).all(), action
    assert {one.take.thing.kind for one in planned} == set(USED.values()) <= set(THINGS)
    assert {user.table for user in users.values()} == set(TABLES)


def _hashes(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_same_seed_gives_same_bytes_and_another_seed_does_not(rendered: Manifest, tmp_path: Path) -> None:
    events: list[Event] = []
    again = render(tmp_path / "again", clips=3, seed=3, progress=events.append, **SMALL)
    other = render(tmp_path / "other", clips=3, seed=4, **SMALL)
    pictures = {name: digest for name, digest in _hashes(again.root).items() if name.endswith(".png")}
    assert len(pictures) == sum(one.take.num_frames for one in plan(clips=3, seed=3))
    assert pictures.items() <= _hashes(rendered.root).items()
    assert not pictures.items() & _hashes(other.root).items()
    assert [(event.done, event.total) for event in events] == [(1, 3), (2, 3), (3, 3)]


def test_pictures_are_the_planned_frames(rendered: Manifest) -> None:
    for one in plan(clips=9, seed=3)[::4]:
        folder = rendered.root / "processed_frames2" / one.clip_id / "rgb"
        stored = [
            np.asarray(Image.open(folder / f"rgb{number + 1:04d}.png")) for number in range(len([*folder.iterdir()]))
        ]
        np.testing.assert_array_equal(stored, list(frames(one, **SMALL)))


def test_reader_of_the_layout_reads_it(rendered: Manifest) -> None:
    official = read_gtea61(rendered.root)
    assert official.clips == rendered.clips
    assert read(rendered.root / "manifest.csv").clips == rendered.clips
    assert sorted(clip.clip_id for clip in rendered.clips) == sorted(one.clip_id for one in plan(clips=9, seed=3))
    for clip in rendered.clips:
        assert (clip.group, clip.label) == tuple(clip.clip_id.split("/")[:2])
        assert clip.split == ("test" if clip.group == "S2" else "train")
    assert Counter(clip.split for clip in rendered.clips) == {"train": 7, "test": 2}
    assert any("no motion maps" in note for note in official.notes)
    assert any("flow_x and flow_y are empty" in note for note in official.notes)
    assert rendered.notes == ()


def test_earlier_set_is_replaced_whole_and_only_where_asked(tmp_path: Path) -> None:
    render(tmp_path, clips=4, seed=3, **SMALL)
    before = _hashes(tmp_path)
    with pytest.raises(ManifestError, match="is there already"):
        render(tmp_path, clips=2, seed=5, **SMALL)
    (tmp_path / "manifest.csv").unlink()
    with pytest.raises(ManifestError, match="processed_frames2 is there already"):
        render(tmp_path, clips=2, seed=5, **SMALL)
    assert _hashes(tmp_path).items() <= before.items()
    render(tmp_path, clips=2, seed=5, overwrite=True, **SMALL)
    fresh = render(tmp_path.with_name("fresh"), clips=2, seed=5, **SMALL)
    assert _hashes(tmp_path / "processed_frames2") == _hashes(fresh.root / "processed_frames2")
    assert len(list((tmp_path / "processed_frames2").iterdir())) == 2  # no empty folders of S3 and S4


@pytest.mark.parametrize(
    "foreign",
    [
        "processed_frames2/S1/open_chocolate/1/rgb/rgb0001.png",
        "processed_frames2/S1/open_jar/1/mmaps/map0001.png",
        "flow_x_processed/S1/open_jar/1/flow_x_00001.png",
    ],
)
def test_what_was_not_rendered_is_never_replaced(foreign: str, tmp_path: Path) -> None:
    file = tmp_path / foreign
    file.parent.mkdir(parents=True)
    file.write_bytes(b"true data")
    with pytest.raises(ManifestError, match="is not of a rendered set"):
        render(tmp_path, clips=1, overwrite=True, **SMALL)
    assert _hashes(tmp_path) == {foreign: hashlib.sha256(b"true data").hexdigest()}


@pytest.mark.parametrize(
    ("wrong", "said"), [({"clips": 0}, "clips = 0"), ({"seed": -1}, "seed = -1"), ({"width_px": 31}, "width_px = 31")]
)
def test_argument_out_of_range_is_refused_before_anything_is_made(
    wrong: dict[str, int], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=said):
        render(tmp_path / "set", **wrong)
    assert list(tmp_path.iterdir()) == []
