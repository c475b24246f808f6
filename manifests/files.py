"""Files that are written whole or not at all, and that are files where they are read. The one place for it: every
stage may import the manifests.

What cannot be written is said by `NotWritten`: which path, why, how much is free, how to go on.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = ".partial"
"""Of what is being written: a killed process may leave such a file, and nothing reads one."""

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not be that long here (ulimit -f, or the file system)",
    errno.EROFS: "the file system is read-only",
}
"""{errno: what it says}: errors that only writing has."""
REFUSED = {
    errno.EIO: "the disk reports an error",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}
"""{errno: what it says}: errors that reading has too; they count where the path is what is written."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

_HIDDEN_ERRNO = re.compile(r"(?:\(os error |errno = |\bcode: |\[Errno )(\d+)")
"""How Rust (safetensors), HDF5 and FFmpeg write the number into a text."""
_NEARLY_NOTHING_BYTES = 64 << 10
_FOREIGN_SECONDS = 24 * 3600.0
"""When what another machine was writing here is no longer being written."""
_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotWritten(OSError):
    """Something could not be written; what was at its path is as it was. The text is a sentence with advice."""

    def __str__(self) -> str:
        return str(self.strerror)


class NotAFile(OSError):
    """A path from outside names something that reading would never come back from."""

    def __str__(self) -> str:
        return f"{self.strerror}: {self.filename}"


def regular(path: Path) -> Path:
    """`path`, if it may be opened: a FIFO, a device or a socket is refused, also behind a link.

    Reading one may wait or go on for ever. What is absent or a folder is left to who opens it.
    """
    if kind := kind_of(path):
        raise NotAFile(errno.EINVAL, f"{kind}, not a file", str(path))
    return path


def as_one_file(name: str) -> str:
    """What is equal for two names that macOS or Windows take for one: they ignore case, macOS Unicode's forms too."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def kind_of(path: Path) -> str:
    """`a FIFO`, `a device`, `a socket`; nothing for a file, a folder and what is not there."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):  # the latter: a name with a zero byte
        return ""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "")


def not_written(error: BaseException, path: Path | None = None) -> NotWritten | None:
    """The sentence for an error that says that the disk took no more, also one hidden in a library's; else None.

    Args:
        error: what was raised.
        path: what was being written; None where only the error may know.
    """
    if isinstance(error, NotWritten):
        return error
    code, name = None, None
    for one in _chain(error):
        if isinstance(one, NotWritten):
            return one
        found = one.errno if isinstance(one, OSError) else None
        if found is None and not isinstance(one, ValueError) and (hidden := _HIDDEN_ERRNO.search(str(one))):
            found = int(hidden[1])
        if found in FULL or (found in REFUSED and path is not None and _is_below(one, path)):
            code, name = found, getattr(one, "filename", None)
            break
    if code is None and path is not None:
        if _has_errno(error, errno.ENOENT) and not path.parent.is_dir():
            return NotWritten(errno.ENOENT, f"{path} could not be written: there is no folder {path.parent}; make it")
        # numpy says how many items it wrote and no number of an error.
        if isinstance(error, OSError) and error.errno is None and free_bytes(path) < _NEARLY_NOTHING_BYTES:
            code = errno.ENOSPC
    if code is None:
        return None
    where = path or (Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None)
    return NotWritten(code, _advice(code, where))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [other for other in (one.__cause__, one.__context__) if other is not None]


def _has_errno(error: BaseException, code: int) -> bool:
    return isinstance(error, OSError) and error.errno == code


def _is_below(error: BaseException, path: Path) -> bool:
    """Whether the file that an error names lies beside `path` or below it."""
    name = getattr(error, "filename", None)
    return isinstance(name, str | bytes) and Path(os.fsdecode(name)).is_relative_to(path.parent)


def _advice(code: int, path: Path | None) -> str:
    reason = {**FULL, **REFUSED}[code]
    subject = "a file" if path is None else str(path)
    if code in NO_SPACE and path is not None:
        reason += f", {_free_text(path)}"
    remedy = {
        errno.ENOSPC: "free some space or choose another place",
        errno.EDQUOT: "free some space or choose another place",
        errno.EIO: "look after the disk (dmesg) or choose another place",
    }.get(code, "choose another place")
    return f"{subject} could not be written: {reason}; {remedy}, then run the same command again"


