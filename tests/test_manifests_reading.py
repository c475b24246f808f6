"""Manifests from and to files: what is refused and how it is said, and what survives a round trip."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reelbank.manifests
from reelbank.manifests import Clip, Manifest, ManifestError, read, write
from reelbank.manifests.files import as_one_file
from reelbank.manifests.reading import FORMATS

HEADER = b"clip_id,video,split,label,start_seconds,end_seconds,group,kcal\n"


def _write_bytes(folder: Path, data: bytes, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# What is wrong, and what the message must say: the file's name and the line stand in all of them.
BAD_CSV = {
    "empty": (b"", r"m\.csv is empty"),
    "only_bom": (b"\xef\xbb\xbf", r"m\.csv is empty"),
    "only_header": (HEADER, r"m\.csv has a header but no clips"),
    "no_key_columns": (b"name,file\na,b\n", r"no 'clip_id' and 'video'; found file, name"),
    "no_video_column": (b"clip_id,label\na,b\n", r"no 'video'; found clip_id, label"),
    "unnamed_column": (b",clip_id,video\n0,a,b\n", r"column 1 has no name"),
    "column_twice": (b"clip_id,video,video\na,b,c\n", r"column 'video' is there twice"),
    "columns_by_case": (
        b"clip_id,video,Camera,camera\na,b,1,2\n",
        r"columns 'Camera' and 'camera' differ only in case",
    ),
    "column_is_a_path": (b"clip_id,video,../x\na,b,c\n", r"column name '\.\./x' holds a slash"),
    "column_is_reserved": (b"clip_id,video,zarr.json\na,b,c\n", r"'zarr\.json' is reserved"),
    "too_many_cells": (b"clip_id,video\na,b\nc,d,e\n", r"m\.csv, line 3: 3 cells, but the header names 2"),
    "too_few_cells": (b"clip_id,video,label\na,b\n", r"m\.csv, line 2: 2 cells"),
    "open_quote": (b'clip_id,video\na,b\n"c,d\n', r"m\.csv, line 3: not CSV .*unclosed quote"),
    "not_utf8": (b"clip_id,video\na,b\nc,\xff\x81\n", r"m\.csv, line 3: not UTF-8"),
    "cyrillic": ("clip_id,video\na,\u0438\u0433\u0440\u0430.mp4\n".encode("cp1251"), r"m\.csv, line 2: not UTF-8"),
    "binary": (b"clip_id,video\na,\x01\xe4.mp4\n", r"m\.csv, line 2: not UTF-8"),
    "empty_id": (HEADER + b",v.mp4,,,,,,\n", r"m\.csv, line 2: clip_id is empty"),
    "same_id": (
        HEADER + b"a,v.mp4,,,,,,\nb,w.mp4,,,,,,\na,x.mp4,,,,,,\n",
        r"m\.csv, line 4: clip_id 'a' is also on line 2",
    ),
    "id_with_spaces": (HEADER + b"a ,v.mp4,,,,,,\n", r"line 2: clip_id 'a ' has outer spaces"),
    "split_with_spaces": (HEADER + b"a,v.mp4, train,,,,,\n", r"line 2: split ' train' has outer spaces"),
    "id_with_control": (HEADER + b"a\x1b[1m,v.mp4,,,,,,\n", r"line 2: clip_id .* control characters"),
    "nul": (HEADER + b"a,v\x00.mp4,,,,,,\n", r"line 2: column 'video' holds a NUL"),
    "no_video": (HEADER + b"a,,,,,,,\n", r"line 2: video is empty"),
    "url": (HEADER + b"a,http://x/v.mp4,,,,,,\n", r"line 2: video 'http://x/v\.mp4' is a URL"),
    "start_text": (HEADER + b"a,v.mp4,,,one,,,\n", r"line 2: start_seconds='one' is not a number of seconds"),
    "start_negative": (HEADER + b"a,v.mp4,,,-1,,,\n", r"line 2: start_seconds='-1' is not"),
    "end_infinite": (HEADER + b"a,v.mp4,,,,inf,,\n", r"line 2: end_seconds='inf' is not"),
    "end_first": (HEADER + b"a,v.mp4,,,3,2.5,,\n", r"line 2: end_seconds=2\.5 is before start_seconds=3\.0"),
    "target_text": (HEADER + b"a,v.mp4,,,,,,1\nb,w.mp4,,,,,,many\n", r"m\.csv, line 3: target kcal='many'"),
    "target_comma": (HEADER + b'a,v.mp4,,,,,,"1,5,2"\n', r"line 2: target kcal='1,5,2' is not a finite number"),
    "target_either": (HEADER + b'a,v.mp4,,,,,,"1,200"\n', r"line 2: kcal '1,200' may be 1\.200 or 1200, .*--decimal"),
    "target_infinite": (HEADER + b"a,v.mp4,,,,,,-inf\n", r"line 2: target kcal='-inf'"),
    "target_underscore": (HEADER + b"a,v.mp4,,,,,,1_000\n", r"line 2: target kcal='1_000'"),
    "group_on_both_sides": (
        HEADER + b"a,v.mp4,train,,,,s3,\nb,w.mp4,train,,,,s4,\nc,x.mp4,test,,,,s3,\n",
        r"m\.csv, line 4: group 's3' is on both sides of train/test \(train on line 2, test on line 4\)",
    ),
    "group_train_unknown": (
        HEADER + b"a,v.mp4,unknown,,,,s3,\nc,x.mp4,val,,,,s3,\n",
        r"group 's3' is on both sides of val/unknown",
    ),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_csv_is_refused_with_file_and_line(case: str, tmp_path: Path) -> None:
    data, message = BAD_CSV[case]
    with pytest.raises(ManifestError, match=message):
        read(_write_bytes(tmp_path, data))


BAD_JSONL = {
    "empty": (b"\n\n", r"m\.jsonl is empty"),
    "not_json": (b'{"clip_id": "a", "video": "v"}\n{"clip_id": \n', r"m\.jsonl, line 2: not JSON"),
    "not_an_object": (b'["a"]\n', r"m\.jsonl, line 1: list, expected an object"),
    "key_twice": (b'{"clip_id": "a", "clip_id": "b"}\n', r"line 1: 'clip_id' is there twice"),
    "nested": (b'{"clip_id": "a", "video": "v", "box": [1, 2]}\n', r"line 1: 'box' holds a list"),
    "object": (b'{"clip_id": "a", "video": {"path": "v"}}\n', r"line 1: 'video' holds a _?\w+; a cell"),
    "surrogate": (b'{"clip_id": "a", "video": "v", "x": "\\ud800"}\n', r"line 1: column 'x' holds .* surrogate"),
    "surrogate_column": (b'{"clip_id": "a", "video": "v", "\\ud800": 1}\n', r"column name '\\ud800' holds"),
    "endless_number": (b'{"clip_id": "a", "kcal": ' + b"1" * 5000 + b"}\n", r"line 1: not JSON"),
    "boolean_target": (b'{"clip_id": "a", "video": "v", "kcal": true}\n', r"line 1: target kcal='true'"),
}


@pytest.mark.parametrize("case", BAD_JSONL)
def test_bad_jsonl_is_refused_with_file_and_line(case: str, tmp_path: Path) -> None:
    data, message = BAD_JSONL[case]
    with pytest.raises(ManifestError, match=message):
        read(_write_bytes(tmp_path, data, "m.jsonl"))


@pytest.mark.parametrize(("data", "message"), [(b"", "is empty"), (b"PAR1 not really", "not a Parquet table of texts")])
def test_bad_parquet_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(ManifestError, match=message):
        read(_write_bytes(tmp_path, data, "m.parquet"))


def test_parquet_names_the_row_and_takes_typed_columns(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"clip_id": ["a", "b"], "video": ["v", "w"], "kcal": [1.5, None], "rate_fps": [25, 30]})
    pq.write_table(table, tmp_path / "m.parquet")
    manifest = read(tmp_path / "m.parquet")
    np.testing.assert_array_equal(manifest.column("kcal"), [1.5, math.nan])
    assert manifest.column("rate_fps") == ["25", "30"]
    pq.write_table(pa.table({"clip_id": ["a", "a"], "video": ["v", "w"]}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"m\.parquet, row 2: clip_id 'a' is also on row 1"):
        read(tmp_path / "m.parquet")


def test_missing_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ManifestError, match=r"pip install reelbank\[parquet\]"):
        read(_write_bytes(tmp_path, b"PAR1", "m.parquet"))
    with pytest.raises(ManifestError, match=r"pip install reelbank\[parquet\]"):
        write(_manifest(tmp_path), tmp_path / "out.parquet")


def test_absent_file_folder_and_suffix_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no manifest at .*m\.csv \(nothing is there\)"):
        read(tmp_path / "m.csv")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(ManifestError, match="a folder is there"):
        read(tmp_path / "d.csv")
    with pytest.raises(ManifestError, match=r"one of \.csv, .*\.parquet, \.tsv, \.txt; save the sheet as CSV"):
        read(tmp_path / "m.xlsx")
    with pytest.raises(ManifestError, match=r"a manifest's name ends in one of \.csv, \.jsonl, \.ndjson, \.parquet$"):
        write(_manifest(tmp_path), tmp_path / "m.tsv")
    with pytest.raises(ManifestError, match=r"root .* is not a folder"):
        read(_write_bytes(tmp_path, HEADER + b"a,v,,,,,,\n"), root=tmp_path / "nowhere")


def test_all_problems_are_listed_up_to_ten(tmp_path: Path) -> None:
    rows = b"".join(b"c%d,v.mp4,,,,,,many\n" % i for i in range(15))
    with pytest.raises(ManifestError) as caught:
        read(_write_bytes(tmp_path, HEADER + rows))
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert "line 2:" in lines[0] and lines[-1] == "... and 5 more"


def test_bom_crlf_quotes_and_blank_lines_are_read(tmp_path: Path) -> None:
    data = '\ufeffclip_id,video,label\r\n\r\na,"x, y.mp4","two\r\nlines ""q"""\r\nb,ä[1].mp4,\r\n'.encode()
    with pytest.raises(ManifestError, match=r"m\.csv, line 3: label 'two\\r\\nlines"):
        read(_write_bytes(tmp_path, data))
    manifest = read(_write_bytes(tmp_path, data.replace(b"label", b"remark")))
    assert manifest.column("video") == ["x, y.mp4", "ä[1].mp4"]
    assert manifest.column("remark") == ['two\r\nlines "q"', ""]
    # The row after a cell with a line break is named by its own first line.
    with pytest.raises(ManifestError, match=r"line 5: clip_id 'a' is also on line 3"):
        read(_write_bytes(tmp_path, data.replace(b"label", b"remark").replace(b"\nb,", b"\na,")))


