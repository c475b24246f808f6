"""Annotation tables whose columns have other names: mapped by `--map`, and kept by the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pipeline import run

from reelbank.extract import FeaturizeConfig
from reelbank.extract.errors import DecodeError
from reelbank.extract.inputs import annotations
from reelbank.extract.inputs.annotation_columns import parse
from reelbank.store import SpecMismatch, Store

OURS = "frame,nose_x,nose_y,nose_score,left_hip_x,left_hip_y,left_hip_score,box_x0,box_y0,box_x1,box_y1"
THEIRS = "Frame No,nose.X,nose.Y,nose.P,left_hip.X,left_hip.Y,left_hip.P,l,t,r,b"
MAP = ("frame=Frame No", "*_x=*.X", "*_y=*.Y", "*_score=*.P", "box_x0=l", "box_y0=t", "box_x1=r", "box_y1=b")
ROWS = "1,10,20,1,30,40,0,0,0,50,60\n2,11,21,1,31,41,1,1,1,51,61\n4,12,22,1,32,42,1,2,2,52,62\n"


def written(path: Path, header: str, rows: str = ROWS) -> Path:
    path.write_text(f"{header}\n{rows}")
    return path


def points_of(path: Path, *pairs: str) -> annotations.Annotated:
    return annotations.read(path, clip_id="a", rate_fps=25, columns=parse(pairs))


def test_mapped_columns_are_read_as_ours(tmp_path: Path) -> None:
    ours = points_of(written(tmp_path / "ours.csv", OURS))
    for header, pairs in (
        (THEIRS, MAP),
        (OURS.replace("frame", "id"), ("frame=id",)),
        (THEIRS.replace("nose.X", "NX"), (*MAP, "nose_x=NX")),
    ):
        theirs = points_of(written(tmp_path / "theirs.csv", header), *pairs)
        np.testing.assert_array_equal(theirs.points, ours.points)
        np.testing.assert_array_equal(theirs.boxes, ours.boxes)
    # What is neither mapped nor ours is left out: a track, a name, the points of a face.
    more = written(tmp_path / "more.csv", f"{THEIRS},track,lip.X", ROWS.replace("\n", ",a,?\n"))
    np.testing.assert_array_equal(points_of(more, *MAP).points, ours.points)


@pytest.mark.parametrize(
    ("header", "pairs", "message"),
    [
        (THEIRS, (), "no column frame, found Frame No, nose.X.*; name it with --map frame=COLUMN"),
        (OURS.replace("nose_x", "NX"), (), "column 'NX' is neither.*--map NAME_x=COLUMN"),
        (OURS, ("frame=nr",), "--map frame=nr: no such column; the first are frame, nose_x"),
        (OURS, ("*_x=*-x",), r"--map \*_x=\*-x: no such column"),
        (OURS.replace("box_x0", "id"), ("frame=id",), r"columns 'id' \(--map\) and 'frame' are both frame"),
        ("a,a,nose_x,nose_y", ("frame=a",), "two columns have the same name"),
    ],
)
def test_columns_that_do_not_fit_are_said(tmp_path: Path, header: str, pairs: tuple[str, ...], message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        points_of(written(tmp_path / "x.csv", header), *pairs)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("frame",), "expected OURS=THEIRS"),
        (("frames=x",), "'frames' is none of frame, box_x0"),
        (("elbow_x=x",), "'elbow_x' is none of"),
        (("*_x=x",), r"\* stands once on both sides"),
        (("nose_x=*",), r"\* stands once on both sides"),
        (("frame=a", "frame=b"), "frame is 'a' already; map each once"),
        (("nose_x=a", "nose_y=a"), "'a' is mapped twice"),
    ],
)
def test_maps_that_mean_nothing_are_refused_before_anything_is_read(pairs: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeaturizeConfig(model=("pose",), mapping=pairs)


def test_featurize_reads_mapped_tables_and_the_store_knows_the_map(tmp_path: Path) -> None:
    written(tmp_path / "a.csv", THEIRS)
    (tmp_path / "manifest.csv").write_text("clip_id,annotations,rate_fps,split\na,a.csv,25,train\n")
    options = {"model": ("pose",), "sampling": ("all",), "workers": 1}
    report = run(tmp_path, mapping=MAP, **options)
    assert not report.has_failures
    store = Store(tmp_path / "pose.zarr")
    assert store.spec.annotation_columns == parse(MAP)
    written(tmp_path / "a.csv", OURS)
    run(tmp_path, out=str(tmp_path / "ours.zarr"), **options)
    plain = Store(tmp_path / "ours.zarr")
    for tap in store.taps:
        np.testing.assert_array_equal(store.read(tap, 0), plain.read(tap, 0))
    assert plain.spec.annotation_columns is None
    with pytest.raises(SpecMismatch, match=r"annotation_columns.frame: stored 'Frame No', asked None"):
        run(tmp_path, **options)
    with pytest.raises(ValueError, match="--map frame=Frame No: no annotation table is read by flow:dis"):
        run(tmp_path, **options | {"model": ("flow:dis",), "mapping": MAP})
