"""Is a video still the one that was read? Size and time are trusted, else its bytes are compared."""

from __future__ import annotations

import hashlib
from pathlib import Path

CHUNK_BYTES = 1 << 20


def stat_of(path: Path | None) -> tuple[int, int] | None:
    """(size in bytes, mtime in ns) of a video, or of a folder of frames: their sum and the newest; None if absent."""
    if path is None:
        return None
    try:
        if path.is_dir():
            stats = [file.stat() for file in sorted(path.iterdir()) if file.is_file()]
            return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def content_hash(path: Path | None) -> str:
    """sha256 (hex) of a file, or of the names and bytes of a folder's files; empty if there is nothing to read."""
    if path is None or not path.exists():
        return ""
    digest = hashlib.sha256()
    files = sorted(f for f in path.iterdir() if f.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(CHUNK_BYTES):
                digest.update(block)
    return digest.hexdigest()
