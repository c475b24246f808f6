"""Packets of a video by their position in decode order: kept from the scan, or read once more."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from reelbank.extract.video.scan import NO_TIMESTAMP, GopPlan

# Reading on is cheaper than a seek over fewer packets than about half a minute of video.
SEEK_PACKETS = 1024


class SeekMissed(Exception):
    """A seek went past its target, or to a packet that the plan does not know."""


class Kept:
    """Packets that stayed in memory."""

    def __init__(self, packets: list[Any]) -> None:
        """`packets` in decode order."""
        self._packets = packets

    def go_to(self, position: int) -> None:
        """Nothing to do."""

    def read(self, position: int) -> Any:
        """The packet at a position in decode order."""
        return self._packets[position]


class FromFile:
    """Packets read once more; each must have the timestamp that the plan knows."""

    def __init__(
        self, container: Any, stream: Any, plan: GopPlan, may_seek: bool, news: Callable[[], None] = lambda: None
    ) -> None:
        """`container` was just opened; without `may_seek` it is read through, with `news` of every packet."""
        self._news = news
        self._container, self._stream, self._plan, self._may_seek = container, stream, plan, may_seek
        self._packets: Iterator[Any] = container.demux(stream)
        self._next = 0

    def go_to(self, position: int) -> None:
        """Seeks to a start at or before `position` where that saves much reading."""
        if not self._may_seek or position - self._next <= SEEK_PACKETS:
            return
        dts, pts = int(self._plan.dts[position]), int(self._plan.pts[position])
        self._container.seek(pts if dts == NO_TIMESTAMP else dts, stream=self._stream)
        packets = self._container.demux(self._stream)
        packet = next(packets, None)
        stamp = None if packet is None else packet.pts
        found = np.flatnonzero(self._plan.pts == stamp).tolist() if stamp is not None else []
        if len(found) != 1 or found[0] > position:
            raise SeekMissed
        self._packets, self._next = itertools.chain([packet], packets), found[0]

    def read(self, position: int) -> Any:
        """The packet at a position not yet passed; None where the file is not the one that was scanned."""
        for packet in self._packets:
            if packet.pts != self._plan.pts[self._next]:
                return None
            self._next += 1
            self._news()
            if self._next > position:
                return packet
        return None
