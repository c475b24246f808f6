"""Single bits of a store flipped: noticed by `verify`, or nothing that a reader gets is another.

For each flip: `verify` gives a problem, or every value of the store is as before. Readers and `train-head` give the
sound values or a sentence, never another value. `--repair` and the same extraction again give the store back, but for
what is said to be lost.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from attacks import Tried, memory_folder
from attacks.power_cut import Video, grow, wrong_clips
from reelbank.heads import TrainConfig, TrainingError, train_head
from reelbank.store import Store, StoreError, layout, repair, verify
from reelbank.store.layout import LEDGER
from reelbank.store.sums import read_summed
from reelbank.store.testing import write_store

COUNT = 400
UNIT_CLIPS = 4
VIDEOS: Mapping[str, Video] = {
    **{f"c{i}": Video(content=10 + i, steps=2 + i % 3, views=1 + i % 2) for i in range(7)},
    "broken": Video(content=50, broken=True),
    "long": Video(content=51, steps=300),
}


def make(folder: Path) -> Path:
    """A store of three units: two taps, two views, thumbnails, targets, a clip that failed and one of many chunks."""
    path = folder / "s.zarr"
    with mock.patch.object(layout, "MAX_UNIT_CLIPS", UNIT_CLIPS):
        grow(path, VIDEOS)
    return path


def content(path: Path) -> dict[str, Any]:
    """Everything that a reader can get. Raises StoreError."""
    store = Store(path)
    found: dict[str, Any] = {
        "attributes": read_summed(path / "zarr.json")["attributes"],
        **{f"column {name}": store.column(name) for name in store.column_names},
        **{f"clips/{name}": getattr(store.clips, name) for name, kind in LEDGER.items() if kind.axis != "step"},
    }
    for row in range(store.num_clips):
        found[f"thumbnail {row}"] = store.thumbnail(row)
        found[f"seconds {row}"], found[f"index {row}"] = store.step_seconds(row), store.frame_index(row)
    for tap in store.spec.taps:
        found[f"checksums {tap.name}"] = store.checksums(tap.name)
        for row in store.done_rows().tolist():
            found[f"{tap.name} {row}"] = store.read(tap.name, row).copy()
        for view in range(len(store.spec.views)):
            if tap.is_vector:
                found[f"mean {tap.name} {view}"] = store.mean(tap.name, view)
                found[f"std {tap.name} {view}"] = store.std(tap.name, view)
            done = store.done_rows()
            rows = done[store.clips.num_views[done] > view]
            found[f"gathered {tap.name} {view}"] = Store(path).gather(tap.name, rows, view)[0]
    return found


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Names of what is not the same."""
    return [
        name for name in sorted({*found, *expected})
        if name not in found or name not in expected or not _same(found[name], expected[name])
    ]  # fmt: skip


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return bool(a == b)


def flip(path: Path, draw: random.Random) -> tuple[str, int]:
    """Flips a bit of a file drawn from all, small ones as often as large ones; its name and the bit."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
    file = draw.choice(files)
    data = bytearray(file.read_bytes())
    bit = draw.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)
    return file.relative_to(path).as_posix(), bit


def problems(path: Path, sound: Mapping[str, Any], ends: Counter[str]) -> list[str]:
    """What does not hold for one damaged store; `ends` counts how it was."""
    found = []
    try:
        noticed = not verify(path).is_sound
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the attack is for
        return [f"verify: {type(error).__name__}: {error}"]
    try:
        others = differences(content(path), sound)
        found += [f"read without a word: {', '.join(others)}"] if others else []
        ends["read as before"] += not others
    except StoreError as error:
        ends["refused by readers"] += 1
        found += [] if "\n" not in str(error) else [f"no sentence: {error}"]
        if not noticed:
            found.append(f"verify calls it sound, its reader says: {error}")
    except Exception as error:  # noqa: BLE001
        found.append(f"reading: {type(error).__name__}: {error}")
    ends["noticed" if noticed else "harmless"] += 1
    try:
        repair(path)
        grow(path, VIDEOS)
        found += [f"after repair: {text}" for text in wrong_clips(path, VIDEOS)]
        found += [f"after repair: {text}" for text in verify(path).problems]
        healed = content(path)
        lasting = [name for name in differences(healed, sound) if name not in NOT_GIVEN_BACK]
        if lasting:
            found.append(f"after repair another: {', '.join(lasting)}")
    except Exception as error:  # noqa: BLE001
        found.append(f"repair: {type(error).__name__}: {error}")
    return found


NOT_GIVEN_BACK = ("clips/attempts",)
"""How often a clip was extracted is another number after a repair."""


def flipped(whole: Path, count: int, seed: int, judge: Callable[[Path], list[str]]) -> list[str]:
    """What does not hold for `count` copies of a store with one bit flipped in each."""
    draw, failed = random.Random(seed), []
    folder = whole.parent / "tried"
    for number in range(count):
        path = Path(shutil.copytree(whole, folder / whole.name))
        name, bit = flip(path, draw)
        failed += [f"flip {number}, bit {bit} of {name}: {text}".replace(str(folder), "") for text in judge(path)]
        shutil.rmtree(folder)
    return failed


def try_flips(count: int, seed: int) -> Tried:
    """`count` flips of a store that this version wrote."""
    ends: Counter[str] = Counter()
    with memory_folder("bit-flips-") as folder:
        whole = make(folder)
        sound = content(whole)
        failed = flipped(whole, count, seed, lambda path: problems(path, sound, ends))
    facts = dict(sorted(ends.items()))
    return Tried(kind="a bit of any file of a store", tried=count, not_held=tuple(failed), facts=facts)


def train(path: Path) -> bytes:
    """Predictions of a small head that is trained on the store."""
    run = path.parent / "run"
    train_head(
        TrainConfig.of(
            store=(path,), run=run, head="linear", loss="ce", epochs=2, report=False, device="cpu", threads=1
        )
    )
    return (run / "predictions.csv").read_bytes()


def try_trainings(count: int, seed: int) -> Tried:
    """`count` flips of a store that a head is trained on: the same predictions or a sentence."""
    ends: Counter[str] = Counter()

    def judge(path: Path) -> list[str]:
        try:
            same = train(path) == expected
        except (StoreError, TrainingError):
            ends["refused"] += 1
            return []
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the attack is for
            return [f"train-head: {type(error).__name__}: {error}"]
        ends["the same predictions"] += same
        return [] if same else ["train-head trained on it and predicts something else"]

    with memory_folder("bit-flips-") as folder:
        draw = np.random.default_rng(0)
        clips = [
            {"clip_id": f"c{i}", "label": "ab"[i % 2], "group": f"g{i}", "split": ("train", "val", "test")[i % 3]}
            for i in range(30)
        ]
        values = [(draw.normal(size=(4, 6)) + i % 2).astype(np.float16) for i in range(30)]
        whole = write_store(folder / "s.zarr", {"pool": values}, clips, fixed_steps=4).path
        (folder / "sound").mkdir()
        expected = train(Path(shutil.copytree(whole, folder / "sound" / whole.name)))
        failed = flipped(whole, count, seed, judge)
    facts = dict(sorted(ends.items()))
    return Tried(kind="a bit of a store, then train-head", tried=count, not_held=tuple(failed), facts=facts)


def attack(count: int, seed: int) -> Iterator[Tried]:
    """`count` flips of each kind."""
    yield try_flips(count, seed)
    yield try_trainings(count, seed)
