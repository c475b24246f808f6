"""Files and folders whose names say no class: which are clips, what they are called, what was not taken."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from reelbank.manifests.datasets.folder import gather

FILES = (
    "a.mp4",
    "b.MOV",
    "b.avi",
    "below/a.mp4",
    "below/deep er/c.png",
    ".hidden.mp4",
    "below/notes.txt",
    "other/a.mp4",
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path / "new")
    return tmp_path / "new"


@pytest.mark.parametrize(
    ("named", "called"),
    [
        (["a.mp4"], {"a": "a.mp4"}),
        (["notes"], {"notes": "notes"}),
        (["b.MOV", "b.avi"], {"b.MOV": "b.MOV", "b.avi": "b.avi"}),
        (["below"], {"a": "below/a.mp4", "deep er/c": "below/deep er/c.png"}),
        (["below", "below/a.mp4"], {"a": "below/a.mp4", "deep er/c": "below/deep er/c.png"}),
        (["a.mp4", "below/a.mp4"], {"a": "a.mp4", "below/a": "below/a.mp4"}),
        (["below/a.mp4", "other"], {"below/a": "below/a.mp4", "other/a": "other/a.mp4"}),
        (["."], {
            "a": "a.mp4", "b.MOV": "b.MOV", "b.avi": "b.avi", "below/a": "below/a.mp4",
            "below/deep er/c": "below/deep er/c.png", "other/a": "other/a.mp4",
        }),
    ],
)  # fmt: skip
def test_clips_are_called_as_their_files_and_by_paths_where_those_are_alike(
    named: Sequence[str], called: Mapping[str, str], here: Path
) -> None:
    (here / "notes").write_bytes(b"")  # what is named is tried, whatever its suffix
    made = gather(named)
    assert {clip.clip_id: clip.video for clip in made.clips} == {k: str(here / v) for k, v in called.items()}
    assert {(clip.split, clip.label) for clip in made.clips} == {("test", "")}


def test_what_is_not_taken_is_said_and_links_lead_nowhere(here: Path) -> None:
    (here / "below/back").symlink_to(here)
    (here / "gone.mp4").symlink_to(here / "nowhere.mp4")
    os.mkfifo(here / "pipe.mp4")
    made = gather([here, "a.mp4"])
    assert len(made.clips) == 6
    assert made.notes == (
        "not taken, broken links and special files: 'gone.mp4', 'pipe.mp4'",
        "not taken, hidden (the name begins with a dot): '.hidden.mp4'",
        "not taken, links to folders: 'below/back'",
        "not taken, neither a video nor an image by suffix: 'below/notes.txt'",
        "named twice and taken once: a.mp4",
    )
