"""Kinetics and Vid2Burn: lists on one side, files found by their stem on the other."""

from __future__ import annotations

import csv
import pickle
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelbank.manifests import ManifestError, read, write
from reelbank.manifests.datasets import kinetics, vid2burn
from reelbank.manifests.datasets.cutting import cut_by_group


def _touch(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


# kinetics

HEADER = "label,youtube_id,time_start,time_end,split\n"
LINES = [
    "abseiling,-_a0123456b,10,20,train",
    '"air drumming, loud",b0123456789,0,10,val',
    "abseiling,c0123456789,131,141,test",
    "abseiling,gone0000000,5,15,train",
]
FILES = [
    "abseiling/-_a0123456b_000010_000020.mp4",
    "b0123456789_000000_000010.mkv",
    "x/y/c0123456789_000131_000141.mp4",
]


def _kinetics(root: Path, lines: Iterable[str] = LINES, *, name: str = "kinetics400.csv") -> Path:
    _touch(root, FILES)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / name).write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return root


def test_kinetics_takes_the_clips_that_are_there_and_counts_the_others(tmp_path: Path) -> None:
    manifest = kinetics.read_kinetics(_kinetics(tmp_path))
    assert manifest.column("video") == FILES
    assert manifest.column("split") == ["train", "val", "test"]
    assert manifest.column("label") == ["abseiling", "air drumming, loud", "abseiling"]
    assert manifest.column("group") == ["-_a0123456b", "b0123456789", "c0123456789"]
    assert manifest.column("clip_id")[2] == "c0123456789_000131_000141"
    assert manifest.notes == (
        f"1 of 4 listed clips have no file under {tmp_path}, left out: gone0000000_000005_000015",
    )
    write(manifest, tmp_path / "m.csv")
    assert read(tmp_path / "m.csv").digest() == manifest.digest()


def test_kinetics_split_may_stand_in_the_name_of_the_list(tmp_path: Path) -> None:
    _touch(tmp_path, FILES)
    (tmp_path / "kinetics-400_validate.csv").write_text("youtube_id,time_start,time_end\nb0123456789,0.0,10.0\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    manifest = kinetics.read_kinetics(tmp_path)
    assert (manifest.column("split"), manifest.column("label")) == (["val"], [""])


def test_kinetics_lists_that_repeat_each_other_count_once_and_those_that_differ_are_refused(tmp_path: Path) -> None:
    _kinetics(tmp_path)
    _kinetics(tmp_path, LINES[:1], name="train.csv")
    assert len(kinetics.read_lists(None, root=tmp_path)) == 4
    _kinetics(tmp_path, ["abseiling,-_a0123456b,10,20,test"], name="train.csv")
    with pytest.raises(ManifestError, match=r"train\.csv, line 2: .* is test 'abseiling' here and train"):
        kinetics.read_kinetics(tmp_path)
    assert len(kinetics.read_kinetics(tmp_path, splits=tmp_path / "annotations" / "train.csv")) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run,a,ten,20,train", "expected an id and whole seconds"),
        ("run,a,20,10,train", "line 2: youtube_id 'a' from '20' to '10'"),
        ("run,../a,1,10,train", "expected an id"),
        ("run,a,1,10,dev", "split 'dev', expected one of test, train, val"),
    ],
)
def test_kinetics_malformed_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=message):
        kinetics.read_kinetics(_kinetics(tmp_path, [line]))


def test_kinetics_missing_parts_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ManifestError, match=r"no Kinetics CSV files \(label,youtube_id.*--splits DIR"):
        kinetics.read_kinetics(empty)
    lists = _kinetics(tmp_path / "set") / "annotations"
    with pytest.raises(ManifestError, match=r"none of the 4 listed clips lies under .*_000010_000020\.mp4, or"):
        kinetics.read_kinetics(empty, splits=lists)
    (empty / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ManifestError, match="has the columns youtube_id, time_start, time_end"):
        kinetics.read_kinetics(empty)


def test_kinetics_one_source_on_both_sides_is_refused_unless_allowed(tmp_path: Path) -> None:
    _touch(tmp_path, ["a_000000_000010.mp4", "a_000020_000030.mp4"])
    _kinetics(tmp_path, ["run,a,0,10,train", "run,a,20,30,test"])
    with pytest.raises(ManifestError, match="group 'a' is on both sides of train/test"):
        kinetics.read_kinetics(tmp_path)
    assert len(kinetics.read_kinetics(tmp_path, allow_group_overlap=True)) == 2


