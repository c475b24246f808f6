"""Members of a sweep trained at once: K models as one stack of parameters (K, P), one step for all of them.

A small head keeps no GPU busy: its step is the launching of kernels. Here one kernel serves K members. Learning rate,
weight decay, betas, epsilon, momentum, schedule, epochs and early stop are each member's own; a member that has ended
leaves the stack. Members in one stack share head, sizes, loss, batch and clips; others make a stack of their own.

The draws are those of the member alone (initial weights, order of clips), the arithmetic is the same in another
order: losses agree with those of the member trained alone to `TOLERANCE` while training is stable, not to the bit. A
killed sweep starts the unfinished members of a stack again. So does a stack that memory does not suffice for: it is
halved.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.prepared import Prepared, prepare
from reelbank.heads.examples.splits import Partition
from reelbank.heads.runs.checkpoints import save_progress
from reelbank.heads.runs.directory import start_run, write_finished
from reelbank.heads.runs.recording import EpochLog, fold_folder, keep_trained, log_line
from reelbank.heads.runs.results import Trained, finished
from reelbank.heads.sweeps.member_pool import Done, Note, train_member, unheard
from reelbank.heads.sweeps.stack import Stack
from reelbank.heads.training.job import Job, make_job
from reelbank.heads.training.memory import does_not_fit
from reelbank.heads.training.optimization import learning_rate
from reelbank.heads.training.trainer import EpochRecord, Trainer
from reelbank.store.devices import cpu_threads, free_bytes, is_out_of_memory, release_memory
from reelbank.store.files import make_folder

TOLERANCE = 1e-3  # relative, of validation losses: float32 sums in another order, carried through the epochs
GPU_SHARE = 0.8  # of the free memory of a GPU that a stack is planned for: libraries and gaps between tensors need some
CPU_SHARE = 0.5  # of all memory, as others work here, too
CPU_BYTES = 2**32  # at most: more models at once make a CPU no faster

T = TypeVar("T")


@dataclass(kw_only=True)
class _Member:
    """One member: its run directory, and what came of its partitions."""

    position: int
    prepared: Prepared
    directory: Path
    trained: dict[int | None, Trained]
    log: list[dict[str, Any]]
    seconds: float = 0.0
    error: str | None = None
    reported: bool = False


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """One partition of one member."""

    run: _Member
    partition: Partition

    @property
    def has_ended(self) -> bool:
        return self.run.error is not None or self.partition.fold in self.run.trained

    def forget(self) -> None:
        """Drops what was noted of its epochs: it will be trained again."""
        fold = self.partition.fold
        self.run.log[:] = [entry for entry in self.run.log if entry["fold"] != fold]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How many models are trained at once, and how many of them are validated at once."""

    size: int
    most_validated: int

    def at_most(self, size: int) -> _Plan:
        return _Plan(size=min(self.size, size), most_validated=min(self.most_validated, size))


def train_stacked(configs: Sequence[TrainConfig], folder: Path, workers: int, done: Done, note: Note = unheard) -> None:
    """Trains every configuration, as many at once as fit together; the arguments of `train_in_processes`.

    What a stack cannot follow (`TrainConfig.can_be_stacked`), as heads that read arrays, is trained one after another.
    """
    cache = FeatureCache()
    with cpu_threads(configs[0].run.threads):
        runs = []
        for position, config in enumerate(configs):
            if not config.can_be_stacked:
                done(position, train_member(config, cache))
                continue
            prepared = prepare(config, None, cache)
            directory = start_run(prepared)
            runs.append(_Member(position=position, prepared=prepared, directory=directory, trained={}, log=[]))
        groups: dict[tuple[Any, ...], list[_Unit]] = {}
        for run in runs:
            for partition in run.prepared.partitions:
                groups.setdefault(_group(run.prepared, partition), []).append(_Unit(run=run, partition=partition))
        for group in groups.values():
            _train_group(group, done, note)


def _group(prepared: Prepared, partition: Partition) -> tuple[Any, ...]:
    """Equal for partitions that can be trained in one stack."""
    config = prepared.config
    shared = config.data, config.features, config.head, config.objective, config.optimizer.name, config.optimizer.batch
    own_labels = config.seed if config.data.shuffle_labels or config.features.augment else None
    bins = None if prepared.bins is None else tuple(prepared.bins.to_json().values())
    return (*shared, own_labels, bins, prepared.labels, partition.train.tobytes(), partition.val.tobytes())


