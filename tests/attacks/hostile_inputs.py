"""The table of inputs that were made to do harm: by kind {name: (what is done to the sound files, who reads them)}."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attacks.mutants import DEEP, ESCAPES

Change = Callable[[Path], object]
Row = tuple[Change, tuple[str, ...]]
RUN = ("predict", "resume longer")
PAGE = (*RUN, "page")
READERS = ("info", "verify", "diff", "merge", "export npy", "train", "probe", "predict")
MATHS = "$\\frac{"
JSON_FILES = ("config.json", "results.json", "confusion.json")
MARKUP = "[red]x[/red][link=file:///etc/passwd]"


class Payload:
    """Unpickled, it leaves a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def _edit(file: str, change: Callable[[Any], object]) -> Change:
    def edit(folder: Path) -> None:
        data = json.loads((folder / file).read_text())
        change(data)
        (folder / file).write_text(json.dumps(data))

    return edit


def _set(file: str, *way: str | int, to: Any) -> Change:
    def change(data: Any) -> None:
        for key in way[:-1]:
            data = data[key]
        data[way[-1]] = to

    return _edit(file, change)


def _root(*way: str | int, to: Any) -> Row:
    return _set("s.zarr/zarr.json", "attributes", *way, to=to), READERS


def _array(name: str, *way: str | int, to: Any) -> Row:
    return _set(f"s.zarr/{name}/zarr.json", *way, to=to), READERS


def _write(file: str, data: bytes | str) -> Change:
    content = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    return lambda folder: (folder / file).write_bytes(content)


def _values(name: str, value: Any) -> Row:
    """Every value of an array of the store replaced, written soundly."""

    def change(folder: Path) -> None:
        import zarr

        array = zarr.open_array(folder / "s.zarr" / name, mode="r+")
        array[:] = np.full(array.shape, value, dtype=object if array.dtype.kind in "TUO" else array.dtype)

    return change, READERS


def _chunk(name: str, data: bytes) -> Row:
    def change(folder: Path) -> None:
        for file in (folder / "s.zarr" / name / "c").rglob("*"):
            if file.is_file():
                file.write_bytes(data)

    return change, READERS


def _zstd_of_zeros(count: int) -> bytes:
    from numcodecs.zstd import Zstd

    return bytes(Zstd(level=1).encode(bytes(count)))


def _shard_past_its_end(folder: Path) -> None:
    """An index with the right checksum, whose places and sizes wrap around 2^64."""
    from reelbank.store.shards import crc32c

    for file in (folder / "s.zarr/features/cls/c").rglob("*"):
        if file.is_file():
            index = struct.pack("<QQ", 2**64 - 100, 300)
            data, count = file.read_bytes(), 36 * 8
            entries = index * count
            file.write_bytes(data[: len(data) - len(entries) - 4] + entries + crc32c(entries).to_bytes(4, "little"))


def _linked(name: str) -> Change:
    """A part of the store or run that lies outside and is linked to."""

    def change(folder: Path) -> None:
        away = folder.parent / "away"
        shutil.rmtree(away, ignore_errors=True)
        away.mkdir()
        (folder / name).rename(away / "part")
        (folder / name).symlink_to(away / "part")

    return change


def _safetensors(file: str, header: bytes, body: bytes = b"") -> Change:
    return lambda folder: (folder / file).write_bytes(len(header).to_bytes(8, "little") + header + body)


def _of_length(file: str, count: int) -> Change:
    """A safetensors file that says its header has `count` bytes."""
    return _write(file, count.to_bytes(8, "little") + b"{}")


def _clips_of_safetensors(change: Callable[[Any], object]) -> Row:
    """An export as one safetensors file whose table of clips is changed."""

    def edit(folder: Path) -> None:
        file = folder / "all.safetensors"
        data = file.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        table = json.loads(header["__metadata__"]["clips"])
        change(table)
        header["__metadata__"]["clips"] = json.dumps(table)
        text = json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    return edit, ("import safetensors",)


def _checkpoint(file: str, change: Callable[[Any], object]) -> Change:
    def edit(folder: Path) -> None:
        data = (folder / file).read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        own = json.loads(header["__metadata__"]["reelbank"])
        change(own)
        header["__metadata__"]["reelbank"] = json.dumps(own)
        _safetensors(file, json.dumps(header).encode(), data[8 + length :])(folder)

    return edit


def _many_bins(own: Any) -> None:
    own["bins"]["num_bins"] = own["shape"]["outputs"]["target"] = 10**12


