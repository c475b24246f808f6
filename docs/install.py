"""`make venv`, `make demo`: a virtual environment with what reelbank needs, saying what is waited for.

`python docs/install.py VENV REQUIREMENT ...`, in the clone. Shown are the large downloads with their sizes and the time
that has passed, and where it fails a sentence that says what to do. What pip itself says goes to VENV/install.log.
"""

from __future__ import annotations

import os
import platform
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

LARGE_BYTES = 10e6
"""A download of at least this many gets a line of its own."""
QUIET_SECONDS = 30
"""What is no terminal gets a sign of life this often."""

BYTES = {"bytes": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
FETCHED = re.compile(r"\s*(?:Downloading|Using cached) (?:\S*/)?(\S+?-[^-\s]+)\S* \(([\d.]+) (bytes|kB|MB|GB)\)")
LOCAL = re.compile(r"\s*Processing (\S*?([^/\s]+?-[^-/\s]+)-\S+\.whl)")

CUDA = "(this torch brings CUDA, several GB; docs/how-to/install.md says how to have one for a CPU alone)"
REASONS = {
    r"No space left on device|Disk quota exceeded": (
        "the disk is full: {free:.1f} GB are free for {venv}, {temporary:.1f} GB in {folder} for temporary files "
        "(TMPDIR=FOLDER moves them). With a CPU's torch it takes 2 GB, with a GPU's 8. Make room, then the same "
        "command again."
    ),
    r"ensurepip is not available|No module named '?(ensurepip|venv|pip)\b": (
        "this Python has no venv or no pip, which Debian and Ubuntu have in a package of their own: "
        "sudo apt-get install python3-venv, then the same command again."
    ),
    r"NewConnectionError|NameResolution|[Tt]imed ?out|Max retries|ProxyError|SSLError|[Cc]onnection (broken|reset)": (
        "the package index was not reached, or the line broke. Look at the network, at a proxy (HTTPS_PROXY) and at "
        "PIP_INDEX_URL, then the same command again: what was downloaded is kept."
    ),
    r"[Rr]equires? a different [Pp]ython|No matching distribution|not a supported wheel": (
        "the package index has no build of this for Python {python} on {machine} (3.11 to 3.13 are tested), or it was "
        "not reached. With another Python: rm -rf {venv}, then the same command with PYTHON=python3.11 behind it."
    ),
    r"Permission denied|Read-only file system": (
        "{venv} cannot be written. Work in a clone of your own, or put VENV=FOLDER behind the command."
    ),
}
"""{what a failing venv or pip prints: what to do}, in order: without a network no versions are found either."""


def reason(said: str, venv: Path) -> str:
    """What to do, by what a failing venv or pip has printed."""
    known = {
        "venv": venv,
        "free": shutil.disk_usage(venv if venv.exists() else ".").free / 1e9,
        "folder": tempfile.gettempdir(),
        "temporary": shutil.disk_usage(tempfile.gettempdir()).free / 1e9,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    for pattern, sentence in REASONS.items():
        if re.search(pattern, said):
            return sentence.format(**known)
    return f"all that was said is in {venv / 'install.log'}."


def told(line: str) -> tuple[str, float] | None:
    """(What is waited for, its bytes) where a line of pip says it."""
    if (found := FETCHED.match(line)) is not None:
        return f"{found[1]} ({found[2]} {found[3]})", float(found[2]) * BYTES[found[3]]
    if (found := LOCAL.match(line)) is not None:
        size = Path(found[1]).stat().st_size if Path(found[1]).is_file() else 0
        return f"{found[2]} ({size / 1e6:.1f} MB)", size
    if line.startswith("Installing collected packages: "):
        return f"unpacking {line.count(',') + 1} packages", LARGE_BYTES
    return None


class Progress:
    """What is waited for: one line rewritten on a terminal, else a line for each large thing and one now and then."""

    def __init__(self, doing: str) -> None:
        self.started = self.shown = time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.doing, self.cuda = doing, False

    def tell(self, text: str, *, keep: bool) -> None:
        line = f"{time.monotonic() - self.started:5.0f} s  {text}"
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{line[:width]}", end="\n" if keep else "", flush=True)
        elif keep:
            print(line, flush=True)
        self.shown = time.monotonic()

    def saw(self, line: str) -> None:
        if (news := told(line)) is None:
            return
        self.doing, size = news
        self.tell(self.doing, keep=size >= LARGE_BYTES)
        if self.doing.startswith("nvidia") and not self.cuda:
            self.cuda = True
            self.tell(CUDA, keep=True)

    def wait(self) -> None:
        if self.terminal or time.monotonic() - self.shown >= QUIET_SECONDS:
            self.tell(f"{self.doing} ...", keep=not self.terminal)


def _lines(stream: IO[str], into: queue.Queue[str | None]) -> None:
    for line in stream:
        into.put(line)
    into.put(None)


def followed(command: list[str], log: Path, doing: str) -> tuple[int, str]:
    """Runs a command, tells of it, and adds what it prints to `log`. Returns its exit status and what it printed."""
    lines: queue.Queue[str | None] = queue.Queue()
    said: list[str] = []
    progress = Progress(doing)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        threading.Thread(target=_lines, args=(process.stdout, lines), daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=1)
            except queue.Empty:
                progress.wait()
                continue
            if line is None:
                break
            said.append(line)
            progress.saw(line)
    text = "".join(said)
    with log.open("a", encoding="utf-8") as file:
        file.write(text)
    progress.tell(f"{doing}: {'failed' if process.returncode else 'done'}", keep=True)
    return process.returncode, text


def install(venv: Path, *requirements: str) -> None:
    """Makes the environment where there is none, and installs into it. Raises SystemExit with what to do."""
    log = venv / "install.log"
    python = str(venv / "bin" / "python")
    pip = [
        python,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
        "-c",
        "constraints.txt",
    ]
    steps = [([*pip, *(part for name in requirements for part in ("-e", name))], "install")]
    if not (venv / "bin" / "pip").exists():  # the last thing that venv makes
        steps.insert(0, ([sys.executable, "-m", "venv", str(venv)], "make the environment"))
    print(
        f"Installing reelbank and what it needs into {venv}: minutes the first time, torch is most of it.", flush=True
    )
    try:
        venv.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")
        for command, doing in steps:
            status, said = followed(command, log, doing)
            if status:
                errors = [line.strip() for line in said.splitlines() if line.strip().startswith("ERROR")]
                sys.exit("\n".join([*errors[-2:], f"reelbank is not installed: {reason(said, venv)}"]))
    except OSError as error:
        sys.exit(f"reelbank is not installed: {error}: {reason(str(error), venv)}")


if __name__ == "__main__":
    install(Path(sys.argv[1]), *sys.argv[2:])