def test_group_overlap_allowed_becomes_a_note(tmp_path: Path) -> None:
    path = _write_bytes(tmp_path, BAD_CSV["group_on_both_sides"][0])
    manifest = read(path, allow_group_overlap=True)
    assert manifest.notes == ("group 's3' is on both sides of train/test (allowed by allow_group_overlap)",)


def test_group_in_an_unused_split_is_no_overlap(tmp_path: Path) -> None:
    data = HEADER + b"a,v.mp4,train,,,,s3,\nb,w.mp4,unused,,,,s3,\n"
    assert read(_write_bytes(tmp_path, data)).notes == ()


def test_group_in_test_and_unknown_is_no_overlap(tmp_path: Path) -> None:
    """Neither is trained on, and a study of one group of people has every person in both."""
    data = HEADER + b"a,v.mp4,test,,,,s3,\nb,w.mp4,unknown,,,,s3,\n"
    assert read(_write_bytes(tmp_path, data)).notes == ()
    with pytest.raises(ManifestError, match=r"'s3' is on both sides of train/test/unknown"):
        read(_write_bytes(tmp_path, data + b"c,x.mp4,train,,,,s3,\n"))


def test_summary_tells_range_of_targets_and_clips_without(tmp_path: Path) -> None:
    data = HEADER + b"a,v.mp4,train,,,,,-50\nb,w.mp4,train,,,,,1200\nc,x.mp4,train,,,,,NaN\nd,y.mp4,train,,,,,\n"
    assert read(_write_bytes(tmp_path, data)).summary().endswith("targets kcal (-50 to 1200; 2 clips without)")
    assert read(_write_bytes(tmp_path, HEADER + b"c,x.mp4,train,,,,,\n")).summary().endswith("kcal (1 clips without)")


