"""What a scan finds: plain data about a video, its frames and how to reach them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from reelbank.extract.errors import DecodeError
from reelbank.extract.video.damage import Report

NO_TIMESTAMP = int(np.iinfo(np.int64).min)
SEEN_ASPECT = 0.01
"""Pixels that are less oblong come from a size that was rounded."""
HDR_TRANSFERS = {16: "pq", 18: "hlg"}
"""Transfer functions by their number in H.273: of more light than screens give, so that pictures look pale."""
Positions = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class GopPlan:
    """The packets of a video in decode order (P of them), and which frame each gives.

    Attributes:
        pts: (P,) presentation timestamps in the stream's time base.
        dts: (P,) decode timestamps, `NO_TIMESTAMP` where the container gives none.
        starts: (P,) bool, whether decoding may start at the packet.
        position_of: (N,) position in decode order of the frame with emission index i; packets that an edit
            list hides are decoded but have no index.
        skip_nonref: whether the decoder may drop unwanted non-reference frames.
        reports: what FFmpeg said while the packets were read.
    """

    pts: Positions
    dts: Positions
    starts: npt.NDArray[np.bool_]
    position_of: Positions
    skip_nonref: bool
    reports: tuple[Report, ...] = ()

    @cached_property
    def _start_positions(self) -> Positions:
        return np.flatnonzero(self.starts)

    def start_of(self, index: int) -> int:
        """Position of the packet from which frame `index` can be decoded."""
        starts, position = self._start_positions, int(self.position_of[index])
        nth = int(np.searchsorted(starts, position, side="right")) - 1
        # Leading pictures (open GOP) are shown before the keyframe they follow and may refer to the GOP before it.
        while nth > 0 and self.pts[position] < self.pts[starts[nth]]:
            nth -= 1
        return int(starts[nth])

    def segments(self, wanted: Positions) -> list[tuple[int, int, Positions]]:
        """The runs of packets that wanted frames need: (first, last, wanted indices), none adjacent.

        Args:
            wanted: ascending emission indices.
        """
        spans = [(self.start_of(index), int(self.position_of[index]), index) for index in wanted.tolist()]
        runs: list[tuple[int, int, list[int]]] = []
        for first, last, index in sorted(spans):
            if runs and first <= runs[-1][1] + 1:
                runs[-1] = (runs[-1][0], max(runs[-1][1], last), [*runs[-1][2], index])
            else:
                runs.append((first, last, [index]))
        return [(first, last, np.asarray(sorted(indices), np.int64)) for first, last, indices in runs]


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoScan:
    """What a video, frame folder or still image holds. Plain data: it can be pickled and cached.

    Attributes:
        path: as it was opened.
        num_frames: N, frames that the decoder emits (before the break, in a broken file).
        times_seconds: (N,) in emission order, from the first emitted frame.
        file_seconds: the same from the file's start, where that is another; else None.
        duration_seconds: end of the last frame, by its own duration or one mean frame time.
        width_px: of the first frame as shown, turned and mirrored.
        height_px: likewise.
        rate_fps: mean frame rate.
        rotation_degrees: counterclockwise turn from the coded to the shown first frame; a multiple of 90.
        is_mirrored: whether left and right are exchanged before that turn.
        pixel_aspect: width by height of a pixel as shown; 1 is square, or nothing says so.
        transfer: `pq` or `hlg` of HDR, else `sdr`; empty for pictures.
        broken: why the file ends early, or None.
        stream_index: of the video stream in the container; -1 for pictures.
        codec: decoder name, or `image`.
        plan: how to decode frames one by one; None means sequentially.
        pictures: files of a frame folder in order; a file of several is there as often as it has frames.
        pages: of such a file, which of its pictures each frame is.
        time_source: where the times come from: `container`; `repaired`, some stamps did not fit among the others and
            lie between their neighbours; `counted`, frames follow each other at one rate. Empty for pictures.
        end_known: whether the file itself says that nothing of it is missing at its end.
        damaged: {emission index: what damages the frame} as far as the scan decoded.
        lost: {emission index: why frames before it may be missing}; N stands for the end.
        num_errors: what FFmpeg reported during the scan.
    """

    path: str
    num_frames: int
    times_seconds: Seconds
    duration_seconds: float
    width_px: int
    height_px: int
    rate_fps: Fraction
    rotation_degrees: int = 0
    is_mirrored: bool = False
    pixel_aspect: Fraction = Fraction(1)
    transfer: str = ""
    broken: str | None = None
    stream_index: int = -1
    codec: str = "image"
    plan: GopPlan | None = None
    pictures: tuple[str, ...] = ()
    pages: tuple[int, ...] = ()
    time_source: str = ""
    file_seconds: Seconds | None = None
    end_known: bool = False
    damaged: Mapping[int, str] = field(default_factory=dict)
    lost: Mapping[int, str] = field(default_factory=dict)
    num_errors: int = 0

    @property
    def first_frame_seconds(self) -> float:
        """When the first frame is shown, from the file's start: later than 0 where sound or another stream begins."""
        return 0.0 if self.file_seconds is None else float(self.file_seconds[0])

    def from_file_start(self) -> VideoScan:
        """The scan whose `times_seconds` and `duration_seconds` count from the file's start, as players do."""
        if self.file_seconds is None:
            return self
        duration = self.duration_seconds + self.first_frame_seconds
        return replace(self, times_seconds=self.file_seconds, duration_seconds=duration, file_seconds=None)

    def check_complete(self, first: int, stop: int, *, keep_damaged: bool = False) -> None:
        """Refuses the frames first..stop-1 if some among them may be missing: the others would be taken for them.

        Raises:
            DecodeError: with the index of the frame after them. Where the first frames of the file are missing there
                is no 0 s, whatever is kept.
        """
        for index, why in self.lost.items():
            if index == 0 or (first <= index <= stop and not keep_damaged):
                seconds = self.times_seconds[min(index, self.num_frames - 1)]
                raise DecodeError(self.path, f"frames before it are missing, at {seconds:.6g} s: {why}", index)

    def check_whole(self, end_seconds: float | None) -> None:
        """Refuses an interval that reaches past the break of a broken file: its frames cannot be counted.

        Raises:
            DecodeError: the file is broken, and `end_seconds` is None or lies after its last whole frame.
        """
        if self.broken is not None and (end_seconds is None or end_seconds > self.times_seconds[-1]):
            asked = "its end" if end_seconds is None else f"{end_seconds:g} s"
            raise DecodeError(
                self.path,
                f"the clip reaches to {asked}, but {self.broken}; {self.num_frames} frames up to "
                f"{self.times_seconds[-1]:.6g} s are usable",
            )


@dataclass(kw_only=True)
class Examination:
    """A scan with what was read on the way, so that a short video is read and decoded once.

    Attributes:
        scan: the result.
        packets: all packets in decode order, or None where they were too large to keep.
        frames: all frames in emission order of a video counted by decoding, or None.
        frames_decoded: frames that the decoder emitted.
    """

    scan: VideoScan
    packets: list[Any] | None = None
    frames: list[Any] | None = None
    frames_decoded: int = 0
