"""A small store with clips of every part, for tests of what a training makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from remembered import write_store

Change = Callable[[list[dict[str, Any]]], None]


def part_store(path: Path, change: Change | None = None) -> Path:
    """40 clips of 3 steps, 8 of each part; class 0 has three quarters of the training clips."""
    random = np.random.default_rng(5)
    clips, features = [], []
    for i in range(40):
        split = ("train", "train", "val", "test", "unknown")[i // 8]
        label = "novel" if split == "unknown" else f"class {int(i % 4 == 0)}"
        kcal = float(random.uniform(100, 800))
        clips.append({"clip_id": f"c{i}", "split": split, "label": label, "group": f"s{i // 2}", "kcal": kcal})
        features.append(random.normal(size=(3, 6)).astype(np.float16))
    if change is not None:
        change(clips)
    write_store(path, {"cls": features}, clips, backbone="toy", weights={"kind": "pretrained"})
    return path
