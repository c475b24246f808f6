"""What is no file in the place of every input, small files that announce terabytes, and MATLAB files that kill scipy.

No command may wait for ever, die, fill the disk or show a traceback.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from attacks import Tried
from attacks.commands import Commands, commands

TIMEOUT_SECONDS = 60.0
MAX_WRITTEN_BYTES = 64 << 20


# -- what is no file ---------------------------------------------------------------------------------------------


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _fifo_behind_link(path: Path) -> None:
    os.mkfifo(path.with_name(f"{path.name}-fifo"))
    path.symlink_to(path.with_name(f"{path.name}-fifo"))


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, tempfile.TemporaryDirectory() as short:
        one.bind(f"{short}/s")  # the name of a socket may have 107 bytes
        shutil.move(f"{short}/s", path)


SPECIALS: Mapping[str, Callable[[Path], None]] = {
    "a FIFO": _fifo,
    "a link to a FIFO": _fifo_behind_link,
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a socket": _socket,
    "a folder": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nothing-there"),
}


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input of a command.

    Attributes:
        line: the command; `{it}` is what is no file, `{base}` where the rest lies.
        at: where it lies; a file there, or the first that fits a pattern, is replaced.
        again: run the command a second time, when the first has been remembered.
    """

    line: str
    at: str
    again: bool = False


