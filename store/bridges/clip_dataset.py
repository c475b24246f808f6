"""The clips of a store as a torch Dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from reelbank.store.bridges.readable import Readable
from reelbank.store.errors import StoreError

UNLABELLED = -100
"""The class number of a clip without a label: what torch's losses pass over."""


class ClipDataset(Dataset[dict[str, Any]]):
    """Clips of a store that have features, read when they are asked for; `Store.dataset` makes it.

    Attributes:
        rows: (N,) the row of the store that each item is.
        classes: the labels of the whole store, sorted; an item's `label` is a place here, -100 where it has none.
        target_name: the column of `target`; None where there is none.
    """

    def __init__(
        self, store: Readable, opening: Callable[[Path], Readable], tap: str, *, split: str | None, view: int,
        target: str | None,
    ) -> None:  # fmt: skip
        """Of `store`; `opening` opens it again in another process."""
        store.spec.tap(tap)
        if not 0 <= view < len(store.spec.views):
            raise StoreError(f"view {view} of {store.path}: it has views 0 to {len(store.spec.views) - 1}")
        # Workers may have another working folder.
        self._path, self._opening, self._tap, self._view = store.path.absolute(), opening, tap, view
        self._opened: tuple[int, Readable] | None = None
        self.target_name = target or next(iter(store.target_names), None)
        if target is not None and target not in store.target_names:
            known = ", ".join(store.target_names) or "none"
            raise StoreError(f"{store.path} has no target {target!r}; its targets are {known}")
        done = store.done_rows()
        splits, labels = store.column("split")[done], store.column("label")[done]
        if split is not None and split not in splits:
            found = ", ".join(sorted({repr(one) for one in splits.tolist()})) or "none"
            raise StoreError(f"no clip with features of {store.path} is in split {split!r}; its splits are {found}")
        chosen = np.ones(len(done), dtype=bool) if split is None else splits == split
        self.classes: tuple[str, ...] = tuple(sorted({str(label) for label in labels if label}))
        number = {label: i for i, label in enumerate(self.classes)}
        self.rows = done[chosen]
        self._labels = [number.get(label, UNLABELLED) for label in labels[chosen].tolist()]
        self._ids = [str(name) for name in store.column("clip_id")[self.rows]]
        self._targets = None if self.target_name is None else store.column(self.target_name)[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One clip: features (T, *axes), floats as float32; mask (T,), all True; label (), target () float32; clip_id.

        Raises:
            StoreError: the features are damaged, or no longer there.
        """
        row = int(self.rows[index])
        read = self._store().read(self._tap, row)
        # A clip without further views has the first for every split.
        values = read[self._view if self._view < len(read) else 0]
        values = values.astype(np.float32) if values.dtype.kind == "f" else values.copy()  # what is mapped is read only
        item: dict[str, Any] = {
            "features": torch.from_numpy(values),
            "mask": torch.ones(len(values), dtype=torch.bool),
            "label": torch.tensor(self._labels[index]),
            "clip_id": self._ids[index],
        }
        if self._targets is not None:
            item["target"] = torch.tensor(self._targets[index], dtype=torch.float32)
        return item

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A batch: features (B, longest T, *axes), zeros after a clip's last step; mask (B, longest T); others (B,)."""
        pad = torch.nn.utils.rnn.pad_sequence
        batch: dict[str, Any] = {
            name: pad([item[name] for item in items], batch_first=True) for name in ("features", "mask")
        }
        for name in items[0].keys() - batch.keys():
            values = [item[name] for item in items]
            batch[name] = torch.stack(values) if isinstance(values[0], torch.Tensor) else values
        return batch

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _store(self) -> Readable:
        """The store, opened once by every process: a forked one must not share what its parent has open."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), self._opening(self._path)
        return self._opened[1]