# vid2burn

KEYS = {
    "/data/common/A01/Meena_Lee_golf_f_cm_np1_ba_med_2.avi": 330.0,
    "/data/common/A27/v_BodyWeightSquats_g18_c02.avi": 500.5,
    "/data/common/A10/person14_boxing_d1_s2.avi": 600,
    "/data/cross/A28/-87ioKS6ulY_000004_000014.mp4": 202,
    "/data/cross/A33/gone0000000_000004_000014.mp4": 159,
}
VIDEOS = ["A01/Meena_Lee_golf_f_cm_np1_ba_med_2.avi", "A27/v_BodyWeightSquats_g18_c02.avi"]
VIDEOS += ["A10/person14_boxing_d1_s2.mp4", "cross/A28/-87ioKS6ulY_000004_000014.mp4"]


def _label_csv(path: Path, labels: Mapping[str, float], header: str = "File_name,Calorie_label") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *labels.items()])
    return path


def test_vid2burn_joins_labels_by_stem(tmp_path: Path) -> None:
    _label_csv(_touch(tmp_path, [*VIDEOS, "hmdb/golf/Meena_Lee_golf_f_cm_np1_ba_med_2.avi"]) / "labels.csv", KEYS)
    manifest = vid2burn.read_vid2burn(tmp_path)
    assert manifest.target_names == ("kcal",)
    assert manifest.column("video") == VIDEOS
    assert manifest.column("label") == ["A01", "A27", "A10", "A28"]
    assert manifest.column("split")[3] == "unknown"
    assert set(manifest.column("split")[:3]) == {"train"}
    assert manifest.column("group") == ["Meena_Lee", "v_BodyWeightSquats_g18", "person14", "-87ioKS6ulY"]
    assert list(manifest.column("kcal")) == [330.0, 500.5, 600.0, 202.0]
    assert manifest.column("clip_id")[3] == "A28/-87ioKS6ulY_000004_000014"
    assert "no train/test cut: known activities were cut 80/20 by group (seed 0)" in manifest.notes[0]
    assert manifest.notes[1] == f"1 of 5 labels have no video under {tmp_path}, left out: A33/gone0000000_000004_000014"


def test_vid2burn_label_of_adl_holds_for_every_camera(tmp_path: Path) -> None:
    files = [f"nturgb/S008C00{camera}P011R002A047_rgb.avi" for camera in (1, 2, 3)]
    _label_csv(_touch(tmp_path, files) / "labels.csv", {"S008011R002A047": 228.5}, "key,kcal_per_hour")
    manifest = vid2burn.read_vid2burn(tmp_path)
    assert manifest.column("video") == files
    assert manifest.column("clip_id")[0] == "A047/S008C001P011R002A047_rgb"
    assert set(manifest.column("group")) == {"P011"} and set(manifest.column("label")) == {"A047"}
    assert list(manifest.column("kcal")) == [228.5] * 3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [float, int, np.float64, np.int32, np.asarray])
def test_vid2burn_pickle_of_numbers_reads_as_the_csv(kind: Any, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps({key: kind(value) for key, value in KEYS.items()}, protocol=protocol))
    expected = {key: float(kind(value)) for key, value in KEYS.items()}
    assert [entry.kcal for entry in vid2burn.read_lists(path)] == list(expected.values())


