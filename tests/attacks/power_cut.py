"""Power cuts and kills while a store is written: no byte may be wrong that counts, nothing said to be done be lost.

Each scenario is written once over a model of a disk (`disk.py`). At moments of it the states that a power cut may leave
are laid out; in each the store is read, then the same command runs again and must make it whole. In some that second
run is cut or killed too, and a third must. What a kill leaves is tried at every moment by `crash_points.py`.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import zarr
from numpy.typing import NDArray

import reelbank.store
from attacks import Tried, memory_folder
from attacks.disk import WAYS, Disk, Moment, write_state
from reelbank.store import FeatureSpec, StoreError, layout, merge, verify
from reelbank.store.files import only_writer
from reelbank.store.layout import DONE, FAILED
from reelbank.store.spec import TapSpec
from reelbank.store.staging import ClipStage, Outcome, stage_failure
from reelbank.store.testing import make_manifest
from reelbank.store.writer import StoreWriter, clip_identity, remove_unfinished

TAPS = (
    TapSpec(name="pool", dtype="float16", axes=("channel",), shape=(5,)),
    TapSpec(name="map", dtype="uint8", axes=("y", "x"), shape=(2, 3)),
)
SPEC = FeatureSpec(backbone="toy", weights={"kind": "none"}, taps=TAPS, sampling="all", views=("original", "flip"))
COUNT = 2000
UNIT_CLIPS = 3
"""So that a store of a few clips has several units, the last of them partly filled."""
Said = Callable[[str], None]


@dataclass(frozen=True)
class Video:
    """A clip as a run finds it: `content` stands for its bytes, `time` for their age; a broken one fails."""

    content: int
    steps: int = 3
    broken: bool = False
    views: int = 2
    time: int = 0


Videos = Mapping[str, Video]


def features(clip_id: str, video: Video, tap: TapSpec, view: int) -> NDArray[np.generic]:
    """The features of a clip: they follow from its bytes."""
    seed = [video.content, view, *clip_id.encode(), *tap.name.encode()]
    values = np.random.default_rng(seed).integers(1, 200, size=(video.steps, *tap.shape))
    return values.astype(tap.dtype)


def grow(path: Path, videos: Videos, said: Said = lambda clip_id: None) -> None:
    """What `featurize` does with a store, in its order, without videos: see `extract.run`'s featurize, todo and commit.

    `said` is told of each clip when it is committed, and at the end of those that were done before.
    """
    manifest = make_manifest(path.parent, [{"clip_id": name, "kcal": float(v.content)} for name, v in videos.items()])
    given = list(videos.items())
    with only_writer(path):
        writer = StoreWriter.open_or_create(path, SPEC, fixed_steps=None, num_clips=4, provenance={})
        remove_unfinished(path)
        rows = writer.sync_manifest(manifest).tolist()

        def identity(i: int) -> dict[str, str]:
            return clip_identity(manifest.clips[i], SPEC.digest, str(given[i][1].content))

        def accepts(outcome: Outcome) -> bool:
            return outcome.row in rows and dict(outcome.identity) == identity(rows.index(outcome.row))

        status, hashes, stats = writer.ledger("status"), writer.ledger("content_hash"), writer.file_stats()
        recovered = writer.recover(accepts)[0]
        todo, touched, before = {}, {}, []
        for i, (row, (clip_id, video)) in enumerate(zip(rows, given, strict=True)):
            if row in recovered:
                continue
            if str(hashes[row]) == str(video.content) and status[row] == (FAILED if video.broken else DONE):
                before.append(clip_id)
                if stats.get(row) != (1, video.time):
                    touched[row] = (1, video.time)
            else:
                todo[row] = i
        writer.note_unchanged(touched)

        units = Counter(writer.geometry.unit_of(row) for row in (*todo, *recovered))
        ready: dict[int, list[Outcome]] = {}
        for outcome in recovered.values():
            ready.setdefault(writer.geometry.unit_of(outcome.row), []).append(outcome)

        def commit(wanted: Sequence[int]) -> None:
            for unit in wanted:
                outcomes = ready.pop(unit)
                units[unit] -= len(outcomes)
                writer.commit(unit, outcomes, {})
                for outcome in outcomes:
                    if outcome.status == DONE:
                        said(outcome.identity["clip_id"])

        for row, i in todo.items():
            outcome = _extracted(path, row, given[i][0], given[i][1], identity(i))
            ready.setdefault(writer.geometry.unit_of(row), []).append(outcome)
            commit([unit for unit, outcomes in ready.items() if len(outcomes) == units[unit]])
        commit(list(ready))
        for clip_id in before:
            if not videos[clip_id].broken:
                said(clip_id)


def _extracted(path: Path, row: int, clip_id: str, video: Video, identity: Mapping[str, str]) -> Outcome:
    """What a worker stages of one clip."""
    stat = (1, video.time)
    facts = {"content_hash": str(video.content), "num_frames": video.steps}
    if video.broken:
        return stage_failure(path, row, identity, {**facts, "reason": "broken"}, stat)
    stage = ClipStage(path, row, TAPS, video.views)
    for tap in TAPS:
        for view in range(video.views):
            for part in np.array_split(features(clip_id, video, tap, view), 2):
                stage.append(tap, part, view)
    steps = np.arange(video.steps)
    thumbnail = np.full((72, 96, 3), video.content % 256, np.uint8)
    return stage.finish(identity, facts, steps / 25.0, steps, thumbnail, stat)


def wrong_clips(path: Path, *videos: Videos) -> list[str]:
    """Clips that count as done and are not those of one of `videos`, a sentence each."""
    store = reelbank.store.open(path)
    wrong = []
    for row in store.done_rows().tolist():
        clip_id = str(store.column("clip_id")[row])
        content = str(store.clips.content_hash[row])
        meant = [given[clip_id] for given in videos if clip_id in given and str(given[clip_id].content) == content]
        if not meant:
            wrong.append(f"{clip_id} is done with the bytes {content!r}, which no run has seen")
            continue
        video = meant[0]
        for tap in TAPS:
            for view in range(video.views):
                expected = features(clip_id, video, tap, view)
                found, mask = store.gather(tap.name, np.array([row]), view)
                if int(store.num_steps[row]) != video.steps or not np.array_equal(found[0][mask[0]], expected):
                    wrong.append(f"{clip_id}: view {view} of tap {tap.name} is not what was extracted")
                mean = expected.astype(np.float64).mean(axis=0)
                if tap.is_vector and not np.allclose(store.mean(tap.name, view)[row], mean, atol=1e-3):
                    wrong.append(f"{clip_id}: the mean of view {view} is another")
    return wrong


@dataclass(frozen=True)
class Scenario:
    """What is there before, what is written while the disk is watched, and what a run must make of any state.

    Attributes:
        before, after: videos of the store before and after.
        write: the command under attack.
        name: of the store that is written.
    """

    before: Videos
    after: Videos
    write: Callable[[Path, Videos, Said], None] = grow
    name: str = "s.zarr"
    also: Mapping[str, Videos] = field(default_factory=dict)


def _merge(path: Path, videos: Videos, said: Said) -> None:
    merge(path, [path.parent / "a.zarr", path.parent / "b.zarr"], overwrite=True)
    for clip_id in videos:
        said(clip_id)


FIRST = {f"c{i}": Video(content=10 + i, steps=2 + i % 3) for i in range(5)}
MORE = {f"d{i}": Video(content=30 + i, steps=4, views=1 + i % 2) for i in range(4)}
BROKEN = {"e0": Video(content=50, broken=True)}
FEW, TWO = dict(list(FIRST.items())[:2]), dict(list(MORE.items())[:2])
ONE_VIEW = {f"f{i}": Video(content=70 + i, views=1) for i in range(4)}
CHANGED = {"c0": replace(FIRST["c0"], time=9), "c1": Video(content=99, steps=6), "c4": Video(content=98, steps=1)}
SCENARIOS: Mapping[str, Scenario] = {
    "new": Scenario({}, FIRST),
    "growth": Scenario(FIRST, {**FIRST, **MORE}),
    "retry": Scenario({**FIRST, **BROKEN}, {**FIRST, "e0": Video(content=51, steps=5)}),
    "overwrite": Scenario(FIRST, FIRST | CHANGED),
    "views": Scenario(
        {**ONE_VIEW, "g0": Video(content=80, views=2)},
        {**ONE_VIEW, "f1": Video(content=81, views=2), "g0": Video(content=82, views=1), "g1": Video(content=83)},
    ),
    "merge": Scenario({}, FEW | TWO, _merge, "m.zarr", {"a.zarr": FEW, "b.zarr": TWO}),
    "merge over": Scenario(BROKEN | TWO, FEW | TWO, _merge, "m.zarr", {"a.zarr": FEW, "b.zarr": TWO}),
}


def watched(scenario: Scenario, folder: Path) -> list[Moment]:
    """Writes the scenario in `folder`; every moment of it."""
    for name, videos in scenario.also.items():
        grow(folder / name, videos)
    if scenario.before:
        grow(folder / scenario.name, scenario.before)
    os.sync()
    disk = Disk(folder)
    for clip_id, video in scenario.before.items():
        if not video.broken and _same_bytes(scenario.after.get(clip_id), video):
            disk.note(clip_id)
    with disk.recording():
        scenario.write(folder / scenario.name, scenario.after, disk.note)
    return disk.moments


def _same_bytes(one: Video | None, other: Video) -> bool:
    return one is not None and replace(one, time=other.time) == other


def problems(scenario: Scenario, moment: Moment, way: str, seed: int, folder: Path) -> list[str]:
    """What does not hold in one state, a sentence each."""
    write_state(moment, way, folder, seed)
    path = folder / scenario.name
    found = []
    try:
        done: set[str] = set()
        if (path / "zarr.json").exists() and (path / "zarr.json").read_bytes():
            store = reelbank.store.open(path)
            done = set(store.column("clip_id")[store.done_rows()].tolist()) if store.num_clips else set()
            found += wrong_clips(path, scenario.before, scenario.after)
        if lost := {str(one) for one in moment.noted} - done:
            found.append(f"{', '.join(sorted(lost))} had been reported and is not done")
    except StoreError as error:
        if moment.noted:
            found.append(f"reported clips cannot be read: {error}")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the attack is for
        found.append(f"reading: {type(error).__name__}: {error}")
    try:
        scenario.write(path, scenario.after, lambda clip_id: None)
        found += [f"after the same command again: {text}" for text in wrong_clips(path, scenario.after)]
        store = reelbank.store.open(path)
        missing = {name for name, video in scenario.after.items() if not video.broken}
        missing -= set(store.column("clip_id")[store.done_rows()].tolist())
        if missing:
            found.append(f"after the same command again: {', '.join(sorted(missing))} is not done")
        found += [f"after the same command again: {text}" for text in verify(path).problems]
        if left := [p.name for p in (path / "staging").iterdir() if p.name not in ("zarr.json", "c")]:
            found.append(f"after the same command again: staging holds {left}")
        if left := [p.name for p in folder.rglob(".*") if p.suffix in (".partial", ".part", ".old")]:
            found.append(f"after the same command again: {left} is left")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the attack is for
        found.append(f"the same command again: {type(error).__name__}: {error}")
    return found


def rerun(scenario: Scenario, moment: Moment, way: str, seed: int, folder: Path) -> list[Moment]:
    """The same command in one state: every moment of it.

    What only a kill left unflushed is still so: a power cut during the second run may take it.
    """
    write_state(moment, way, folder, seed)
    disk = Disk(folder, moment if way == "killed" else None)
    for clip_id in moment.noted:
        disk.note(clip_id)
    with disk.recording():
        scenario.write(folder / scenario.name, scenario.after, disk.note)
    return disk.moments


@contextmanager
def one_thread() -> Iterator[None]:
    """Zarr works in the thread that asks: the same operations in the same order, without the time of the hand-overs."""
    loop = asyncio.new_event_loop()

    def submitted(work: Coroutine[Any, Any, Any], _: asyncio.AbstractEventLoop) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(loop.run_until_complete(work))
        return future

    async def here(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    originals = asyncio.run_coroutine_threadsafe, asyncio.to_thread
    asyncio.run_coroutine_threadsafe, asyncio.to_thread = submitted, here
    try:
        with zarr.config.set({"async.concurrency": 1}):
            yield
    finally:
        asyncio.run_coroutine_threadsafe, asyncio.to_thread = originals
        loop.close()


@contextmanager
def written(name: str) -> Iterator[tuple[Scenario, list[Moment], Callable[[], Path]]]:
    """(scenario, its moments, makes an empty folder in the place of the last one)."""
    scenario = SCENARIOS[name]
    with memory_folder("power-cut-") as root, mock.patch.object(layout, "MAX_UNIT_CLIPS", UNIT_CLIPS), one_thread():

        def empty() -> Path:
            shutil.rmtree(root / "state", ignore_errors=True)
            (root / "state").mkdir()
            return root / "state"

        (root / "written").mkdir()
        yield scenario, watched(scenario, root / "written"), empty


def try_states(name: str, states: int, seed: int) -> Tried:
    """Tries `states` states of a scenario: half of them in the ways of WAYS, half random."""
    failed: list[str] = []
    with written(name) as (scenario, moments, empty):
        draw = random.Random(seed)
        plan = [(i, way, 0) for i in range(len(moments)) for way in WAYS]
        draw.shuffle(plan)
        plan = plan[: states // 2]
        while len(plan) < states:
            plan.append((draw.randrange(len(moments)), "random", draw.randrange(2**31)))
        for place, way, own in plan:
            where = f"{way} (seed {own}) before {place} ({moments[place].what})"
            failed += [f"{where}: {text}" for text in problems(scenario, moments[place], way, own, empty())]
    return Tried(kind=f"{name}, cut", tried=states, not_held=tuple(failed), facts={"moments": len(moments)})


def try_recoveries(name: str, states: int, seed: int, *, of_each: int = 5) -> Tried:
    """Tries `states` states of a scenario in which the run that recovers was cut or killed, `of_each` of one run."""
    failed: list[str] = []
    tried = 0
    with written(name) as (scenario, moments, empty):
        draw = random.Random(seed)

        def drawn(among: Sequence[Moment]) -> tuple[int, str, int]:
            way = draw.choice((*WAYS, "killed", "random", "random"))
            return draw.randrange(len(among)), way, draw.randrange(2**31)

        while tried < states:
            place, way, own = drawn(moments)
            again = rerun(scenario, moments[place], way, own, empty())
            for number in range(min(of_each, states - tried)):
                # First the least that may be left of all that the second run did.
                second, other, its = drawn(again) if number else (len(again) - 1, "lost", 0)
                where = f"{way} (seed {own}) before {place}, then {other} (seed {its}) before {second}"
                texts = problems(scenario, again[second], other, its, empty())
                failed += [f"{where} ({again[second].what}): {text}" for text in texts]
                tried += 1
    return Tried(kind=f"{name}, recovery cut", tried=tried, not_held=tuple(failed), facts={"moments": len(moments)})


def attack(count: int, seed: int) -> Iterator[Tried]:
    """`count` states, of each scenario as many: three of four after one cut, the others after a cut of the recovery."""
    share = [count // len(SCENARIOS) + (i < count % len(SCENARIOS)) for i in range(len(SCENARIOS))]
    for name, states in zip(SCENARIOS, share, strict=True):
        yield try_states(name, states - states // 4, seed)
        yield try_recoveries(name, states // 4, seed)
