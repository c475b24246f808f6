"""Is a video still the one that was read? Size and time are trusted, else its bytes are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from reelbank.manifests.files import regular

CHUNK_BYTES = 1 << 20


def stat_of(paths: Sequence[Path]) -> tuple[int, int] | None:
    """(size in bytes, mtime in ns) of what a clip is read from: files, or folders of frames.

    Of several files the sum of their sizes and the newest time; None if there is none or one is absent.
    """
    try:
        stats = [file.stat() for path in paths for file in _files(path)]
    except OSError:
        return None
    return (sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)) if paths else None


def content_hash(paths: Sequence[Path], news: Callable[[], None] = lambda: None) -> str:
    """sha256 (hex) of a file, or of the names and bytes of a folder's files; empty if there is nothing to read.

    A FIFO or a device is nothing to read: it would be read for ever. `news` is called for every block that was read.
    """
    if not paths or not all(path.is_file() or path.is_dir() for path in paths):
        return ""
    digest = hashlib.sha256()
    for path in paths:
        for file in _files(path):
            if path.is_dir():
                digest.update(file.name.encode() + b"\0")
            with regular(file).open("rb") as stream:
                while block := stream.read(CHUNK_BYTES):
                    digest.update(block)
                    news()
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
