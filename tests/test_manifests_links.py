"""One rule for every file that a manifest names: with a root, none lies outside it, links followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from reelbank.extract.inputs.sources import refuse_outside
from reelbank.manifests import ManifestError, read
from reelbank.manifests.datasets import reader
from reelbank.manifests.manifest import outside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a folder of frames, and a picture and a folder outside it."""
    root = tmp_path / "root"
    for folder in (root / "frames", root / "other", tmp_path / "away"):
        folder.mkdir(parents=True)
        for number in (1, 2):
            (folder / f"{number}.png").write_bytes(b"x")
    return root


def _manifest(root: Path, columns: str, row: str) -> Path:
    path = root.parent / "m.csv"
    path.write_text(f"clip_id,{columns}\na,{row}\n")
    return path


@pytest.mark.parametrize("column", ["video", "flow_x", "flow_y", "motion_maps"])
def test_picture_that_is_a_link_out_of_the_root_is_refused(column: str, root: Path) -> None:
    (root / "frames/3.png").symlink_to(root.parent / "away/1.png")
    columns, row = ("video", "frames") if column == "video" else (f"video,{column}", "other,frames")
    path = _manifest(root, columns, row)
    with pytest.raises(ManifestError, match=rf"line 2: {column} 'frames' leaves the root .*: '3\.png' in it is a link"):
        read(path, root=root)
    assert not read(path).confined


@pytest.mark.parametrize("cell", ["v.mp4", "link", "link/1.png", "nested", "frames/../../away/1.png", "loop", "{away}"])
def test_every_other_way_out_is_refused(cell: str, root: Path) -> None:
    away = root.parent / "away"
    (root / "v.mp4").symlink_to(away / "1.png")
    (root / "link").symlink_to(away)
    (root / "nested").symlink_to(root / "link")
    (root / "loop").symlink_to(root / "loop")
    for column in ("video", "annotations"):
        columns = column if column == "video" else "video,annotations"
        row = cell.format(away=away / "1.png")
        with pytest.raises(ManifestError, match=f"line 2: {column} .* leaves the root"):
            read(_manifest(root, columns, row if column == "video" else f"frames,{row}"), root=root)


def test_links_that_stay_inside_are_read(root: Path) -> None:
    (root / "frames/3.png").symlink_to(root / "other/1.png")
    (root / "same").symlink_to(root / "frames")
    (root.parent / "link").symlink_to(root)
    for given in (root, root.parent / "link"):
        for cell in ("frames", "same", "frames/3.png", str(root / "frames")):
            assert read(_manifest(root, "video", cell), root=given).confined


def test_folder_of_videos_that_is_a_link_needs_a_root_that_holds_both(root: Path) -> None:
    (root / "videos").symlink_to(root.parent / "away")
    path = _manifest(root, "video", "videos/1.png")
    with pytest.raises(ManifestError, match="name a folder that holds all files as the root, or none"):
        read(path, root=root)
    assert len(read(_manifest(root, "video", "root/videos/1.png"), root=root.parent)) == 1
    assert len(read(path)) == 1


def test_table_of_another_program_follows_the_rule(root: Path) -> None:
    (root / "frames/3.png").symlink_to(root.parent / "away/1.png")
    path = root.parent / "t.csv"
    path.write_text("file,label\nframes,a\n")
    with pytest.raises(ManifestError, match="leaves the root"):
        reader("csv")(path, mapping={"video": "file"}, root=root)


def test_worker_asks_again_where_it_reads(root: Path) -> None:
    """Links change between the reading of the manifest and that of the pictures."""
    frames = root / "frames"
    refuse_outside((frames,), root)
    (frames / "3.png").symlink_to(root.parent / "away/1.png")
    with pytest.raises(ValueError, match=r"3\.png leaves the root"):
        refuse_outside((frames,), root)
    refuse_outside((frames,), None)
    assert outside(frames / "missing.png", root) is None
