"""Stored views drawn beside the original: only where a store holds frames, and what it holds of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remembered import write_store

from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.probe import probe
from reelbank.heads.probes.stored_views import MOST_CLIPS, MOST_VIEWS, draw_views, stored_views
from reelbank.heads.reports.drawing import Heading
from reelbank.store.reader import Store


def _store(path: Path, *, views: int = 2, clips: int = 6) -> Store:
    """Clips of 3 frames of 4 x 5; the training clips have `flip`, which changed nothing, and brighter views."""
    random = np.random.default_rng(0)
    frames = [random.integers(0, 200, (3, 4, 5, 3), np.uint8) for _ in range(clips)]
    rows = [
        {"clip_id": f"c{i}", "split": "train" if i % 3 else "test", "label": f"class {i % 2}", "group": f"g{i}"}
        for i in range(clips)
    ]
    train = [row["split"] == "train" for row in rows]

    def changed(by: int) -> dict[str, list[Any]]:
        return {"rgb": [(a + np.uint8(by)) if own else None for a, own in zip(frames, train, strict=True)]}

    names = ["flip", *(f"brighter-{i}" for i in range(1, views))][:views]
    others = {name: changed(i) for i, name in enumerate(names)}
    return write_store(path, {"rgb": frames}, rows, backbone="frames", views=others if views else None)


def test_the_middle_step_of_each_view_is_shown(tmp_path: Path) -> None:
    store = _store(tmp_path / "frames.zarr")
    found = stored_views(store, tap=None, clip_ids=("c4",))
    assert (found.names, found.steps, found.tap) == (("original", "flip", "brighter-1"), (1,), "rgb")
    for i, name in enumerate(found.names):
        np.testing.assert_array_equal(found.frames[0][name], store.read("rgb", 4)[i, 1])
    assert found.to_json()["clips"] == [{"clip_id": "c4", "step": 1, "unchanged": ["flip"]}]
    figure = draw_views(found, Heading(source="s", count="n"))
    assert [axes.get_title() for axes in figure.axes] == ["original", "flip (as original)", "brighter-1"]
    assert figure.axes[0].get_ylabel() == "c4, step 1"


def test_without_a_clip_the_first_that_have_views_are_shown(tmp_path: Path) -> None:
    found = stored_views(_store(tmp_path / "frames.zarr", clips=12), tap=None, clip_ids=())
    assert found.clip_ids.tolist() == ["c1", "c2", "c4", "c5"]
    assert len(found) == MOST_CLIPS


def test_many_views_are_cut_and_it_is_said(tmp_path: Path) -> None:
    found = stored_views(_store(tmp_path / "frames.zarr", views=12), tap=None, clip_ids=("c1",))
    assert len(found.names) == len(found.frames[0]) == MOST_VIEWS
    assert found.notes() == [f"The first {MOST_VIEWS} of 13 stored views are drawn."]


def test_the_command_writes_a_picture_and_a_page(tmp_path: Path) -> None:
    store = _store(tmp_path / "frames.zarr")
    result = probe(ProbeConfig(store=store.path, views=True, out=tmp_path / "out"))
    assert {path.name for path in result.out.iterdir()} == {"stored-views.png", "index.html", "results.json"}
    assert result.verdict == (
        "Stored views of 4 clips: flip, brighter-1. 4 of them equal the original: nothing was drawn to change.",
    )
    stored = json.loads((result.out / "results.json").read_text())
    assert [clip["clip_id"] for clip in stored["analyses"]["views"]["clips"]] == ["c1", "c2", "c4", "c5"]
    assert (result.out / "index.html").read_text().count("<img") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_ids": ("c9",)}, "--clip 'c9': .* has no such clip"),
        ({"clip_ids": ("c0",)}, "view 'original' only: views are stored for split 'train'"),
        ({"tap": "cls"}, r"holds features \(taps rgb\)"),
    ],
)
def test_a_clip_or_tap_without_views_is_named(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        stored_views(_store(tmp_path / "frames.zarr"), **{"tap": None, "clip_ids": (), **options})


def test_a_store_of_features_or_of_one_view_is_refused(tmp_path: Path) -> None:
    features = write_store(
        tmp_path / "features.zarr", {"cls": [np.zeros((2, 3), np.float16)]}, [{"clip_id": "a"}], backbone="toy"
    )
    with pytest.raises(ValueError, match=r"holds features \(taps cls\).*featurize --model frames --views augment"):
        stored_views(features, tap=None, clip_ids=())
    with pytest.raises(ValueError, match="is features"):
        stored_views(features, tap="cls", clip_ids=())
    with pytest.raises(ValueError, match="holds the view 'original' only"):
        stored_views(_store(tmp_path / "one.zarr", views=0), tap=None, clip_ids=())
    with pytest.raises(ValueError, match="it belongs to --views"):
        ProbeConfig(clip=("a",))
