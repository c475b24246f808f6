"""MATLAB files read in a process of their own: scipy's reader dies of a segmentation fault on some damaged ones.

This file is also the program of that process, which imports nothing of reelbank.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

DEADLINE_SECONDS = 60.0
MAX_MEMORY_BYTES = 8 << 30
MAX_TEXT = 10_000


class MatlabError(ValueError):
    """A file that cannot be read; the text says why, not which."""


class MatlabReader:
    """Reads text and numbers of one file after the other; a process that dies costs the file that it was reading."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: Path, names: Sequence[str]) -> Mapping[str, str]:
        """{name: its value as text} of the variables `names` that the file has.

        Raises:
            MatlabError: it is no file of MATLAB, or its reader dies of it or does not come back.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # it has died before: its end says so
            process.stdin.write(json.dumps([str(path), list(names)]) + "\n")
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], DEADLINE_SECONDS)
        line = process.stdout.readline() if ready else ""
        if not line:
            reason = self._end() if ready else f"its reader took longer than {DEADLINE_SECONDS:g} s"
            self.close()
            raise MatlabError(f"{reason}; the file is damaged")
        answer = json.loads(line)
        if "error" in answer:
            raise MatlabError(answer["error"])
        found: Mapping[str, str] = answer["found"]
        return found

    def _end(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        return f"its reader died of {signal.Signals(-code).name if code < 0 else f'exit status {code}'}"

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            with suppress(BrokenPipeError):
                process.communicate()


@contextmanager
def matlab_reader() -> Iterator[MatlabReader]:
    """A reader whose process ends with the block."""
    reader = MatlabReader()
    try:
        yield reader
    finally:
        reader.close()


def _serve() -> None:
    import resource

    from scipy.io import loadmat

    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    if most == resource.RLIM_INFINITY or most > MAX_MEMORY_BYTES:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    for line in sys.stdin:
        path, names = json.loads(line)
        answer: dict[str, object]
        try:
            content = loadmat(path, variable_names=names, squeeze_me=True)
            answer = {"found": {name: str(content[name])[:MAX_TEXT] for name in names if name in content}}
        except Exception as error:  # noqa: BLE001  # a damaged file raises anything
            answer = {"error": (str(error) or type(error).__name__).splitlines()[0]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
