"""Small stores for the tests of probes: classes that are clusters, subjects, splits, a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from remembered import write_store

from reelbank.store.reader import Store


def clustered_store(
    path: Path,
    *,
    num_clips: int = 60,
    num_classes: int = 4,
    num_dimensions: int = 16,
    separation: float = 2.0,
    splits: tuple[str, ...] = ("train", "train", "val", "test"),
    weights: str = "none",
    unknown_class: bool = False,
    seed: int = 0,
    first_label: str = "class_0",
    **more: Any,
) -> Store:
    """A store whose classes are Gaussian clusters at `separation` and whose kcal follows the class.

    Clip i has class i % num_classes; each subject has one clip of every class and one split.
    """
    random = np.random.default_rng(seed)
    centers = random.normal(size=(num_classes, num_dimensions)) * separation
    features, clips, thumbnails = [], [], []
    for i in range(num_clips):
        number, subject = i % num_classes, i // num_classes
        steps = int(random.integers(2, 6))
        features.append((centers[number] + random.normal(size=(steps, num_dimensions))).astype(np.float16))
        split = splits[subject % len(splits)]
        if unknown_class and number == num_classes - 1:
            split = "unknown"
        label = first_label if number == 0 else f"class_{number}"
        clips.append(
            {
                "clip_id": f"clip_{i}",
                "label": label,
                "split": split,
                "group": f"s{subject}-{split}",
                "kcal": float(100 + 150 * number + random.normal()),
            }
        )
        thumbnails.append(np.full((72, 96, 3), 40 + 20 * number, dtype=np.uint8))
    return write_store(path, {"pool": features}, clips, weights={"kind": weights}, thumbnails=thumbnails, **more)
