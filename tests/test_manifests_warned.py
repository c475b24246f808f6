"""What a person must know of a manifest before hours of work: one class, hidden files, a folder with an apostrophe."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from reelbank import cli
from reelbank.extract.inputs.sources import open_source
from reelbank.extract.video.opening import Limits
from reelbank.manifests import Clip, read
from reelbank.manifests.datasets.folder import read_folder
from reelbank.manifests.terminal import drive_hint

ROOT = Path(__file__).resolve().parent.parent
ONE = "every label is 'a': a head needs two classes or a target column"


def folder_of(tmp_path: Path, *files: str) -> Path:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("rows", "warned"),
    [
        ("x.mp4,a,\ny.mp4,a,", True), ("x.mp4,a,\ny.mp4,b,", False), ("x.mp4,a,\ny.mp4,,", True),
        ("x.mp4,,\ny.mp4,,", False), ("x.mp4,a,3\ny.mp4,a,4", False),
    ],
)  # fmt: skip
def test_manifest_of_one_class_is_told_unless_it_has_a_target(rows: str, warned: bool, tmp_path: Path) -> None:
    table = tmp_path / "m.csv"
    table.write_text(f"video,label,kcal\n{rows}\n" if "3" in rows else "video,label\n" + rows.replace(",\n", "\n")[:-1])
    assert read(table).warning.startswith(ONE) if warned else read(table).warning == ""


def test_one_class_is_told_when_the_manifest_is_made_and_when_extraction_begins(
    synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "all/a").mkdir(parents=True)
    shutil.copy2(synth_set / "videos/clip_00001.mp4", tmp_path / "all/a/x.mp4")
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(cli.main, ["manifest", "folder", "all", "--json"])
    assert ONE in made.stderr
    assert json.loads(made.stdout)["warning"].startswith(ONE)
    line = "featurize --model flow:dis --sampling uniform:2 --workers 1"
    done = CliRunner().invoke(cli.main, line.split())
    assert ONE in done.stderr


def test_hidden_files_and_folders_are_named(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "a/x.mp4", "b/y.mp4", "b/.z.mp4", ".DS_Store", ".cache/x.mp4")
    (note,) = [note for note in read_folder(root).notes if "hidden" in note]
    assert note == "not taken, hidden (the name begins with a dot): '.DS_Store', '.cache', 'b/.z.mp4'"
    root = folder_of(tmp_path / "split", "train/a/x.mp4", "test/a/y.mp4", "train/.z", "train/a/.w")
    (note,) = [note for note in read_folder(root).notes if "hidden" in note]
    assert note.endswith("'train/.z', 'train/a/.w'")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("name", ["Anna's clips", 'a "b"', "two words", "; exit 1"])
def test_make_demo_takes_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nfor one; do echo "[$one]"; done\n')
    python.chmod(0o755)
    (tmp_path / ".running").touch()
    line = ["make", "-s", "-C", str(ROOT), "demo", f"VENV={tmp_path}", f"VIDEOS={name}"]
    said = subprocess.run(line, capture_output=True, text=True, check=True, timeout=30).stdout
    assert said.splitlines()[:3] == ["[docs/demo.py]", "[--videos]", f"[{name}]"]


@pytest.mark.parametrize(
    ("text", "drive"),
    [
        (r"no manifest at C:\Users\anna\m.csv", "c"), ("D:/clips is not a folder", "d"),
        ("C:Usersannaclips is no", "c"),
        ("--range '0' is not of the form A:B, e.g. 0:1000", ""), ("s3://bucket/a.zarr", ""), ("http://x/y.mp4", ""),
        ("choose module:function", ""), ("warp-flow:dis", ""), ("12:30:05", ""), ("/data/a:bcdef.mp4", ""),
    ],
)  # fmt: skip
def test_drive_of_windows_is_told_by_its_name_in_wsl(text: str, drive: str) -> None:
    assert (f" is /mnt/{drive}/ in WSL" in drive_hint(text)) if drive else drive_hint(text) == ""


def test_drive_is_told_on_the_command_line_and_for_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(cli.main, ["doctor", "--manifest", r"C:\data\m.csv"])
    assert "/mnt/c/" in refused.stderr
    clip = Clip(clip_id="a", video=r"C:\data\a.mp4")
    with pytest.raises(ValueError, match=r"no file at .*/mnt/c/"):
        open_source("video", [tmp_path / clip.video], clip, Limits())


def test_missing_file_is_told_where_it_lies(tmp_path: Path) -> None:
    folder_of(tmp_path, "videos/a/x.mp4", "tables/m.csv")
    clip = Clip(clip_id="x", video="a/x.mp4")
    for root in (tmp_path, tmp_path / "tables"):
        sought = rf"no file at {root / clip.video};.*with --root"
        with pytest.raises(ValueError, match=sought) as refused:
            open_source("video", [root / clip.video], clip, Limits())
        assert (f"(it lies under {tmp_path / 'videos'})" in str(refused.value)) == (root == tmp_path)
