"""Files of a store: written whole and flushed to the disk, read with errors that name them, by one writer."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from reelbank.manifests.files import appearing as appearing
from reelbank.manifests.files import give_back as give_back
from reelbank.manifests.files import leftovers as leftovers
from reelbank.manifests.files import remove_leftovers as remove_leftovers
from reelbank.manifests.files import sync as sync
from reelbank.manifests.files import take_place as take_place
from reelbank.store.errors import StoreError


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path` that takes its place when the block ends without an error.

    Args:
        path: the file to write; its folder is made.
        durable: flush to disk before the rename, so that a power cut cannot leave a renamed empty file.
    """
    make_folder(path.parent) if durable else path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path, durable=durable) as partial, partial.open("wb") as file:
        yield file


def write_json(path: Path, data: Any, *, durable: bool = True) -> None:
    """Writes `data` as JSON in one step."""
    with replacing(path, durable=durable) as file:
        file.write(json.dumps(data, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> Any:
    """The JSON of `path`. Raises StoreError naming the file if it is absent or damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise StoreError(f"{path} is not there") from error
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}") from error


@contextmanager
def only_writer(store: Path) -> Iterator[None]:
    """Holds the store's writer lock; a second writer on this machine gets an error.

    The lock is on the folder itself and the kernel drops it when its process dies, so nothing needs
    clearing after a kill -9.
    """
    make_folder(store)
    sync(store.parent)  # a killed process may have made the store's folder without
    descriptor = os.open(store, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(f"{store} is being written by another process; wait for it or stop it") from error
        yield
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, each in its own folder's entries on the disk."""
    missing = [one for one in (folder, *folder.parents) if not one.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        sync(one.parent)