def _train_group(group: Sequence[_Unit], done: Done, note: Note) -> None:
    """Trains units that share features and labels: as many at once as memory is meant for, fewer where it runs out."""
    prepared, partition = group[0].run.prepared, group[0].partition
    device, batch = prepared.device, prepared.config.optimizer.batch
    job = _if_it_fits(device, make_job, prepared, partition)
    plan = None if job is None else _if_it_fits(device, _plan, job)
    plan = plan or _Plan(size=1, most_validated=1)  # one may fit where it could not be measured: each is tried
    waiting = list(group)
    while waiting:
        units, waiting = waiting[: plan.size], waiting[plan.size :]
        begun = time.perf_counter()
        if job is not None:
            _if_it_fits(device, _train_stack, job, units, plan.most_validated)
        share = (time.perf_counter() - begun) / len(units)
        left = [unit for unit in units if not unit.has_ended]
        if left and len(units) == 1:
            left.pop().run.error = str(does_not_fit(device, batch))
        elif left:
            plan = plan.at_most((len(left) + 1) // 2)
            note(
                f"The memory of {device} does not suffice for a stack of {len(units)} members: those that had not "
                f"ended are trained again, at most {plan.size} at once."
            )
        for unit in left:
            unit.forget()
        for unit in units:
            unit.run.seconds += share
            _finish(unit.run, done)
        waiting = left + waiting


def _if_it_fits(device: torch.device, attempt: Callable[..., T], *arguments: Any) -> T | None:
    """What `attempt` gives; None if memory ran out in it, after all that it held has been given back."""
    try:
        return attempt(*arguments)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the stack
    release_memory(str(device))
    return None


def _plan(job: Job) -> _Plan:
    """How many models like that of `job` fit into what memory is free while its features are there."""
    free = free_bytes(str(job.device))
    if job.device.type == "cpu":
        budget = CPU_BYTES if free is None else min(CPU_BYTES, CPU_SHARE * free)
    else:
        budget = GPU_SHARE * (free or 0)
    needs = Stack.needs(Trainer(job))
    size = max(1, int(budget // (needs.kept + needs.step)))
    most_validated = max(1, int((budget - size * needs.kept) // needs.validation))
    return _Plan(size=size, most_validated=most_validated)


def _finish(run: _Member, done: Done) -> None:
    if run.error is not None:
        if not run.reported:  # its other folds change nothing
            run.reported = True
            done(run.position, run.error)
        return
    partitions = run.prepared.partitions
    if len(run.trained) < len(partitions):
        return
    log = EpochLog(run.directory / "metrics.jsonl", tensorboard=run.prepared.config.run.tensorboard)
    log.keep({})
    for entry in sorted(run.log, key=lambda entry: (entry["fold"] or 0, entry["epoch"])):
        log.append(entry)
    log.close()
    trained = [run.trained[part.fold] for part in partitions]
    write_finished(run.directory, run.prepared, finished(run.directory.name, run.prepared, trained, run.seconds))
    done(run.position, None)


def _train_stack(job: Job, units: Sequence[_Unit], most_validated: int) -> None:
    """Trains `units` to their ends and writes their checkpoints."""
    trainers = [Trainer(replace(job, config=unit.run.prepared.config, fold=unit.partition.fold)) for unit in units]
    stack = Stack(trainers, most_validated)
    living = list(zip(units, trainers, strict=True))
    while living:
        begun = time.perf_counter()
        rates = [learning_rate(trainer.optimizer) for _, trainer in living]
        numbers = stack.run_epoch(rates)
        seconds = round((time.perf_counter() - begun) / len(living), 4)
        ended = []
        for place, ((unit, trainer), rate, row) in enumerate(zip(living, rates, numbers, strict=True)):
            if row[1] < trainer.state.best_loss:  # its weights are then kept
                stack.give_back(place, trainer)
            try:
                record: EpochRecord = trainer.record(rate, row)
            except TrainingError as error:
                unit.run.error = str(error)
                ended.append(place)
                continue
            unit.run.log.append({"fold": unit.partition.fold, **log_line(record), "seconds": seconds})
            if trainer.state.finished:
                stack.give_back(place, trainer)
                _keep(unit, trainer)
                ended.append(place)
        if ended:
            stack.remove(ended)
            living = [pair for place, pair in enumerate(living) if place not in set(ended)]


def _keep(unit: _Unit, trainer: Trainer) -> None:
    folder = fold_folder(unit.run.directory, unit.partition)
    make_folder(folder)
    save_progress(folder / "last.safetensors", trainer)
    unit.run.trained[unit.partition.fold] = keep_trained(unit.run.prepared, unit.partition, trainer, trainer, folder)
