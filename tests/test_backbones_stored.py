"""Real features keep their direction as they are stored: CLIP and ResNet-34 of a real clip, published as float64/32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from reelbank.extract import backbones

FEATURES = {
    "clip": "clip__cuda_v_GGSY1Qvo990_ViT-B_32_128_None.npz",
    "resnet34": "resnet__cuda_v_GGSY1Qvo990_resnet34_64_None.npz",
}


def lowest_cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).min())


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_dtype_of_the_tap_keeps_the_direction_of_real_features(name: str, data_root: Path) -> None:
    path = data_root / "reference" / "video_features" / FEATURES[name]
    with np.load(path) as file:
        features = file[file.files[0]]
    info = backbones.describe(name)
    tap = info.taps[info.default_taps[0]]
    assert features.shape[1:] == tap.shape
    assert lowest_cosine(features, features.astype(tap.dtype)) >= 0.99999