def _last(change: Callable[[Any], object]) -> Row:
    return _checkpoint("run/last.safetensors", change), RUN


def _best(change: Callable[[Any], object]) -> Row:
    """The header of a run's weights changed."""
    return _checkpoint("run/best.safetensors", change), RUN


def _tensor(entry: str, body: bytes = b"") -> Row:
    return _safetensors("all.safetensors", f'{{"a": {entry}}}'.encode(), body), ("import safetensors",)


def _both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def _npy(shape: str, descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (64 - (len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def _npy_file(data: bytes) -> Row:
    return _write("foreign/c000.npy", data), ("import foreign",)


def _objects(folder: Path) -> None:
    np.save(folder / "foreign/c000.npy", np.array([Payload()], dtype=object), allow_pickle=True)


def _hdf5(make: Callable[[Any, Path], object]) -> Row:
    def change(folder: Path) -> None:
        import h5py

        (folder / "secret").write_bytes(b"secret")
        with h5py.File(folder / "secret.h5", "w") as other:
            other["secret"] = np.ones((3, 6), np.float32)
        (folder / "groups.h5").unlink()
        with h5py.File(folder / "groups.h5", "w") as file:
            file["c000"] = np.ones((3, 6), np.float32)
            make(file, folder)

    return change, ("import hdf5",)


def _external(file: Any, folder: Path) -> None:
    import h5py

    file["c001"] = h5py.ExternalLink("secret.h5", "secret")


def _virtual(file: Any, folder: Path) -> None:
    import h5py

    layout = h5py.VirtualLayout((3, 6), np.float32)
    layout[:] = h5py.VirtualSource("secret.h5", "secret", (3, 6))
    file.create_virtual_dataset("c001", layout)


def _soft(file: Any, folder: Path) -> None:
    import h5py

    file["c001"] = h5py.SoftLink("/c000")


def _cycle(file: Any, folder: Path) -> None:
    group = file.create_group("g")
    group["again"] = file["g"]


def _stored_outside(file: Any, folder: Path) -> None:
    file.create_dataset("c001", (3, 6), np.float32, external=[("secret", 0, 72)])


def _deep(file: Any, folder: Path) -> None:
    file["/".join("g" * 200)] = np.ones((3, 6), np.float32)


def _strings(file: Any, folder: Path) -> None:
    file["c001"] = [ESCAPES.replace("\0", "")] * 3


def _manifest(text: str, *commands: str) -> Row:
    return _write("manifest.csv", text), commands or ("doctor", "manifest csv", "import foreign")


def _names_outside(folder: Path) -> None:
    clips = folder / "npy/clips.jsonl"
    clips.write_text(clips.read_text().replace('{"cls": "', '{"cls": "../../../../../'))


def _header(text: str) -> Row:
    """An HDF5 file that calls itself an export of reelbank."""

    def make(file: Any, folder: Path) -> None:
        file.create_dataset("reelbank", data=text)
        file.create_dataset("manifest/clip_id", data=[b"x"])

    return _hdf5(make)


def _zip_bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "weights.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(1 << 28))


MANY = ",".join(f"x{i}" for i in range(10**5))
HEADER = "clip_id,video,split,label,kcal\n"
STORES: Mapping[str, Row] = {
    **{f"num_clips {n}": _root("num_clips", to=n) for n in (10**12, 10**400, -1, 0.5, "5", True, None, [])},
    **{f"unit_clips {n}": _root("geometry", "unit_clips", to=n) for n in (0, -1, 10**12, 1.5, "1", None)},
    **{f"shard_steps {n}": _root("geometry", "shard_steps", to=n) for n in (0, 10**15, "x")},
    **{f"fixed_steps {n}": _root("geometry", "fixed_steps", to=n) for n in (0, -3, 10**15, [1])},
    "geometry is a list": _root("geometry", to=[]),
    "column outside": _root("columns", "label", to="../../../etc"),
    "column absolute": _root("columns", "label", to="/etc"),
    "column is a number": _root("columns", "label", to=3),
    "tap outside": _root("spec", "taps", 0, "name", to="../../x"),
    "tap of 10^18 values": _root("spec", "taps", 0, "shape", to=[10**9, 10**9]),
    "tap of no value": _root("spec", "taps", 0, "shape", to=[0]),
    "taps are text": _root("spec", "taps", to="cls"),
    "views are none": _root("spec", "views", to=[]),
    "weights are text": _root("spec", "weights", to="x"),
    "backbone steers": _root("spec", "backbone", to=ESCAPES),
    "backbone is markup": _root("spec", "backbone", to=MARKUP),
    "backbone is a formula": _root("spec", "backbone", to=MATHS),
    "command steers": _root("provenance", "command", to=ESCAPES),
    "provenance is a list": _root("provenance", to=[1]),
    "plugin is text": _root("provenance", "plugin", to="x"),
    "version is a text": _root("format_version", to="1"),
    "attribute steers": _root(ESCAPES, to=1),
    "attributes are a list": (_set("s.zarr/zarr.json", "attributes", to=[1]), READERS),
    "root nested without end": (_write("s.zarr/zarr.json", '{"attributes":' * DEEP), READERS),
    "root is a list": (_write("s.zarr/zarr.json", "[]"), READERS),
    "root not UTF-8": (_write("s.zarr/zarr.json", '{"a": "\udcff"}'), READERS),
    "chunk of 0": _array("clips/status", "chunk_grid", "configuration", "chunk_shape", to=[0]),
    "chunk of 10^15": _array("clips/status", "chunk_grid", "configuration", "chunk_shape", to=[10**15]),
    "shape of 10^15": _array("clips/step_seconds", "shape", to=[36, 10**15]),
    "shape negative": _array("clips/status", "shape", to=[-36]),
    "shape with an axis more": _array("clips/num_steps", "shape", to=[36, 10**9]),
    "object dtype": _array("manifest/label", "data_type", to="object"),
    "unknown dtype": _array("clips/status", "data_type", to={"name": "numpy.object", "configuration": {}}),
    "other dtype": _array("clips/status", "data_type", to="string"),
    "unknown codec": _array("clips/status", "codecs", to=[{"name": "pickle", "configuration": {}}]),
    "no codec": _array("clips/status", "codecs", to=[]),
    "codec is text": _array("clips/status", "codecs", to="bytes"),
    "array nested without end": (_write("s.zarr/clips/reason/zarr.json", "[" * DEEP), READERS),
    "features of another shape": _array("features/cls", "shape", to=[36, 1, 10**12, 6]),
    "features in chunks of 0": _array("features/cls", "codecs", 0, "configuration", "chunk_shape", to=[1, 1, 0, 6]),
    "features of objects": _array("features/cls", "data_type", to="object"),
    "10^12 steps": _values("clips/num_steps", 10**12),
    "-1 steps": _values("clips/num_steps", -1),
    "10^6 views": _values("clips/num_views", 10**6),
    "status 7": _values("clips/status", 7),
    "labels steer": _values("manifest/label", ESCAPES.replace("\0", "")),
    "labels are markup": _values("manifest/label", MARKUP),
    "labels are formulas": _values("manifest/label", MATHS),
    "splits steer": _values("manifest/split", ESCAPES),
    "ids steer": _values("manifest/clip_id", ESCAPES),
    "reasons steer": (_both(_values("clips/status", 2)[0], _values("clips/reason", ESCAPES)[0]), READERS),
    "thumbnails unpack without end": _chunk("thumbnails/rgb", _zstd_of_zeros(1 << 28)),
    "ledger unpacks without end": _chunk("clips/num_steps", _zstd_of_zeros(1 << 28)),
    "texts unpack without end": _chunk("manifest/label", _zstd_of_zeros(1 << 28)),
    "shard index wraps around": (_shard_past_its_end, READERS),
    "features are a link out": (_linked("s.zarr/features"), ("append",)),
    "staging is a link out": (_linked("s.zarr/staging"), ("append",)),
    "commits are a link out": (_linked("s.zarr/commits"), ("append",)),
}
RUNS: Mapping[str, Row] = {
    **{f"{name} nested without end": (_write(f"run/{name}", '{"config":' * DEEP), RUN) for name in JSON_FILES},
    **{f"{name} is a list": (_write(f"run/{name}", "[1]"), RUN) for name in JSON_FILES},
    "NaN in results": (_set("run/results.json", "training", "seconds", to=float("nan")), PAGE),
    "verdict steers": (_set("run/results.json", "verdict", to=ESCAPES), PAGE),
    "name is a formula": (_set("run/results.json", "run", to=MATHS), PAGE),
    "split is a path": (_edit("run/confusion.json", lambda data: data.update({"../../x": data["test"]})), PAGE),
    "classes steer": (_edit("run/confusion.json", lambda data: data["test"].update(labels=[ESCAPES, MATHS])), PAGE),
    "confusion is ragged": (_edit("run/confusion.json", lambda data: data["test"].update(counts=[[1], [1, 2]])), PAGE),
    "option steers": (_set("run/config.json", "config", "loss", to=ESCAPES), RUN),
    "fold is a path": (_set("folds/results.json", "folds", 0, "fold", to="../../x"), ("predict folds", "resume folds")),
    "epoch of 10^12": (_write("run/metrics.jsonl", '{"fold": null, "epoch": 1e12}\n'), PAGE),
    "epochs nested without end": (_write("run/metrics.jsonl", "[" * DEEP + "\n{}\n"), RUN),
    "predictions of NUL": (_write("run/predictions.csv", "clip_id,split\n\0,\0\n"), PAGE),
    "predictions of 10 MB in a cell": (_write("run/predictions.csv", f"split\n{'x' * 10**7}\n"), PAGE),
    "checkpoint is a pickle": (_write("run/best.safetensors", pickle.dumps(Payload())), RUN),
    "progress is a pickle": (_write("run/last.safetensors", pickle.dumps(Payload())), RUN),
    **{f"checkpoint header of {n}": (_of_length("run/best.safetensors", n), RUN) for n in (0, 1, 2**40, 2**64 - 1)},
    "checkpoint nested without end": (_safetensors("run/best.safetensors", b"[" * DEEP), RUN),
    "10^12 outputs": _best(lambda own: own["shape"]["outputs"].update(label=10**12)),
    "10^12 bins": _best(_many_bins),
    "10^9 features": _best(lambda own: own["shape"]["taps"].update(cls=10**9)),
    "head is a command": _best(lambda own: own.update(head="os:system")),
    "head is a hostile module": _best(lambda own: own.update(head="antigravity:fly", plugin=None)),
    "head steers": _best(lambda own: own.update(head=ESCAPES)),
    "head options are many": _best(lambda own: own.update(options={"hidden": 10**12})),
    "labels are numbers": _best(lambda own: own.update(labels=[1, 2, 3])),
    "classes of the head steer": _best(lambda own: own.update(labels=[ESCAPES] * len(own["labels"]))),
    "sources are none": _best(lambda own: own.update(sources=[])),
    "spec of the head is nested": _best(lambda own: own["sources"][0].update(spec={"taps": []})),
    "epoch of the checkpoint is a text": _last(lambda own: own.update(epoch="1")),
    "10^6 learning rates": _last(lambda own: own.update(learning_rates=[0.1] * 10**6)),
    "figures are a link out": (_linked("run/figures"), ("resume longer", "page")),
    "report is a link out": (_linked("run/report.html"), ("resume longer", "page")),
    "log is a link out": (_linked("run/metrics.jsonl"), ("resume longer",)),
    "probe picture is a link out": (_linked("probe/report.html"), ("probe again",)),
    "probe results nested": (_write("probe/results.json", "[" * DEEP), ("probe again",)),
}  # fmt: skip
IMPORTS: Mapping[str, Row] = {
    "npy of objects": (_objects, ("import foreign",)),
    "npy of 10^15 values": _npy_file(_npy("(1000000000, 1000000)") + bytes(64)),
    "npy of negative shape": _npy_file(_npy("(-1, 6)") + bytes(64)),
    "npy whose header is code": _npy_file(_npy("__import__('os').system('touch executed')")),
    "npy header nested without end": _npy_file(_npy("(" * 5000)),
    "npy of a record": _npy_file(_npy("(2,)", "[('a', '<f4'), ('b', 'O')]") + bytes(64)),
    "npy is a pickle": _npy_file(pickle.dumps(Payload())),
    "npy is a zip": _npy_file(b"PK\x03\x04" + bytes(64)),
    "hdf5 external link": _hdf5(_external),
    "hdf5 virtual": _hdf5(_virtual),
    "hdf5 soft link": _hdf5(_soft),
    "hdf5 group in itself": _hdf5(_cycle),
    "hdf5 stored outside": _hdf5(_stored_outside),
    "hdf5 200 levels": _hdf5(_deep),
    "hdf5 texts": _hdf5(_strings),
    "hdf5 header is a list": _header("[]"),
    "hdf5 header nested": _header("[" * DEEP),
    "safetensors header of 2^63": (_of_length("all.safetensors", 2**63), ("import safetensors",)),
    "safetensors nested": (_safetensors("all.safetensors", b"[" * DEEP), ("import safetensors",)),
    "safetensors shape negative": _tensor('{"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}', bytes(4)),
    "safetensors shape of 2^63": _tensor('{"dtype": "F32", "shape": [9223372036854775808, 2], "data_offsets": [0, 0]}'),
    "safetensors past its end": _tensor('{"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}'),
    "export without status": _clips_of_safetensors(lambda table: table.pop("ledger/status")),
    "export without ids": _clips_of_safetensors(lambda table: table.pop("manifest/clip_id")),
    "export of texts as status": _clips_of_safetensors(lambda table: table.update({"ledger/status": ["x"] * 40})),
    "export of half a column": _clips_of_safetensors(lambda table: table["ledger/status"].clear()),
    "export taps outside": (_set("npy/reelbank.json", "taps", to=["../../x"]), ("import npy",)),
    "export int8 outside": (_set("npy/reelbank.json", "int8_axis", to={"../../x": 0}), ("import npy",)),
    "export header nested": (_write("npy/reelbank.json", "[" * DEEP), ("import npy",)),
    "export clips nested": (_write("npy/clips.jsonl", "[" * DEEP), ("import npy",)),
    "export spec is empty": (_set("npy/reelbank.json", "spec", to={}), ("import npy",)),
    "export file outside": (_names_outside, ("import npy",)),
}  # fmt: skip
MANIFESTS: Mapping[str, Row] = {
    "10^5 columns": _manifest(f"{HEADER.strip()},{MANY}\nc0,v.mp4,train,a,1{',' * 10**5}\n"),
    "a cell of 100 MB": _manifest(HEADER + "c0," + "x" * 10**8 + ",train,a,1\n"),
    "10^6 quotes": _manifest(HEADER + '"' * 10**6),
    "paths steer": _manifest(HEADER + f"c0,{ESCAPES.splitlines()[0]}.mp4,train,a,1\n"),
    "ids steer": _manifest(HEADER + f"{ESCAPES.splitlines()[0]},v.mp4,train,a,1\n"),
    "ids are markup": _manifest(HEADER + f"{MARKUP},v.mp4,train,{MARKUP},1\n{MARKUP},v.mp4,train,a,1\n"),
    "columns steer": _manifest(f"clip_id,video,{ESCAPES.splitlines()[0]}\nc0,v.mp4,x\n"),
    "columns lead out": _manifest("clip_id,video,../../x\nc0,v.mp4,x\n"),
    "cells are formulas": _manifest(HEADER + "=1+1,@v.mp4,train,-a,1\n+c1,=HYPERLINK(),train,a,-1.5\n"),
    "not UTF-8": _manifest(HEADER + "c\udce9,v.mp4,train,a,1\n"),
    "UTF-16": (_write("manifest.csv", (HEADER + "c0,v,train,a,1\n").encode("utf-16")), ("doctor", "manifest csv")),
    "NUL": _manifest(HEADER + "c\0,v\0.mp4,train,a,1\n"),
    "numbers without end": _manifest(HEADER + f"c0,v.mp4,train,a,{'9' * 10**6}\n"),
    "runs backwards": _manifest(HEADER + "c\u202e4pm,v\u202e.mp4,train,a\u202e,1\n"),
    "a URL": _manifest(HEADER + "c0,http://127.0.0.1:9/x.mp4,train,a,1\n"),
    "a protocol": _manifest(HEADER + "c0,concat:/etc/passwd|x,train,a,1\n"),
    "a path of 10^5 letters": _manifest(HEADER + f"c0,{'a/' * 50000},train,a,1\n"),
}  # fmt: skip
WEIGHTS_BY = ("weights",)
WEIGHTS: Mapping[str, Row] = {
    "a pickle that runs a program": (_write("weights.pth", pickle.dumps(Payload())), WEIGHTS_BY),
    "a zip that unpacks to 256 MB": (_zip_bomb, WEIGHTS_BY),
    "safetensors header of 2^60": (_of_length("weights.pth", 2**60), WEIGHTS_BY),
    "empty": (_write("weights.pth", b""), WEIGHTS_BY),
    "text": (_write("weights.pth", ESCAPES), WEIGHTS_BY),
}  # fmt: skip
TABLE: Mapping[str, Mapping[str, Row]] = {
    "stores": STORES, "runs": RUNS, "files to import": IMPORTS, "manifests": MANIFESTS, "weights files": WEIGHTS,
}  # fmt: skip
