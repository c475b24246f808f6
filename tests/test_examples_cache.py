"""What trainings share: features kept in a folder that several processes map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from remembered import write_store

from reelbank.heads import TrainConfig, TrainingError
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.prepared import prepare


def _store(path: Path, *, steps: tuple[int, ...] = (3, 4)) -> Path:
    random = np.random.default_rng(0)
    arrays = [random.normal(size=(steps[i % len(steps)], 6)).astype(np.float16) for i in range(12)]
    clips = [
        {"clip_id": f"c{i:02}", "label": "ab"[i % 2], "split": ("train", "train", "val")[i % 3], "group": f"g{i}"}
        for i in range(12)
    ]
    write_store(path, {"pool": arrays}, clips)
    return path


@pytest.mark.parametrize("head", ["attentive", "linear"])
@pytest.mark.parametrize("segments", [None, "segments:2:stride=1"])
def test_mapped_features_are_those_that_were_read(head: str, segments: str | None, tmp_path: Path) -> None:
    config = TrainConfig.of(store=(_store(tmp_path / "s.zarr"),), head=head, segments=segments)
    folder = tmp_path / "shared"
    folder.mkdir()
    read = prepare(config).features
    for _ in range(2):  # written, then found
        mapped = prepare(config, cache=FeatureCache(folder)).features
        torch.testing.assert_close(dict(mapped.arrays), dict(read.arrays), atol=0, rtol=0)
        assert torch.equal(mapped.mask, read.mask)
        assert (mapped.step_index is None) == (read.step_index is None)
        assert mapped.views == read.views == ()
        np.testing.assert_array_equal(mapped.num_steps, read.num_steps)
    assert len(list(folder.iterdir())) == 1


def test_what_is_refused_is_refused_again_and_leaves_nothing(tmp_path: Path) -> None:
    config = TrainConfig.of(store=(_store(tmp_path / "s.zarr"),), train_views="all")
    folder = tmp_path / "shared"
    folder.mkdir()
    cache = FeatureCache(folder)
    for _ in range(2):
        with pytest.raises(TrainingError, match="trains on further stored views, and there are none"):
            prepare(config, cache=cache)
    assert not list(folder.iterdir())


def test_mapped_features_know_which_clips_have_further_views(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    arrays = [random.normal(size=(3, 6)).astype(np.float16) for _ in range(12)]
    clips = [
        {"clip_id": f"c{i:02}", "label": "ab"[i % 2], "split": ("train", "train", "val")[i % 3], "group": f"g{i}"}
        for i in range(12)
    ]
    flipped = [-array if i % 3 < 2 else None for i, array in enumerate(arrays)]
    write_store(tmp_path / "s.zarr", {"pool": arrays}, clips, views={"flip": {"pool": flipped}})
    config = TrainConfig.of(store=(tmp_path / "s.zarr",), train_views="all")
    folder = tmp_path / "shared"
    folder.mkdir()
    prepare(config, cache=FeatureCache(folder))
    found = prepare(config, cache=FeatureCache(folder))
    assert found.copies is not None
    assert [view.number for view in found.copies.views] == [1]
    assert found.copies.views[0].has.tolist() == [i % 3 < 2 for i in range(12)]
    train = found.partitions[0].train
    assert len(found.copies.rows(train)) == 2 * len(train)
