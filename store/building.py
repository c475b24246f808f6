"""Making a store: beside its place, so that it appears whole or not at all, or where a killed writer began one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reelbank.store.errors import StoreError
from reelbank.store.files import give_back, make_folder, only_writer, sync, take_place
from reelbank.store.layout import FOLDERS, GROUP, PLAIN_FOLDERS, read_root
from reelbank.store.spec import FeatureSpec, differences
from reelbank.store.staging import num_staged
from reelbank.store.sums import read_summed, write_summed


@contextmanager
def new_store(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """An empty, locked folder that becomes `out` when the block ends without an error.

    What a killed process left of an earlier attempt is removed.

    Raises:
        StoreError: something is at `out` (with `overwrite`: something that is no store), or another process makes it.
    """
    part = out.with_name(f".{out.name}.part")
    give_back(out)
    if out.exists() or out.is_symlink():
        if not overwrite:
            raise StoreError(f"{out} is already there; choose another place or pass --overwrite")
        read_root(out)  # nothing but a store is ever removed
    make_folder(out.parent)
    with only_writer(part):
        _empty(part)
        try:
            yield part
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        if out.is_symlink():
            out.unlink()
        if out.exists():
            take_place(part, out)
        else:
            part.replace(out)
            sync(out.parent)


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def abandoned(path: Path) -> bool:
    """Whether there is no store, or one whose writer died while it made it: what that left is removed."""
    mark = path / "zarr.json"
    if mark.is_file() and (root := read_summed(mark)).get("attributes"):
        return False
    for leftover in path.glob(".zarr.json.*.partial"):
        leftover.unlink()
    if not mark.is_file():
        return True
    if root.get("node_type") != "group" or not _is_ours(path):
        raise StoreError(f"{path} is a Zarr group, but not one that reelbank wrote; choose another --out")
    _clear(path)
    return True


def emptied(path: Path, spec: FeatureSpec) -> str:
    """A sentence where the store at `path` is of another spec and held no feature: then it is removed, else nothing.

    A line that was wrong and stopped leaves such a store, which must not stand in the way of the right one.
    """
    root = read_root(path)
    differing = differences(FeatureSpec.from_json(root["spec"]), spec)
    if not differing or num_staged(path) or not _is_ours(path):
        return ""
    # Asked of the features themselves: a status that was lost reads as that of a clip which was never tried.
    if any(file.is_file() and file.name != "zarr.json" for file in (path / "features").rglob("*")):
        return ""
    write_summed(path / "zarr.json", dict(GROUP))  # killed from here on, it is one that was never made whole
    _clear(path)
    return f"a store of another specification ({', '.join(differing)}) was here without any feature: replaced"


def _is_ours(path: Path) -> bool:
    return {child.name for child in path.iterdir()} <= {"zarr.json", *FOLDERS, *PLAIN_FOLDERS}


def _clear(path: Path) -> None:
    for child in sorted(path.iterdir(), key=lambda child: child.name == "zarr.json"):  # the mark of ours goes last
        shutil.rmtree(child) if child.is_dir() else child.unlink()
