"""Bringing a store of an earlier version to what this one writes: every array and document under a checksum."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.manifests.events import Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store import layout
from reelbank.store.building import new_store
from reelbank.store.errors import StoreError
from reelbank.store.files import make_folder, only_writer
from reelbank.store.plain import PlainArray
from reelbank.store.reader import Store
from reelbank.store.shards import compress, decompress, open_shard, read_grid, write_shard
from reelbank.store.sums import read_summed, write_summed
from reelbank.store.verification import verify


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """What came of it: `covered` are the arrays and documents that got a checksum."""

    path: str
    covered: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON types."""
        return dict(vars(self))

    def text(self) -> str:
        """The facts, a line."""
        if not self.covered:
            return f"{self.path}: every array and document has its checksum, nothing to do"
        return f"{self.path}: {len(self.covered)} arrays and documents got a checksum"


@with_bar("upgrade")
def upgrade(path: Path | str, progress: Progress | None = None) -> Upgrade:
    """Writes the store anew beside itself, features as links to the same files, and lets it take its place.

    Args:
        path: the store.
        progress: called with the events of `verify`, which runs first.

    Raises:
        StoreError: it is damaged, or another process writes it.
    """
    path = Path(path)
    found = verify(path, progress)
    if found.problems:
        raise StoreError(
            f"{path} has {len(found.problems)} problems and is left as it is, the first: {found.problems[0]}; "
            "`reelbank store verify STORE --repair` comes first"
        )
    if Store(path).is_summed and not found.uncovered:
        return Upgrade(path=str(path), covered=())
    with only_writer(path), new_store(path, overwrite=True) as part:
        rewritten = []
        for file in sorted(path.rglob("zarr.json")):
            name, document = file.parent.relative_to(path).as_posix(), read_summed(file)
            is_array = document.get("node_type") == "array" and document["shape"]
            if is_array and document["codecs"][0]["name"] != "sharding_indexed":
                _rewrite(path / name, part / name, document)
                rewritten.append(f"{name}/c/")
            else:
                write_summed(part / name / "zarr.json", document)
        for file in sorted(file for file in path.rglob("*") if file.is_file() and file.name != "zarr.json"):
            name = file.relative_to(path).as_posix()
            if not name.startswith(tuple(rewritten)):
                _take(file, part / name, is_thumbnail=name.startswith("thumbnails/"))
        layout.write_root(part, {**layout.read_root(path), "summed": True})
    return Upgrade(path=str(path), covered=found.uncovered)


def _rewrite(source: Path, target: Path, document: dict[str, Any]) -> None:
    """An array of plain chunks with a crc32c for each."""
    held = PlainArray(source)
    codecs = document["codecs"] if held.is_summed else [*document["codecs"], {"name": "crc32c"}]
    write_summed(target / "zarr.json", {**document, "codecs": codecs})
    PlainArray(target, writable=True).write(0, held.read(0, held.shape[0]))


def _take(source: Path, target: Path, *, is_thumbnail: bool) -> None:
    """A file of the store that is no chunk of a plain array."""
    make_folder(target.parent)
    if source.suffix == ".json":
        write_summed(target, read_summed(source))
    elif is_thumbnail:
        array = next(folder for folder in source.parents if (folder / "zarr.json").is_file())
        grid = read_grid(array)[0]
        num_chunks = int(np.prod(grid.chunk_grid))
        shard = open_shard(source, num_chunks)
        assert shard is not None

        def chunk(flat: int) -> bytes | None:
            frame = shard.chunk(flat)
            return None if frame is None else compress(bytes(decompress(frame, grid.chunk_nbytes)))

        write_shard(target, num_chunks, chunk)
    else:
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            shutil.copy2(source, target)
