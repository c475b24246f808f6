"""Power cuts and kills while a file is made from a store or a manifest: the old one stays or the new one is there.

Exports of each format, imports and manifests are written in place of an older one, over a model of a disk. In the
states that a kill or a power cut leaves, what lies there must be the old or the new, and the same command again must
make the new one and leave nothing beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attacks import Tried, memory_folder
from attacks.crash_points import different, wrong_states
from attacks.disk import Disk, Moment, write_state
from attacks.power_cut import FIRST, MORE, grow, one_thread
from reelbank import manifests
from reelbank.store import export, import_store
from reelbank.store.exchange.importing import open_source
from reelbank.store.exchange.options import ExportConfig, ImportConfig
from reelbank.store.reader import Store
from reelbank.store.testing import make_manifest

COUNT = 500


@dataclass(frozen=True)
class Making:
    """Something that is made with `--overwrite` in place of an older one.

    Attributes:
        name: of the file or folder.
        make: makes it (inputs, which of the two, path).
        content: what a reader of it finds; raises where it is not whole.
    """

    name: str
    make: Callable[[Path, str, Path], None]
    content: Callable[[Path], Any]


def _export(**options: Any) -> Callable[[Path, str, Path], None]:
    def make(inputs: Path, which: str, out: Path) -> None:
        export(inputs / f"{which}.zarr", out, ExportConfig(**options, overwrite=True))

    return make


def _exported(path: Path) -> Any:
    source = open_source(path, ())
    return {
        name: {tap: [block.tolist() for block in source.blocks(name, tap)] for tap in taps}
        for name, taps in source.arrays.items()
    }


def _import(inputs: Path, which: str, out: Path) -> None:
    import_store(inputs / f"{which}.h5", out, ImportConfig(overwrite=True))


def _imported(path: Path) -> Any:
    store = Store(path)
    return {
        str(store.column("clip_id")[row]): {tap: store.read(tap, row).tolist() for tap in store.taps}
        for row in store.done_rows().tolist()
    }


def _manifest(inputs: Path, which: str, out: Path) -> None:
    clips = [{"clip_id": f"{which}{i}", "video": f"{i}.mp4", "label": "a", "kcal": float(i)} for i in range(200)]
    manifests.write(make_manifest(out.parent, clips), out, overwrite=True)


def _lines(path: Path) -> Any:
    return [clip.clip_id for clip in manifests.read(path).clips]


MAKINGS: Mapping[str, Making] = {
    "export hdf5": Making("e.h5", _export(format="hdf5"), _exported),
    "export safetensors": Making("e.safetensors", _export(format="safetensors"), _exported),
    "export npy": Making("e", _export(format="npy"), _exported),
    "import": Making("i.zarr", _import, _imported),
    "manifest": Making("m.csv", _manifest, _lines),
}


def problems(
    making: Making, moment: Moment, way: str, seed: int, folder: Path, inputs: Path, known: list[Any]
) -> list[str]:
    """What does not hold in one state, a sentence each; `known` is the old content and the new one."""
    write_state(moment, way, folder, seed)
    out = folder / making.name
    wrong = []
    try:
        if making.content(out) not in (known[1:] if moment.noted else known):
            wrong.append("it is neither the old one nor the new one")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the attack is for
        wrong.append(f"reading: {type(error).__name__}: {error}")
    try:
        making.make(inputs, "new", out)
        if making.content(out) != known[1]:
            wrong.append("after the same command again it is not the new one")
        if left := [path.name for path in folder.iterdir() if path != out]:
            wrong.append(f"after the same command again {left} is left")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the attack is for
        wrong.append(f"the same command again: {type(error).__name__}: {error}")
    return wrong


def try_making(name: str, states: int, seed: int) -> Tried:
    """Tries `states` states: kills at different moments first, then power cuts."""
    making = MAKINGS[name]
    with memory_folder("files-cut-") as root, one_thread():
        inputs = _inputs(root)
        moments, known = _watched(making, root, inputs)
        failed = wrong_states(
            moments, states, seed, root,
            lambda moment, way, own, state: problems(making, moment, way, own, state, inputs, known),
        )  # fmt: skip
    facts = {"moments": len(moments), "different states": len(different(moments))}
    return Tried(kind=name, tried=states, not_held=tuple(failed), facts=facts)


def _inputs(root: Path) -> Path:
    inputs = root / "inputs"
    inputs.mkdir()
    grow(inputs / "old.zarr", FIRST)
    grow(inputs / "new.zarr", dict(list(MORE.items())[:3]))
    for which in ("old", "new"):
        export(inputs / f"{which}.zarr", inputs / f"{which}.h5", ExportConfig(format="hdf5"))
    return inputs


def _watched(making: Making, root: Path, inputs: Path) -> tuple[list[Moment], list[Any]]:
    """(every moment of replacing the old one, what is in the old one and in the new one)."""
    folder = root / "written"
    folder.mkdir()
    out = folder / making.name
    making.make(inputs, "old", out)
    known = [making.content(out)]
    disk = Disk(folder)
    with disk.recording():
        making.make(inputs, "new", out)
        disk.note("made")
    known.append(making.content(out))
    return disk.moments, known


def attack(count: int, seed: int) -> Iterator[Tried]:
    """`count` states, of each kind of file as many."""
    for name in MAKINGS:
        yield try_making(name, count // len(MAKINGS), seed)
