"""What happened to each clip of a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.layout import DONE, FAILED, MISSING


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The arrays under clips/ as attributes (`ledger.status`), one value per row of the store.

    `layout.LEDGER` says which there are and what they mean, so that a new one is a row there and no field here.

    Attributes:
        arrays: {name: (num_clips, ...)}; those with a value per step are read clip by clip and not among them.
    """

    arrays: Mapping[str, NDArray[Any]]

    def __getattr__(self, name: str) -> NDArray[Any]:
        # Not `self.arrays`: while it is unpickled a ledger has none, and would ask here for it again.
        arrays: Mapping[str, NDArray[Any]] = self.__dict__.get("arrays", {})
        if name not in arrays:
            raise AttributeError(f"the ledger has no array {name!r}; it has {', '.join(sorted(arrays))}")
        return arrays[name]

    def counts(self) -> dict[str, int]:
        """{done, failed, missing, left_manifest}: clips of each status in the manifest, and those gone."""
        present = self.in_manifest == 1
        return {
            "done": int((present & (self.status == DONE)).sum()),
            "failed": int((present & (self.status == FAILED)).sum()),
            "missing": int((present & (self.status == MISSING)).sum()),
            "left_manifest": int((~present).sum()),
        }

    def failures(self) -> Counter[str]:
        """How often each reason occurs among failed clips of the manifest."""
        rows = np.flatnonzero((self.status == FAILED) & (self.in_manifest == 1))
        return Counter(str(self.reason[row]) for row in rows)
