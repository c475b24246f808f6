"""The methods of a store that speak to other libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from reelbank.manifests.notebooks import card
from reelbank.store.bridges.readable import Readable
from reelbank.store.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from reelbank.store.bridges.clip_dataset import ClipDataset

MAX_REASONS = 3
"""Kinds of failure that a card shows."""


class Bridges:
    """What `Store` inherits."""

    def __repr__(self: Readable) -> str:
        told = facts(self)
        return f"<Store {self.path}: {told['backbone']}, {told['taps']}; clips: {told.get('clips', 'damaged')}>"

    def _repr_html_(self: Readable) -> str:
        return card("Store", str(self.path), facts(self))

    def to_pandas(self: Readable) -> pd.DataFrame:
        """The manifest and the ledger, one row per clip; row i is clip i of the store.

        Text is of dtype `string`; split, label and group are categories, NaN where empty; `status` is one of missing,
        done, failed; `reason` says why a clip failed; targets and seconds are float64, NaN where unknown. What has
        several values per clip (`step_seconds`, `frame_box`) is not among the columns. A column of the ledger whose
        name the manifest has, too, is called `ledger_<name>`.

        Raises:
            ImportError: pandas is not installed.
        """
        from reelbank.store.bridges.tables import to_pandas

        return to_pandas(self)

    def to_xarray(
        self: Readable, tap: str | None = None, *, view: int = 0, rows: Sequence[int] | None = None
    ) -> xr.Dataset:
        """The features of one tap as `features` (clip, step, *axes of the tap), in memory.

        Clips of fewer steps than the longest are padded with zeros. Coordinates: `clip_id`, `row`, `label`, `split`,
        `group`, the targets (clip), `mask` (clip, step; True where a step is valid) and `step_seconds` (clip, step;
        NaN where padded). Attributes say what the features are.

        Args:
            tap: default: the store's first.
            view: stored view.
            rows: of the clips; default: all that have features. Clips x longest x size of a step must fit in memory.

        Raises:
            ImportError: xarray is not installed.
            StoreError: a tap, view or row that is not there, or a clip without features.
        """
        from reelbank.store.bridges.tables import to_xarray

        return to_xarray(self, tap or self.default_tap, view, rows)

    def dataset(
        self: Readable, tap: str | None = None, *, split: str | None = None, view: int = 0, target: str | None = None
    ) -> ClipDataset:
        """A torch Dataset of the clips that have features.

        An item is {features: (T, *axes), mask: (T,), label: class number, clip_id} and, where the store has a target,
        target: float32. `collate` pads a batch to its longest clip:

            data = store.dataset(split="train")
            DataLoader(data, batch_size=8, shuffle=True, num_workers=2, collate_fn=data.collate)

        It can be pickled, and every worker opens the store for itself, spawned or forked.

        Args:
            tap: default: the store's first.
            split: only clips of this split; default: all.
            view: stored view.
            target: numeric column; default: the store's first target, if it has one.

        Raises:
            StoreError: a tap, split, view or target that is not there.
        """
        from reelbank.store.bridges.clip_dataset import ClipDataset

        return ClipDataset(self, type(self), tap or self.default_tap, split=split, view=view, target=target)


def facts(store: Readable) -> Mapping[str, str]:
    """{what: text} of a store in a few words; of a damaged one as far as it can be read."""
    taps = ", ".join(f"{name} ({' x '.join(map(str, ('T', *tap.shape)))})" for name, tap in store.taps.items())
    told = {"backbone": store.spec.backbone, "taps": taps, "sampling": store.spec.sampling}
    if store.weights_are_random:
        told["weights"] = "RANDOM: never trained"
    try:
        counts = {name: count for name, count in store.clips.counts().items() if count}
        told["clips"] = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()) or "none"
        steps = store.num_steps[store.done_rows()]
        if len(steps):
            told["steps"] = f"{steps.min()}" if steps.min() == steps.max() else f"{steps.min()} to {steps.max()}"
        if failed := store.clips.failures().most_common(MAX_REASONS):
            told["failed"] = "; ".join(f"{count}: {reason or 'why is not stored'}" for reason, count in failed)
    except StoreError as error:
        told["damaged"] = str(error)
    if store.target_names:
        told["targets"] = ", ".join(store.target_names)
    return told
