"""Files of a store: written whole and flushed to the disk, read with errors that name them, by one writer."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from reelbank.manifests.files import FILLING as FILLING
from reelbank.manifests.files import appearing as appearing
from reelbank.manifests.files import filling as filling
from reelbank.manifests.files import free_bytes as free_bytes
from reelbank.manifests.files import give_back as give_back
from reelbank.manifests.files import leftovers as leftovers
from reelbank.manifests.files import lock as lock
from reelbank.manifests.files import not_written as not_written
from reelbank.manifests.files import regular as regular
from reelbank.manifests.files import remove as remove
from reelbank.manifests.files import remove_leftovers as remove_leftovers
from reelbank.manifests.files import scratch as scratch
from reelbank.manifests.files import sync as sync
from reelbank.manifests.files import take_place as take_place
from reelbank.manifests.files import write_whole as write_whole
from reelbank.manifests.files import writing as writing
from reelbank.store.errors import StoreError

STUMBLES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
    struct.error,
)  # fmt: skip
"""What code and libraries raise over content that they did not expect."""
MAX_STUMBLE = 300
"""Letters of what a library says of a damaged file: some repeat what they were given."""


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path` that takes its place when the block ends without an error.

    Args:
        path: the file to write; its folder is made.
        durable: flush to disk before the rename, so that a power cut cannot leave a renamed empty file.
    """
    with writing(path):
        make_folder(path.parent) if durable else path.parent.mkdir(parents=True, exist_ok=True)
    # Not tidy: a folder of chunks may have thousands of files, and what is left in a store `featurize` removes.
    with appearing(path, durable=durable, tidy=False) as partial, partial.open("wb") as file:
        yield file


def write_json(path: Path, data: Any, *, durable: bool = True) -> None:
    """Writes `data` as JSON in one step."""
    with replacing(path, durable=durable) as file:
        file.write(json.dumps(data, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises StoreError naming the file if it is absent or damaged."""
    try:
        with reading(path):
            return json_object(regular(path).read_bytes())
    except FileNotFoundError as error:
        raise StoreError(f"{path} is not there") from error


def json_object(text: str | bytes, *, constants: bool = True) -> dict[str, Any]:
    """The object that `text` is.

    Args:
        constants: whether NaN and Infinity, which JSON has not, may stand for a number.

    Raises:
        ValueError: any other JSON, or none.
        RecursionError: it is nested without end.
    """
    data = json.loads(text, parse_constant=None if constants else _no_constant)
    if "\\ud" in (text.decode(errors="replace") if isinstance(text, bytes) else text).lower():  # half a pair is no text
        json.dumps(data, ensure_ascii=False).encode()
    if not isinstance(data, dict):
        raise ValueError(f"it holds a JSON {type(data).__name__}, expected an object")
    return data


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


@contextmanager
def reading(path: Path, kind: type[ValueError] = StoreError) -> Iterator[None]:
    """What the reader of a file stumbles over inside becomes one sentence that names the file, of class `kind`.

    For code that takes the content of a file from elsewhere apart, and for nothing else: a file may hold anything.
    """
    try:
        yield
    except STUMBLES as error:
        if type(error).__module__.startswith("reelbank."):  # a sentence already
            if str(path) not in str(error):
                error.add_note(f"read from {path}")
            raise
        raise kind(f"{path} is damaged: {_stumble(error)}") from error


def _stumble(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}" if error.args else "something is missing"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return str(error)[:MAX_STUMBLE] or type(error).__name__


def refuse_links(folder: Path, kind: type[ValueError] = StoreError) -> None:
    """Raises `kind` for a link in `folder`, which may be one itself: what is written there would go elsewhere.

    Not in a folder `staging`: whatever lies there and is no clip is removed, not followed.
    """
    waiting = [os.fspath(folder)] if folder.is_dir() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    what = "is a link, and a writer would follow it; put what it points at in its place"
                    raise kind(f"{entry.path} {what}")
                if entry.name != "staging" and entry.is_dir():
                    waiting.append(entry.path)


@contextmanager
def only_writer(folder: Path, kind: type[ValueError] = StoreError) -> Iterator[str | None]:
    """Holds the writer lock of a store or a run; a second writer on this machine gets an error, of `kind`.

    The lock is on the folder itself and the kernel drops it when its process dies, so nothing needs
    clearing after a kill -9. A folder that is made for it and stays empty goes again. Given is a sentence where the
    file system has no locks.
    """
    is_new = not folder.exists()
    make_folder(folder)
    sync(folder.parent)  # a killed process may have made the folder without
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            has_lock = lock(descriptor)
        except BlockingIOError as error:
            raise kind(f"{folder} is being written by another process; wait for it or stop it") from error
        yield None if has_lock else f"{folder}: its file system has no locks, so nothing keeps a second writer out"
    finally:
        if is_new:  # an error or Ctrl-C before anything was written leaves no folder
            with suppress(OSError):
                folder.rmdir()
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, each in its own folder's entries on the disk."""
    missing = [one for one in (folder, *folder.parents) if not one.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        sync(one.parent)
