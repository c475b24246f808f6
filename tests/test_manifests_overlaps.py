"""Clips that overlap in one video and have different labels are counted and said, wherever labels are read."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from remembered import write_store

from reelbank import manifests
from reelbank.heads.examples.clips import load_table, open_sources
from reelbank.manifests.overlaps import Labelled, contradictions

ROWS = {
    "apart": ("a,v.mp4,0,1,run", "b,v.mp4,1,2,jump"),  # half-open: they touch
    "one label": ("a,v.mp4,0,2,run", "b,v.mp4,1,3,run"),
    "two videos": ("a,v.mp4,0,2,run", "b,w.mp4,1,3,jump"),
    "no label": ("a,v.mp4,0,2,run", "b,v.mp4,1,3,"),
}
SAID = {
    "inside": (
        ("a,v.mp4,0,9,run", "b,v.mp4,1,3,jump", "c,v.mp4,5,6,jump"),
        "2 clips overlap another of the same video that has another label, such as 'a' (0 s to 9 s, 'run') and "
        "'b' (1 s to 3 s, 'jump') of v.mp4: each counts as an example of its own label alone",
    ),
    "whole": (
        ("a,v.mp4,,,run", "b,v.mp4,4,,jump"),
        "1 clip overlaps another of the same video that has another label, such as 'a' (0 s to the end, 'run') and "
        "'b' (4 s to the end, 'jump') of v.mp4",
    ),
    "third label": (
        ("a,v.mp4,0,9,run", "b,v.mp4,1,2,jump", "c,v.mp4,3,4,run", "d,v.mp4,8,9,sit"),
        "2 clips overlap",
    ),
}


def table(folder: Path, rows: tuple[str, ...]) -> Path:
    path = folder / "m.csv"
    path.write_text("\n".join(["clip_id,video,start_seconds,end_seconds,label", *rows]) + "\n")
    return path


@pytest.mark.parametrize("name", ROWS)
def test_labels_that_agree_are_not_said(tmp_path: Path, name: str) -> None:
    notes = manifests.read(table(tmp_path, ROWS[name])).notes
    assert not any("overlap" in note for note in notes)


@pytest.mark.parametrize("name", SAID)
def test_overlapping_intervals_of_different_labels_are_said_by_manifest_and_training(tmp_path: Path, name: str) -> None:
    rows, sentence = SAID[name]
    notes = manifests.read(table(tmp_path, rows)).notes
    assert next(note for note in notes if "overlap" in note).startswith(sentence)
    clips = manifests.read(table(tmp_path, rows)).clips
    names = ("clip_id", "video", "start_seconds", "end_seconds", "label")
    cells = [{name: getattr(clip, name) for name in names} for clip in clips]
    write_store(tmp_path / "s.zarr", {"cls": [np.ones((2, 4), np.float16)] * len(rows)}, cells)
    sources = open_sources([tmp_path / "s.zarr"], ())
    assert any(note.startswith(sentence) for note in load_table(sources).notes())
    assert not any("overlap" in note for note in load_table(sources, label_column="none").notes())


def test_the_sweep_counts_what_pairs_say() -> None:
    draw = random.Random(0)
    for _ in range(300):
        clips = [
            Labelled(clip_id=str(i), video="v", start_seconds=s, end_seconds=s + draw.randrange(1, 6), label=label)
            for i in range(draw.randrange(8))
            for s, label in [(float(draw.randrange(9)), draw.choice("abc"))]
        ]
        ordered = sorted(clips, key=lambda clip: clip.span)
        later = {
            two.clip_id
            for one, two in itertools.combinations(ordered, 2)
            if one.label != two.label and one.span[1] > two.span[0]
        }
        sentence = contradictions(clips)
        assert (int(sentence.split()[0]) if sentence else 0) == len(later)
