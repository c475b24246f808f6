"""Files of a stranger: stores, runs, exports, manifests and weights that were made to do harm.

A table of hostile inputs, then mutants of the files of a sound store, run, sweep and export. Each lies in a folder of
its own, and every command that reads it runs there, in a forked process with limits of memory and time. It must end
with the exit status 0, 1 or 2, with a sentence that names the file if it is 2, without a traceback, with nothing on
the terminal that steers it, nothing written outside the folder, nothing executed and no host called.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attacks import Tried, memory_folder
from attacks.hostile_inputs import TABLE
from attacks.mutants import STEERING, mutate

COUNT = 1000
SECONDS, MEMORY_BYTES = 60.0, 6 << 30
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
HEAVY = ("torch", "zarr", "h5py", "matplotlib.font_manager", "reelbank.cli", "reelbank.extract")
Tell = Callable[[Mapping[str, Any]], None]


def _page() -> None:
    from reelbank.heads.reports.run_page import write_run_report

    write_run_report(Path("run"))


def _append() -> None:
    """What `featurize` does to a store before it extracts: its rows become those of a manifest."""
    from reelbank.store.reader import Store
    from reelbank.store.testing import make_manifest
    from reelbank.store.writer import StoreWriter

    clips = [{"clip_id": "new", "label": "a", "kcal": 1.0}]
    StoreWriter(Path("s.zarr"), Store("s.zarr").spec).sync_manifest(make_manifest(Path(), clips))


TRAIN = ("train-head", "--store", "s.zarr", "--epochs", "1", "--bins", "20", "--device", "cpu", "--batch", "64")
SWEEP = ("--run", "sweep", "--sweep", "lr=0.01,0.001", "--executor", "stacked")
WEIGHTS = ("featurize", "--model", "resnet18", "--weights", "weights.pth")
COMMANDS: Mapping[str, tuple[str, ...] | Callable[[], None]] = {
    "info": ("store", "info", "s.zarr"),
    "info as JSON": ("store", "info", "s.zarr", "--json"),
    "verify": ("store", "verify", "s.zarr"),
    "diff": ("store", "diff", "s.zarr", "t.zarr"),
    "merge": ("store", "merge", "m.zarr", "s.zarr", "t.zarr"),
    "export npy": ("store", "export", "s.zarr", "out", "--format", "npy"),
    "export hdf5": ("store", "export", "s.zarr", "out.h5", "--layout", "array"),
    "export safetensors": ("store", "export", "s.zarr", "out.safetensors", "--format", "safetensors"),
    "retry": ("store", "retry", "s.zarr"),
    "append": _append,
    "train": (*TRAIN, "--run", "new", "--no-report"),
    "probe": ("probe", "--store", "s.zarr", "--kmeans", "3", "--explore", "--out", "new-probe"),
    "probe again": ("probe", "--store", "s.zarr", "--kmeans", "3", "--out", "probe"),
    "page": _page,
    "predict": ("predict", "--run", "run", "--store", "s.zarr", "--out", "predictions.csv"),
    "predict folds": ("predict", "--run", "folds", "--store", "s.zarr", "--out", "predictions.csv"),
    "resume": (*TRAIN, "--run", "run", "--resume", "--no-report"),
    "resume longer": (*TRAIN, "--run", "run", "--resume", "--epochs", "2", "--no-report"),
    "resume folds": (*TRAIN, "--run", "folds", "--folds", "2", "--resume", "--epochs", "2", "--no-report"),
    "resume sweep": (*TRAIN, *SWEEP, "--no-report", "--resume"),
    "import npy": ("store", "import", "npy", "new.zarr"),
    "import hdf5": ("store", "import", "groups.h5", "new.zarr"),
    "import hdf5 array": ("store", "import", "array.h5", "new.zarr"),
    "import safetensors": ("store", "import", "all.safetensors", "new.zarr"),
    "import foreign": ("store", "import", "foreign", "new.zarr", "--tap", "cls", "--manifest", "manifest.csv"),
    "doctor": ("doctor", "--manifest", "manifest.csv"),
    "manifest csv": ("manifest", "csv", "manifest.csv", "--out", "new.csv"),
    "weights": (*WEIGHTS, "--manifest", "image.csv", "--out", "i.zarr"),
}  # fmt: skip
"""Commands by name, as they are given in the folder of one attempt."""
STORE = (
    *("info", "info as JSON", "verify", "diff", "merge", "export npy", "export hdf5", "export safetensors", "retry"),
    *("train", "probe", "predict", "resume"),
)
READ_BY: Mapping[str, tuple[str, ...]] = {
    "s.zarr/**/zarr.json": STORE,
    "s.zarr/zarr.json": STORE,
    "s.zarr/*/*/c/**/*": STORE,
    "run/*.json": ("predict", "resume", "resume longer", "page"),
    "run/*.jsonl": ("resume", "resume longer"),
    "run/*.safetensors": ("predict", "resume", "resume longer", "page"),
    "folds/**/*.safetensors": ("predict folds", "resume folds"),
    "folds/*.json": ("predict folds", "resume folds"),
    "folds/predictions.csv": ("predict folds",),
    "sweep/config.json": ("resume sweep",),
    "sweep/members/*/*.json*": ("resume sweep",),
    "npy/**/*": ("import npy",),
    "groups.h5": ("import hdf5",),
    "array.h5": ("import hdf5 array",),
    "all.safetensors": ("import safetensors",),
    "foreign/*": ("import foreign",),
    "manifest.csv": ("doctor", "manifest csv", "import foreign"),
    "probe/results.json": ("probe again",),
}
"""{files of the sound folder: the commands that read them}."""
SOUND = (
    *("s.zarr", "run", "folds", "probe", "npy", "groups.h5", "all.safetensors", "foreign", "manifest.csv"),
    *("weights.pth", "clip '", "training part"),
)
"""A sentence names one of these: a file, or what in it."""
AT_ONCE = 2
"""Commands that are tried on one mutant; which ones is drawn."""


def make_sound(folder: Path) -> None:
    """What the mutants are made of: stores, a run, one with folds, a sweep, a probe and every kind of export."""
    import numpy as np
    from PIL import Image
    from planted import planted_store

    from reelbank.store.testing import write_store

    draw = np.random.default_rng(0)
    more = {i: {"note": f"text {i}", "video": f"v/{i}.mp4"} for i in range(36)}
    planted_store(folder / "s.zarr", num=36, more=more)
    rows: list[dict[str, Any]] = [{"clip_id": f"d{i}", "split": "train", "label": "class 0"} for i in range(5)]
    maps = [draw.integers(0, 9, (3, 6)).astype(np.float16) for _ in rows]
    write_store(folder / "t.zarr", {"cls": maps}, rows, backbone="toy")
    (folder / "foreign").mkdir()
    for i in range(4):
        np.save(folder / "foreign" / f"c{i:03d}.npy", draw.normal(size=(3, 6)).astype(np.float32))
    lines = [f"c{i:03d},v/{i}.mp4,train,class {i % 3},{100.5 + i}" for i in range(4)]
    (folder / "manifest.csv").write_text("\n".join(["clip_id,video,split,label,kcal", *lines]) + "\n")
    Image.new("RGB", (64, 48), (200, 30, 90)).save(folder / "image.png")
    (folder / "image.csv").write_text("clip_id,video\ni,image.png\n")
    (folder / "probe").mkdir()
    (folder / "probe/report.html").write_text("")
    (folder / "probe/results.json").write_text('{"files": ["report.html", "results.json"]}')
    for argv in (
        (*TRAIN, "--run", "run", "--no-report"),
        (*TRAIN, "--run", "folds", "--folds", "2", "--no-report"),
        (*TRAIN, *SWEEP, "--no-report"),
        ("store", "export", "s.zarr", "npy", "--format", "npy"),
        ("store", "export", "s.zarr", "groups.h5"),
        ("store", "export", "s.zarr", "array.h5", "--layout", "array", "--dtype", "int8"),
        ("store", "export", "s.zarr", "all.safetensors", "--format", "safetensors", "--dtype", "int8"),
    ):
        status, text, _ = _called(argv)
        assert status == 0, (argv, text)
    (folder / "run/figures").mkdir()
    (folder / "run/report.html").write_text("")


def _called(command: Sequence[str] | Callable[[], None]) -> tuple[int | None, str, str]:
    """(exit status, all that was printed, the traceback if there is one) of a command in this process."""
    import click
    from click.testing import CliRunner

    from reelbank.cli import main, plain_errors

    @click.command()
    def call() -> None:
        with plain_errors():
            command()  # type: ignore[operator]

    asked, argv = (call, []) if callable(command) else (main, list(command))
    result = CliRunner().invoke(asked, argv, prog_name="reelbank", color=True)  # as on a terminal
    error = result.exception
    if error is None or isinstance(error, SystemExit):
        return result.exit_code, result.output, ""
    return None, result.output, "".join(traceback.format_exception(error))


def _import(names: Sequence[str]) -> None:
    """Modules that commands import, once, so that forked processes have them. None of them starts a thread."""
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _watch(folder: Path, tell: Tell) -> None:
    """Tells of hosts that are called, programs that are started, and files that are written outside `folder`."""
    inside = (f"{folder.resolve()}/", "/dev/null", "/dev/tty", "/proc/")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            tell({"harm": f"{event} {arguments[1]}"})
        elif event in ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen"):
            tell({"harm": f"{event} {str(arguments)[:200]}"})
        elif event == "open" and not isinstance(arguments[0], int) and arguments[2] & WRITING:
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(inside):
                tell({"harm": f"written: {path}"})
        elif event == "os.rename":
            path = os.path.realpath(Path(os.fsdecode(arguments[1])).parent)
            if not f"{path}/".startswith(inside):
                tell({"harm": f"renamed to: {path}"})

    sys.addaudithook(hook)


def in_child(folder: Path, work: Callable[[Tell], None], seconds: float = SECONDS) -> list[dict[str, Any]]:
    """What `work` tells in a forked process with limits that works in `folder`, and how the process ended."""
    log = folder.with_suffix(".log")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of forking beside threads: the child starts none of theirs
        process = os.fork()
    if process == 0:
        with log.open("w") as file:

            def tell(fact: Mapping[str, Any]) -> None:
                file.write(json.dumps(fact) + "\n")
                file.flush()

            try:
                os.setsid()
                os.chdir(folder)
                (folder / ".tmp").mkdir(exist_ok=True)
                tempfile.tempdir = str(folder / ".tmp")
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                work(tell)
                tell({"ended": True})
            except BaseException:  # noqa: BLE001 - a child never returns into its parent's stack
                tell({"broken": traceback.format_exc()})
            finally:
                os._exit(0)
    began = time.monotonic()
    ended: dict[str, Any] = {"signal": "the time is up"}
    while time.monotonic() - began < seconds:
        done, state = os.waitpid(process, os.WNOHANG)
        if done:
            ended["signal"] = os.WTERMSIG(state) if os.WIFSIGNALED(state) else 0
            break
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # it, or workers that it left
    if ended["signal"] == "the time is up":
        os.waitpid(process, 0)
    facts = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return [*facts, ended]


def faults(facts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """(a sentence for each thing that does not hold, how each command ended) of what a child told.

    Args:
        names: one of them must stand in what is said with the exit status 2.
    """
    found, ends, command = [], [], "start"
    for fact in facts:
        if "begin" in fact:
            command = fact["begin"]
        elif "harm" in fact:
            found.append(f"{command}: {fact['harm']}")
        elif "broken" in fact:
            found.append(f"{command}: {fact['broken']}")
        elif "status" in fact:
            status, text = fact["status"], fact["text"]
            ends.append("refused" if status == 2 else "read")
            if fact["trace"]:
                found.append(f"{command}: {fact['trace']}")
            elif status not in (0, 1, 2):
                found.append(f"{command}: exit status {status}: {text[-300:]!r}")
            if "Traceback (most" in text:
                found.append(f"{command}: a traceback in the text: {text[-600:]}")
            if steering := STEERING.search(text):
                around = text[max(0, steering.start() - 80) :][:160]
                found.append(f"{command}: {steering[0]!r} reaches the terminal: {around!r}")
            if status == 2 and not any(name in text for name in names):
                found.append(f"{command}: names none of {', '.join(names)}: {text[-300:]!r}")
        elif fact.get("signal"):
            found.append(f"{command}: ended by signal {fact['signal']}")
    return found, ends


def attempt(
    sound: Path, folder: Path, change: Callable[[Path], object], commands: Sequence[str], names: Sequence[str]
) -> tuple[str, list[str], list[str]]:
    """(what `change` says it did to a copy of `sound` in `folder`, what does not hold, how the commands ended)."""
    shutil.copytree(sound, folder, symlinks=True, ignore=shutil.ignore_patterns(".tmp"))
    try:
        what = str(change(folder))

        def work(tell: Tell) -> None:
            import torch

            torch.set_num_threads(1)
            _watch(folder, tell)
            for command in commands:
                tell({"begin": command})
                status, text, trace = _called(COMMANDS[command])
                tell({"status": status, "text": text, "trace": trace})

        found, ends = faults(in_child(folder, work), names)
        if (folder / "executed").exists():
            found.append("a program was run")
        return what, found, ends
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def sound_folder() -> Iterator[Path]:
    """A folder with `sound` in it, to make others beside it; removed at the end."""
    _import(HEAVY)
    with memory_folder("hostile-") as root:
        (root / "sound").mkdir()

        def work(tell: Tell) -> None:
            make_sound(root / "sound")
            tell({"modules": [name for name in sys.modules if "." not in name or not name.startswith("_")]})

        told = in_child(root / "sound", work, seconds=10 * SECONDS)
        assert "modules" in told[0], told
        _import(told[0]["modules"])
        yield root


def _mutate(file: Path, draw: random.Random, folder: Path) -> str:
    return mutate(folder / file, draw)


def try_mutants(root: Path, pattern: str, count: int, seed: int) -> Tried:
    """`count` mutants of the files that match `pattern`, each before a few of the commands that read them."""
    failed: list[str] = []
    facts = {"refused": 0, "read": 0}
    files = sorted(p.relative_to(root / "sound") for p in (root / "sound").glob(pattern) if p.is_file())
    for number in range(count):
        draw = random.Random(f"{seed}/{pattern}/{number}")
        file = draw.choice(files)
        commands = draw.sample(READ_BY[pattern], min(AT_ONCE, len(READ_BY[pattern])))
        change = partial(_mutate, file, draw)
        what, found, ends = attempt(root / "sound", root / "m", change, commands, (file.parts[0], file.name))
        where = f"{file}, {what} ({pattern}, seed {seed}, number {number})"
        failed += [f"{where}: {text}".replace(str(root), "") for text in found]
        for end in ends:
            facts[end] += 1
    return Tried(kind=f"mutants of {pattern}", tried=count, not_held=tuple(failed), facts=facts)


def try_table(root: Path, kind: str, names: Sequence[str] | None = None) -> Tried:
    """The hostile inputs of a kind, or those that are named, each before every command that reads it."""
    failed: list[str] = []
    facts = {"refused": 0, "read": 0}
    rows = {name: TABLE[kind][name] for name in (names if names is not None else TABLE[kind])}
    for name, (change, commands) in rows.items():
        _, found, ends = attempt(root / "sound", root / "m", change, commands, SOUND)
        failed += [f"{name}: {text}".replace(str(root), "") for text in found]
        for end in ends:
            facts[end] += 1
    return Tried(kind=kind, tried=len(rows), not_held=tuple(failed), facts=facts)


def attack(count: int, seed: int) -> Iterator[Tried]:
    """The table, then `count` mutants, of each kind of file as many."""
    with sound_folder() as root:
        for kind in TABLE:
            yield try_table(root, kind)
        for place, pattern in enumerate(READ_BY):
            share = (count + place) // len(READ_BY)
            yield try_mutants(root, pattern, share, seed)