def _existing(path: Path) -> Path:
    """The nearest folder above `path` that is there."""
    return next((folder for folder in path.absolute().parents if folder.is_dir()), Path("/"))


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write where `path` lies, or will lie."""
    found = os.statvfs(_existing(path))
    return found.f_bavail * found.f_frsize


def _free_text(path: Path) -> str:
    found = os.statvfs(_existing(path))
    if found.f_files and not found.f_favail:
        return "no more files fit on it (no free inodes)"
    return f"{found.f_bavail * found.f_frsize / 1e3:,.0f} kB are free"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """An error of the block that says that the disk took no more becomes NotWritten about `path`."""
    try:
        yield
    except Exception as error:
        found = not_written(error, path)
        if found is None or found is error:
            raise
        for note in getattr(error, "__notes__", ()):
            found.add_note(note)
        raise found from error


@contextmanager
def appearing(path: Path, *, durable: bool = True, tidy: bool = True) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to; it takes the place of `path` when the block ends.

    After an error it is removed and `path` is as it was. A folder can take the place of a folder.

    Args:
        path: what appears.
        durable: flush it to the disk, so that a power cut leaves the old one or the new one and none that is empty.
        tidy: remove what killed processes left of earlier attempts.

    Raises:
        NotWritten: the disk is full, or nothing may be written there.
    """
    partial = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}{SUFFIX}")
    if tidy:
        remove_leftovers(path.parent, path.name)
    try:
        with writing(path):
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
    except OSError as error:
        if error.filename is not None and os.fsdecode(error.filename) == str(partial):
            error.filename, error.filename2 = str(path), None  # no one has asked for the other
        raise
    finally:
        remove(partial)


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


def write_whole(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Replaces `path` by a file with `content`, text as UTF-8; see `appearing`."""
    with appearing(path, durable=durable) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with what is in it; what resists stays."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


_HOST = f"{zlib.crc32(os.uname().nodename.encode()):08x}"
"""A process number says who lives on one machine only; a folder may be shared by several."""


def leftovers(folder: Path, name: str = "") -> list[Path]:
    """What processes that are no more left of what they were writing to `folder`, or to `name` in it."""
    wanted = re.compile(rf"\.{re.escape(name) if name else '.+'}\.(?:([0-9a-f]{{8}})-)?(\d+){re.escape(SUFFIX)}")
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if match := wanted.fullmatch(entry.name):
                here = match[1] in (None, _HOST)
                alive = _is_alive(int(match[2])) if here else time.time() - entry.stat().st_mtime < _FOREIGN_SECONDS
                if not alive:
                    found.append(Path(entry.path))
    return found


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Removes the `leftovers`."""
    for left in leftovers(folder, name):
        remove(left)


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return False  # of an earlier process with this number: this one has only begun
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextmanager
def filling(folder: Path, *, stale: Iterable[str] = (), last: str) -> Iterator[Path]:
    """An empty folder whose files move into `folder`, which is made, when the block ends without an error.

    Everything is on the disk before the first file moves. After an error `folder` is as it was.

    Args:
        folder: what is filled.
        stale: names of files in it that are removed before.
        last: name of the file that says that the others are there: it goes first and comes last.
    """
    is_new = not folder.exists()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with scratch(folder, FILLING) as made, writing(folder):
            yield made
            for old in (last, *stale):
                (folder / old).unlink(missing_ok=True)
            files = sorted(file.relative_to(made) for file in made.rglob("*") if file.is_file())
            for name in sorted(files, key=lambda file: file.as_posix() == last):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (made / name).replace(folder / name)
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


FILLING = "filling"
"""What the folder in a folder that is being filled is called."""


@contextmanager
def scratch(folder: Path, purpose: str, *, elsewhere: bool = False) -> Iterator[Path]:
    """An empty folder `.<purpose>-*` in `folder` (or, `elsewhere`, the system's temporary one where that is read-only)
    that is removed at the end, or by the next call after a kill."""
    if elsewhere and not os.access(folder, os.W_OK):
        folder, purpose = Path(tempfile.gettempdir()), f"reelbank-{purpose}-{os.getuid()}"
    for left in folder.glob(f".{purpose}-*"):
        with suppress(OSError), _locked(left) as is_free:
            if is_free:
                shutil.rmtree(left, ignore_errors=True)
    with writing(folder / f".{purpose}"):
        path = Path(tempfile.mkdtemp(prefix=f".{purpose}-", dir=folder))
    try:
        with _locked(path):
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Holds `lock` on a folder; what it says and raises."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> bool:
    """Locks a folder until it is closed (BlockingIOError: another has it); False where a file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # NFS without its lock service, Lustre without -o flock
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            return False
        raise
    return True
