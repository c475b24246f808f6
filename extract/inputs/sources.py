"""What the steps of a clip read: its video, its flow images, its motion maps or its keypoints.

Each is opened once per clip, whatever number of models reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reelbank.extract.errors import DecodeError
from reelbank.extract.inputs.annotations import read as read_annotations
from reelbank.extract.video.decode import Cost, Video
from reelbank.extract.video.on_device import DeviceVideo
from reelbank.extract.video.opening import Limits
from reelbank.extract.video.scan import VideoScan
from reelbank.extract.video.stills import scan_pictures
from reelbank.manifests import Clip, Manifest
from reelbank.manifests.manifest import outside
from reelbank.manifests.terminal import drive_hint

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "annotations": ("annotations",),
    "flow": ("flow_x", "flow_y"),
    "motion_maps": ("motion_maps",),
    "video": ("video",),
}
"""Columns of the manifest that each source reads; all of them must be filled."""


class Source(Protocol):
    """Frames of one clip by index; see `reelbank.extract.video.decode.Video`."""

    @property
    def cost(self) -> Cost: ...
    @property
    def is_sequential(self) -> bool: ...
    def scan(self) -> VideoScan: ...
    def frames(self, wanted: NDArray[np.int64]) -> Iterator[tuple[int, Any]]: ...
    def close(self) -> None: ...


def paths_of(source: str, manifest: Manifest, clip: Clip) -> tuple[Path, ...]:
    """Files or folders that `source` reads of a clip; empty where the manifest does not name them all.

    Motion maps also look at the clip's folder of frames, which says how many there should be.
    """
    paths = [manifest.path_of(clip, column) for column in COLUMNS[source]]
    if not all(paths):
        return ()
    video = manifest.video_path(clip) if source == "motion_maps" else None
    return tuple(path for path in (*paths, video) if path is not None)


def refuse_outside(paths: Sequence[Path], root: Path | None) -> None:
    """Raises ValueError for the first file outside `root`, links followed; None: files may lie anywhere.

    The manifest was asked before. Asked again where files are read: links change.
    """
    for path in paths:
        if root is not None and (found := outside(path, root)) is not None:
            raise ValueError(f"{found} leaves the root {root}; name a folder that holds all files as --root, or none")


def open_source(
    source: str,
    paths: tuple[Path, ...],
    clip: Clip,
    limits: Limits,
    *,
    count: bool = False,
    keep_damaged: bool = False,
    square_pixels: bool = False,
    device: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Source:
    """What the steps read; nothing is decoded yet.

    Args:
        source: a key of COLUMNS.
        paths: of `paths_of`.
        clip: gives `frame_pattern` and `rate_fps`.
        limits: of frame size, number of frames and duration.
        count: count a video's frames by decoding.
        keep_damaged: give frames that are reported as damaged, with their `damage`.
        square_pixels: make pixels of videos square; flow and motion maps are read as they are stored.
        device: the GPU that decodes videos; None: FFmpeg does.
        columns: {our name: theirs} of annotation tables.

    Raises:
        ValueError: the manifest names nothing to read, or it is not there.
    """
    named = COLUMNS[source]
    if not paths:
        what = "video" if source == "video" else " and ".join(named)
        raise ValueError(f"the manifest names no {what} for it; models that read {_READS[source]} need one")
    for column, path in zip(named, paths, strict=False):  # an optional folder may follow
        if not path.exists():
            raise ValueError(
                f"no file at {path}; correct the manifest's {column} column or name the folder that the paths are "
                f"relative to with --root{_way(path, clip.video if column == 'video' else clip.text.get(column, ''))}"
            )
    rate_text = clip.text.get("rate_fps")
    rate_fps = float(rate_text) if rate_text else None
    if source == "annotations":
        return _Keypoints(paths[0], clip, rate_fps, columns)
    if source == "motion_maps":
        scan = _motion_scan(paths, rate_fps, limits)
        return Video(paths[0], scan=scan, limits=limits, keep_damaged=keep_damaged)
    if source == "flow":
        return _Flow(
            [Video(path, rate_fps=rate_fps, limits=limits, count=count, keep_damaged=keep_damaged) for path in paths]
        )
    pattern = clip.text.get("frame_pattern") or None
    kind = Video if device is None else partial(DeviceVideo, device=device)
    return kind(
        paths[0],
        count=count,
        frame_pattern=pattern,
        rate_fps=rate_fps,
        limits=limits,
        keep_damaged=keep_damaged,
        square_pixels=square_pixels,
    )


_READS = {
    "annotations": "keypoints",
    "flow": "flow images",
    "motion_maps": "motion maps",
    "video": "frames",
}


def _way(path: Path, cell: str) -> str:
    """Where the file of a manifest's cell lies instead, as far as a look around its root tells."""
    from reelbank.manifests.datasets.paths import elsewhere

    near = elsewhere(Path(str(path).removesuffix(cell)), cell) if cell and str(path).endswith(cell) else ""
    return near or drive_hint(cell)


