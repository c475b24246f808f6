"""What the runs of the study of HMDB51 share (SYSTEMS.md 3.2 to 3.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HELD_OUT = "0.1"
SPLITS: Mapping[str, tuple[str, str]] = {
    "random": (f"random:{HELD_OUT}:test", "random, as published"),
    "films": (f"groups:{HELD_OUT}:test", "by source film"),
}
"""{in names of rows: (--split-by, in words)}: a tenth of all clips, ceil(0.1 * 7091) = 710, stratified by class."""

SHARED: Mapping[str, Any] = {
    "target": "none", "optimizer": "adam", "lr": 1e-4, "weight_decay": 0.0, "batch": 8, "epochs": 10,
    "early_stop_epochs": 0, "metric": ("cross_entropy", "weighted_f1"),
}  # fmt: skip
