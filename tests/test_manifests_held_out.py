"""Classes that are kept and renamed, sources by file names, parts held out of training: hmdb51 and stanford40."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from reelbank import cli
from reelbank.manifests import Manifest, ManifestError, read
from reelbank.manifests.datasets import hmdb51, stanford40
from reelbank.manifests.datasets.class_lists import chosen_classes
from reelbank.manifests.datasets.holding_out import held_out_count, hold_out_clips, hold_out_groups
from reelbank.testing import check_dataset

TWELVE = (
    "clap",
    "climb",
    "drink",
    "jump",
    "pour",
    "ride_bike",
    "ride_horse",
    "run",
    "shoot_bow",
    "smoke",
    "throw",
    "wave",
)
PARTS = ("train", "test", "unused")


def _file(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# shares


def test_share_is_taken_of_the_decimal_that_was_written() -> None:
    assert held_out_count(0.1, 7091) == 710
    assert (held_out_count(0.07, 100), math.ceil(0.07 * 100)) == (7, 8)
    assert [held_out_count(0.1, total) for total in (840, 841, 1)] == [84, 85, 1]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("share", [0.1, 0.25, 1 / 3])
def test_clips_are_held_out_by_class_and_in_all_exactly(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = [label for label, count in zip("abcdef", rng.integers(3, 60, size=6), strict=True) for _ in range(count)]
    ids = [f"{label}{number}" for number, label in enumerate(labels)]
    held = hold_out_clips(labels, ids, share, seed=seed)
    assert sum(held) == held_out_count(share, len(labels))
    totals, taken = Counter(labels), Counter(label for label, is_held in zip(labels, held, strict=True) if is_held)
    assert all(abs(taken[label] - share * count) < 1 for label, count in totals.items())
    order = rng.permutation(len(labels))
    again = hold_out_clips([labels[i] for i in order], [ids[i] for i in order], share, seed=seed)
    assert [held[i] for i in order] == again, "the order of the rows must mean nothing"
    assert held != hold_out_clips(labels, ids, share, seed=seed + 1)


def test_every_class_keeps_a_training_clip_or_it_is_said() -> None:
    labels = ["a", "b", "c", *"dddddd"]
    held = hold_out_clips(labels, [str(i) for i in range(9)], 0.5, seed=0)
    assert held == [False, False, False, *held[3:]]
    assert sum(held) == 5
    with pytest.raises(ManifestError, match=r"0\.9 of 9 clips of 4 classes: every class has to keep .* 5 can be held"):
        hold_out_clips(labels, [str(i) for i in range(9)], 0.9, seed=0)
    with pytest.raises(ManifestError, match="no clip is in split 'train'"):
        hold_out_clips([], [], 0.5, seed=0)


def _grouped(sizes: dict[str, list[int]]) -> tuple[list[str], list[str]]:
    """Clips of groups that have one class each."""
    rows = [(label, f"{label}{i}") for label, own in sizes.items() for i, size in enumerate(own) for _ in range(size)]
    return [label for label, _ in rows], [group for _, group in rows]


@pytest.mark.parametrize("seed", range(4))
def test_whole_groups_come_as_near_as_they_can(seed: int) -> None:
    # 7 of each class are wanted: 5 + 2; 10 rather than none; 4 + 3.
    sizes = {"a": [6, 5, 2, 57], "b": [10, 25, 35], "c": [4, 4, 3, 59]}
    labels, groups = _grouped(sizes)
    held = hold_out_groups(labels, groups, 0.1, seed=seed)
    assert Counter(label for label, is_held in zip(labels, held, strict=True) if is_held) == {"a": 7, "b": 10, "c": 7}
    sides: dict[str, set[bool]] = defaultdict(set)
    for group, is_held in zip(groups, held, strict=True):
        sides[group].add(is_held)
    assert all(len(side) == 1 for side in sides.values())


def test_group_of_several_classes_is_whole_and_no_class_loses_its_last() -> None:
    labels, groups = [*"ab" * 5, "a", "c", "b", "a"], [*("film",) * 10, "x", "x", "y", ""]
    held = hold_out_groups(labels, groups, 0.4, seed=0)
    assert held == [True] * 10 + [False] * 4, "x has the only clip of c, y the last of b, and one clip has no group"
    with pytest.raises(ManifestError, match="none of 1 groups can be held out with every class keeping"):
        hold_out_groups(["a", "a"], ["g", "g"], 0.5, seed=0)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_share_outside_0_to_1_is_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"--val-share .* must be above 0 and below 1"):
        hmdb51.read_hmdb51(tmp_path, val_share=share)
    with pytest.raises(ManifestError, match=r"--test-share .* must be above 0 and below 1"):
        stanford40.read_stanford40(tmp_path, merge_splits=True, test_share=share)


# classes


def test_classes_are_kept_and_renamed(tmp_path: Path) -> None:
    classes = _file(tmp_path / "c.txt", "# two", "", "run", " clap ")
    rename = _file(tmp_path / "r.csv", "# shared names", "clap,applauding", '"run", "run, fast"')
    assert chosen_classes({"run", "clap", "wave"}, dataset="X") == {"clap": "clap", "run": "run", "wave": "wave"}
    called = chosen_classes({"run", "clap", "wave"}, classes=classes, dataset="X")
    assert called == {"clap": "clap", "run": "run"}
    called = chosen_classes({"run", "clap", "wave"}, classes=classes, rename=rename, dataset="X")
    assert called == {"clap": "applauding", "run": "run, fast"}
    swap = _file(tmp_path / "swap.csv", "run,clap", "clap,run")
    assert chosen_classes({"run", "clap"}, rename=swap, dataset="X") == {"clap": "run", "run": "clap"}


BAD_CLASSES: dict[str, tuple[list[str] | None, list[str] | None, str]] = {
    "unknown": (["runn"], None, r"c\.txt, line 1: X has no class 'runn' \(near: run\); there are clap, run, wave$"),
    "case": (["", "RUN"], None, r"line 2: X has no class 'RUN' \(near: run\)"),
    "far": (["zzz"], None, r"X has no class 'zzz'; there are clap, run, wave$"),
    "twice": (["run", "run"], None, r"c\.txt, line 2: class 'run' is given twice"),
    "empty": (["# nothing", ""], None, r"c\.txt holds no class; expected a class per line"),
    "rename unknown": (None, ["running,run"], r"r\.csv, line 1: X has no class 'running' \(near: run\)"),
    "rename left out": (
        ["run"],
        ["clap,x"],
        r"r\.csv, line 1: --classes leaves 'clap' out; only classes that are kept",
    ),
    "rename twice": (None, ["run,a", "run,b"], r"r\.csv, line 2: 'run' is renamed on line 1 already"),
    "two to one": (None, ["run,a", "clap,a"], r"r\.csv: 'clap' and 'run' would both be called 'a'"),
    "onto a kept one": (None, ["run,wave"], r"r\.csv: 'run' and 'wave' would both be called 'wave'"),
    "no comma": (None, ["run"], r"r\.csv, line 1: 'run', expected `old,new`"),
    "no name": (None, ["run,"], r"r\.csv, line 1: 'run,', expected `old,new`"),
    "empty rename": (None, [], r"r\.csv holds no class; expected lines `old,new`"),
}


@pytest.mark.parametrize("case", BAD_CLASSES)
def test_class_files_that_do_not_map_are_refused(case: str, tmp_path: Path) -> None:
    classes, rename, message = BAD_CLASSES[case]
    files: dict[str, Path] = {}
    if classes is not None:
        files["classes"] = _file(tmp_path / "c.txt", *classes)
    if rename is not None:
        files["rename"] = _file(tmp_path / "r.csv", *rename)
    with pytest.raises(ManifestError, match=message):
        chosen_classes({"run", "clap", "wave"}, dataset="X", **files)


def test_class_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"the class file .*none\.txt cannot be read"):
        chosen_classes({"run"}, classes=tmp_path / "none.txt", dataset="X")


# hmdb51


@pytest.mark.parametrize(
    ("file", "label", "source"),
    [
        ("American_History_X_walk_f_cm_np1_fr_med_12.avi", "walk", "American_History_X"),
        ("run_and_run_run_u_nm_np2_le_goo_0.avi", "run", "run_and_run"),
        ("pushing_blocks_push_f_cm_np1_ba_bad_3.avi", "push", "pushing_blocks"),
        ("Bike_RideBike_l_nm_np1_ri_med_1.avi", "ride_bike", "Bike"),
        ("a&(b)[c]!;#+_climb_stairs_h_cm_np11_fr_goo_0.avi", "climb_stairs", "a&(b)[c]!;#+"),
        ("film_walk_f_cm_np1_fr_med_0.avi", "run", ""),
        ("film_run_f_cm_np1_0.avi", "run", ""),
        ("_run_f_cm_np1_fr_med_0.avi", "run", ""),
    ],
)
def test_source_stands_before_class_and_marks(file: str, label: str, source: str) -> None:
    assert hmdb51.source_of(file, label) == source


def _hmdb(root: Path, videos: dict[str, Iterable[str]], *, folds: Iterable[int] = (1,)) -> Path:
    """Empty videos; the parts of fold k are those given, moved on by k - 1."""
    (root / "lists").mkdir(parents=True)
    for label, names in videos.items():
        (root / label).mkdir()
        for name in names:
            (root / label / name).touch()
        for fold in folds:
            lines = [f"{name} {(number + fold) % 3} " for number, name in enumerate(names)]
            _file(root / "lists" / f"{label}_test_split{fold}.txt", *lines)
    return root


def _names(label: str, sources: Iterable[str], each: int) -> list[str]:
    return [f"{source}_{label}_f_cm_np1_fr_med_{i}.avi" for source in sources for i in range(each)]


def test_columns_say_what_each_official_split_makes_of_a_clip(tmp_path: Path) -> None:
    root = _hmdb(tmp_path / "all", {"run": _names("run", "ab", 3)}, folds=(1, 2, 3))
    manifest = hmdb51.read_hmdb51(root, fold=2)
    assert manifest.text_columns == ("split_1", "split_2", "split_3")
    assert manifest.column("split_2") == manifest.column("split")
    assert [manifest.column(f"split_{fold}")[0] for fold in hmdb51.FOLDS] == ["train", "test", "unused"]
    (root / "lists" / "run_test_split3.txt").unlink()
    assert hmdb51.read_hmdb51(root, fold=2).text_columns == ()


def test_names_give_groups_and_those_without_are_said(tmp_path: Path) -> None:
    videos = {"run": [*_names("run", ["film", "other"], 3), "strange.avi"], "walk": _names("walk", ["film"], 3)}
    root = _hmdb(tmp_path / "set", videos)
    assert set(hmdb51.read_hmdb51(root).column("group")) == {""}
    within = hmdb51.read_hmdb51(root, groups="names")
    assert Counter(within.column("group")) == {"run/film": 3, "walk/film": 3, "run/other": 3, "": 1}
    assert "group: 3 sources of a class by file names, 3 of them on both sides" in "\n".join(within.notes)
    manifest = check_dataset("hmdb51", root, groups="films")
    assert Counter(manifest.column("group")) == {"film": 6, "other": 3, "": 1}
    notes = "\n".join(manifest.notes)
    assert "group: 2 sources by file names, 2 of them on both sides of train and test" in notes
    assert "group 'film' is on both sides of train/test (allowed by allow_group_overlap)" in notes
    assert "1 file names tell no source, their group is empty: run/strange.avi; expected <source>_<class>_f" in notes
    assert "split 1: 3 of 3 test clips (100.0 %) have a training clip of the same source" in notes
    _file(root / "lists" / "walk_test_split1.txt", *(f"{name} 2 " for name in videos["walk"]))
    notes = "\n".join(hmdb51.read_hmdb51(root, groups="films").notes)
    assert "5 of 5 test clips (100.0 %) have a training clip of the same source, 2 (40.0 %) one of the same" in notes


WRONG_USE: dict[str, tuple[dict[str, Any], str]] = {
    "no groups": ({"val_share": 0.1, "val_by": "group"}, "--val-by group needs --groups names or films"),
    "no share": ({"val_by": "group", "groups": "names"}, "--val-by group needs --val-share"),
    "groups": ({"groups": "persons"}, "--groups 'persons' is not one of films, names, none"),
    "way": ({"val_by": "film", "val_share": 0.1}, "--val-by 'film' is not one of clip, group"),
}


@pytest.mark.parametrize("case", WRONG_USE)
def test_wrong_use_of_hmdb51_is_refused(case: str, tmp_path: Path) -> None:
    options, message = WRONG_USE[case]
    with pytest.raises(ManifestError, match=message):
        hmdb51.read_hmdb51(tmp_path, **options)


def test_images_where_clips_are_needed_are_told(tmp_path: Path) -> None:
    root = _stanford(tmp_path / "images", {"running": (2, 2)})
    result = CliRunner().invoke(cli.main, ["manifest", "hmdb51", str(root), "--out", str(tmp_path / "m.csv")])
    assert result.exit_code == cli.WRONG_USE
    assert "no HMDB51 split files" in result.stderr
    assert "still images as of Stanford 40, and HMDB51 has clips: `reelbank manifest stanford40`" in result.stderr
    root = _hmdb(tmp_path / "clips", {"run": _names("run", "a", 3)})
    for path in (root / "run").iterdir():
        path.rename(path.with_suffix(".jpg"))
    with pytest.raises(
        ManifestError, match=r"none of the 3 listed videos is there; expected .*0\.avi, found a_.*\.jpg"
    ):
        hmdb51.read_hmdb51(root)


@pytest.fixture(scope="module")
def official(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Manifest]:
    """Reads the official lists over empty files of the twelve classes of the two-stream study."""
    lists, root = data_root / "splits" / "hmdb51", tmp_path_factory.mktemp("hmdb51")
    for label in TWELVE:
        (root / label).mkdir()
    for video in hmdb51.read_lists(lists, fold=1):
        if video.label in TWELVE:
            (root / video.label / video.file).touch()
    classes = _file(root / "twelve.txt", *TWELVE)
    return lambda **options: hmdb51.read_hmdb51(root, splits=lists, classes=classes, **options)


def test_twelve_classes_of_split_1_give_756_84_360(official: Callable[..., Manifest]) -> None:
    manifest = official(val_share=0.1, groups="names")
    counts = Counter((clip.label, clip.split) for clip in manifest.clips if clip.split != "unused")
    assert Counter(manifest.column("split")) == {"train": 756, "val": 84, "test": 360, "unused": 337}
    assert counts == {(name, part): n for name in TWELVE for part, n in (("train", 63), ("val", 7), ("test", 30))}
    assert all(
        (clip.split == "val") <= (clip.text["split_1"] == "train") and clip.text["split_2"] in PARTS
        for clip in manifest.clips
    )
    seen = _seen(manifest, "val")
    assert 0.65 < seen / 84 < 0.95, "a random cut leaves most validation clips a training clip of their source"
    assert f"{seen} of 84 val clips ({100 * seen / 84:.1f} %)" in manifest.notes[-2]
    assert _seen(manifest, "test") == 0
    assert manifest.notes[-1] == "split 1: 0 of 360 test clips (0.0 %) have a training clip of the same source"
    films = official(val_share=0.1, groups="films")
    assert _seen(films, "test") == 68
    test = "split 1: 68 of 360 test clips (18.9 %) have a training clip of the same source, 0 (0.0 %) one of the same"
    assert test in films.notes[-1]
    assert _seen(official(groups="films"), "test") == 71


def _seen(manifest: Manifest, part: str) -> int:
    trained = {clip.group for clip in manifest.clips if clip.split == "train"}
    return sum(clip.split == part and clip.group in trained for clip in manifest.clips)


@pytest.mark.parametrize("groups", ["films", "names"])
def test_val_by_group_leaves_no_validation_clip_its_source(groups: str, official: Callable[..., Manifest]) -> None:
    manifest = official(val_share=0.1, val_by="group", groups=groups)
    assert Counter(manifest.column("split")) == {"train": 756, "val": 84, "test": 360, "unused": 337}
    assert _seen(manifest, "val") == 0
    assert len({clip.label for clip in manifest.clips if clip.split == "val"}) == 12
    assert "84 were asked for, whole groups give 84" in manifest.notes[-2]


@pytest.mark.parametrize(("fold", "both"), [(1, 133), (2, 149), (3, 144)])
def test_official_splits_keep_sources_together_class_by_class_alone(fold: int, both: int, data_root: Path) -> None:
    listed = hmdb51.read_lists(data_root / "splits" / "hmdb51", fold=fold)
    pairs = [(video.split, video.label, hmdb51.source_of(video.file, video.label)) for video in listed]
    sources: dict[str, set[str]] = defaultdict(set)
    by_class: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for split, label, source in pairs:
        sources[split].add(source)
        by_class[split].add((label, source))
    assert "" not in set.union(*sources.values())
    assert (len(set.union(*sources.values())), len(set.union(*by_class.values()))) == (1407, 2291)
    assert len(sources["train"] & sources["test"]) == both
    assert by_class["train"].isdisjoint(by_class["test"])


# stanford40


def _stanford(root: Path, counts: dict[str, tuple[int, int]]) -> Path:
    """Empty images: (train, test) of each action."""
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSplits").mkdir()
    for action, (train, test) in counts.items():
        names = [f"{action}_{number:03d}.jpg" for number in range(1, train + test + 1)]
        for name in names:
            (root / "JPEGImages" / name).touch()
        _file(root / "ImageSplits" / f"{action}_train.txt", *names[:train])
        _file(root / "ImageSplits" / f"{action}_test.txt", *names[train:])
    return root


def test_stanford40_merges_its_parts_and_shares_names(tmp_path: Path) -> None:
    root = _stanford(tmp_path / "set", {"applauding": (100, 184), "running": (100, 151), "cooking": (100, 188)})
    classes = _file(tmp_path / "c.txt", "applauding", "running")
    rename = _file(tmp_path / "r.csv", "applauding,clap", "running,run")
    line = ["manifest", "stanford40", str(root), "--out", str(tmp_path / "m.csv"), "--classes", str(classes)]
    line += ["--rename", str(rename), "--merge-splits", "--val-share", "0.1"]
    result = CliRunner().invoke(cli.main, line)
    assert result.exit_code == cli.OK, result.output
    manifest = read(tmp_path / "m.csv")
    assert Counter(manifest.column("split")) == {"test": 54, "val": 49, "train": 535 - 54 - 49}
    assert {clip.clip_id.rpartition("_")[0]: clip.label for clip in manifest.clips} == {
        "applauding": "clap",
        "running": "run",
    }
    test = Counter(clip.label for clip in manifest.clips if clip.split == "test")
    assert test == {"clap": 29, "run": 25}, "largest remainder of 28.4 and 25.1"
    assert "the official train and test parts are merged" in result.stderr
    assert "test: 54 of 535 clips of 2 classes (--test-share 0.1 by clip, seed 0)" in result.stderr


def test_stanford40_keeps_its_test_part_where_parts_are_not_merged(tmp_path: Path) -> None:
    root = _stanford(tmp_path, {"a": (10, 5), "b": (10, 5)})
    manifest = check_dataset("stanford40", root, val_share=0.1)
    assert Counter((clip.label, clip.split) for clip in manifest.clips) == {
        (label, part): n for label in "ab" for part, n in (("train", 9), ("val", 1), ("test", 5))
    }
    assert {clip.clip_id for clip in manifest.clips if clip.split == "test"} == {
        clip.clip_id for clip in stanford40.read_stanford40(root).clips if clip.split == "test"
    }
    with pytest.raises(ManifestError, match=r"--test-share 0\.2 needs --merge-splits"):
        stanford40.read_stanford40(root, test_share=0.2)
    merged = stanford40.read_stanford40(root, merge_splits=True, test_share=0.2)
    assert Counter(merged.column("split")) == {"train": 24, "test": 6}
