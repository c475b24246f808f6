"""Writing so that a reader sees the old file or the new one, never a part. The one place for it: every stage may
import the manifests."""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".partial"
"""Of what is being written: a killed process may leave such a file, and nothing reads one."""


@contextmanager
def appearing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to; it takes the place of `path` when the block ends.

    After an error it is removed and `path` is as it was. A folder can take the place of a folder.

    Args:
        path: what shall be there.
        durable: flush it to the disk, so that a power cut leaves the old one or the new one and none that is empty.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{SUFFIX}")
    try:
        yield partial
        if durable:
            for one in (partial, *(partial.rglob("*") if partial.is_dir() else ())):
                sync(one)
        if partial.is_dir() and path.is_dir() and not path.is_symlink():
            take_place(partial, path)
        else:
            partial.replace(path)
        if durable:
            sync(path.parent)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flushes a file, or which entries a folder has: a renamed file is not on the disk before its folder is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_place(new: Path, path: Path) -> None:
    """Lets the folder `new` take the place of the folder `path`, which goes.

    Where the system can swap two names, `path` is always there; elsewhere a kill may leave it to `give_back`.
    """
    if exchange(new, path):
        sync(path.parent)
        shutil.rmtree(new, ignore_errors=True)
        return
    old = _aside(path)
    shutil.rmtree(old, ignore_errors=True)
    path.replace(old)
    new.replace(path)
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def give_back(path: Path) -> None:
    """Puts back what a kill between the two renames of `take_place` left aside."""
    old = _aside(path)
    if old.exists() and not (path.exists() or path.is_symlink()):
        old.replace(path)
        sync(path.parent)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def exchange(one: Path, other: Path) -> bool:
    """Swaps two names in one step, and says whether the system could."""
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is None or swap(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        return False
    sys.audit("reelbank.exchange", one, other)  # whoever watches files does not see into a C library
    return True


_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD; flag of renameat2 (Linux)


def leftovers(folder: Path, name: str = "") -> list[Path]:
    """What killed processes left of what they were writing to `folder`, or to `name` in it."""
    found = folder.glob(f".{glob.escape(name)}.*{SUFFIX}" if name else f".*{SUFFIX}")
    return [path for path in found if not _is_written(path)]


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Removes the `leftovers`."""
    for path in leftovers(folder, name):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_written(partial: Path) -> bool:
    """Whether another process of this machine may still be at it."""
    number = partial.name.removesuffix(SUFFIX).rpartition(".")[2]
    if not number.isdigit() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
