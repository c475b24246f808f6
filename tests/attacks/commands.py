"""Commands of reelbank in processes of their own, forked from one that has loaded the libraries: seconds less for each.

As a program this is that process: it reads a request per line and answers each with what became of it.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attacks import same_path

LOADED = ("torch", "zarr", "h5py", "cv2", "av", "PIL.Image", "safetensors.torch", "reelbank.heads", "reelbank.cli")


@dataclass(frozen=True, kw_only=True)
class Called:
    """How a command ended: `code` is the exit status, less the signal's number if one killed it; None for one that
    took longer than it was given."""

    code: int | None
    out: str
    err: str
    seconds: float

    def fault(self) -> str:
        """What no end of a command may be: a sentence, or nothing."""
        if self.code is None:
            return f"hangs after {self.seconds:.0f} s"
        if self.code < 0:
            return f"dies of {signal.Signals(-self.code).name}"
        if "Traceback" in self.err or self.code not in (0, 1, 2):
            return f"exit status {self.code}, {self.err.strip().splitlines()[-1:]}"
        if self.code == 2 and self.err.count("Error: ") != 1:
            return f"exit status 2 with {self.err.count('Error: ')} sentences: {self.err[-300:]!r}"
        return ""


class Commands:
    """Calls commands; `commands()` makes one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(
        self, arguments: Sequence[object], folder: Path, *, max_file_bytes: int = 0, timeout_seconds: float = 240.0,
        kill: tuple[int, float] | None = None,
    ) -> Called:  # fmt: skip
        """What becomes of `reelbank ARGUMENTS` in `folder`.

        Args:
            max_file_bytes: no file may grow longer (RLIMIT_FSIZE); 0: no limit.
            timeout_seconds: it is killed after this time.
            kill: (signal, seconds after which it is sent).
        """
        request = {
            "arguments": [str(argument) for argument in arguments],
            "folder": str(folder),
            "max_file_bytes": max_file_bytes,
            "timeout_seconds": timeout_seconds,
            "kill": kill,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Called(**json.loads(self._process.stdout.readline()))


@contextmanager
def commands(loaded: Sequence[str] = LOADED) -> Iterator[Commands]:
    """Something that calls commands, as long as the block lasts; `loaded` are the libraries that they share."""
    process = subprocess.Popen(
        [sys.executable, "-m", "attacks.commands", *loaded], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=same_path(),
    )  # fmt: skip
    try:
        yield Commands(process)
    finally:
        process.communicate()


def _answer(request: dict[str, Any]) -> dict[str, Any] | None:
    """What became of a request; None in the process that is the command."""
    (out_read, out_write), (err_read, err_write) = os.pipe(), os.pipe()
    process = os.fork()
    if process == 0:
        os.setsid()
        os.close(out_read)
        os.close(err_read)
        for target, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out_write), (2, err_write)):
            os.dup2(source, target)
        os.chdir(request["folder"])
        if limit := request["max_file_bytes"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return None
    os.close(out_write)
    os.close(err_write)
    began = time.monotonic()
    kill, deadline = request["kill"], began + request["timeout_seconds"]
    text = {out_read: b"", err_read: b""}
    code: int | None = None
    killed = False
    with selectors.DefaultSelector() as selector:
        for descriptor in text:
            selector.register(descriptor, selectors.EVENT_READ)
        while True:
            now = time.monotonic()
            if kill and now >= began + kill[1]:
                with suppress(ProcessLookupError):
                    os.kill(process, kill[0])
                kill = None
            if now >= deadline and not killed:
                killed = True
                with suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL)
            for key, _ in selector.select(timeout=0.02):
                block = os.read(key.fd, 1 << 16)
                text[key.fd] += block
                if not block:
                    selector.unregister(key.fd)
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                break
    for descriptor in text:
        os.set_blocking(descriptor, False)
        with suppress(BlockingIOError):
            while block := os.read(descriptor, 1 << 16):
                text[descriptor] += block
        os.close(descriptor)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # workers of a command that was killed
    return {
        "code": None if killed else code,
        "out": text[out_read].decode(errors="replace"),
        "err": text[err_read].decode(errors="replace"),
        "seconds": time.monotonic() - began,
    }


def _serve() -> None:
    from importlib import import_module

    for name in sys.argv[1:]:
        import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        answer = _answer(request)
        if answer is None:
            from reelbank.cli import main

            sys.argv = ["reelbank", *request["arguments"]]
            main(prog_name="reelbank")
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
