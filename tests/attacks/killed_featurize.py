"""Real processes: a `featurize` is killed by SIGKILL at a change of its store, in the parent or in a worker.

What is done by then must have the features of an uninterrupted run, and the same command must make the same store. The
processes are forked from one that has imported everything and started no thread, so that no run waits for imports.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from attacks import Tried, same_path
from attacks.killing import COUNTER, PLAN

COUNT = 200
CLIPS = 6
UNIT_CLIPS = 2
MODULES = ("torch", "cv2", "zarr", "attacks.killing", "reelbank.extract.run.worker", "reelbank.extract.run.featurize")
ROLES = ("parent", "worker", "worker and parent")
PATIENCE_SECONDS = 120.0


@dataclass(kw_only=True)
class Bench:
    """Where an attack works.

    Attributes:
        root: of everything.
        before: {scenario: folder with the set and the store as the run finds it}.
        whole: {scenario: folder with the store that an uninterrupted run makes of it}.
        changes: {scenario: {role: changes of the store in that role}}.
    """

    root: Path
    before: dict[str, Path] = field(default_factory=dict)
    whole: dict[str, Path] = field(default_factory=dict)
    changes: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def plan(self) -> Path:
        """The file that says whom to kill."""
        return self.root / "plan.json"


def _extract(folder: Path, workers: int) -> None:
    from pipeline import run

    run(folder, workers=workers)


def _render(bench: Bench) -> None:
    """Sets of a few clips: one without a store, one whose store lacks clips and holds features of other bytes."""
    from pipeline import copy_set, read_lines, write_lines

    from reelbank.manifests.rendered import synth

    synth.render(bench.root / "set", clips=24, seed=3, num_frames=(32, 36))
    for name in ("new", "changed"):
        bench.before[name] = copy_set(bench.root / "set", bench.root / name, slice(0, CLIPS))
    header, rows = read_lines(bench.before["changed"])
    write_lines(bench.before["changed"], header, rows[:3])
    _extract(bench.before["changed"], 1)
    write_lines(bench.before["changed"], header, rows)
    videos = sorted((bench.before["changed"] / "videos").iterdir())
    videos[1].write_bytes(videos[CLIPS].read_bytes())


def _problems(folder: Path, bench: Bench, name: str) -> list[str]:
    """Of a store that a kill left: clips that count as done and have no features of a whole run."""
    import numpy as np
    from pipeline import store_of

    import reelbank.store

    path = store_of(folder)
    if not (path / "zarr.json").is_file() or not json.loads((path / "zarr.json").read_text()).get("attributes"):
        return []
    store = reelbank.store.open(path)
    wrong = []
    known = [
        reelbank.store.open(store_of(one)) for one in (bench.before[name], bench.whole[name]) if store_of(one).exists()
    ]
    for row in store.done_rows().tolist():
        content = str(store.clips.content_hash[row])
        for other in known:
            rows = [r for r in other.done_rows().tolist() if str(other.clips.content_hash[r]) == content]
            if rows:
                same = all(np.array_equal(store.read(tap, row), other.read(tap, rows[0])) for tap in store.taps)
                wrong += [] if same else [f"row {row} is done with wrong features"]
                break
        else:
            wrong.append(f"row {row} is done with bytes that no run has seen")
    return wrong


def _healed(folder: Path, bench: Bench, name: str) -> list[str]:
    """What differs after the same command again from the store of an uninterrupted run."""
    from pipeline import assert_same_store, store_of

    from reelbank.store import diff, verify

    path, whole = store_of(folder), store_of(bench.whole[name])
    wrong = _problems(folder, bench, name)
    _extract(folder, 1)
    assert_same_store(whole, path)
    wrong += [] if diff(whole, path).equal else ["the stores differ"]
    wrong += [str(problem) for problem in verify(path).problems]
    if left := [p.name for p in (path / "staging").iterdir() if p.name not in ("zarr.json", "c")]:
        wrong.append(f"staging holds {left}")
    if left := [p.name for p in path.rglob("*.partial")]:
        wrong.append(f"{left} is left")
    return wrong


def forked(work: Callable[[], Any], plan: Mapping[str, Any], bench: Bench) -> tuple[int, Any]:
    """Does `work` in a process of its own that `plan` may kill: (its exit status, what it returned)."""
    bench.plan.with_suffix(".killed").unlink(missing_ok=True)
    answer = bench.root / "answer.json"
    answer.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()
            bench.plan.write_text(json.dumps({**plan, "parent": os.getpid()}))
            COUNTER.role = "parent"
            answer.write_text(json.dumps(work()))
            status = 0
        except BaseException:  # noqa: BLE001 - it is said, and this process ends here
            answer.write_text(json.dumps([traceback.format_exc()]))
        finally:
            os._exit(status)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        ended, code = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(code), json.loads(answer.read_text()) if answer.exists() else None
        time.sleep(0.01)
    os.killpg(pid, 9)
    os.waitpid(pid, 0)
    return 1, [f"it did not end within {PATIENCE_SECONDS:g} s"]


def prepare(bench: Bench) -> None:
    """Renders the sets, makes the stores of uninterrupted runs and counts what they change."""
    os.environ[PLAN] = str(bench.plan)
    COUNTER.role = ""
    sys.addaudithook(COUNTER.heard)  # here; in workers the module has seen to it
    bench.plan.write_text("{}")
    multiprocessing.set_forkserver_preload(list(MODULES))
    resource_tracker.ensure_running()
    forkserver.ensure_running()
    # It is this process's child: those that are forked from here ask it for workers, but may not wait for it.
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined,method-assign]
    for module in MODULES:
        __import__(module)
    from pipeline import store_of

    from reelbank.store import layout

    layout.MAX_UNIT_CLIPS = UNIT_CLIPS
    nobody = {"store": "/nowhere", "role": "nobody", "at": 0, "both": False}
    status, answer = forked(partial(_render, bench), nobody, bench)
    assert status == 0, answer
    for name in ("new", "changed"):
        bench.before[name] = bench.root / name
        bench.whole[name] = folder = bench.root / f"{name}-whole"
        shutil.copytree(bench.before[name], folder)
        counting = {**nobody, "store": str(store_of(folder)), "role": "count"}
        status, answer = forked(partial(_extract, folder, 1), counting, bench)
        assert status == 0, answer
        found = {role: bench.plan.with_suffix(f".{role}") for role in ("parent", "worker")}
        bench.changes[name] = {role: len(file.read_text().splitlines()) for role, file in found.items()}
        for file in found.values():
            file.unlink()


def attempts(bench: Bench, count: int, seed: int) -> Iterator[tuple[str, list[str], Counter[str]]]:
    """(what was done, what did not hold, facts) of each attempt; moments are spread evenly over the whole run."""
    from pipeline import store_of

    draw = random.Random(seed)
    names = list(bench.before)
    for i in range(count):
        name, role = names[i % 2], ROLES[i // 2 % 3]
        victim = role.split()[0]
        of = bench.changes[name][victim]
        share = max(1, count // 6)
        at = 1 + int((i // 6 % share + draw.random()) * of / share)
        folder = bench.root / "attempt"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(bench.before[name], folder)
        facts: Counter[str] = Counter()
        done = f"{name}: {role} killed at change {at} of {of}"
        wrong = []
        for kill in range(1 + (i % 5 == 4)):  # now and then the run that recovers is killed too
            place = at if not kill else draw.randint(1, of)
            plan = {"store": str(store_of(folder)), "role": victim, "at": place, "both": role == ROLES[2]}
            workers = draw.choice((1, 2))
            status, answer = forked(partial(_extract, folder, workers), plan, bench)
            killed = bench.plan.with_suffix(".killed").exists()
            facts["killed" if killed else "ended before"] += 1
            if role == "worker" and status != 0:
                wrong.append(f"the run ended: {answer}")
            if kill:
                done += f", then at {place}"
        status, answer = forked(partial(_healed, folder, bench, name), {**plan, "role": "nobody"}, bench)
        yield done, [*wrong, *(["it gave no answer"] if answer is None else answer)], facts


def main() -> None:
    """The process that others are forked from: prints what was tried as JSON."""
    count, seed = (int(text) for text in sys.argv[1:])
    root = Path(tempfile.mkdtemp(prefix="killed-featurize-"))
    try:
        bench = Bench(root=root)
        prepare(bench)
        facts: Counter[str] = Counter()
        failed = []
        for done, wrong, own in attempts(bench, count, seed):
            facts += own
            failed += [f"{done}: {text}".replace(str(root), "") for text in wrong]
        print(json.dumps({"failed": failed, "facts": facts}))
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(root)


def attack(count: int, seed: int) -> Iterator[Tried]:
    """`count` runs that are killed once or twice."""
    command = [sys.executable, "-m", "attacks.killed_featurize", str(count), str(seed)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=same_path())
    if run.returncode:
        raise RuntimeError(run.stderr)
    found = json.loads(run.stdout.splitlines()[-1])
    kind = "featurize of real processes, killed"
    yield Tried(kind=kind, tried=count, not_held=tuple(found["failed"]), facts=found["facts"])


if __name__ == "__main__":
    main()