EXTRACT = "featurize --out {base}/out.zarr --workers 1 --deadline 3000 --sampling uniform:2 --model"
FEATURIZE = f"{EXTRACT} frames"
POSES = f"{EXTRACT} pose --manifest {{base}}/poses.csv"
SET = "--manifest {base}/set/manifest.csv"
TRAIN = "train-head --store {base}/toy.zarr --device cpu --epochs 2 --no-report"
INPUTS: Mapping[str, Input] = {
    "manifest of featurize": Input(line=f"{FEATURIZE} --manifest {{it}}", at="m.csv"),
    "manifest, JSON lines": Input(line=f"{FEATURIZE} --manifest {{it}}", at="m.jsonl"),
    "manifest, Parquet": Input(line=f"{FEATURIZE} --manifest {{it}}", at="m.parquet"),
    "video": Input(line=f"{FEATURIZE} {SET}", at="set/videos/clip_00001.mp4", again=True),
    "video, a picture": Input(line=f"{FEATURIZE} --manifest {{base}}/pictures.csv", at="one.jpg", again=True),
    "picture of a frame folder": Input(
        line=f"{FEATURIZE} --manifest {{base}}/pictures.csv", at="frames/000001.jpg", again=True
    ),
    "annotations, JSON": Input(line=POSES, at="p.json", again=True),
    "annotations, MATLAB": Input(line=POSES, at="p.mat", again=True),
    "weights file": Input(line=f"{EXTRACT} resnet18 --weights {{it}} {SET}", at="w.pth"),
    "weights file, safetensors": Input(line=f"{EXTRACT} resnet18 --weights {{it}} {SET}", at="w.safetensors"),
    "video of doctor": Input(line="doctor --manifest {base}/set/manifest.csv", at="set/videos/clip_00001.mp4"),
    "manifest of doctor": Input(line="doctor --manifest {it}", at="m.csv"),
    "manifest of retry": Input(line="store retry {base}/toy.zarr --manifest {it}", at="m.csv"),
    "root of a store, info": Input(line="store info {base}/toy.zarr", at="toy.zarr/zarr.json"),
    "root of a store, verify": Input(line="store verify {base}/toy.zarr", at="toy.zarr/zarr.json"),
    "ledger, verify": Input(line="store verify {base}/toy.zarr", at="toy.zarr/clips/status/c/0"),
    "ledger, info": Input(line="store info {base}/toy.zarr", at="toy.zarr/clips/num_steps/c/0"),
    "array of a ledger, info": Input(line="store info {base}/toy.zarr", at="toy.zarr/clips/status/zarr.json"),
    "manifest of a store, train-head": Input(line=TRAIN, at="toy.zarr/manifest/label/c/0"),
    "features, verify": Input(line="store verify {base}/toy.zarr", at="toy.zarr/features/cls/c/**/0"),
    "features, train-head": Input(line=TRAIN, at="toy.zarr/features/cls/c/**/0"),
    "features, export": Input(line="store export {base}/toy.zarr {base}/e.h5", at="toy.zarr/features/cls/c/**/0"),
    "means, probe": Input(line="probe --store {base}/toy.zarr --out {base}/out --knn 3", at="toy.zarr/mean/cls/c/**/0"),
    "merge": Input(line="store merge {base}/m.zarr {base}/toy.zarr {it}", at="other.zarr"),
    "diff": Input(line="store diff {base}/toy.zarr {it}", at="other.zarr"),
    "store of train-head": Input(line="train-head --store {it}", at="other.zarr"),
    "import, HDF5": Input(line="store import {it} {base}/i.zarr", at="a.h5"),
    "import, safetensors": Input(line="store import {it} {base}/i.zarr", at="a.safetensors"),
    "import, array of a folder": Input(line="store import {base}/arrays {base}/i.zarr", at="arrays/c0.npy"),
    "import, array of an export": Input(line="store import {base}/export {base}/i.zarr", at="export/c0.npy"),
    "import, header of an export": Input(line="store import {base}/export {base}/i.zarr", at="export/reelbank.json"),
    "import, table of an export": Input(line="store import {base}/export {base}/i.zarr", at="export/clips.jsonl"),
    "import, manifest": Input(line="store import {base}/arrays {base}/i.zarr --manifest {it}", at="m.csv"),
    "resume, config": Input(line=f"{TRAIN} --run {{base}}/run --resume", at="run/config.json"),
    "resume, checkpoint": Input(line=f"{TRAIN} --run {{base}}/run --resume", at="run/last.safetensors"),
    "resume, epochs": Input(line=f"{TRAIN} --run {{base}}/run --resume", at="run/metrics.jsonl"),
    "predict, results": Input(line="predict --run {base}/run --store {base}/toy.zarr", at="run/results.json"),
    "predict, config": Input(line="predict --run {base}/run --store {base}/toy.zarr", at="run/config.json"),
    "predict, weights": Input(line="predict --run {base}/run --store {base}/toy.zarr", at="run/best.safetensors"),
    "predict, video": Input(line="predict --run {base}/flow-run --video {it}", at="v.mp4"),
    "probe, former results": Input(
        line="probe --store {base}/toy.zarr --out {base}/probe --knn 3", at="probe/results.json"
    ),
    "manifest csv": Input(line="manifest csv {it} --out {base}/o.csv", at="m.csv"),
    "manifest folder": Input(line="manifest folder {base}/classes --out {base}/o.csv", at="classes/train/a/a.mp4"),
    "manifest hmdb51, list": Input(
        line="manifest hmdb51 {base}/hmdb --splits {base}/lists --out {base}/o.csv", at="lists/run_test_split1.txt"
    ),
    "manifest ucf101, list": Input(
        line="manifest ucf101 {base}/hmdb --splits {base}/lists --out {base}/o.csv", at="lists/classInd.txt"
    ),
    "manifest kinetics, list": Input(
        line="manifest kinetics {base}/hmdb --splits {base}/lists --out {base}/o.csv", at="lists/train.csv"
    ),
    "manifest vid2burn, labels": Input(
        line="manifest vid2burn {base}/hmdb --labels {it} --out {base}/o.csv", at="labels.csv"
    ),
    "manifest intervals": Input(line="manifest intervals {it} --out {base}/o.csv", at="i.csv"),
    "manifest penn": Input(line="manifest penn {base}/penn --out {base}/o.csv", at="penn/labels/0001.mat"),
}
"""{which input: the command}."""