def _motion_scan(paths: Sequence[Path], rate_fps: float | None, limits: Limits) -> VideoScan | None:
    """A folder of maps with one picture for every frame: a missing number takes the nearest there is, the later of two.

    Numbers start at 1, as in GTEA61; a folder that has number 0 starts there. There are as many as the clip's folder
    of frames has pictures, else as the last number says.
    """
    path, *folders = paths
    if not path.is_dir():
        return None
    scan = scan_pictures(path, frame_pattern=None, rate_fps=rate_fps, limits=limits)
    numbers = [_number(picture) for picture in scan.pictures]
    if any(number is None for number in numbers):
        raise DecodeError(path, "a motion map has no number in its name; map0001.png is expected")
    have = np.array(numbers, dtype=np.int64)
    first = min(1, int(have[0]))
    last = int(have[-1])
    for folder in folders:
        if folder.is_dir():
            frames = scan_pictures(folder, frame_pattern=None, rate_fps=rate_fps, limits=limits)
            last = first + frames.num_frames - 1
    wanted = np.arange(first, last + 1)
    later = np.clip(np.searchsorted(have, wanted), 0, len(have) - 1)
    earlier = np.maximum(later - 1, 0)
    nearest = np.where(np.abs(have[later] - wanted) <= np.abs(have[earlier] - wanted), later, earlier)
    rate = float(scan.rate_fps)
    return replace(
        scan,
        num_frames=len(wanted),
        times_seconds=np.arange(len(wanted)) / rate,
        duration_seconds=len(wanted) / rate,
        pictures=tuple(scan.pictures[i] for i in nearest.tolist()),
    )


def _number(picture: str) -> int | None:
    digits = re.findall(r"\d+", Path(picture).stem)
    return int(digits[-1]) if digits else None


class _Flow:
    """The x and y images of precomputed flow, side by side; as long as the shorter of the two."""

    def __init__(self, videos: Sequence[Video]) -> None:
        self._x, self._y = videos

    @property
    def cost(self) -> Cost:
        x, y = self._x.cost, self._y.cost
        return Cost(**{name: value + getattr(y, name) for name, value in vars(x).items()})

    @property
    def is_sequential(self) -> bool:
        return self._x.is_sequential or self._y.is_sequential

    def scan(self) -> VideoScan:
        """The scan of the x images, cut to what both have."""
        x, y = self._x.scan(), self._y.scan()
        if (x.width_px, x.height_px) != (y.width_px, y.height_px):
            raise DecodeError(
                self._y.path,
                f"flow images of {y.width_px} x {y.height_px} px beside x images of {x.width_px} x {x.height_px}",
            )
        count = min(x.num_frames, y.num_frames)
        times = x.times_seconds[:count]
        duration = x.duration_seconds if count == x.num_frames else float(count / x.rate_fps)
        return replace(x, num_frames=count, times_seconds=times, duration_seconds=duration, file_seconds=None)

    def frames(self, wanted: NDArray[np.int64]) -> Iterator[tuple[int, Any]]:
        """(index, (x frame, y frame))."""
        for (index, x), (_, y) in zip(self._x.frames(wanted), self._y.frames(wanted), strict=True):
            yield index, (x, y)

    def close(self) -> None:
        self._x.close()
        self._y.close()


class _Keypoints:
    """The keypoints of an annotation file, one payload per annotated frame."""

    def __init__(self, path: Path, clip: Clip, rate_fps: float | None, columns: Mapping[str, str] | None) -> None:
        self.cost, self.is_sequential = Cost(), False
        self._path = path
        self._read = read_annotations(path, clip_id=clip.clip_id, rate_fps=rate_fps, columns=columns)

    def scan(self) -> VideoScan:
        """Times and number of the annotated frames."""
        self.cost.opens = 1
        times = self._read.times_seconds
        rate = Fraction(self._read.rate_fps)
        return VideoScan(
            path=str(self._path),
            num_frames=len(times),
            times_seconds=times,
            duration_seconds=float(times[-1] + 1 / rate) if len(times) else 0.0,
            width_px=self._read.width_px,
            height_px=self._read.height_px,
            rate_fps=rate,
        )

    def frames(self, wanted: NDArray[np.int64]) -> Iterator[tuple[int, Any]]:
        """(index, float32 (27, 3))."""
        payloads = self._read.payloads()
        for index in wanted.tolist():
            yield index, payloads[index]

    def close(self) -> None:
        """Nothing stays open."""