class _Touches:
    """Pickles to a call that makes a file: what a hostile pickle would do, and worse."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def test_vid2burn_pickle_that_calls_is_refused_and_calls_nothing(tmp_path: Path) -> None:
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps({"x": _Touches(tmp_path / "owned")}))
    with pytest.raises(ManifestError, match=r"labels\.pkl was refused: it asks for .*a table of numbers does not need"):
        vid2burn.read_lists(path)
    assert not (tmp_path / "owned").exists()
    path.write_bytes(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(ManifestError, match="was refused: it encodes bytes as 'rot13'"):
        vid2burn.read_lists(path)
    for payload in (b"cbuiltins\neval\n(S'1'\ntR.", b"cos\nsystem\n(S'true'\ntR.", b"cnumpy\nload\n(S'x'\ntR."):
        path.write_bytes(payload)
        with pytest.raises(ManifestError, match="was refused: it asks for"):
            vid2burn.read_lists(path)


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps([1]), pickle.dumps({1: 2.0}), pickle.dumps({})])
def test_vid2burn_pickle_of_anything_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "labels.pkl").write_bytes(content)
    with pytest.raises(ManifestError, match=r"labels\.pkl (was refused|holds)"):
        vid2burn.read_lists(tmp_path / "labels.pkl")


BAD_LABELS = {
    "no_column": (
        {"a": 1},
        "video,energy",
        r"expected a column key or .* and a column kcal_per_hour or .*; found video, energy",
    ),
    "no_activity": ({"walk/a.avi": 1}, "key,kcal", r"line 2: 'walk/a\.avi', expected \.\.\./A01/<file>\.avi or an NTU"),
    "no_number": ({"A01/a.avi": "much"}, "key,kcal", r"line 2: 'much' is not a number of kcal"),
    "infinite": ({"A01/a.avi": "inf"}, "key,kcal", r"'inf' is not a number"),
    "twice": ({"A01/a.avi": 1, "x/A01/a.mp4": 2}, "key,kcal", r"line 3: 'a' is labelled twice"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_vid2burn_bad_labels_are_named(case: str, tmp_path: Path) -> None:
    labels, header, message = BAD_LABELS[case]
    path = _label_csv(tmp_path / "labels.csv", labels, header)
    with pytest.raises(ManifestError, match=message):
        vid2burn.read_lists(path)


def test_vid2burn_missing_parts_are_named(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    with pytest.raises(ManifestError, match=r"expected one label file .*found none; name it with --labels FILE"):
        vid2burn.read_vid2burn(root)
    labels = _label_csv(tmp_path / "labels.csv", KEYS)
    with pytest.raises(ManifestError, match=r"none of the 5 labelled clips .*A01/Meena_Lee.*\.avi; found 0 videos"):
        vid2burn.read_vid2burn(root, labels=labels)
    with pytest.raises(ManifestError, match="no label file at"):
        vid2burn.read_vid2burn(root, labels=tmp_path / "nowhere.pkl")


def test_cut_by_group_keeps_groups_whole_and_classes_balanced() -> None:
    labels = [f"c{i % 5}" for i in range(1000)]
    groups = [f"g{i // 10}" for i in range(1000)]
    splits = cut_by_group(labels, groups, seed=0)
    sides = {group: {s for s, g in zip(splits, groups, strict=True) if g == group} for group in set(groups)}
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(splits) == {"train": 800, "test": 200}
    assert cut_by_group(labels, groups, seed=0) == splits != cut_by_group(labels, groups, seed=1)
    assert cut_by_group(["a"] * 10, ["g"] * 10, seed=0) == ["train"] * 10


@pytest.mark.parametrize(
    "name", ["calact_fluctuate.csv", "original/calact_fluctuate.pkl", "original/labels_fluctuation_max_100.csv"]
)
def test_vid2burn_official_labels_have_the_published_counts(name: str, data_root: Path) -> None:
    listed = vid2burn.read_lists(data_root / "splits" / "vid2burn" / name)
    known = [entry for entry in listed if entry.split != "unknown"]
    assert (len(known), len(listed) - len(known)) == (3974, 286)
    assert len({entry.activity for entry in known}) == 27
    assert {entry.activity for entry in listed if entry.split == "unknown"} == {f"A{n}" for n in range(28, 34)}
    means = {a: np.mean([e.kcal for e in listed if e.activity == a]) for a in {e.activity for e in known}}
    assert (max(means.values()), min(means.values())) == pytest.approx((887.4, 89.4), abs=0.05)
    per_class = Counter((entry.activity, entry.split) for entry in known)
    for activity in means:
        train, test = per_class[activity, "train"], per_class[activity, "test"]
        assert 0.1 <= test / (train + test) <= 0.21, (activity, train, test)
    sides = {split: {entry.group for entry in known if entry.split == split} for split in ("train", "test")}
    assert not sides["train"] & sides["test"]


@pytest.mark.parametrize("folder", ["", "original/"])
def test_vid2burn_official_adl_labels_have_the_published_counts(folder: str, data_root: Path) -> None:
    suffix = ".pkl" if folder else ".csv"
    path = data_root / "splits" / "vid2burn" / f"{folder}final_ntu_camera_id_unified_50_new_pos_8{suffix}"
    listed = vid2burn.read_lists(path)
    assert len(listed) == 4940 and len({entry.activity for entry in listed}) == 49
    assert {entry.split for entry in listed} == {"train", "test"}
    assert listed[0].kcal == pytest.approx(228.04181084694076, rel=1e-12)
