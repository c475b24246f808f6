"""The files that a worker has open: hashed, scanned and counted once for all clips that follow each other in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reelbank.extract.inputs.sources import Source, open_source
from reelbank.extract.run.content import content_hash
from reelbank.extract.run.messages import WorkerSetup
from reelbank.extract.video.opening import Limits
from reelbank.manifests import Clip

Stat = tuple[int, int]
_TEXTS = ("frame_pattern", "rate_fps")
"""What else of a clip's row its sources are read by."""


@dataclass(kw_only=True)
class _Files:
    """What is known of the files that one source of the clip at hand reads.

    Attributes:
        stat: of `stat_of`: other files have another one.
        sources: by whether frames are counted by decoding, and by the texts of the clip.
    """

    paths: Sequence[Path]
    stat: Stat | None
    content: str | None = None
    sources: dict[tuple[bool, tuple[str, ...]], Source] = field(default_factory=dict)

    def close(self) -> None:
        for source in self.sources.values():
            source.close()
        self.sources.clear()


class OpenFiles:
    """The files of the last clip of each kind of source, for a next one that reads the same.

    A file that has changed since, by its size or time, is another one.
    """

    def __init__(self, setup: WorkerSetup, limits: Limits) -> None:
        """Of a worker, whose models say how files are read; opens nothing yet."""
        self._setup, self._limits = setup, limits
        self._columns = next((job.spec.annotation_columns for job in setup.models if job.spec.annotation_columns), None)
        self._files: dict[str, _Files] = {}

    def content(self, source: str, paths: Sequence[Path], stat: Stat | None, news: Callable[[], None]) -> str:
        """The hash of what a clip is read from."""
        files = self._of(source, paths, stat)
        if files.content is None:
            files.content = content_hash(paths, news)
        return files.content

    def open(self, source: str, paths: tuple[Path, ...], stat: Stat | None, clip: Clip, *, count: bool) -> Source:
        """What the steps of a clip read; it stays open. Raises what `open_source` raises."""
        files = self._of(source, paths, stat)
        key = count, tuple(clip.text.get(name) or "" for name in _TEXTS)
        if key not in files.sources:
            files.sources[key] = open_source(
                source,
                paths,
                clip,
                self._limits,
                count=count,
                keep_damaged=self._setup.keep_damaged,
                square_pixels=self._setup.square_pixels,
                device=self._setup.decode_device,
                columns=self._columns,
            )
        return files.sources[key]

    def close(self) -> None:
        """Closes everything."""
        for files in self._files.values():
            files.close()
        self._files.clear()

    def _of(self, source: str, paths: Sequence[Path], stat: Stat | None) -> _Files:
        files = self._files.get(source)
        if files is None or stat is None or (files.paths, files.stat) != (paths, stat):
            if files is not None:
                files.close()
            files = self._files[source] = _Files(paths=paths, stat=stat)
        return files
