"""Readers of other people's layouts: the official lists at their published counts, and small trees."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from reelbank import cli
from reelbank.manifests import ManifestError, read, write
from reelbank.manifests.datasets import READERS, hmdb51, reader, ucf101
from reelbank.manifests.datasets.csv_map import read_csv
from reelbank.manifests.datasets.folder import read_folder
from reelbank.testing import check_dataset
from reelbank.testing import datasets as suite


def _touch(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize("name", READERS)
def test_every_reader_loads_and_refuses_an_absent_place(name: str, tmp_path: Path) -> None:
    suite.absent_place_is_named(name, tmp_path / "here")


def test_imports_load_no_heavy_library() -> None:
    modules = [row.target.split(":")[0] for row in READERS.values()] + ["reelbank.manifests.rendered.synth"]
    heavy = "{'av', 'pyarrow', 'torch', 'zarr', 'cv2', 'scipy', 'sklearn'}"
    code = f"import sys, reelbank.manifests, {', '.join(modules)}; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_reader_lists_the_known_ones() -> None:
    with pytest.raises(ManifestError, match=f"choose one of {', '.join(sorted(READERS))}"):
        reader("sports1m")


@pytest.mark.parametrize("name", READERS)
def test_options_of_a_row_are_arguments_of_its_reader_and_of_the_command(name: str) -> None:
    row = READERS[name]
    suite.options_are_arguments(name)
    offered = {parameter.name for parameter in cli.manifest.commands[name].params}
    assert offered == {"source", "out", "overwrite", "as_json", *row.options}


def test_page_of_published_sets_names_every_reader() -> None:
    page = Path(__file__).parent.parent / "docs" / "how-to" / "published-sets.md"
    text = page.read_text(encoding="utf-8")
    missing = [name for name, row in READERS.items() if f"`reelbank manifest {name} {row.argument}`" not in text]
    assert missing == []


# folder


def test_folder_takes_classes_and_cuts_by_class(tmp_path: Path) -> None:
    names = [f"{label}/v{i}.mp4" for label in ("jump", "run") for i in range(10)] + ["one/only.MOV", "still/a.jpg"]
    root = _touch(tmp_path / "set", names)
    manifest = read_folder(root)
    assert len(manifest) == 22
    assert Counter((clip.label, clip.split) for clip in manifest.clips) == {
        ("jump", "train"): 8,
        ("jump", "test"): 2,
        ("run", "train"): 8,
        ("run", "test"): 2,
        ("one", "train"): 1,
        ("still", "train"): 1,
    }
    assert check_dataset("folder", root).digest() == manifest.digest()
    assert read_folder(root, seed=1).digest() != manifest.digest()
    assert any("cut by file (seed 0" in note for note in manifest.notes)
    write(manifest, tmp_path / "out" / "m.csv")
    assert all((tmp_path / clip.video).is_file() for clip in read(tmp_path / "out" / "m.csv").clips)


def test_folder_with_splits_keeps_them(tmp_path: Path) -> None:
    root = _touch(tmp_path, ["train/a/x.mp4", "train/b/x.mp4", "validation/a/x.mp4", "test/b/x.mp4", "extra/y.mp4"])
    manifest = read_folder(root)
    assert {clip.clip_id: (clip.split, clip.label) for clip in manifest.clips} == {
        "train/a/x": ("train", "a"),
        "train/b/x": ("train", "b"),
        "validation/a/x": ("val", "a"),
        "test/b/x": ("test", "b"),
    }
    assert manifest.notes == ("not taken, folders beside test/train/validation: 'extra'",)


def test_folder_named_train_with_videos_is_a_class(tmp_path: Path) -> None:
    manifest = read_folder(_touch(tmp_path, ["train/x.mp4", "plane/x.mp4"]))
    assert set(manifest.column("label")) == {"plane", "train"}


def test_folder_reports_what_it_does_not_take(tmp_path: Path) -> None:
    names = ["a/x.mp4", "a/x.avi", "a/.hidden.mp4", "a/.DS_Store", ".DS_Store", ".git/c/x.mp4"]
    names += ["loose.mp4", "a/readme.txt", "a/sub/y.mp4"]
    root = _touch(tmp_path, names)
    (root / "a" / "gone.mp4").symlink_to(root / "nowhere.mp4")
    (root / "empty").mkdir()
    (root / "a" / "two\nlines.mp4").write_bytes(b"x")
    (root / "a" / os.fsdecode(b"latin\xe9.mp4")).write_bytes(b"x")
    manifest = read_folder(root)
    assert manifest.column("clip_id") == ["a/x.avi", "a/x.mp4"]
    notes = "\n".join(manifest.notes)
    for name in ("loose.mp4", "a/readme.txt", "a/sub", "a/gone.mp4", "empty", "two\\nlines", "latin"):
        assert name in notes
    assert "hidden (the name begins with a dot): '.DS_Store', '.git', 'a/.DS_Store', 'a/.hidden.mp4'" in notes
    assert notes.isascii()


def test_folder_without_videos_is_an_error_that_says_what_it_saw(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="it is empty"):
        read_folder(tmp_path)
    with pytest.raises(
        ManifestError, match=r"<class>/<video> below it: not taken, files outside a class folder: 'x\.mp4'"
    ):
        read_folder(_touch(tmp_path, ["x.mp4"]))
    with pytest.raises(ManifestError, match="is not a folder"):
        read_folder(tmp_path / "x.mp4")


# csv


def test_csv_maps_columns_and_keeps_the_rest(tmp_path: Path) -> None:
    _touch(tmp_path, ["a/x.mp4", "b/y.mp4"])
    (tmp_path / "index.csv").write_text("file,label,scene,category\na/x.mp4,fight,7,k1\nb/y.mp4,calm,8,k2\n")
    mapping = {"video": "file", "group": "scene", "label": "category", "clip_id": "file"}
    manifest = read_csv(tmp_path / "index.csv", mapping=mapping)
    assert manifest.column("video") == manifest.column("clip_id") == ["a/x.mp4", "b/y.mp4"]
    assert manifest.column("label") == ["k1", "k2"]
    assert manifest.column("label_original") == ["fight", "calm"]
    assert "file" not in manifest.text_columns and "scene" not in manifest.text_columns
    assert any("'label_original'" in note for note in manifest.notes)


def test_csv_root_is_where_the_videos_lie(tmp_path: Path) -> None:
    _touch(tmp_path, ["videos/x.mp4"])
    (tmp_path / "index.csv").write_text("file\nx.mp4\n")
    manifest = read_csv(tmp_path / "index.csv", mapping={"video": "file"}, root=tmp_path / "videos")
    write(manifest, tmp_path / "m.csv")
    assert read(tmp_path / "m.csv").column("video") == ["videos/x.mp4"]
    (tmp_path / "index.csv").write_text("file\n../x.mp4\n")
    with pytest.raises(ManifestError, match=r"index\.csv, line 2: video '\.\./x\.mp4' leaves the root"):
        read_csv(tmp_path / "index.csv", mapping={"video": "file"}, root=tmp_path / "videos")
    with pytest.raises(ManifestError, match=r"root .* is not a folder"):
        read_csv(tmp_path / "index.csv", mapping={"video": "file"}, root=tmp_path / "nowhere")


def test_csv_absent_column_lists_those_there(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("file,label\nx.mp4,a\n")
    with pytest.raises(ManifestError, match="asks for column 'scene'; the file has file, label"):
        read_csv(tmp_path / "index.csv", mapping={"video": "file", "group": "scene"})
    with pytest.raises(ManifestError, match="no 'clip_id' and 'video'; found file, label"):
        read_csv(tmp_path / "index.csv")


def test_csv_real_set_maps_without_overlap(data_root: Path) -> None:
    mapping = {"video": "file", "group": "scene_group"}
    manifest = read_csv(data_root / "fight_surv" / "index.csv", mapping=mapping)
    assert Counter(manifest.column("label")) == {"fight": 150, "noFight": 150}
    assert all(path is not None and path.is_file() for path in map(manifest.video_path, manifest.clips))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_csv_of_other_separators_and_decimal_commas_is_read(separator: str, tmp_path: Path) -> None:
    _touch(tmp_path, ["x.mp4", "y.mp4"])
    lines = [["file", "note", "start_seconds", "kcal"], ["x.mp4", "1,5", "0,5", "370,7"], ["y.mp4", "", "", ""]]
    text = "".join(separator.join(cells) + "\r\n" for cells in lines)
    (tmp_path / "index.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    manifest = read_csv(tmp_path / "index.csv", mapping={"video": "file"})
    first = manifest.clips[0]
    assert (first.targets["kcal"], first.start_seconds, first.text["note"]) == (370.7, 0.5, "1,5")
    notes = " | ".join(manifest.notes)
    assert f"separated by {'tabs' if separator.isspace() else 'semicolons'}" in notes
    assert "decimal commas are read as points: '0,5' of start_seconds is 0.5" in notes


def test_csv_with_a_comma_in_its_header_stays_separated_by_commas(tmp_path: Path) -> None:
    _touch(tmp_path, ["x.mp4"])
    (tmp_path / "index.csv").write_text("video,a;b\nx.mp4,1;2\n")
    assert read_csv(tmp_path / "index.csv").column("a;b") == ["1;2"]


def test_csv_names_columns_that_were_perhaps_meant(tmp_path: Path) -> None:
    _touch(tmp_path, ["x.mp4"])
    (tmp_path / "index.csv").write_text("video,activity,kCal\nx.mp4,walk,100\n")
    notes = " | ".join(read_csv(tmp_path / "index.csv").notes)
    assert "--map kcal=kCal" in notes
    assert "no clip has a class (--map label=COLUMN, of activity)" in notes
    mapping = {"label": "activity", "kcal": "kCal"}
    assert "--map" not in " ".join(read_csv(tmp_path / "index.csv", mapping=mapping).notes)


def _crossed(path: Path, people: int, classes: str) -> Path:
    """Every person does every activity twice."""
    rows = [f"{p}{c}{i}.mp4,p{p},{c}" for p in range(people) for c in classes for i in range(2)]
    path.write_text("\n".join(["video,group,label", *rows]) + "\n")
    _touch(path.parent, [row.partition(",")[0] for row in rows])
    return path


@pytest.mark.parametrize("people", [2, 3, 4, 10])
@pytest.mark.parametrize("share", [False, True])
def test_csv_unknown_makes_a_split_that_trains_on_no_unknown_class_and_no_tested_person(
    people: int, share: bool, tmp_path: Path
) -> None:
    path = _crossed(tmp_path / "index.csv", people, "abcd")
    manifest = read_csv(path, unknown=["c", "d"], allow_group_overlap=share)
    groups: dict[str, set[str]] = {}
    labels: dict[str, set[str]] = {}
    for clip in manifest.clips:
        groups.setdefault(clip.split, set()).add(clip.group)
        labels.setdefault(clip.split, set()).add(clip.label)
    assert labels["train"] == labels["test"] == {"a", "b"}
    assert labels["unknown"] == {"c", "d"}
    assert not groups["train"] & groups["test"]
    assert groups["unknown"] == (groups["train"] | groups["test"] if share else groups["test"])
    assert ("unused" in groups) is not share
    assert any("made of --unknown" in note for note in manifest.notes)
    assert manifest.clips == read_csv(path, unknown=["d", "c"], allow_group_overlap=share).clips


def test_csv_unknown_says_what_the_split_has_become(tmp_path: Path) -> None:
    _touch(tmp_path, ["pa.mp4", "000.mp4"])
    lines = ["video,group,label", *(f"{person}{label}.mp4,{person},{label}" for person in "pq" for label in "ab")]
    (tmp_path / "index.csv").write_text("\n".join([*lines, "q0.mp4,q,a", "pc.mp4,p,c", "qd.mp4,q,d"]) + "\n")
    note = read_csv(tmp_path / "index.csv", unknown=["c", "d"]).notes[0]
    assert "of 5 clips of other classes 2 are test, by whole groups (seed 0: p)" in note  # two people: no 20 %
    assert "no clip of d is in 'unknown'; 1 clips of unknown classes are 'unused'" in note
    many = ["video,label", *(f"{i:03d}.mp4,{'abc'[i % 3]}" for i in range(90))]
    (tmp_path / "many.csv").write_text("\n".join(many) + "\n")
    notes = " ".join(read_csv(tmp_path / "many.csv", unknown=["c"]).notes)
    assert "12 are test" in notes
    assert "and 2 more)" in notes
    assert "no clip of" not in notes


def test_csv_unknown_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = _crossed(tmp_path / "index.csv", 3, "abc")
    with pytest.raises(ManifestError, match="--unknown 'run' is no class of column 'label'; there are a, b, c"):
        read_csv(path, unknown=["run"])
    with pytest.raises(ManifestError, match=r"--unknown names every class \(a, b, c\): nothing is left to train on"):
        read_csv(path, unknown=["c", "b", "a"])
    with pytest.raises(ManifestError, match="no column is the label"):
        read_csv(path, unknown=["a"], mapping={"what": "label"})
    with pytest.raises(ManifestError, match="leaves no clip in split 'test': no group can be tested"):
        read_csv(_crossed(tmp_path / "one.csv", 1, "abc"), unknown=["a"])
    (tmp_path / "own.csv").write_text("video,group,label\nx,p,a\ny,q,a\nz,p,b\nw,p,a\n")
    with pytest.raises(ManifestError, match=r"leaves no clip in split 'unknown'.*--allow-group-overlap"):
        read_csv(tmp_path / "own.csv", unknown=["b"])
    (tmp_path / "split.csv").write_text("video,label,split\nx,a,train\n")
    with pytest.raises(ManifestError, match="the file has one; leave --unknown out"):
        read_csv(tmp_path / "split.csv", unknown=["a"])


# hmdb51

HMDB_NAMES = ["run (1)&[x]!;#+_run_f_cm_np1_0.avi", "b_run_1.avi", "c_run_2.avi"]


def _hmdb(root: Path) -> Path:
    _touch(root, [f"run/{name}" for name in HMDB_NAMES] + ["climb_stairs/d_1.avi", "run/.DS_Store"])
    lists = root / "lists"
    lists.mkdir()
    codes = zip(HMDB_NAMES, (1, 2, 0), strict=True)
    (lists / "run_test_split1.txt").write_text("".join(f"{name} {code} \n" for name, code in codes))
    (lists / "climb_stairs_test_split1.txt").write_text("d_1.avi 1 \n")
    return root


def test_hmdb51_reads_names_that_look_like_patterns(tmp_path: Path) -> None:
    manifest = hmdb51.read_hmdb51(_hmdb(tmp_path))
    assert manifest.column("clip_id")[1] == "run/run (1)&[x]!;#+_run_f_cm_np1_0"
    assert manifest.column("split") == ["train", "train", "test", "unused"]
    assert manifest.column("label") == ["climb_stairs", "run", "run", "run"]
    assert all(path is not None and path.is_file() for path in map(manifest.video_path, manifest.clips))
    assert manifest.notes == ()


def test_hmdb51_missing_video_keeps_its_row(tmp_path: Path) -> None:
    (_hmdb(tmp_path) / "run" / "b_run_1.avi").rename(tmp_path / "run" / "stray.avi")
    manifest = hmdb51.read_hmdb51(tmp_path)
    assert len(manifest) == 4
    assert f"1 of 4 listed videos are missing under {tmp_path}: run/b_run_1.avi" in manifest.notes
    assert "not taken, in no list: run/stray.avi" in manifest.notes


def test_hmdb51_missing_parts_are_named(tmp_path: Path) -> None:
    root = _hmdb(tmp_path / "a")
    with pytest.raises(ManifestError, match=r"no HMDB51 split files <class>_test_split2\.txt under .*--splits DIR"):
        hmdb51.read_hmdb51(root, fold=2)
    with pytest.raises(ManifestError, match="folds 1, 2 and 3; 4 was asked for"):
        hmdb51.read_hmdb51(root, fold=4)
    (root / "climb_stairs" / "d_1.avi").unlink()
    (root / "climb_stairs").rmdir()
    with pytest.raises(ManifestError, match=r"1 of 2 class folders are missing under .*: climb_stairs; expected"):
        hmdb51.read_hmdb51(root)
    empty = tmp_path / "b"
    (empty / "run").mkdir(parents=True)
    (empty / "climb_stairs").mkdir()
    with pytest.raises(ManifestError, match="none of the 4 listed videos is there"):
        hmdb51.read_hmdb51(empty, splits=root / "lists")


@pytest.mark.parametrize("line", ["d_1.avi", "d_1.avi 3", "../d_1.avi 1", "d_1.avi 1\nd_1.avi 2"])
def test_hmdb51_malformed_line_is_named(line: str, tmp_path: Path) -> None:
    path = _hmdb(tmp_path) / "lists" / "climb_stairs_test_split1.txt"
    path.write_text(line + "\n")
    with pytest.raises(ManifestError, match=r"climb_stairs_test_split1\.txt, line [12]: "):
        hmdb51.read_hmdb51(tmp_path)


@pytest.mark.parametrize("fold", hmdb51.FOLDS)
def test_hmdb51_official_lists_have_the_published_counts(fold: int, data_root: Path) -> None:
    listed = hmdb51.read_lists(data_root / "splits" / "hmdb51", fold=fold)
    assert Counter(video.split for video in listed) == {"train": 3570, "test": 1530, "unused": 1666}
    assert len({video.label for video in listed}) == 51
    assert len({(video.label, video.file) for video in listed}) == len(listed)
    per_class = Counter((video.label, video.split) for video in listed if video.split != "unused")
    assert all(count == (70 if split == "train" else 30) for (_, split), count in per_class.items())


# ucf101

UCF_TRAIN = ["HandstandWalking/v_HandStandWalking_g08_c01.avi 2", "YoYo/v_YoYo_g08_c01.avi 1"]
UCF_TEST = ["HandstandWalking/v_HandstandWalking_g01_c02.avi", "YoYo/v_YoYo_g01_c01.avi"]


def _ucf(root: Path, *, test: list[str] = UCF_TEST, train: list[str] = UCF_TRAIN) -> Path:
    _touch(root, ["UCF-101/" + line.split()[0] for line in UCF_TRAIN + UCF_TEST])
    lists = root / "ucfTrainTestlist"
    lists.mkdir(exist_ok=True)
    for name, lines in (("classInd", ["1 YoYo", "2 HandstandWalking"]), ("trainlist01", train), ("testlist01", test)):
        (lists / f"{name}.txt").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return root


def test_ucf101_reads_crlf_groups_and_the_case_trap(tmp_path: Path) -> None:
    manifest = ucf101.read_ucf101(_ucf(tmp_path))
    assert manifest.root == tmp_path / "UCF-101"
    assert manifest.column("split") == ["train", "train", "test", "test"]
    assert manifest.column("label") == ["HandstandWalking", "YoYo"] * 2
    # HandStand and Handstand are one class, so g08 of either is one group.
    assert manifest.column("group") == [
        *("v_HandstandWalking_g08", "v_YoYo_g08", "v_HandstandWalking_g01", "v_YoYo_g01")
    ]
    assert all(path is not None and path.is_file() for path in map(manifest.video_path, manifest.clips))
    assert manifest.notes == ()


def test_ucf101_finds_videos_whose_case_differs_from_the_list(tmp_path: Path) -> None:
    folder = _ucf(tmp_path) / "UCF-101" / "HandstandWalking"
    (folder / "v_HandStandWalking_g08_c01.avi").rename(folder / "v_Handstandwalking_g08_c01.avi")
    folder.rename(folder.with_name("HandStandWalking"))
    manifest = ucf101.read_ucf101(tmp_path)
    assert manifest.column("video")[0] == "HandStandWalking/v_Handstandwalking_g08_c01.avi"
    assert manifest.column("label")[0] == "HandstandWalking"
    assert manifest.notes == ()


BAD_UCF = {
    "wrong_index": ({"train": ["YoYo/v_YoYo_g08_c01.avi 2"]}, r"trainlist01\.txt, line 1: index 2 .* gives it 1"),
    "unknown_class": ({"train": ["Juggling/v_Juggling_g08_c01.avi 3"]}, r"line 1: .* with a class of classInd\.txt"),
    "no_group": ({"test": ["YoYo/v_YoYo.avi"]}, r"testlist01\.txt, line 1: .*_gNN_cNN"),
    "leaves": ({"test": ["YoYo/../v_YoYo_g01_c01.avi"]}, r"testlist01\.txt, line 1"),
    "twice": ({"test": ["YoYo/v_YoYo_g01_c01.avi"] * 2}, r"line 2: 'YoYo/v_YoYo_g01_c01\.avi' is listed twice"),
    "both_lists": ({"test": ["YoYo/v_YoYo_g08_c01.avi"]}, r"in the train list and in the test list of fold 1"),
    "group_on_both_sides": ({"test": ["YoYo/v_YoYo_g08_c02.avi"]}, r"group 'v_YoYo_g08' is on both sides"),
}


@pytest.mark.parametrize("case", BAD_UCF)
def test_ucf101_bad_lists_are_refused(case: str, tmp_path: Path) -> None:
    lists, message = BAD_UCF[case]
    with pytest.raises(ManifestError, match=message):
        ucf101.read_ucf101(_ucf(tmp_path, **lists))


def test_ucf101_missing_parts_are_named(tmp_path: Path) -> None:
    root = _ucf(tmp_path)
    with pytest.raises(ManifestError, match=r"no UCF101 lists \(classInd\.txt, trainlist03\.txt\) under"):
        ucf101.read_ucf101(root, fold=3)
    (root / "UCF-101" / "YoYo").rename(root / "elsewhere")
    with pytest.raises(ManifestError, match=r"1 of 2 class folders are missing under .*UCF-101: YoYo; expected"):
        ucf101.read_ucf101(root)
    (root / "ucfTrainTestlist" / "testlist01.txt").unlink()
    with pytest.raises(ManifestError, match=r"split list .*testlist01\.txt cannot be read"):
        ucf101.read_ucf101(root)


@pytest.mark.parametrize(("fold", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_ucf101_official_lists_have_the_published_counts(fold: int, train: int, test: int, data_root: Path) -> None:
    listed = ucf101.read_lists(data_root / "splits" / "ucf101", fold=fold)
    assert Counter(video.split for video in listed) == {"train": train, "test": test}
    assert len({video.label for video in listed}) == 101
    groups = {split: {video.group for video in listed if video.split == split} for split in ("train", "test")}
    assert len(groups["train"] | groups["test"]) == 101 * 25
    assert not groups["train"] & groups["test"]
