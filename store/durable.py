"""Zarr's arrays written so that a power cut leaves the old chunk or the new one, never a torn or an empty one."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from reelbank.store.files import regular, replacing, sync

SETTLED_SECONDS = 3600.0
"""Linux writes what is dirty after half a minute; each flush of nothing still costs a millisecond on a busy disk."""


class DurableStore(LocalStore):
    """A folder of Zarr in which every write and removal is on the disk before the call returns.

    zarr-python renames what it wrote without flushing it: after a power cut the new name may hold nothing, and with it
    goes what the chunk held of clips that were finished long before.
    """

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Reads a file; what is a FIFO or a device is refused."""
        regular(self.root / key)
        return await super().get(key, prototype, byte_range)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The same outside an event loop."""
        regular(self.root / key)
        return super().get_sync(key, prototype=prototype, byte_range=byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        """Replaces one file."""
        if not self._is_open:
            await self._open()
        self._check_writable()
        await asyncio.to_thread(_write, self.root / key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Writes a file where there is none; a store has one writer."""
        if not await self.exists(key):
            await self.set(key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """The same outside an event loop."""
        self._check_writable()
        _write(self.root / key, value)

    async def delete(self, key: str) -> None:
        """Removes a file or a folder."""
        self._check_writable()
        await asyncio.to_thread(_remove, self.root / key)

    def delete_sync(self, key: str) -> None:
        """The same outside an event loop."""
        self._check_writable()
        _remove(self.root / key)


def settle(store: Path) -> None:
    """Flushes the entries of a store's folders, for a killed writer may have renamed a file and not got to that.

    What this writer finds would else be gone after a power cut, when more was built on it. Folders of chunks change
    only while clips are staged; one that has not changed for SETTLED_SECONDS the system has written since.
    """
    arrays = [file.parent for file in store.glob("*/*/zarr.json")]
    staged = any(child.name.isdigit() for child in (store / "staging").glob("*"))
    folders = [path for path in store.rglob("*") if path.is_dir()] if staged else {*(a.parent for a in arrays), *arrays}
    for folder in (*folders, store):
        if folder.stat().st_mtime > time.time() - SETTLED_SECONDS:
            sync(folder)


def _write(path: Path, value: Buffer) -> None:
    with replacing(path) as file:
        file.write(value.as_buffer_like())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    else:
        return
    sync(path.parent)
