"""What happened to each clip of a store."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.layout import DONE, FAILED, MISSING


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The arrays under clips/, one value per row of the store; units stand in the names.

    Attributes:
        status: uint8, 0 missing, 1 done, 2 failed.
        reason: why a clip failed, empty otherwise.
        in_manifest: uint8, 0 for a clip that has left the manifest.
        content_hash: sha256 of the video file.
    """

    status: NDArray[np.uint8]
    reason: NDArray[Any]
    attempts: NDArray[np.uint8]
    num_steps: NDArray[np.int64]
    num_views: NDArray[np.int64]
    in_manifest: NDArray[np.uint8]
    num_frames: NDArray[np.int64]
    duration_seconds: NDArray[np.float64]
    width_px: NDArray[np.int64]
    height_px: NDArray[np.int64]
    rate_fps: NDArray[np.float64]
    content_hash: NDArray[Any]
    decode_seconds: NDArray[np.float64]

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
