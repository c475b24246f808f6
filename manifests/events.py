"""What a long call tells its caller while it works. The library itself never prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Event:
    """One step of progress.

    Attributes:
        stage: what is being done: `extract`, `verify`, `load`, `train`, `evaluate`, `report`, ...
        done: finished parts of this stage.
        total: parts of this stage; for `train` the most epochs there can be, over all folds.
        message: where it stands, in a few words; may be empty, and gives way to that of the next event.
        values: numbers of this step, e.g. `val_loss`.
        note: a sentence that must not be passed over, such as why a clip failed; may be empty.
    """

    stage: str
    done: int
    total: int
    message: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


Progress = Callable[[Event], None]
"""Sweeps and recipes call it from a second thread too, while trainings last; what it raises there ends nothing."""
