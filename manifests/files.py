"""Writing so that a reader sees the old file or the new one, never a part. The one place for it: every stage may
import the manifests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".partial"
"""Of what is being written: a killed process may leave such a file, and nothing reads one."""


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to; it takes the place of `path` when the block ends.

    After an error it is removed and `path` is as it was. A folder can only take the place of nothing.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{SUFFIX}")
    try:
        yield partial
        partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
