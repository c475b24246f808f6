"""A model of a disk: what a program wrote below a folder, and what may lie there after a power cut at any point.

POSIX promises little: content is on the disk after fsync of the file, a name after fsync of its folder. Until then a
file may be empty, cut, zero or as it was, and each name of a folder may be the old one or the new one, whatever the
order in which they were changed.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WAYS = ("killed", "lost", "empty", "zeros", "cut")
"""Of a crash besides random ones: everything written is there; only what was synced; every name is there, and what was
not synced is empty, zero or half."""


@dataclass
class File:
    """A file by its number: what a power cut leaves at least, and what was written."""

    durable: bytes | None = None
    current: bytes = b""


@dataclass
class Folder:
    """A folder by its number: {name: number of a file or folder} as synced and as it is."""

    durable: dict[str, int] = field(default_factory=dict)
    current: dict[str, int] = field(default_factory=dict)


@dataclass
class Moment:
    """The disk just before one operation.

    Attributes:
        what: the operation.
        noted: what the program had said by then (`Disk.note`).
    """

    what: str
    files: dict[int, File]
    folders: dict[int, Folder]
    noted: tuple[Any, ...]


class Disk:
    """Records what is done below `root` while `recording` is open.

    Args:
        root: what lies in it is on the disk.
        killed: the moment at which a kill left what lies in `root`: what was not synced then still is not.
    """

    def __init__(self, root: Path, killed: Moment | None = None) -> None:
        self.root = root
        self.moments: list[Moment] = []
        self._noted: tuple[Any, ...] = ()
        self._numbers = itertools.count(1)
        self._files: dict[int, File] = {}
        self._folders: dict[int, Folder] = {0: Folder()}
        self._unsynced: set[int] = set()
        self._at: dict[int, Path] = {}
        if killed is None:
            self._take_in(root, 0)
        else:
            self._go_on(killed)

    def note(self, what: Any) -> None:
        """Something that the program has told its caller: from here on it must be true."""
        self._noted = (*self._noted, what)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Sees every change made inside."""
        original = os.fsync

        def fsync(descriptor: int) -> None:
            original(descriptor)
            with _lock:
                _inside.hook = True
                self._synced(_of_descriptor(descriptor))
                _inside.hook = False

        os.fsync = fsync
        _listeners.append(self)
        try:
            yield
        finally:
            _listeners.remove(self)
            os.fsync = original
            self._moment("end")

    # -- what is seen

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit event, which comes before its operation."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes, os.PathLike)) and flags & (os.O_WRONLY | os.O_RDWR):
                self._change(f"write {path}", lambda: self._opened(self._place(path)))
        elif event == "os.rename":
            source, target = self._place(arguments[0]), self._place(arguments[1])
            if source is not None or target is not None:
                self._change(f"rename {source} to {target}", lambda: self._renamed(source, target))
        elif event == "reelbank.exchange":  # which has been done, unlike the others
            one, other = self._place(arguments[0]), self._place(arguments[1])
            if one is not None or other is not None:
                self._change(f"exchange {one} and {other}", lambda: self._exchanged(one, other))
        elif event in ("os.remove", "os.rmdir"):
            place = self._place(arguments[0], arguments[1])
            self._change(f"remove {place}", lambda: self._removed(place))
        elif event == "os.mkdir":
            place = self._place(arguments[0], arguments[2])
            self._change(f"mkdir {place}", lambda: self._made(place))

    def _place(self, path: Any, folder: int = -1) -> tuple[str, ...] | None:
        """The names below `root`, None elsewhere."""
        place = Path(os.fsdecode(path))
        if folder not in (-1, None):
            place = _of_descriptor(folder) / place
        place = place.absolute()
        return place.relative_to(self.root).parts if place.is_relative_to(self.root) else None

    def _change(self, what: str, change: Any) -> None:
        self._moment(what)
        change()

    def _moment(self, what: str) -> None:
        for number in self._unsynced:
            self._files[number] = File(self._files[number].durable, self._content(number))
        self.moments.append(
            Moment(
                what,
                dict(self._files),
                {number: Folder(dict(f.durable), dict(f.current)) for number, f in self._folders.items()},
                self._noted,
            )
        )

    def _content(self, number: int) -> bytes:
        try:
            return self._at[number].read_bytes()
        except OSError:
            return self._files[number].current

    def _folder(self, place: tuple[str, ...]) -> Folder | None:
        number = 0
        for name in place:
            number = self._folders[number].current.get(name, -1)
            if number not in self._folders:
                return None
        return self._folders[number]

    def _opened(self, place: tuple[str, ...] | None) -> None:
        if not place or (folder := self._folder(place[:-1])) is None:
            return
        if place[-1] not in folder.current:
            folder.current[place[-1]] = number = next(self._numbers)
            self._files[number] = File()
        number = folder.current[place[-1]]
        self._at[number] = self.root.joinpath(*place)
        self._unsynced.add(number)

    def _renamed(self, source: tuple[str, ...] | None, target: tuple[str, ...] | None) -> None:
        assert source and target, "a rename into or out of the folder that is watched"
        old, new = self._folder(source[:-1]), self._folder(target[:-1])
        if old is not None and source[-1] not in old.current and self.root.joinpath(*source).is_file():
            self._opened(source)  # a library wrote it past Python
        if old is not None and new is not None and source[-1] in old.current:
            new.current[target[-1]] = number = old.current.pop(source[-1])
            before, after = self.root.joinpath(*source), self.root.joinpath(*target)
            for moved in (number,) if number in self._files else self._unsynced:
                if moved in self._at and self._at[moved].is_relative_to(before):
                    self._at[moved] = after / self._at[moved].relative_to(before)

    def _exchanged(self, one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> None:
        assert one and other, "an exchange with a folder that is not watched"
        first, second = self._folder(one[:-1]), self._folder(other[:-1])
        if first is not None and second is not None:
            first.current[one[-1]], second.current[other[-1]] = second.current[other[-1]], first.current[one[-1]]

    def _removed(self, place: tuple[str, ...] | None) -> None:
        if place and (folder := self._folder(place[:-1])) is not None:
            number = folder.current.get(place[-1])
            is_file_of_name = number is not None and os.path.lexists(self.root.joinpath(*place))
            if is_file_of_name and not (number in self._folders and self._folders[number].current):
                del folder.current[place[-1]]
                self._unsynced.discard(number)  # type: ignore[arg-type]

    def _made(self, place: tuple[str, ...] | None) -> None:
        if place and (folder := self._folder(place[:-1])) is not None and place[-1] not in folder.current:
            folder.current[place[-1]] = number = next(self._numbers)
            self._folders[number] = Folder()

    def _synced(self, path: Path) -> None:
        place = self._place(path)
        if place is None:
            return
        self._moment(f"sync {path}")
        if (folder := self._folder(place)) is not None:
            folder.durable = dict(folder.current)
            return
        above = self._folder(place[:-1])
        if above is not None and path.is_file():
            self._opened(place)  # it may have been written past Python
            number = above.current[place[-1]]
            content = path.read_bytes()
            self._files[number] = File(content, content)
            self._unsynced.discard(number)

    def _take_in(self, path: Path, number: int) -> None:
        """What lies there already is on the disk."""
        folder = self._folders[number]
        for child in sorted(path.iterdir()):
            folder.durable[child.name] = folder.current[child.name] = own = next(self._numbers)
            if child.is_dir():
                self._folders[own] = Folder()
                self._take_in(child, own)
            else:
                content = child.read_bytes()
                self._files[own] = File(content, content)

    def _go_on(self, killed: Moment) -> None:
        """The disk as it was at an earlier moment, written out to `root`."""
        self._files = dict(killed.files)
        self._folders = {number: Folder(dict(f.durable), dict(f.current)) for number, f in killed.folders.items()}
        self._numbers = itertools.count(max([*self._files, *self._folders]) + 1)

        def walk(path: Path, number: int) -> None:
            for name, child in self._folders[number].current.items():
                if child in self._folders:
                    walk(path / name, child)
                elif self._files[child].durable != self._files[child].current:
                    self._at[child] = path / name
                    self._unsynced.add(child)

        walk(self.root, 0)


def _of_descriptor(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


_listeners: list[Disk] = []
_lock, _inside = threading.RLock(), threading.local()


EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "reelbank.exchange")


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _listeners or event not in EVENTS:
        return
    if getattr(_inside, "hook", False):  # what the model itself reads
        return
    with _lock:
        _inside.hook = True
        try:
            for disk in _listeners:
                disk.heard(event, arguments)
        finally:
            _inside.hook = False


sys.addaudithook(_hook)


def write_state(moment: Moment, way: str, folder: Path, seed: int = 0) -> None:
    """Makes in the empty `folder` what may lie on the disk after a power cut at `moment`.

    Args:
        way: one of WAYS, or `random`, which takes each name and each content from what is possible.
    """
    draw = random.Random(seed)
    share = draw.choice((0.2, 0.6, 0.95))  # of names and contents that got to the disk: a few lost among many do harm

    def entries(one: Folder) -> dict[str, int]:
        if way == "lost":
            return one.durable
        if way != "random":
            return one.current
        chosen = {}
        for name in sorted({*one.durable, *one.current}):
            number = (one.current if draw.random() < share else one.durable).get(name)
            if number is not None:
                chosen[name] = number
        return chosen

    def content(one: File) -> bytes:
        if one.durable == one.current:
            return one.current
        kept = one.durable or b""
        half = one.current[: len(one.current) // 2]
        ways = {
            "killed": one.current, "lost": kept, "empty": b"", "zeros": bytes(len(one.current)), "cut": half,
        }  # fmt: skip
        if way != "random":
            return ways[way]
        if draw.random() < share:
            return one.current
        torn = one.current[: draw.randint(0, len(one.current))]
        return draw.choice([*ways.values(), torn, torn + bytes(len(one.current) - len(torn))])

    def write(number: int, path: Path) -> None:
        for name, child in entries(moment.folders[number]).items():
            if child in moment.folders:
                (path / name).mkdir()
                write(child, path / name)
            else:
                (path / name).write_bytes(content(moment.files[child]))

    write(0, folder)
