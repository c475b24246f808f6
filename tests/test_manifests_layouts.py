"""GTEA61, Stanford 40, Penn Action, BRACE and tables of intervals: small trees in the official layouts."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.io import savemat

from reelbank import cli
from reelbank.extract.video.opening import Limits
from reelbank.extract.video.stills import scan_pictures
from reelbank.manifests import ManifestError, read, write
from reelbank.manifests.datasets import brace, gtea61, intervals, penn, stanford40


def _touch(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize(("name", "num_frames"), [("gtea61", 6), ("penn", 2), ("stanford40", 1)])
def test_command_writes_what_the_decoder_reads(name: str, num_frames: int, tmp_path: Path) -> None:
    root = {"gtea61": _gtea, "penn": _penn, "stanford40": _stanford}[name](tmp_path / "set")
    for path in [*root.rglob("*.png"), *root.rglob("*.jpg")]:
        Image.new("L" if "rgb" not in path.name else "RGB", (24, 16)).save(path)
    out = tmp_path / "m.csv"
    result = CliRunner().invoke(cli.main, ["manifest", name, str(root), "--out", str(out)])
    assert result.exit_code == 0, result.output
    manifest = read(out)
    assert f"{out}: {manifest.summary()}" in result.stdout
    for clip in manifest.clips:
        path = manifest.video_path(clip)
        assert path is not None
        rate = clip.text.get("rate_fps")
        scan = scan_pictures(
            path,
            frame_pattern=clip.text.get("frame_pattern") or None,
            rate_fps=float(rate) if rate else None,
            limits=Limits(),
        )
        assert (scan.num_frames, scan.width_px, scan.height_px) == (num_frames, 24, 16)


def test_command_says_what_is_missing_in_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.main, ["manifest", "penn", str(tmp_path), "--out", str(tmp_path / "m.csv")])
    assert result.exit_code == cli.WRONG_USE
    assert "no folder labels in" in result.stderr and "Traceback" not in result.output
    assert not (tmp_path / "m.csv").exists()


# gtea61

GTEA_CLIPS = ["S1/close_choco/1", "S1/close_choco/2", "S2/close_choco/1", "S2/put_bread,plate/1", "S3/shake_tea/1"]


def _gtea(root: Path) -> Path:
    """Five clips of 6 frames; the first map of each is missing, and flow is one pair short."""
    for clip in GTEA_CLIPS:
        _touch(root / "processed_frames2" / clip / "rgb", [f"rgb{i:04d}.png" for i in range(1, 7)])
        _touch(root / "processed_frames2" / clip / "mmaps", [f"map{i:04d}.png" for i in range(2, 7)])
        for axis in "xy":
            _touch(root / f"flow_{axis}_processed" / clip, [f"flow_{axis}_{i:05d}.png" for i in range(1, 6)])
    stores = [".DS_Store", "processed_frames2/.DS_Store", "processed_frames2/S1/.DS_Store"]
    return _touch(root, [*stores, "processed_frames2/S1/close_choco/.DS_Store", f"flow_x_processed/{clip}/.DS_Store"])


def test_gtea61_reads_every_folder_and_s2_is_test(tmp_path: Path) -> None:
    manifest = gtea61.read_gtea61(_gtea(tmp_path / "GTEA61").parent)
    assert manifest.root == tmp_path / "GTEA61"
    assert manifest.column("clip_id") == GTEA_CLIPS
    assert manifest.column("split") == ["train", "train", "test", "test", "train"]
    assert manifest.column("group") == ["S1", "S1", "S2", "S2", "S3"]
    assert sorted(set(manifest.column("label"))) == ["close_choco", "put_bread,plate", "shake_tea"]
    first = manifest.clips[0]
    assert (first.text["frame_pattern"], first.text["rate_fps"]) == ("rgb%04d.png", "15")
    for column, name in (
        ("video", "rgb0001.png"),
        ("motion_maps", "map0002.png"),
        ("flow_x", "flow_x_00001.png"),
        ("flow_y", "flow_y_00001.png"),
    ):
        assert all((folder / name).is_file() for clip in manifest.clips if (folder := manifest.path_of(clip, column)))
        assert manifest.path_of(first, column) is not None
    assert manifest.notes == (
        "the folders do not tell their rate: 15 frames per second were assumed (--rate-fps)",
        f"5 clips have fewer motion maps than frames: {', '.join(GTEA_CLIPS)}",
    )
    write(manifest, tmp_path / "out" / "m.csv")
    again = read(tmp_path / "out" / "m.csv")
    assert (again.path_of(again.clips[0], "flow_y") or tmp_path / "none").resolve().is_dir()
    assert gtea61.read_gtea61(tmp_path, rate_fps=29.97).column("rate_fps") == ["29.97"] * 5


def test_gtea61_says_what_a_clip_lacks(tmp_path: Path) -> None:
    root = _gtea(tmp_path)
    for number in (1, 2):
        (root / "processed_frames2" / GTEA_CLIPS[0] / "rgb" / f"rgb{number:04d}.png").unlink()
    shutil.rmtree(root / "processed_frames2" / GTEA_CLIPS[1] / "mmaps")
    shutil.rmtree(root / "flow_y_processed" / GTEA_CLIPS[3])
    manifest = gtea61.read_gtea61(root)
    assert manifest.column("clip_id") == GTEA_CLIPS[1:]
    assert manifest.column("motion_maps")[0] == ""
    assert manifest.clips[2].text["flow_x"] == manifest.clips[2].text["flow_y"] == ""
    notes = "\n".join(manifest.notes)
    assert "1 clips have fewer than 5 frames, left out: S1/close_choco/1 (4)" in notes
    assert "1 clips have no motion maps: S1/close_choco/2" in notes
    assert "1 clips have no flow: S2/put_bread,plate/1" in notes


def test_gtea61_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no folder processed_frames2 in .*; expected .*rgb0001\.png; found other"):
        gtea61.read_gtea61(_touch(tmp_path / "a", ["other/x.png"]))
    (tmp_path / "b" / "processed_frames2" / "S1").mkdir(parents=True)
    with pytest.raises(ManifestError, match=r"no clip under .*; expected .*; found S1"):
        gtea61.read_gtea61(tmp_path / "b")
    root = _gtea(tmp_path / "c")
    shutil.rmtree(root / "flow_y_processed")
    with pytest.raises(ManifestError, match=r"holds flow_x_processed and no flow_y_processed"):
        gtea61.read_gtea61(root)
    shutil.rmtree(root / "flow_x_processed")
    assert any("flow_x and flow_y are empty" in note for note in gtea61.read_gtea61(root).notes)
    with pytest.raises(ManifestError, match="rate_fps = 0 must be above 0"):
        gtea61.read_gtea61(root, rate_fps=0)


# stanford40


def _stanford(root: Path) -> Path:
    images = ["blowing_bubbles_001.jpg", "blowing_bubbles_002.jpg", "riding_a_bike_001.jpg", "riding_a_bike_002.jpg"]
    _touch(root, [f"JPEGImages/{name}" for name in images])
    lists = root / "ImageSplits"
    lists.mkdir()
    (lists / "actions.txt").write_text("action_name\tnumber_of_images\nblowing_bubbles\t2\nriding_a_bike\t2\n")
    (lists / "train.txt").write_text("blowing_bubbles_001.jpg\nriding_a_bike_001.jpg\n")
    for name in images:
        split = "train" if "001" in name else "test"
        (lists / f"{name[:-8]}_{split}.txt").write_text(f"{name}\r\n")
    return root


def test_stanford40_images_are_clips(tmp_path: Path) -> None:
    manifest = stanford40.read_stanford40(_stanford(tmp_path))
    assert manifest.column("label") == ["blowing_bubbles"] * 2 + ["riding_a_bike"] * 2
    assert manifest.column("split") == ["train", "test"] * 2
    assert manifest.column("clip_id")[3] == "riding_a_bike_002"
    assert all(path is not None and path.is_file() for path in map(manifest.video_path, manifest.clips))
    assert manifest.notes == ()


def test_stanford40_missing_parts_are_named(tmp_path: Path) -> None:
    root = _stanford(tmp_path / "a")
    (root / "JPEGImages" / "riding_a_bike_002.jpg").rename(root / "JPEGImages" / "stray.jpg")
    manifest = stanford40.read_stanford40(root)
    assert len(manifest) == 4
    assert manifest.notes[0].startswith("1 of 4 listed images are missing under")
    assert manifest.notes[1] == "not taken, in no list: stray.jpg"
    path = root / "ImageSplits" / "riding_a_bike_test.txt"
    path.write_text("other_002.jpg\n")
    with pytest.raises(ManifestError, match=r"riding_a_bike_test\.txt, line 1: 'other_002\.jpg', expected riding"):
        stanford40.read_stanford40(root)
    path.unlink()
    with pytest.raises(ManifestError, match=r"lacks riding_a_bike_test\.txt; every action needs"):
        stanford40.read_stanford40(root)
    shutil.rmtree(root / "ImageSplits")
    with pytest.raises(ManifestError, match="no Stanford 40 lists <action>_train"):
        stanford40.read_stanford40(root)
    shutil.rmtree(root / "JPEGImages")
    (root / "images").mkdir()
    with pytest.raises(ManifestError, match=r"no folder JPEGImages in .*; expected .*; found images"):
        stanford40.read_stanford40(root)


# penn


def _penn(root: Path) -> Path:
    (root / "labels").mkdir(parents=True)
    for number, (action, train) in enumerate([("baseball_pitch", 1), ("tennis_serve", -1), ("pullup", 1)], start=1):
        content = {"action": action, "train": train, "nframes": 2, "x": [[1.0] * 13] * 2, "dimensions": [480, 270, 2]}
        savemat(root / "labels" / f"{number:04d}.mat", content)
        _touch(root / "frames" / f"{number:04d}", ["000001.jpg", "000002.jpg"])
    return root


def test_penn_reads_flags_and_joints(tmp_path: Path) -> None:
    manifest = penn.read_penn(_penn(tmp_path / "Penn_Action").parent)
    assert manifest.column("clip_id") == ["0001", "0002", "0003"]
    assert manifest.column("label") == ["baseball_pitch", "tennis_serve", "pullup"]
    assert manifest.column("split") == ["train", "test", "train"]
    assert manifest.column("video")[0] == "frames/0001"
    assert (manifest.path_of(manifest.clips[0], "annotations") or tmp_path / "none").is_file()
    assert manifest.clips[0].text["frame_pattern"] == "%06d.jpg"


def test_penn_without_frames_keeps_the_joints(tmp_path: Path) -> None:
    root = _penn(tmp_path)
    shutil.rmtree(root / "frames" / "0002")
    manifest = penn.read_penn(root)
    assert manifest.column("video") == ["frames/0001", "", "frames/0003"]
    shutil.rmtree(root / "frames")
    manifest = penn.read_penn(root)
    assert manifest.column("video") == [""] * 3
    assert any("3 of 3 clips have no folder under" in note for note in manifest.notes)
    write(manifest, tmp_path / "m.csv")
    assert read(tmp_path / "m.csv").digest() == manifest.digest()


def test_penn_missing_and_damaged_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no folder labels in .*; expected labels/0001\.mat"):
        penn.read_penn(_touch(tmp_path / "a", ["frames/0001/000001.jpg"]))
    root = _penn(tmp_path / "b")
    savemat(root / "labels" / "0002.mat", {"action": "pullup"})
    with pytest.raises(ManifestError, match=r"0002\.mat has no variable 'train'"):
        penn.read_penn(root)
    savemat(root / "labels" / "0002.mat", {"action": "pullup", "train": 7})
    with pytest.raises(ManifestError, match=r"0002\.mat: train is 7, expected 1 .* or -1"):
        penn.read_penn(root)
    (root / "labels" / "0002.mat").write_bytes(b"no matlab file")
    with pytest.raises(ManifestError, match=r"0002\.mat cannot be read"):
        penn.read_penn(root)


# brace


def _brace(root: Path) -> Path:
    lists = root / "annotations"
    lists.mkdir(parents=True)
    (root / "videos_info.csv").write_text("video_id,fps\n-a_b,29.97\n")
    (lists / "segments.csv").write_text(
        "video_id,seq_idx,start_frame,end_frame,dance_type,dance_type_id,dancer,dancer_id,year,uid\n"
        "-a_b,0,851,1221,toprock,0,el niño,10,2011,-a_b.851.1221\n"
        "-a_b,0,1234,1330,powermove,1,el niño,10,2011,-a_b.1234.1330\n"
        "-a_b,1,1400,1500,footwork,2,roxrite,47,2011,-a_b.1400.1500\n",
        encoding="utf-8",
    )
    (lists / "sequences_train.csv").write_text("video_id,seq_idx,uid\n-a_b,1,-a_b.1\n")
    (lists / "sequences_test.csv").write_text("video_id,seq_idx,uid\n-a_b,0,-a_b.0\n")
    names = ["-a_b_851-1221_toprock.json", "-a_b_01234-01330_powermove.json", "-a_b_1400-1500_footwork.json"]
    return _touch(root, [f"dataset/2011/-a_b/{name}" for name in names])


def test_brace_segments_have_keypoints_and_no_video(tmp_path: Path) -> None:
    manifest = brace.read_brace(_brace(tmp_path))
    assert manifest.column("clip_id") == ["-a_b.851.1221", "-a_b.1234.1330", "-a_b.1400.1500"]
    assert manifest.column("split") == ["test", "test", "train"]
    assert manifest.column("label") == ["toprock", "powermove", "footwork"]
    assert manifest.column("group") == ["-a_b.0", "-a_b.0", "-a_b.1"]
    assert manifest.column("dancer")[0] == "el niño" and manifest.column("rate_fps")[0] == "29.97"
    assert manifest.column("start_frame") == ["851", "1234", "1400"]
    assert all((manifest.path_of(clip, "annotations") or tmp_path / "none").is_file() for clip in manifest.clips)
    assert manifest.notes == ()
    write(manifest, tmp_path / "m.csv")
    assert read(tmp_path / "m.csv").column("annotations")[0] == "dataset/2011/-a_b/-a_b_851-1221_toprock.json"


def test_brace_missing_parts_are_named(tmp_path: Path) -> None:
    root = _brace(tmp_path)
    (root / "dataset/2011/-a_b/-a_b_851-1221_toprock.json").unlink()
    manifest = brace.read_brace(root)
    assert len(manifest) == 3
    assert manifest.notes[0].startswith("1 of 3 keypoint files are missing under")
    shutil.rmtree(root / "dataset")
    with pytest.raises(ManifestError, match=r"none of the 3 keypoint files .* expected <year>/<video_id>/"):
        brace.read_brace(root)
    (root / "annotations" / "sequences_train.csv").write_text("video_id,seq_idx,uid\n-a_b,0,-a_b.0\n")
    with pytest.raises(ManifestError, match=r"sequences_test\.csv, line 2: sequence '-a_b\.0' is also in sequences_tr"):
        brace.read_brace(root)
    (root / "annotations" / "sequences_train.csv").unlink()
    with pytest.raises(ManifestError, match=r"no manifest at .*sequences_train\.csv"):
        brace.read_brace(root)
    (root / "annotations" / "segments.csv").unlink()
    with pytest.raises(ManifestError, match=r"no BRACE lists \(segments\.csv, sequences_train\.csv"):
        brace.read_brace(root)


def test_brace_official_lists_have_the_published_counts(data_root: Path) -> None:
    segments = brace.read_lists(data_root / "splits" / "brace")
    assert len(segments) == 1352
    assert Counter(segment.label for segment in segments) == {"toprock": 465, "powermove": 462, "footwork": 425}
    sequences = {segment.sequence: segment.split for segment in segments}
    assert Counter(sequences.values()) == {"train": 319, "test": 146}
    assert all(float(segment.rate_fps) > 20 for segment in segments)


# intervals


def _table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("header", "first", "second"),
    [
        ("video,start,end,label", "day1.mp4,0,2.5,walk", "day1.mp4,2.5,10,run"),
        ("File Name,t_start,t_end,Action", "day1.mp4,0.0,2.50,walk", "day1.mp4,2.5,10.0,run"),
        ("file,onset,duration,behavior", "day1.mp4,0,2.5,walk", "day1.mp4,2.5,7.5,run"),
        ("video_id,start-time,stop,class", "day1,0:00,0:02.5,walk", "day1,00:00:02.5,0:0:10,run"),
    ],
)
def test_intervals_finds_common_names(header: str, first: str, second: str, tmp_path: Path) -> None:
    _touch(tmp_path, ["videos/day1.mp4"])
    table = _table(tmp_path / "t.csv", f"{header}\n{first}\n{second}\n")
    manifest = intervals.read_intervals(table, root=tmp_path / "videos")
    assert manifest.column("video") == ["day1.mp4"] * 2
    assert manifest.column("clip_id") == ["day1@0-2.5", "day1@2.5-10"]
    assert list(manifest.column("start_seconds")) == [0.0, 2.5]
    assert list(manifest.column("end_seconds")) == [2.5, 10.0]
    assert manifest.column("label") == ["walk", "run"]
    assert manifest.column("group") == ["day1.mp4"] * 2


@pytest.mark.parametrize(
    ("cell", "seconds"), [("1:00:05", 3605.0), ("12:03.25", 723.25), ("90", 90.0), (" 7.5 ", 7.5), ("0", 0.0)]
)
def test_intervals_times_may_be_clocks(cell: str, seconds: float, tmp_path: Path) -> None:
    _touch(tmp_path, ["a.mp4"])
    table = _table(tmp_path / "t.csv", f"video,start,end\na.mp4,{cell},10000\n")
    assert list(intervals.read_intervals(table).column("start_seconds")) == [seconds]


def test_intervals_ids_stay_when_lines_are_added(tmp_path: Path) -> None:
    _touch(tmp_path, ["a/x.mp4", "a.mp4"])
    lines = ["a/x.mp4,1,2,walk", "a/x.mp4,1,2,talk", "a/y,0.1,0.30000000000000004,run"]
    ids = []
    for count in (1, 3):
        table = _table(tmp_path / "t.csv", "video,start,end,label\n" + "\n".join(lines[:count]) + "\n")
        ids.append(intervals.read_intervals(table).column("clip_id"))
    assert ids == [["a/x@1-2"], ["a/x@1-2#walk", "a/x@1-2#talk", "a/y@0.1-0.3"]]
    table = _table(tmp_path / "t.csv", "video,start,end\n" + "a.mp4,1,2\n" * 2)
    with pytest.raises(ManifestError, match=r"line 3: clip_id 'a@1-2' is also on line 2"):
        intervals.read_intervals(table)


def test_intervals_map_names_what_is_not_common(tmp_path: Path) -> None:
    _touch(tmp_path, ["a.mp4"])
    table = _table(tmp_path / "t.csv", "clip,von,bis,kcal,subset,note\na.mp4,1,2,33.5,test,x\n")
    mapping = {"video": "clip", "start_seconds": "von", "end_seconds": "bis"}
    manifest = intervals.read_intervals(table, mapping=mapping)
    assert (manifest.column("split"), manifest.column("note")) == (["test"], ["x"])
    assert list(manifest.column("kcal")) == [33.5]
    with pytest.raises(
        ManifestError, match=r"no column for end_seconds \(looked for .*found clip, von, bis, .*--map end"
    ):
        intervals.read_intervals(table, mapping={"video": "clip", "start_seconds": "von"})
    with pytest.raises(ManifestError, match=r"no column for video \(looked for video, video_path"):
        intervals.read_intervals(table)


def test_intervals_bad_cells_are_named(tmp_path: Path) -> None:
    table = _table(tmp_path / "t.csv", "video,start,end\na.mp4,soon,2\n")
    with pytest.raises(ManifestError, match=r"t\.csv, line 2: start_seconds 'soon' is neither seconds nor \[H:\]M:S"):
        intervals.read_intervals(table)
    _touch(tmp_path, ["p/a.mp4", "q/a.avi"])
    table = _table(tmp_path / "t.csv", "video,start,end\na,1,2\n")
    with pytest.raises(ManifestError, match=r"line 2: video 'a' may be p/a\.mp4 or q/a\.avi"):
        intervals.read_intervals(table)
    _touch(tmp_path, ["a.mp4"])
    table = _table(tmp_path / "t.csv", "video,start,end,split\na.mp4,1,2,train\na.mp4,3,4,test\n")
    with pytest.raises(ManifestError, match=r"group 'a\.mp4' is on both sides of train/test"):
        intervals.read_intervals(table)
    assert len(intervals.read_intervals(table, allow_group_overlap=True)) == 2