def prepare(base: Path, call: Commands) -> None:
    """Makes what the commands read, all of it good."""
    import numpy as np
    from PIL import Image
    from scipy.io import savemat

    from reelbank.manifests.rendered import synth
    from reelbank.store.testing import write_store

    numbers = np.random.default_rng(4)
    clips = [
        {"clip_id": f"c{i}", "split": "train" if i % 4 else "test", "label": f"l{i % 3}", "group": f"g{i}"}
        for i in range(24)
    ]
    write_store(base / "toy.zarr", {"cls": [numbers.normal(size=(3, 8)).astype(np.float32) for _ in clips]}, clips)
    synth.render(base / "set", clips=8, seed=3)
    (base / "frames").mkdir()
    for path in (base / "one.jpg", *(base / "frames" / f"{i:06d}.jpg" for i in range(1, 4))):
        Image.fromarray(numbers.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(path)
    (base / "pictures.csv").write_text("clip_id,video,split,rate_fps\none,one.jpg,train,5\nmany,frames,train,5\n")
    (base / "poses.csv").write_text(
        "clip_id,video,annotations,rate_fps\na,set/videos/clip_00001.mp4,p.json,5\nb,set/videos/clip_00002.mp4,p.mat,5\n"
    )
    (base / "p.json").write_text("{}")
    savemat(base / "p.mat", penn_arrays(numbers))
    (base / "arrays").mkdir()
    for i in range(3):
        np.save(base / "arrays" / f"c{i}.npy", numbers.normal(size=(3, 8)).astype(np.float32))
    (base / "classes" / "train" / "a").mkdir(parents=True)
    shutil.copy(base / "set/videos/clip_00001.mp4", base / "classes/train/a/a.mp4")
    (base / "hmdb" / "run").mkdir(parents=True)
    shutil.copy(base / "set/videos/clip_00001.mp4", base / "hmdb/run/a.avi")
    (base / "lists").mkdir()
    (base / "lists" / "run_test_split1.txt").write_text("a.avi 1\n")
    (base / "lists" / "trainlist01.txt").write_text("run/a.avi 1\n")
    (base / "penn" / "labels").mkdir(parents=True)
    savemat(base / "penn" / "labels" / "0001.mat", penn_arrays(numbers))
    for line in (
        "store export {base}/toy.zarr {base}/export --format npy",
        "train-head --store {base}/toy.zarr --device cpu --epochs 2 --no-report --run {base}/run",
        "featurize --model flow:dis --manifest {base}/set/manifest.csv --out {base}/flow.zarr --workers 1",
        "train-head --store {base}/flow.zarr --device cpu --epochs 2 --run {base}/flow-run --no-report",
        "probe --store {base}/toy.zarr --out {base}/probe --knn 3",
    ):
        called = call(line.format(base=base).split(), base)
        assert called.code == 0, (line, called)


def penn_arrays(numbers: object) -> dict[str, object]:
    """The variables of an annotation file of Penn Action."""
    import numpy as np

    rng = numbers if isinstance(numbers, np.random.Generator) else np.random.default_rng(0)
    return {
        "action": "bowl",
        "train": 1,
        "x": rng.uniform(0, 60, (4, 13)),
        "y": rng.uniform(0, 40, (4, 13)),
        "visibility": np.ones((4, 13)),
        "bbox": rng.uniform(0, 40, (4, 4)),
        "dimensions": np.array([48, 64, 4]),
    }


def attack_input(call: Commands, base: Path, folder: Path, name: str, special: str) -> str:
    """What does not hold if `special` lies in the place of an input; `folder` is the working copy of `base`."""
    asked = INPUTS[name]
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder, symlinks=True)
    place = next((path for path in sorted(folder.glob(asked.at)) if path.is_file()), folder / asked.at)
    place.unlink(missing_ok=True)
    SPECIALS[special](place)
    line = [part.replace("{base}", str(folder)).replace("{it}", str(place)) for part in asked.line.split()]
    for turn in range(1 + asked.again):
        if problem := call(line, folder, timeout_seconds=TIMEOUT_SECONDS).fault():
            return f"{special} as {name}, run {turn + 1}: {problem}"
    return ""


# -- what announces more than there is -----------------------------------------------------------------------------


def bomb(path: Path, numbers: random.Random) -> Path:
    """A small file to import that announces an absurd amount."""
    import h5py
    import numpy as np

    rows, width = numbers.choice([10**9, 10**12, 2**40]), numbers.choice([512, 2048, 2**20])
    match numbers.randrange(6):
        case 0 | 1 as chunked:
            with h5py.File(path.with_suffix(".h5"), "w") as file:
                chunks = (1, min(width, 2048)) if chunked else None
                for i in range(numbers.randint(1, 3)):
                    file.create_dataset(f"c{i}", (rows, width), "f4", chunks=chunks, fillvalue=0.5)
            return path.with_suffix(".h5")
        case 2:  # an export whose table is longer than any
            with h5py.File(path.with_suffix(".h5"), "w") as file:
                file.create_dataset("reelbank", data=json.dumps({"format": "reelbank export", "version": 1}))
                file.create_dataset("manifest/clip_id", (rows,), h5py.string_dtype(), chunks=(1024,))
            return path.with_suffix(".h5")
        case 3:  # a product that wraps round to the zero bytes it has
            header = {"a": {"dtype": "F16", "shape": [2**32, 2**32], "data_offsets": [0, 0]}}
            data = json.dumps(header).encode()
            path.with_suffix(".safetensors").write_bytes(len(data).to_bytes(8, "little") + data)
            return path.with_suffix(".safetensors")
        case 4:  # a file of holes
            path.mkdir()
            with (path / "a.npy").open("wb") as file:
                shape = (10**9, 512)
                np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
                file.truncate(file.tell() + 4 * math.prod(shape))
            return path
        case _:  # a length that the file does not have
            path.mkdir()
            for name in ("a_x.npy", "a_timestamps_ms.npy"):
                with (path / name).open("wb") as file:
                    shape = (rows, width) if name == "a_x.npy" else (rows,)
                    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
                    file.write(b"1234" * 100)
            return path


