"""Features of new videos, for heads and probes. Who extracts is handed in: `heads` imports no decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np

import reelbank.store
from reelbank.heads.errors import TrainingError
from reelbank.manifests.events import Progress
from reelbank.store.files import scratch
from reelbank.store.layout import FAILED
from reelbank.store.spec import FeatureSpec

MAX_REASONS = 5
"""Failed clips that an error names."""


class Extract(Protocol):
    """Makes features as stores were made; `reelbank.extract.extract_as` is one, with `weights` bound to it."""

    def __call__(
        self,
        specs: Sequence[FeatureSpec],
        videos: Sequence[Path],
        folder: Path,
        *,
        like: Sequence[Path] = (),
        progress: Progress | None = None,
    ) -> Sequence[Path]:
        """Writes the features of `videos` into new stores below `folder`, one for each spec, and says where they are.

        `like` is where stores of these specs lie, or lay.
        """


@contextmanager
def extracted(
    extract: Extract,
    specs: Sequence[FeatureSpec],
    videos: Sequence[Path | str],
    *,
    near: Path,
    like: Sequence[Path] = (),
    keep: Path | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Path, ...]]:
    """Stores of the features of `videos`, one for each spec, which are gone after the block.

    Args:
        videos: what `extract` takes: files, folders.
        near: folder where the stores are made for the time; a system folder if that cannot be written.
        like: of `Extract`.
        keep: folder where the stores are made instead, to stay; a second call goes on with what is there.

    Raises:
        TrainingError: every clip failed; the first are named with their reasons.
    """
    with nullcontext(keep) if keep else scratch(near, "extracted", elsewhere=True) as folder:
        stores = tuple(extract(specs, [Path(video) for video in videos], folder, like=like, progress=progress))
        if failed := failures(stores, all_of_them=True):
            lines = [f"  {clip_id}: {reason}" for clip_id, reason in list(failed.items())[:MAX_REASONS]]
            more = [f"  and {len(failed) - MAX_REASONS} more"] if len(failed) > MAX_REASONS else []
            count = f"none of {len(failed)} clips gives" if len(failed) > 1 else "the clip gives no"
            raise TrainingError(f"{count} features:\n" + "\n".join([*lines, *more]))
        yield stores


def failures(stores: Sequence[Path], *, all_of_them: bool = False) -> dict[str, str]:
    """{clip id: reason} of the clips that failed in any of the stores, in their order.

    Args:
        all_of_them: nothing unless every clip failed.
    """
    reasons: dict[str, str] = {}
    num_clips = 0
    for path in stores:
        store = reelbank.store.open(path)
        here = store.clips.in_manifest == 1
        ids = store.column("clip_id")
        num_clips = max(num_clips, int(here.sum()))
        for row in np.flatnonzero((store.clips.status == FAILED) & here).tolist():
            reasons.setdefault(str(ids[row]), str(store.clips.reason[row]))
    return {} if all_of_them and len(reasons) < num_clips else reasons
