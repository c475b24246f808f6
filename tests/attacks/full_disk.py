"""Every command that writes, on a disk that takes so many bytes and no more: whole or not at all, and one sentence.

A disk is a tmpfs of that size; where none can be mounted, a folder in which no file may grow longer (RLIMIT_FSIZE).
What a command needs is measured first. The first size is 8 kB, the others lie in equal parts of the way from there to
a quarter more than it needs, drawn in each: so it fails all along what it writes.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from attacks import Tried
from attacks.commands import Called, Commands, commands

COUNT = 16
LEAST_BYTES = 8 << 10
ROOMY_BYTES = 512 << 20
PAGE_BYTES = 4 << 10


@dataclass(frozen=True, kw_only=True)
class Writer:
    """A command that writes.

    Attributes:
        arguments: of the command; `{base}` is the folder of what it reads, `{disk}` where it writes.
        before: puts on the disk what is there already.
        goes_on: what may be left is whole, and this command, or the same if it is empty, ends the work. Without it
            nothing may be left.
        resumes: the goes_on command is given where this file is there.
    """

    arguments: str
    before: Callable[[Path, Path], None] = lambda base, disk: None
    goes_on: str | None = None
    resumes: str = ""


def _copy(name: str, base: Path, disk: Path) -> None:
    source = base / name
    if source.is_dir():
        shutil.copytree(source, disk / name)
    else:
        shutil.copy(source, disk / name)


def _old_csv(base: Path, disk: Path) -> None:
    (disk / "p.csv").write_text("clip_id\n" + "good\n" * 500)


def _store_to_grow(base: Path, disk: Path) -> None:
    _copy("few.zarr", base, disk)


TRAIN = "train-head --store {base}/toy.zarr --device cpu --epochs 2 --run {disk}/run --head mlp --checkpoint-seconds 0"
EXPORT = "store export {base}/big.zarr {disk}/e"
WRITERS: Mapping[str, Writer] = {
    "featurize": Writer(
        arguments="featurize --model frames --manifest {base}/set/manifest.csv --out {disk}/f.zarr --workers 1",
        goes_on="",
    ),
    "featurize, random weights": Writer(
        arguments="featurize --model frames --model resnet18 --weights random --manifest {base}/set/manifest.csv "
        "--sampling uniform:2 --out {disk}/{{model}}.zarr --workers 1",
        goes_on="",
    ),
    "featurize, growth": Writer(
        arguments="featurize --model frames --manifest {base}/set/manifest.csv --out {disk}/few.zarr --workers 1",
        before=_store_to_grow,
        goes_on="",
    ),
    "store retry": Writer(
        arguments="store retry {disk}/failed.zarr --manifest {base}/set/failed.csv --workers 1",
        before=partial(_copy, "failed.zarr"),
        goes_on="",
    ),
    "train-head": Writer(arguments=TRAIN, goes_on=f"{TRAIN} --resume", resumes="run/config.json"),
    "train-head --sweep": Writer(
        arguments=f"{TRAIN} --sweep lr=0.1,0.01 --workers 1",
        goes_on=f"{TRAIN} --sweep lr=0.1,0.01 --workers 1 --resume",
        resumes="run/config.json",
    ),
    "train-head --recipe": Writer(
        arguments="train-head --store {base}/kcal.zarr --recipe calories/kmeans --quick --markdown --latex "
        "--run {disk}/run --bins 30",
        goes_on="train-head --store {base}/kcal.zarr --recipe calories/kmeans --quick --markdown --latex "
        "--run {disk}/run --bins 30 --resume",
        resumes="run/config.json",
    ),
    "predict": Writer(arguments="predict --run {base}/run --store {base}/toy.zarr --out {disk}/p.csv", before=_old_csv),
    "predict --video": Writer(
        arguments="predict --run {disk}/flow-run --video {base}/set/videos/clip_00001.mp4 --out {disk}/p.csv",
        before=lambda base, disk: (_copy("flow-run", base, disk), _old_csv(base, disk))[1],
    ),
    "probe": Writer(arguments="probe --store {base}/toy.zarr --out {disk}/probe --tsne --kmeans 3 --knn 3"),
    "probe, again": Writer(
        arguments="probe --store {base}/toy.zarr --out {disk}/probe --knn 3 --explore",
        before=partial(_copy, "probe"),
    ),
    "store export, hdf5 groups": Writer(arguments=f"{EXPORT} --format hdf5"),
    "store export, hdf5 array": Writer(arguments=f"{EXPORT} --format hdf5 --layout array"),
    "store export, npy": Writer(arguments=f"{EXPORT} --format npy"),
    "store export, safetensors": Writer(arguments=f"{EXPORT} --format safetensors --dtype int8"),
    "store import": Writer(arguments="store import {base}/big.h5 {disk}/i.zarr"),
    "store merge": Writer(arguments="store merge {disk}/m.zarr {base}/part-a.zarr {base}/part-b.zarr"),
    "manifest folder": Writer(arguments="manifest folder {base}/classes --out {disk}/m.csv"),
    "manifest csv": Writer(arguments="manifest csv {base}/classes.csv --out {disk}/p.csv --overwrite", before=_old_csv),
    "manifest synth": Writer(arguments="manifest synth {disk}/set --clips 4 --seed 5"),
}
"""{name: what writes}. Those that write where the others do (`sweeps`, `recipes`) are here for their own files."""


def prepare(base: Path, call: Commands) -> None:
    """Makes in `base` what the commands read."""
    prepare_stores(base, call)
    prepare_videos(base, call)


def _must(call: Commands, base: Path, line: str, code: int = 0) -> None:
    called = call(arguments_of(line, base, base), base)
    assert called.code == code, (line, called)


def prepare_stores(base: Path, call: Commands) -> None:
    """What needs no video."""
    import numpy as np

    from reelbank.store.testing import write_store

    numbers = np.random.default_rng(4)
    clips = [
        {"clip_id": f"c{i}", "split": "train" if i % 4 else "test", "label": f"l{i % 3}", "group": f"g{i}"}
        for i in range(40)
    ]
    many = [clip | {"clip_id": f"a clip with a long name {i}", "group": f"g{i}"} for i, clip in enumerate(10 * clips)]
    features = [numbers.normal(size=(2, 8)).astype(np.float32) + i % 3 for i in range(len(many))]
    write_store(base / "toy.zarr", {"cls": features}, many)
    write_store(base / "big.zarr", {"cls": [numbers.normal(size=(20, 64)).astype(np.float32) for _ in clips]}, clips)
    for name in ("part-a", "part-b"):
        part = [clip | {"clip_id": f"{name}{clip['clip_id']}"} for clip in clips[:20]]
        write_store(base / f"{name}.zarr", {"cls": features[:20]}, part)
    for name in ("a", "b"):
        (base / "classes" / "train" / name).mkdir(parents=True)
        for i in range(150):
            (base / "classes" / "train" / name / f"a video with a long name {i}.mp4").touch()
    _must(call, base, "manifest folder {base}/classes --out {base}/classes.csv")
    _must(call, base, "store export {base}/big.zarr {base}/big.h5")
    _must(call, base, "train-head --store {base}/toy.zarr --device cpu --epochs 2 --run {base}/run --no-report")


def prepare_videos(base: Path, call: Commands) -> None:
    """What is made of videos, and what takes longer."""
    from recipe_stores import calorie_store

    from reelbank.manifests.rendered import synth

    calorie_store(base / "kcal.zarr")
    synth.render(base / "set", clips=8, seed=3)
    lines = (base / "set" / "manifest.csv").read_text().splitlines()
    (base / "set" / "few.csv").write_text("\n".join(lines[:4]) + "\n")
    (base / "set" / "failed.csv").write_text("\n".join(lines[:4]).replace("clip_00001.mp4", "gone.mp4") + "\n")
    for name, model, table, code in (
        ("few", "frames", "few.csv", 0), ("failed", "frames", "failed.csv", 1), ("flow", "flow:dis", "manifest.csv", 0),
    ):  # fmt: skip
        line = f"featurize --model {model} --manifest {{base}}/set/{table} --out {{base}}/{name}.zarr --workers 1"
        _must(call, base, line, code)
    _must(call, base, "train-head --store {base}/flow.zarr --device cpu --epochs 2 --run {base}/flow-run --no-report")
    _must(call, base, "probe --store {base}/toy.zarr --out {base}/probe --tsne --knn 3")


def attack(count: int, seed: int) -> Iterator[Tried]:
    """`count` sizes for every writer."""
    with commands() as call, tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        base.mkdir()
        prepare(base, call)
        for kind in WRITERS:
            yield attack_writer(kind, call, base, Path(name) / "disk", count, seed)


def attack_writer(
    kind: str, call: Commands, base: Path, folder: Path, count: int, seed: int, *, mount: bool = True
) -> Tried:
    """`count` sizes of a disk at `folder` for one writer, 8 kB if it is one; without `mount`, lengths of a file."""
    writer = WRITERS[kind]
    not_held, facts = [], {"fitted": 0, "refused": 0}
    needed, whole = LEAST_BYTES, set[str]()
    if count > 1:
        with disk(folder, mount=mount) as resize:
            needed, whole = _measured(writer, call, base, folder, mount=resize is not None)
    for size in sizes(needed, count, random.Random(f"{seed} {kind}")):
        with disk(folder, mount=mount) as resize:
            where = f"{kind}, {'disk' if resize else 'file'} of {size} more bytes (seed {seed})"
            problem, fitted = _attempt(writer, call, base, folder, size, resize, whole)
            facts["fitted" if fitted else "refused"] += 1
            if problem:
                not_held.append(f"{where}: {problem}")
    return Tried(kind=kind, tried=count, not_held=tuple(not_held), facts=facts)


def sizes(needed: int, count: int, numbers: random.Random) -> list[int]:
    """8 kB and drawn ones."""
    most = max(int(needed * 1.25), LEAST_BYTES + count * PAGE_BYTES)
    step = (most - LEAST_BYTES) / max(1, count - 1)
    return [LEAST_BYTES, *(int(LEAST_BYTES + step * (i + numbers.random())) for i in range(count - 1))]


@contextmanager
def disk(folder: Path, *, mount: bool) -> Iterator[Callable[[int], None] | None]:
    """A roomy disk at `folder`, and what gives it another size; None where it is a folder."""
    folder.mkdir()
    mounted = mount and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOMY_BYTES}", "none", str(folder)], capture_output=True, check=False
    ).returncode  # fmt: skip

    def resize(num_bytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={num_bytes}", str(folder)], check=True, capture_output=True)

    try:
        yield resize if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def arguments_of(line: str, base: Path, disk: Path) -> list[str]:
    return [
        part.replace("{base}", str(base)).replace("{disk}", str(disk)).replace("{{", "{").replace("}}", "}")
        for part in line.split()
    ]


def _used(disk: Path) -> int:
    stat = shutil.disk_usage(disk)
    return stat.used


def _measured(writer: Writer, call: Commands, base: Path, disk: Path, *, mount: bool) -> tuple[int, set[str]]:
    """What the command writes where there is room: bytes of the disk, or of the longest file, and the files."""
    writer.before(base, disk)
    used, before = _used(disk), snapshot(disk)
    called = call(arguments_of(writer.arguments, base, disk), base)
    assert called.code in (0, 1), (writer.arguments, called)
    after = snapshot(disk)
    if mount:
        return max(_used(disk) - used, PAGE_BYTES), set(after)
    return max((len(data) for name, data in after.items() if before.get(name) != data), default=PAGE_BYTES), set(after)


def snapshot(folder: Path) -> dict[str, bytes]:
    """{file: its bytes} of all below a folder, and its folders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        found[path.relative_to(folder).as_posix()] = path.read_bytes() if path.is_file() else b"(folder)"
    return found


