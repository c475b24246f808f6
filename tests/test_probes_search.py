"""Nearest neighbours of a clip: those of a search in memory, in the order that is stated, and on a page."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe_stores import clustered_store
from remembered import write_store

from reelbank.heads.probes import rows as reading
from reelbank.heads.probes.find import FindResult, find
from reelbank.heads.probes.rows import load_rows
from reelbank.heads.probes.search_config import FindConfig
from reelbank.store.reader import Store

LEVELS = [(level, normalize) for level in ("clip", "step") for normalize in ("zscore", "l2", "none")]


def _find(store: Path, clip: str, **more: Any) -> FindResult:
    return find(FindConfig(store=store, clip=clip, out=store.parent / "found", **more))


def _ids(result: FindResult) -> list[str]:
    return [one["clip_id"] for one in result.results["neighbours"]]


def _in_memory(store: Store, clip: str, level: str, normalize: str) -> dict[str, float]:
    """{clip: its best cosine with the query}, with every vector at hand."""
    options = {"tap": "pool", "view": 0, "label_column": "label", "target_column": "none"}
    found = load_rows(store, level=level, normalize=normalize, **options)  # type: ignore[arg-type]
    unit = found.vectors / np.linalg.norm(found.vectors, axis=1, keepdims=True)
    similarity = (unit @ unit[found.clip_ids == clip].T).max(axis=1)
    others = dict.fromkeys(found.clip_ids[found.clip_ids != clip].tolist())
    return {name: float(similarity[found.clip_ids == name].max()) for name in others}


@pytest.mark.parametrize(("level", "normalize"), LEVELS)
def test_blocks_find_what_a_search_in_memory_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, normalize: str
) -> None:
    store = clustered_store(tmp_path / "a.zarr", num_clips=40, separation=0.3)
    wanted = _in_memory(store, "clip_7", level, normalize)
    monkeypatch.setattr(reading, "_BLOCK_CLIPS", 3)
    result = _find(store.path, "clip_7", level=level, normalize=normalize, count=8)
    assert _ids(result) == sorted(wanted, key=lambda name: -wanted[name])[:8]
    cosines = [one["cosine"] for one in result.results["neighbours"]]
    assert cosines == pytest.approx(sorted(wanted.values())[:-9:-1], abs=1e-5)
    assert all((one["seconds"] is None) == (level == "clip") for one in result.results["neighbours"])


def _pairs(path: Path, vectors: list[list[float]], groups: str = "") -> Path:
    clips = [
        {"clip_id": f"c{i}", "label": "a" if i < 3 else "b", "group": groups[i] if groups else ""}
        for i in range(len(vectors))
    ]
    write_store(path, {"pool": [np.array([vector], dtype=np.float32) for vector in vectors]}, clips)
    return path


def test_equal_clips_come_in_the_order_of_the_store(tmp_path: Path) -> None:
    store = _pairs(tmp_path / "a.zarr", [[1, 0], [0, 1], [2, 2], [3, 3], [0, -1], [1, 1]])
    assert _ids(_find(store, "c5", normalize="none", count=9)) == ["c2", "c3", "c0", "c1", "c4"]


def test_own_group_is_marked_or_left_out(tmp_path: Path) -> None:
    store = _pairs(tmp_path / "a.zarr", [[1, 0], [1, 0.1], [1, 0.2], [0, 1]], groups="xxyy")
    result = _find(store, "c0", normalize="none")
    assert [one["own_group"] for one in result.results["neighbours"]] == [True, False, False]
    assert "1 of 3 is of its own group 'x', marked *" in result.text() and "x *" in result.text()
    assert _ids(_find(store, "c0", normalize="none", other_groups=True)) == ["c2", "c3"]


def test_share_of_the_label_stands_beside_what_is_found(tmp_path: Path) -> None:
    clustered_store(tmp_path / "a.zarr", num_clips=41)
    result = _find(tmp_path / "a.zarr", "clip_1", count=5)
    assert "5 of 5 have its label 'class_1'; of all clips searched 22 % have it." in result.results["verdict"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"clip": "clip_77"}, r"has no such clip among its 12; the nearest ids are 'clip_7'"),
    ({"clip": "§"}, r"the nearest ids are 'clip_0', 'clip_1', 'clip_2'"),
    ({"clip": "clip_1", "tap": "cls"}, r"no tap 'cls' in this store; it holds pool"),
    ({"clip": "clip_1", "label": "kcal"}, r"--label kcal: this column is numeric"),
    ({"clip": "clip_1", "count": 0}, r"--count 0 must be 1 or more"),
    ({"clip": None}, r"give one of --clip ID, --image FILE and --video FILE"),
]


@pytest.mark.parametrize(("asked", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_found_is_said(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    clustered_store(tmp_path / "a.zarr", num_clips=12)
    with pytest.raises(ValueError, match=message):
        find(FindConfig(**{"store": tmp_path / "a.zarr", "out": tmp_path / "found", **asked}))
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize(
    ("vectors", "more", "message"),
    [
        ([[0, 0], [1, 0]], {"normalize": "none"}, r"the vector of 'c0' is all zeros"),
        ([[1, 0]], {"normalize": "none"}, r"no other clip with features beside 'c0'"),
        ([[1, 0], [1, 1]], {"other_groups": True}, r"clip 'c0' has no group"),
    ],
)
def test_a_store_in_which_nothing_is_near_is_said(
    tmp_path: Path, vectors: list[list[float]], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _find(_pairs(tmp_path / "a.zarr", vectors), "c0", **more)


def test_a_clip_that_failed_is_said_with_its_reason(tmp_path: Path) -> None:
    clips = [{"clip_id": name, "label": "a"} for name in ("good", "bad")]
    write_store(tmp_path / "a.zarr", {"pool": [np.ones((1, 2), dtype=np.float32), None]}, clips)
    with pytest.raises(ValueError, match=r"--clip 'bad' has no features in .*: \S+"):
        _find(tmp_path / "a.zarr", "bad")


def test_page_shows_query_and_neighbours_and_replaces_its_own_files_alone(tmp_path: Path) -> None:
    hostile = "<script>x</script>"
    clustered_store(tmp_path / "a.zarr", num_clips=12, first_label=hostile, weights="random")
    result = _find(tmp_path / "a.zarr", "clip_4", count=3)
    page = result.page.read_text()
    assert page.count("data:image/jpeg") == 4 and hostile not in page
    assert "RANDOM WEIGHTS" in page and "RANDOM WEIGHTS" in result.text()
    assert json.loads((result.out / "results.json").read_text()) == result.results
    _find(tmp_path / "a.zarr", "clip_5")
    (result.out / "mine.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds files that no find wrote \(mine\.txt\)"):
        _find(tmp_path / "a.zarr", "clip_5")


@pytest.mark.parametrize("level", ["clip", "step"])
def test_memory_does_not_grow_with_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    peaks = []
    monkeypatch.setattr(reading, "_BLOCK_NUMBERS", 16 * 1024)
    for count in (40, 400):
        features = [np.random.default_rng(i).normal(size=(4, 1024)).astype(np.float16) for i in range(count)]
        clips = [{"clip_id": f"c{i}"} for i in range(count)]
        write_store(tmp_path / f"{count}.zarr", {"pool": features}, clips)
        del features
        find(FindConfig(store=tmp_path / "40.zarr", clip="c1", out=tmp_path / "warm", level=level))
        tracemalloc.start()
        find(FindConfig(store=tmp_path / f"{count}.zarr", clip="c1", out=tmp_path / "found", level=level))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 400 * 1024 * 4 / 2, peaks  # half of all means as they are stored
