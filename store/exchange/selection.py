"""What an export writes, whatever its format: the clips, their taps and times, the names of their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.agreement import Agreement
from reelbank.store.exchange.quantizing import Channels
from reelbank.store.exchange.table import FORMAT_NAME, FORMAT_VERSION, clip_columns
from reelbank.store.layout import DONE
from reelbank.store.reader import Store
from reelbank.store.spec import TapSpec

HEADER_FILE = "reelbank.json"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is written, whatever the format.

    Attributes:
        rows: rows of the store that are listed (clips of the manifest, failed ones too).
        channels: {tap: how it is written as int8}; empty where the bytes stay as they are.
        losses: {tap: agreement of what int8 gives with what is stored}, filled while blocks are read.
    """

    store: Store
    taps: tuple[TapSpec, ...]
    view: int
    rows: NDArray[np.int64]
    channels: Mapping[str, Channels]
    losses: Mapping[str, Agreement]
    tell: Callable[[int], None] = field(default=lambda done: None)

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """The table of the export, see `exchange.clip_columns`."""
        return clip_columns(self.store, self.rows)

    @cached_property
    def clip_ids(self) -> list[str]:
        """Of the listed rows."""
        return [str(name) for name in self.columns["manifest/clip_id"]]

    @cached_property
    def done(self) -> list[int]:
        """Positions in `rows` of the clips that have features."""
        return [int(i) for i in np.flatnonzero(self.columns["ledger/status"] == DONE)]

    @property
    def num_steps(self) -> NDArray[np.int64]:
        """(len(rows),) steps of each listed clip, 0 where it has no features."""
        steps: NDArray[np.int64] = np.where(
            self.columns["ledger/status"] == DONE, self.columns["ledger/num_steps"], 0
        ).astype(np.int64)
        return steps

    @cached_property
    def header(self) -> dict[str, Any]:
        """What the export says about itself, as JSON types."""
        store = self.store
        return {
            "format": FORMAT_NAME,
            "version": FORMAT_VERSION,
            "source": store.path.name,
            "spec": store.spec.to_json(),
            "spec_digest": store.spec_digest,
            "provenance": store.provenance,
            "target_names": list(store.target_names),
            "taps": [tap.name for tap in self.taps],
            "view": self.view,
            "fixed_steps": store.geometry.fixed_steps,
            "int8_axis": {name: channels.axis for name, channels in self.channels.items()},
        }

    def dtype(self, tap: TapSpec) -> np.dtype[Any]:
        """As which dtype `tap` is written."""
        return np.dtype("int8" if tap.name in self.channels else tap.dtype)

    def blocks(self, tap: TapSpec, i: int) -> Iterator[NDArray[Any]]:
        """The steps (n, *axes) of the listed clip `i`, as they are written."""
        for block in self.store.blocks(tap.name, int(self.rows[i]), self.view):
            if (channels := self.channels.get(tap.name)) is None:
                yield block
                continue
            levels = channels.encode(block)
            self.losses[tap.name].add(block, channels.decode(levels))
            yield levels
        if tap.name in self.channels:
            self.losses[tap.name].end_clip()

    def times(self, i: int) -> dict[str, NDArray[Any]]:
        """`step_seconds` and `frame_index` (T,) of the listed clip `i`."""
        row = int(self.rows[i])
        return {"step_seconds": self.store.step_seconds(row), "frame_index": self.store.frame_index(row)}


@dataclass(frozen=True, kw_only=True)
class FileNames:
    """Names of the .npy files, without their ending, by position in the listed rows.

    Attributes:
        taps: {tap: {position: name}}.
        companions: {`fps` or `timestamps_ms`: {position: name}} in the naming of video_features, else empty.
    """

    taps: Mapping[str, Mapping[int, str]]
    companions: Mapping[str, Mapping[int, str]]