def attack_bomb(call: Commands, folder: Path, seed: int) -> str:
    """What does not hold for one file that announces too much."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = bomb(folder / "bomb", random.Random(seed))
    free = shutil.disk_usage(folder).free
    called = call(["store", "import", path, folder / "i.zarr"], folder, timeout_seconds=TIMEOUT_SECONDS)
    written = free - shutil.disk_usage(folder).free
    left = sorted(found.name for found in folder.iterdir() if found != path)
    problem = called.fault() or ("taken" if called.code == 0 else "") or (f"leaves {left}" if left else "")
    if not problem and written > MAX_WRITTEN_BYTES and (folder / "i.zarr").exists():
        problem = f"wrote {written} bytes"
    return f"bomb {path.name} of seed {seed}: {problem}" if problem else ""


# -- what kills the reader of MATLAB files -------------------------------------------------------------------------


def mutated(data: bytes, numbers: random.Random) -> bytes:
    """Some bytes changed, cut off or doubled."""
    changed = bytearray(data)
    for _ in range(numbers.randint(1, 8)):
        at = numbers.randrange(len(changed))
        match numbers.randrange(5):
            case 0:
                changed[at] ^= 1 << numbers.randrange(8)
            case 1:
                changed[at] = numbers.randrange(256)
            case 2:
                changed[at : at + 4] = numbers.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"])
            case 3:
                del changed[at : at + numbers.randint(1, 16)]
            case _:
                changed[at:at] = changed[at : at + numbers.randint(1, 16)]
        if not changed:
            changed = bytearray(b"\0")
    return bytes(changed)


def attack_matlab(folder: Path, count: int, seed: int) -> Tried:
    """`count` mutated annotation files, read by the process that `manifest penn` reads them with."""
    import numpy as np
    from scipy.io import savemat

    from reelbank.manifests.datasets.matlab import MatlabError, matlab_reader

    path, not_held = folder / "0001.mat", []
    facts = {"read": 0, "refused": 0, "killed the reader": 0}
    originals = []
    for compressed in (False, True):
        savemat(path, penn_arrays(np.random.default_rng(seed)), do_compression=compressed)
        originals.append(path.read_bytes())
    savemat(path, penn_arrays(np.random.default_rng(seed)), format="4")
    originals.append(path.read_bytes())
    with matlab_reader() as reader:
        for i in range(count):
            numbers = random.Random(f"{seed} {i}")
            path.write_bytes(mutated(numbers.choice(originals), numbers))
            try:
                reader.read(path, ["action", "train"])
                facts["read"] += 1
            except MatlabError as error:
                facts["killed the reader" if "reader died" in str(error) else "refused"] += 1
            except Exception as error:  # noqa: BLE001
                not_held.append(f"mutant {i} of seed {seed}: {type(error).__name__}: {error}")
    return Tried(kind="mutated MATLAB files", tried=count, not_held=tuple(not_held), facts=facts)


PAIRS = tuple(itertools.product(INPUTS, SPECIALS))
COUNT = len(PAIRS)


def attack(count: int, seed: int) -> Iterator[Tried]:
    """`count` inputs (all, if it is their number), a tenth as many bombs, and ten times as many MATLAB files."""
    numbers = random.Random(seed)
    pairs = PAIRS if count >= len(PAIRS) else numbers.sample(PAIRS, count)
    with commands() as call, tempfile.TemporaryDirectory() as name:
        base, folder = Path(name) / "base", Path(name) / "copy"
        base.mkdir()
        prepare(base, call)
        found = [attack_input(call, base, folder, *pair) for pair in pairs]
        yield Tried(kind="no file in the place of an input", tried=len(pairs), not_held=tuple(filter(None, found)))
        bombs = [attack_bomb(call, folder, numbers.randrange(2**32)) for _ in range(max(6, count // 10))]
        yield Tried(kind="small files that announce terabytes", tried=len(bombs), not_held=tuple(filter(None, bombs)))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield attack_matlab(folder, 10 * count, seed)
