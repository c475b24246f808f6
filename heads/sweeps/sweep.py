"""A sweep: many trainings of one job, each a run directory, and the one that validation prefers.

`sweep(config)` trains every combination of the values in `config.sweep`, each --repeats times, or, stepwise,
tunes one field after the other. A member gives the same numbers as its configuration trained alone: to the bit with
processes, within the tolerance of `reelbank.heads.sweeps.stacked` stacked. The files, beside `members/<name>/` (run
directories without a report):

`config.json`   (written first) format_version · kind "sweep" · config: every field of SweepConfig's parts · data_digest
`sweep.json`    (written last) see `reelbank.heads.sweeps.report.summarize`
`sweep.csv`     one row per member: the swept values, seed, status, val_loss, val_accuracy, val_mae, best epoch
`sweep.png`     the grid
`report.html`   all of it as a page, which leads to the reports of the winner's runs
`.shared-*`     mapped features while it runs
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reelbank.heads.config import HeadConfig, TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.features import NO_FEATURES
from reelbank.heads.examples.prepared import Prepared, prepare
from reelbank.heads.reports.drawing import figures_as, files_of
from reelbank.heads.runs.directory import (
    name_of_run,
    not_finished,
    open_directory,
    refuse_other_config,
    resumable,
    try_out,
    write_json,
)
from reelbank.heads.runs.watching import watched
from reelbank.heads.stored import read_config, read_json
from reelbank.heads.sweeps.config import MembersConfig, SweepConfig
from reelbank.heads.sweeps.grid import Axis, Member, combinations, members_of, parse_axes, value_text
from reelbank.heads.sweeps.member_pool import MEMBER_MODULES, Done, Note, train_in_processes
from reelbank.heads.sweeps.page import sweep_page
from reelbank.heads.sweeps.report import Trial, choose, criterion, draw, summarize, sweep_text, trial_of, write_csv
from reelbank.heads.sweeps.stacked import train_stacked
from reelbank.manifests.events import Event, Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.store.devices import resolve_device
from reelbank.store.files import write_whole
from reelbank.store.options import flat
from reelbank.store.processes import import_ahead, leave_if_importing

FORMAT_VERSION = 1

Executor = Callable[[Sequence[TrainConfig], Path, int, Done, Note], None]
EXECUTORS: Mapping[str, Executor] = {"processes": train_in_processes, "stacked": train_stacked}


def executor_name(members: MembersConfig, device: str, heads: Iterable[HeadConfig]) -> str:
    """Which row of EXECUTORS trains members with these heads.

    Raises TrainingError for a stack of heads that are too large for one.
    """
    if members.executor == "stacked" and (large := [head.name for head in heads if head.plan is not None]):
        raise TrainingError(
            f"--executor stacked trains many small heads in one step, and head {large[0]!r}, which reads arrays, fills "
            "the device by itself; leave --executor out"
        )
    if members.executor != "auto":
        return members.executor
    return "stacked" if resolve_device(device).startswith("cuda") else "processes"


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """A finished sweep.

    Attributes:
        directory: where its files lie.
        results: the content of sweep.json.
    """

    directory: Path
    results: Mapping[str, Any]

    @property
    def has_failures(self) -> bool:
        """Whether a member could not be trained; sweep.json says why."""
        return any(member["status"] == "failed" for member in self.results["members"])

    @property
    def winner(self) -> Mapping[str, Any]:
        """{values, members, value, reported}: the combination that validation prefers."""
        chosen: Mapping[str, Any] = self.results["winner"]
        return chosen

    def text(self) -> str:
        """The sweep for a terminal: a table sorted by the selecting metric, the winner, where the files are."""
        return sweep_text(self.directory, self.results)


@with_bar("sweep")
def sweep(config: SweepConfig, progress: Progress | None = None) -> SweepResult:
    """Trains the members that `config` asks for and chooses one on validation.

    With `--resume` finished members are kept and the others go on from their checkpoints; more values, fields of
    --sweep in the same order and repeats may be asked for than before.

    Args:
        config: what to train, what varies.
        progress: called with an Event of stage `sweep` after every member.

    Raises:
        TrainingError: a field that cannot be swept, a value it cannot take, no member that could be trained, and
            whatever `train_head` raises before it trains.
    """
    leave_if_importing()
    axes = parse_axes(config.sweep)
    members_of(config, combinations(axes), Path())  # every combination is possible, before anything is written
    name = executor_name(config.members, config.train.run.device, [config.train.head])
    if name == "processes":
        import_ahead(MEMBER_MODULES)
    prepared = prepare(config.train, progress)
    try_out(prepared)
    directory = open_directory(config.train.run, name_of_run(config.train), config)
    _start(directory, config, prepared)
    # The executors read the features once more, into memory that members share; here they are not needed.
    prepared = replace(prepared, features=NO_FEATURES)
    with resumable(directory), shared_folder(directory) as folder:
        state = _Sweep(
            config=config,
            directory=directory,
            folder=folder,
            executor=EXECUTORS[name],
            progress=progress,
            has_target=prepared.bins is not None,
        )
        steps = state.stepwise(axes) if config.stepwise else state.whole(axes)
    results = summarize(
        config, prepared, axes, list(state.trials.values()), steps, run=directory.name, executor=name, notes=state.notes
    ) | {"seconds": round(time.perf_counter() - state.started, 3)}
    write_csv(directory / "sweep.csv", results)
    with figures_as(config.train.run.figures):
        picture = draw(results, prepared)
    for name, content in files_of("sweep.png", picture).items():
        write_whole(directory / name, content)
    write_json(directory / "sweep.json", results)
    if config.train.run.report:
        from reelbank.heads.reports.run_page import write_run_report

        for member in results["winner"]["members"]:
            write_run_report(directory / "members" / member, figures_kind=config.train.run.figures)
        write_whole(directory / "report.html", sweep_page(directory, results, picture))
    return SweepResult(directory=directory, results=results)


def _start(directory: Path, config: SweepConfig, prepared: Prepared) -> None:
    path, digest = directory / "config.json", prepared.data_digest()
    if config.train.run.resume and read_json(path, {"data_digest": str})["data_digest"] != digest:
        raise TrainingError(
            f"--resume: the stores of {directory} have changed (clips, labels or features); start another sweep"
        )
    not_finished(directory, "sweep.json")
    write_json(
        path,
        {"format_version": FORMAT_VERSION, "kind": "sweep", "config": config.to_json(), "data_digest": digest},
    )


@contextmanager
def shared_folder(directory: Path) -> Iterator[Path]:
    """A folder below `directory` for what processes share; it is removed at the end, or by the next call."""
    for left in directory.glob(".shared-*"):  # by a sweep that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".shared-", dir=directory, ignore_cleanup_errors=True) as name:
        yield Path(name)


@dataclass(kw_only=True)
class _Sweep:
    """A sweep under way; `trials` {member name: what came of it}, `notes` sentences about the whole."""

    config: SweepConfig
    directory: Path
    folder: Path
    executor: Executor
    progress: Progress | None
    has_target: bool

    def __post_init__(self) -> None:
        self.trials: dict[str, Trial] = {}
        self.notes: list[str] = []
        self.started = time.perf_counter()

    def whole(self, axes: Sequence[Axis]) -> list[dict[str, Any]]:
        """Every combination at once."""
        members = members_of(self.config, combinations(axes), self.directory)
        self._train(members, len(members))
        return []

    def stepwise(self, axes: Sequence[Axis]) -> list[dict[str, Any]]:
        """One field after the other, each from the winner so far; what was chosen at each step."""
        values = flat(self.config.train)
        point = {axis.field: values[axis.field] for axis in axes}
        total = sum(len(axis.values) for axis in axes) * self.config.members.repeats
        metric, _ = criterion(self.config.sweep_by, axes, has_target=self.has_target)
        steps = []
        for axis in axes:
            members = members_of(self.config, [{**point, axis.field: value} for value in axis.values], self.directory)
            self._train(members, total)
            best = choose([self.trials[member.name] for member in members], metric)
            point[axis.field] = best.values[axis.field]
            steps.append({"field": axis.field, "chosen": value_text(point[axis.field]), metric: best.mean})
        return steps

    def _train(self, members: Sequence[Member], total: int) -> None:
        open_members = []
        for member in members:
            if member.name in self.trials:
                continue
            if _is_finished(member):
                self._note(member, None, total)
            else:
                open_members.append(member)
        if not open_members:
            return
        configs = [m.config.but(resume=(m.directory / "config.json").exists()) for m in open_members]
        # The first to be trained reads the stores here, so that a fault of theirs is an error and no failed member.
        prepare(configs[0], self.progress, FeatureCache(self.folder))
        ended: set[Path] = set()

        def done(position: int, error: str | None) -> None:
            ended.add(open_members[position].directory)
            self._note(open_members[position], error, total)

        def tell(text: str = "", note: str = "") -> None:
            if self.progress is not None:
                self.progress(Event(stage="sweep", done=len(self.trials), total=total, message=text, note=note))

        def take_note(text: str) -> None:
            self.notes.append(text)
            tell(note=text)

        with watched(configs, ended, tell):
            self.executor(configs, self.folder, self.config.members.workers, done, take_note)

    def _note(self, member: Member, error: str | None, total: int) -> None:
        trial = trial_of(member, error)
        self.trials[member.name] = trial
        if self.progress is not None:
            count = len(self.trials)
            outcome = f"failed: {error}" if error else f"val_loss {trial.val_loss:.4g}"
            self.progress(
                Event(
                    stage="sweep",
                    done=count,
                    total=max(total, count),
                    message=f"member {count} of {max(total, count)} ({member.name}) {outcome}",
                    values={} if error else {"val_loss": trial.val_loss},
                )
            )


def _is_finished(member: Member) -> bool:
    """Whether an earlier call trained this member; fewer epochs than now asked for are continued."""
    directory = member.directory
    if not (directory / "results.json").exists():
        return False
    refuse_other_config(directory, member.config)
    return bool(read_config(directory)["config"]["epochs"] == member.config.optimizer.epochs)
