"""What other libraries ask of a store. `Store` gives it; to name `Store` itself here would be a circle of imports."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reelbank.store.ledger import Ledger
from reelbank.store.spec import FeatureSpec, TapSpec


class Readable(Protocol):
    """The part of `Store` that is asked for."""

    spec: FeatureSpec
    spec_digest: str
    num_clips: int
    target_names: tuple[str, ...]

    @property
    def path(self) -> Path: ...
    @property
    def column_names(self) -> tuple[str, ...]: ...
    @property
    def clips(self) -> Ledger: ...
    @property
    def default_tap(self) -> str: ...
    @property
    def taps(self) -> dict[str, TapSpec]: ...
    @property
    def num_steps(self) -> NDArray[np.int64]: ...
    @property
    def weights_are_random(self) -> bool: ...
    def column(self, name: str) -> NDArray[Any]: ...
    def done_rows(self) -> NDArray[np.int64]: ...
    def read(self, tap: str, row: int) -> NDArray[Any]: ...
    def step_seconds(self, row: int) -> NDArray[np.float64]: ...
    def gather(
        self, tap: str, rows: NDArray[np.int64] | list[int], view: int = 0
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]: ...