def test_suspicious_splits_are_noted(tmp_path: Path) -> None:
    data = HEADER + b"a,v.mp4,Train,,,,,\nb,v.mp4,validation,,,,,\nc,v.mp4,train,,,,,\nd,v.mp4,test,,,,,\n"
    notes = " | ".join(read(_write_bytes(tmp_path, data)).notes)
    assert "split 'Train' is not 'train'" in notes
    assert "split 'validation' is not 'val'" in notes
    assert "video 'v.mp4' has clips in test/train" in notes


@pytest.mark.parametrize(
    ("header", "asked", "expected"),
    [
        ("kcal,target_a", None, ("kcal",)),
        ("target_b,other,target_a", None, ("target_b", "target_a")),
        ("kcal,other", ("other",), ("other",)),
        ("kcal,other", "other", ("other",)),
        ("kcal,other", (), ()),
        ("weight,other", None, ()),
    ],
)
def test_target_columns_are_chosen(header: str, asked: tuple[str] | None, expected: tuple[str], tmp_path: Path) -> None:
    cells = ",".join("1.5" for _ in header.split(","))
    manifest = read(_write_bytes(tmp_path, f"clip_id,video,{header}\na,v,{cells}\n".encode()), target_columns=asked)
    assert manifest.target_names == expected
    assert set(manifest.text_columns) == set(header.split(",")) - set(expected)


