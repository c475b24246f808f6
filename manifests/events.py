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


STEADY_SECONDS = 2.0
"""What a job needs to get going: its pace is taken from then on."""
PACE_UNITS = ((7200.0, 3600.0, "h"), (90.0, 60.0, "min"), (0.0, 1.0, "s"))
"""(least seconds, seconds of one, its sign)."""


class Pace:
    """How long a job will still take, from what it did since it got going."""

    def __init__(self) -> None:
        self._total, self._begun, self._since, self._had = 0.0, 0.0, 0.0, 0.0
        self._done, self._at = 0.0, 0.0

    def left(self, done: float, total: float, now: float) -> str:
        """`about 3 min left`, or '' where nothing can be said. `now` in seconds of a monotonic clock."""
        if total != self._total:
            self._total, self._begun = total, now
        if now - self._begun < STEADY_SECONDS:  # what a resumed job finds done already tells nothing
            self._since, self._had = now, done
        if done != self._done:
            self._done, self._at = done, now
        if done <= self._had or done >= total:
            return ""
        # Until another part is done the pace is the one of then, and the time since is gone.
        seconds = (self._at - self._since) / (done - self._had) * (total - done) - (now - self._at)
        if seconds <= 0:
            return ""
        size, unit = next((size, unit) for least, size, unit in PACE_UNITS if seconds >= least)
        return f"about {seconds / size:.0f} {unit} left"


Progress = Callable[[Event], None]
"""Sweeps and recipes call it from a second thread too, while trainings last; what it raises there ends nothing."""
