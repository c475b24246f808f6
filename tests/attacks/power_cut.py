"""Power cuts and kills while a store is written: no byte may be wrong that counts, nothing said to be done be lost.

Each scenario is written once over a model of a disk (`disk.py`). At moments of it, every one or a sample, the states
that a power cut may leave are laid out; in each the store is read, then the same command runs again and must make it
whole.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zarr
from attacks import Tried
from attacks.disk import WAYS, Disk, Moment, write_state
from numpy.typing import NDArray

import reelbank.store
from reelbank.store import FeatureSpec, StoreError, merge, verify
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
SHM = Path("/dev/shm")
"""Where a sync costs nothing."""
Said = Callable[[str], None]


@dataclass(frozen=True)
class Video:
    """A clip as a run finds it: `content` stands for its bytes; a broken one fails."""

    content: int
    steps: int = 3
    broken: bool = False
    views: int = 2


Videos = Mapping[str, Video]


def features(clip_id: str, video: Video, tap: TapSpec, view: int) -> NDArray[np.generic]:
    """The features of a clip: they follow from its bytes."""
    seed = [video.content, view, *clip_id.encode(), *tap.name.encode()]
    values = np.random.default_rng(seed).integers(1, 200, size=(video.steps, *tap.shape))
    return values.astype(tap.dtype)


def grow(path: Path, videos: Videos, said: Said = lambda clip_id: None) -> None:
    """What `featurize` does with a store, without videos: finished clips are kept, the others made and committed."""
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

        status, hashes = writer.ledger("status"), writer.ledger("content_hash")
        staged = dict(writer.recover(accepts)[0])
        for i, (row, (clip_id, video)) in enumerate(zip(rows, given, strict=True)):
            known = str(hashes[row]) == str(video.content)
            if row in staged or (known and status[row] == (FAILED if video.broken else DONE)):
                continue
            facts = {"content_hash": str(video.content), "num_frames": video.steps}
            if video.broken:
                staged[row] = stage_failure(path, row, identity(i), {**facts, "reason": "broken"}, (1, video.content))
                continue
            stage = ClipStage(path, row, TAPS, video.views)
            for tap in TAPS:
                for view in range(video.views):
                    for part in np.array_split(features(clip_id, video, tap, view), 2):
                        stage.append(tap, part, view)
            steps = np.arange(video.steps)
            thumbnail = np.full((72, 96, 3), video.content % 256, np.uint8)
            staged[row] = stage.finish(identity(i), facts, steps / 25.0, steps, thumbnail, (1, video.content))
        for unit in sorted({writer.geometry.unit_of(row) for row in staged}):
            outcomes = [outcome for row, outcome in staged.items() if writer.geometry.unit_of(row) == unit]
            writer.commit(unit, outcomes, {})
            for outcome in outcomes:
                if outcome.status == DONE:
                    said(outcome.identity["clip_id"])


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
SCENARIOS: Mapping[str, Scenario] = {
    "new": Scenario({}, FIRST),
    "growth": Scenario(FIRST, {**FIRST, **MORE}),
    "retry": Scenario({**FIRST, **BROKEN}, {**FIRST, "e0": Video(content=51, steps=5)}),
    "overwrite": Scenario(FIRST, {**FIRST, "c1": Video(content=99, steps=6), "c4": Video(content=98, steps=1)}),
    "merge": Scenario({}, {**FIRST, **MORE}, _merge, "m.zarr", {"a.zarr": FIRST, "b.zarr": MORE}),
    "merge over": Scenario(BROKEN | FIRST, {**FIRST, **MORE}, _merge, "m.zarr", {"a.zarr": FIRST, "b.zarr": MORE}),
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
        if not video.broken and scenario.after.get(clip_id) == video:
            disk.note(clip_id)
    with disk.recording():
        scenario.write(folder / scenario.name, scenario.after, disk.note)
    return disk.moments


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
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the attack is for
        found.append(f"the same command again: {type(error).__name__}: {error}")
    return found


def try_states(name: str, states: int, seed: int) -> Tried:
    """Tries `states` states of a scenario: every moment in the ways of WAYS first, then random ones."""
    scenario = SCENARIOS[name]
    root = Path(tempfile.mkdtemp(prefix="power-cut-", dir=SHM if SHM.is_dir() else None))
    try:
        (root / "written").mkdir()
        with zarr.config.set({"async.concurrency": 1}):
            moments = watched(scenario, root / "written")
            draw = random.Random(seed)
            plan = [(i, way, 0) for i in range(len(moments)) for way in WAYS]
            draw.shuffle(plan)
            plan += [(draw.randrange(len(moments)), "random", draw.randrange(2**31)) for _ in range(states)]
            half = plan[: states // 2] + plan[len(plan) - states + states // 2 :]
            failed: list[str] = []
            for place, way, own in half:
                folder = root / "state"
                folder.mkdir()
                where = f"{way} (seed {own}) before {place} ({moments[place].what})"
                texts = problems(scenario, moments[place], way, own, folder)
                failed += [f"{where}: {text}".replace(str(root), "") for text in texts]
                shutil.rmtree(folder)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return Tried(kind=name, tried=len(half), not_held=tuple(failed), facts={"moments": len(moments)})


def attack(count: int, seed: int) -> Iterator[Tried]:
    """`count` states, of each scenario as many."""
    for name in SCENARIOS:
        yield try_states(name, count // len(SCENARIOS), seed)