def _attempt(
    writer: Writer, call: Commands, base: Path, disk: Path, size: int, resize: Callable[[int], None] | None,
    whole: set[str],
) -> tuple[str, bool]:  # fmt: skip
    """(what did not hold, whether the command fitted)."""
    writer.before(base, disk)
    before = snapshot(disk)
    if resize is not None:
        resize(_used(disk) + size)
    called = call(arguments_of(writer.arguments, base, disk), base, max_file_bytes=0 if resize else size)
    after = snapshot(disk)
    if resize is not None:
        resize(ROOMY_BYTES)
    if called.code in (0, 1) and not called.fault():
        missing = {name for name in whole - set(after) if not Path(name).name.startswith("c-")}
        return (f"done, but without {sorted(missing)[:3]}" if missing else "", True)
    if problem := _said(called, disk):
        return problem, False
    if left := [name for name in after if name.endswith(".partial") or "/." in f"/{name}"]:
        return f"leaves {left[:3]}", False
    if writer.goes_on is None:
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        return (f"leaves or changes {changed[:3]}" if changed else "", False)
    if broken := [name for name in after if not _is_whole(disk / name)]:
        return f"half a file: {broken[:3]}", False
    line = writer.goes_on if writer.goes_on and (disk / writer.resumes).exists() else writer.arguments
    again = call(arguments_of(line, base, disk), base)
    if again.fault() or again.code not in (0, 1):
        return f"does not go on: {again.code} {again.err[-300:]!r}", False
    missing = whole - set(snapshot(disk))
    missing = {name for name in missing if ".zarr/" not in name}
    if missing:
        return f"went on, but without {sorted(missing)[:3]}", False
    for store in disk.glob("*.zarr"):
        checked = call(["store", "verify", store], base)
        if checked.code != 0:
            return f"went on, but verify says {checked.out[-300:]!r}", False
    return "", False


def _said(called: Called, disk: Path) -> str:
    """What is wrong with the way in which a command gave up."""
    if fault := called.fault():
        return fault
    if "could not be written" not in called.err or str(disk) not in called.err:
        return f"the sentence does not help: {called.err[-300:]!r}"
    return ""


def _is_whole(path: Path) -> bool:
    try:
        match path.suffix:
            case ".json":
                json.loads(path.read_bytes())
            case ".jsonl":
                assert all(json.loads(line) for line in path.read_text().splitlines())
            case ".csv":
                with path.open(newline="") as file:
                    assert len({len(row) for row in csv.reader(file)}) == 1
            case ".png":
                from PIL import Image

                with Image.open(path) as image:
                    image.verify()
            case ".safetensors":
                from safetensors import safe_open

                with safe_open(path, framework="np"):
                    pass
            case ".html":
                assert path.read_text().rstrip().endswith("</html>")
            case ".md" | ".tex":
                assert path.stat().st_size
    except (AssertionError, OSError, SyntaxError, ValueError):
        return False
    return True