def test_absent_target_column_lists_those_there(tmp_path: Path) -> None:
    path = _write_bytes(tmp_path, HEADER + b"a,v.mp4,,,,,,1\n")
    for asked in ("calories", "label"):
        with pytest.raises(ManifestError, match=f"target column '{asked}' was asked for; .* are kcal"):
            read(path, target_columns=[asked])


def test_zero_second_interval_and_missing_video_pass(tmp_path: Path) -> None:
    manifest = read(_write_bytes(tmp_path, HEADER + b"a,nowhere.mp4,,,2,2,,\n"))
    assert (manifest.clips[0].start_seconds, manifest.clips[0].end_seconds) == (2.0, 2.0)
    assert manifest.video_path(manifest.clips[0]) == tmp_path / "nowhere.mp4"


def test_annotations_stand_in_for_a_video(tmp_path: Path) -> None:
    manifest = read(_write_bytes(tmp_path, b"clip_id,annotations\na,k/a.json\n"))
    assert manifest.video_path(manifest.clips[0]) is None
    assert manifest.path_of(manifest.clips[0], "annotations") == tmp_path / "k" / "a.json"
    assert manifest.path_of(manifest.clips[0], "flow_x") is None


def test_root_restricts_paths(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    for cell in ("../v.mp4", "a/../../v.mp4", "/etc/passwd", "link/v.mp4"):
        path = _write_bytes(tmp_path, f"clip_id,video\nok,v.mp4\na,{cell}\n".encode())
        with pytest.raises(ManifestError, match=r"m\.csv, line 3: video .* leaves the root"):
            read(path, root=root)
        assert len(read(path)) == 2
    for column in ("flow_x", "annotations", "motion_maps", "frame_pattern"):
        path = _write_bytes(tmp_path, f"clip_id,video,{column}\na,v,../../x\n".encode())
        with pytest.raises(ManifestError, match=f"line 2: {column} .* leaves the root"):
            read(path, root=root)
    inside = _write_bytes(tmp_path, f"clip_id,video\na,b/../v.mp4\nb,{root}/w.mp4\n".encode())
    manifest = read(inside, root=root)
    assert manifest.video_path(manifest.clips[1]) == root / "w.mp4"


def test_absent_ids_are_derived_and_unique(tmp_path: Path) -> None:
    videos = ["a/x.mp4,,", "b/x.mp4,,", "c/y.avi,,", "c/y.mp4,,", "z.MP4,0,1", "z.MP4,1.5,2", "take1.5,,"]
    data = "video,start_seconds,end_seconds\n" + "\n".join(videos) + "\n"
    manifest = read(_write_bytes(tmp_path, data.encode()))
    assert manifest.column("clip_id") == [*("a/x", "b/x", "c/y.avi", "c/y.mp4", "z.MP4@0-1", "z.MP4@1.5-2", "take1.5")]
    assert any("no column 'clip_id'" in note for note in manifest.notes)
    with pytest.raises(ManifestError, match=r"line 3: clip_id 'a\.mp4' is also on line 2"):
        read(_write_bytes(tmp_path, b"video\na.mp4\na.mp4\n"))


def test_absent_split_column_is_train_and_said(tmp_path: Path) -> None:
    manifest = read(_write_bytes(tmp_path, b"clip_id,video\na,v\n"))
    assert manifest.column("split") == ["train"]
    assert manifest.notes == ("there is no column 'split': every clip counts as train",)


def _manifest(root: Path) -> Manifest:
    clips = (
        Clip(clip_id="a", video="v/a.mp4", label="left", group="s1", targets={"kcal": 1.25}, text={"note": "x,\ny"}),
        Clip(clip_id="b", video="", split="test", end_seconds=0.1, targets={"kcal": math.nan}, text={"note": "12"}),
    )
    clips = (clips[0], replace(clips[1], video="v/b.mp4"))
    return Manifest(path=None, root=root, clips=clips, target_names=("kcal",), text_columns=("note",))


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_round_trip_keeps_clips_and_digest(suffix: str, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    manifest = _manifest(tmp_path)
    write(manifest, tmp_path / f"m{suffix}")
    again = read(tmp_path / f"m{suffix}")
    assert again.clips == manifest.clips
    assert (again.target_names, again.text_columns) == (manifest.target_names, manifest.text_columns)
    assert again.digest() == manifest.digest()
    assert [path.name for path in tmp_path.iterdir()] == [f"m{suffix}"]  # no partial file is left


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
_WORD = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=8)
_SECONDS = st.one_of(st.none(), st.floats(0, 1e6))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(_TEXT, _WORD, _SECONDS, _SECONDS, st.floats(allow_infinity=False)), min_size=1, max_size=4)
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_round_trip_keeps_any_text_and_number(suffix: str, rows: list[tuple], tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    clips = tuple(
        Clip(
            clip_id=f"c{i}",
            video=f"{i}{word}.mp4",  # a letter in front of `://` would be a URL
            label=word,
            start_seconds=start,
            end_seconds=None if end is None else end + (start or 0.0),
            targets={"kcal": math.nan if math.isnan(number) else number},
            text={"remark": text},
        )
        for i, (text, word, start, end, number) in enumerate(rows)
    )
    manifest = Manifest(path=None, root=tmp_path, clips=clips, target_names=("kcal",), text_columns=("remark",))
    write(manifest, tmp_path / f"m{suffix}", overwrite=True)
    again = read(tmp_path / f"m{suffix}")
    assert again.clips == clips
    assert again.digest() == manifest.digest()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(st.binary(max_size=60), st.builds(lambda tail: b"clip_id,video\n" + tail, st.binary(max_size=40)))
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_any_bytes_are_read_or_refused_clearly(suffix: str, data: bytes, tmp_path: Path) -> None:
    path = _write_bytes(tmp_path, data, f"m{suffix}")
    try:
        assert len(read(path)) >= 1
    except ManifestError as error:
        assert f"m{suffix}" in str(error)


def test_write_refuses_to_overwrite_and_leaves_the_old(tmp_path: Path) -> None:
    path = _write_bytes(tmp_path, b"mine")
    with pytest.raises(ManifestError, match="is there already"):
        write(_manifest(tmp_path), path)
    assert path.read_bytes() == b"mine"
    write(_manifest(tmp_path), path, overwrite=True)
    assert len(read(path)) == 2


def test_write_elsewhere_keeps_what_paths_mean(tmp_path: Path) -> None:
    root = tmp_path / "set"
    manifest = replace(_manifest(root), text_columns=("note", "flow_x"))
    clips = tuple(replace(clip, text=clip.text | {"flow_x": "f/x.png"}) for clip in manifest.clips)
    manifest = replace(manifest, clips=clips)
    for out in (tmp_path / "above.csv", tmp_path / "beside" / "m.csv", root / "deep" / "m.jsonl"):
        write(manifest, out)
        again = read(out)
        for clip, before in zip(again.clips, manifest.clips, strict=True):
            assert again.video_path(clip) == manifest.video_path(before)
            assert again.path_of(clip, "flow_x") == manifest.path_of(before, "flow_x")
    assert read(tmp_path / "above.csv").clips[0].video == "set/v/a.mp4"


def test_jsonl_columns_are_the_union_in_order(tmp_path: Path) -> None:
    lines = [
        {"clip_id": "a", "video": "v", "rate_fps": 29.97},
        {"clip_id": "b", "video": "w", "kcal": 12, "ok": True},
    ]
    data = "\n".join(json.dumps(line) for line in lines).encode()
    manifest = read(_write_bytes(tmp_path, data, "m.jsonl"))
    assert manifest.text_columns == ("rate_fps", "ok")
    assert manifest.column("rate_fps") == ["29.97", ""]
    assert manifest.column("ok") == ["", "true"]
    np.testing.assert_array_equal(manifest.column("kcal"), [math.nan, 12.0])


def test_column_and_split_name_what_is_there(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    assert manifest.column("group") == ["s1", ""]
    np.testing.assert_array_equal(manifest.column("end_seconds"), [math.nan, 0.1])
    assert manifest.split("test").column("clip_id") == ["b"]
    with pytest.raises(ManifestError, match="no clip is in split 'val'; its splits are 'test', 'train'"):
        manifest.split("val")
    with pytest.raises(ManifestError, match=r"no column 'weight'; it has clip_id, .*note"):
        manifest.column("weight")


def test_digest_sees_every_cell_and_the_order(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    first, second = manifest.clips
    changed = [
        replace(manifest, clips=(second, first)),
        replace(manifest, clips=(first,)),
        *(
            replace(manifest, clips=(replace(first, **{name: "other"}), second))
            for name in ("clip_id", "video", "split")
        ),
        *(replace(manifest, clips=(replace(first, **{name: "other"}), second)) for name in ("label", "group")),
        *(
            replace(manifest, clips=(replace(first, **{name: 0.5}), second))
            for name in ("start_seconds", "end_seconds")
        ),
        replace(manifest, clips=(replace(first, targets={"kcal": 1.26}), second)),
        replace(manifest, clips=(replace(first, text={"note": ""}), second)),
    ]
    digests = {one.digest() for one in changed} | {manifest.digest()}
    assert len(digests) == len(changed) + 1
    moved = replace(manifest, root=tmp_path / "elsewhere", path=tmp_path / "m.csv", notes=("a note",))
    assert moved.digest() == manifest.digest()


def test_public_names_load_lazily() -> None:
    assert set(reelbank.manifests.__all__) <= set(dir(reelbank.manifests))
    for name in reelbank.manifests.__all__:
        assert getattr(reelbank.manifests, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = reelbank.manifests.nothing


def test_parquet_columns_must_differ_and_hold_text(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = [pa.array(["a"]), pa.array(["v"]), pa.array(["w"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["clip_id", "video", "video"]), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="column 'video' is there twice"):
        read(tmp_path / "m.parquet")
    pq.write_table(pa.table({"clip_id": ["a"], "video": ["v"], "box": [[1, 2]]}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"m\.parquet, row 1: 'box' holds a list"):
        read(tmp_path / "m.parquet")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("A", "a", True), ("straße", "STRASSE", True), ("café", "cafe\u0301", True), ("a", "b", False), ("é", "e", False)],
)
def test_which_names_are_one_file_elsewhere(one: str, other: str, same: bool) -> None:
    assert (as_one_file(one) == as_one_file(other)) is same
