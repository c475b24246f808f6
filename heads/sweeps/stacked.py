"""Members of a sweep trained at once: K models as one stack of parameters (K, P), one step for all of them.

A small head keeps no GPU busy: its step is the launching of kernels. Here one kernel serves K members. Learning rate,
weight decay, betas, epsilon, momentum, schedule, epochs and early stop are each member's own; a member that has ended
leaves the stack. Members in one stack share head, sizes, loss, batch and clips; others make a stack of their own.

The draws are those of the member alone (initial weights, order of clips), the arithmetic is the same in another
order: losses agree with those of the member trained alone to `TOLERANCE` while training is stable, not to the bit. A
killed sweep starts the unfinished members of a stack again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.prepared import Prepared, prepare
from reelbank.heads.examples.splits import Partition
from reelbank.heads.optimizers import OPTIMIZERS
from reelbank.heads.runs.checkpoints import save_progress
from reelbank.heads.runs.directory import start_run, write_finished
from reelbank.heads.runs.recording import EpochLog, fold_folder, keep_trained, log_line
from reelbank.heads.runs.results import Trained, finished
from reelbank.heads.sweeps.member_pool import Done, train_member
from reelbank.heads.training.job import Job, make_job
from reelbank.heads.training.optimization import learning_rate, load
from reelbank.heads.training.stacked_optimizers import Hyperparameters, Update
from reelbank.heads.training.trainer import (
    EpochRecord,
    Trainer,
    seeded,
    total_loss,
    validation_numbers,
)
from reelbank.store.devices import cpu_threads
from reelbank.store.files import make_folder

TOLERANCE = 1e-3  # relative, of validation losses: float32 sums in another order, carried through the epochs
STACK_NUMBERS = 2**30  # of parameters, gradients, moments and best weights of a stack: 4 GiB
LOGIT_NUMBERS = 2**27  # of logits of one validation pass
COPIES = 6  # of each parameter: in the stack, its gradient, two moments, the member's own, its best


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
    trainer: Trainer


def train_stacked(configs: Sequence[TrainConfig], folder: Path, workers: int, done: Done) -> None:
    """Trains every configuration, as many at once as fit together; the arguments of `train_in_processes`.

    Heads whose forward pass asks for values (conv-aggregation that flattens) are trained one after another.
    """
    cache = FeatureCache()
    with cpu_threads(configs[0].run.threads):
        runs = []
        for position, config in enumerate(configs):
            if not config.head.can_be_stacked:
                done(position, train_member(config, cache))
                continue
            prepared = prepare(config, None, cache)
            directory = start_run(prepared)
            runs.append(_Member(position=position, prepared=prepared, directory=directory, trained={}, log=[]))
        groups: dict[tuple[Any, ...], list[tuple[_Member, Partition]]] = {}
        for run in runs:
            for partition in run.prepared.partitions:
                groups.setdefault(_group(run.prepared, partition), []).append((run, partition))
        for group in groups.values():
            for units in _stacks(group):
                begun = time.perf_counter()
                _train_stack(units)
                share = (time.perf_counter() - begun) / len(units)
                for unit in units:
                    unit.run.seconds += share
                for run in {id(unit.run): unit.run for unit in units}.values():
                    _finish(run, done)


def _group(prepared: Prepared, partition: Partition) -> tuple[Any, ...]:
    """Equal for partitions that can be trained in one stack."""
    config = prepared.config
    shared = config.data, config.features, config.head, config.objective, config.optimizer.name, config.optimizer.batch
    own_labels = config.seed if config.data.shuffle_labels or config.features.augment else None
    bins = None if prepared.bins is None else tuple(prepared.bins.to_json().values())
    return (*shared, own_labels, bins, prepared.labels, partition.train.tobytes(), partition.val.tobytes())


def _stacks(group: Sequence[tuple[_Member, Partition]]) -> Iterator[list[_Unit]]:
    """The units of a group, as many at a time as memory is meant for; features and labels are shared."""
    run, partition = group[0]
    first = make_job(run.prepared, partition)
    size = len(group)
    start = 0
    while start < len(group):
        units = []
        for run, partition in group[start : start + size]:
            job = replace(first, config=run.prepared.config, fold=partition.fold)
            units.append(_Unit(run=run, partition=partition, trainer=Trainer(job)))
            size = max(1, min(size, STACK_NUMBERS // (COPIES * units[0].trainer.flat.values.numel())))
            if len(units) >= size:
                break
        start += len(units)
        yield units


def _finish(run: _Member, done: Done) -> None:
    if run.error is not None:
        if not run.reported:  # its other folds change nothing
            run.reported = True
            done(run.position, run.error)
        return
    partitions = run.prepared.partitions
    if len(run.trained) < len(partitions):
        return
    log = EpochLog(run.directory / "metrics.jsonl")
    log.keep({})
    for entry in sorted(run.log, key=lambda entry: (entry["fold"] or 0, entry["epoch"])):
        log.append(entry)
    log.close()
    trained = [run.trained[part.fold] for part in partitions]
    write_finished(run.directory, run.prepared, finished(run.directory.name, run.prepared, trained, run.seconds))
    done(run.position, None)


def _train_stack(units: list[_Unit]) -> None:
    """Trains `units` to their ends and writes their checkpoints."""
    stack = _Stack([unit.trainer for unit in units])
    living = list(units)
    while living:
        begun = time.perf_counter()
        rates = [learning_rate(unit.trainer.optimizer) for unit in living]
        numbers = stack.run_epoch(rates)
        seconds = round((time.perf_counter() - begun) / len(living), 4)
        ended = []
        for place, (unit, rate, row) in enumerate(zip(living, rates, numbers, strict=True)):
            state = unit.trainer.state
            if row[1] < state.best_loss:  # its weights are then kept
                stack.give_back(place, unit.trainer)
            try:
                record: EpochRecord = unit.trainer.record(rate, row)
            except TrainingError as error:
                unit.run.error = str(error)
                ended.append(place)
                continue
            unit.run.log.append({"fold": unit.partition.fold, **log_line(record), "seconds": seconds})
            if state.finished:
                stack.give_back(place, unit.trainer)
                _keep(unit)
                ended.append(place)
        if ended:
            stack.remove(ended)
            living = [unit for place, unit in enumerate(living) if place not in set(ended)]


def _keep(unit: _Unit) -> None:
    folder = fold_folder(unit.run.directory, unit.partition)
    make_folder(folder)
    save_progress(folder / "last.safetensors", unit.trainer)
    trained = keep_trained(unit.run.prepared, unit.partition, unit.trainer, folder)
    unit.run.trained[unit.partition.fold] = trained


class _Stack:
    """K models: parameters (K, P), their gradient and the optimiser's state, all on the device."""

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self._trainers = list(trainers)
        self._first = trainers[0]
        self._job: Job = trainers[0].job
        self._values = torch.stack([trainer.flat.values.detach() for trainer in trainers])
        self._steps = 0
        row = OPTIMIZERS[self._job.config.optimizer.name]
        self._update: Update = load(row.update)
        self._state = {name: torch.zeros_like(self._values) for name in row.state}
        for trainer in trainers:
            # The schedule moves the rate of an optimiser that never steps itself; torch would warn of that.
            trainer.optimizer._opt_called = True  # type: ignore[attr-defined]
        self._arrange()

    def _arrange(self) -> None:
        """Makes the tensors of the models views of the stack; again after a model has left."""
        flat = self._first.flat
        self._gradient = torch.zeros_like(self._values)
        self._parameters = {name: view.requires_grad_() for name, view in flat.views(self._values.detach()).items()}
        self._gradient_views = list(flat.views(self._gradient).values())
        configs = [trainer.job.config.optimizer for trainer in self._trainers]
        self._hyper = Hyperparameters.of(configs, self._values.device)

    def run_epoch(self, rates: Sequence[float]) -> list[list[float]]:
        """One epoch of every model: rows of training loss, validation loss, accuracy and MAE. One wait for the device.

        Args:
            rates: learning rate of each model.
        """
        job = self._job
        orders = []
        for trainer in self._trainers:
            with seeded(trainer.seed_of(trainer.state.epoch + 1), job.device):
                orders.append(trainer.draw_order())
        order = torch.stack(orders)  # (K, n)
        rate = torch.tensor(rates, dtype=torch.float64).unsqueeze(1).to(job.device)
        self._first.head.train()
        total = torch.zeros(len(rates), device=job.device)
        for index in torch.split(order, job.config.optimizer.batch, dim=1):
            total += self._step(index, rate) * index.shape[1]
        rows = torch.stack([total / order.shape[1], *self._validate()], dim=1)
        result: list[list[float]] = rows.tolist()
        return result

    def _step(self, index: Tensor, rate: Tensor) -> Tensor:
        """One update of every model from its own clips at `index` (K, B); the losses (K,)."""
        job, count = self._job, index.shape[0]
        features, mask = job.resident.batch(index.flatten())
        arrays = {key: array.view(count, -1, *array.shape[1:]) for key, array in features.items()}  # (K, B, T, D)

        def loss_of(
            parameters: Mapping[str, Tensor], arrays: Mapping[str, Tensor], mask: Tensor, index: Tensor
        ) -> Tensor:
            logits = functional_call(self._first.head, dict(parameters), (arrays, mask))
            return total_loss(job.config.objective, job.labels, logits, index, complete=True)

        losses: Tensor = vmap(loss_of, randomness="different")(
            self._parameters, arrays, mask.view(count, -1, mask.shape[1]), index
        )
        gradients = torch.autograd.grad(losses.sum(), list(self._parameters.values()))
        self._steps += 1
        with torch.no_grad():
            torch._foreach_copy_(self._gradient_views, gradients)
            self._update(self._values, self._gradient, self._state, self._hyper, rate, self._steps)
        return losses.detach()

    @torch.no_grad()
    def _validate(self) -> tuple[Tensor, Tensor, Tensor]:
        """Validation loss, accuracy and MAE of every model, (K,) each."""
        job = self._job
        index = torch.from_numpy(job.val).to(job.device)
        self._first.head.eval()
        parts = [(*job.resident.batch(part),) for part in job.resident.evaluation_parts(index)]

        def numbers(parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            each = [functional_call(self._first.head, dict(parameters), part) for part in parts]
            logits = {name: torch.cat([part[name] for part in each]) for name in each[0]}
            return validation_numbers(job, logits, index)

        chunk = max(1, LOGIT_NUMBERS // (len(index) * sum(job.shape.outputs.values())))
        losses, accuracies, errors = vmap(numbers, chunk_size=chunk)(self._parameters)
        return losses, accuracies, errors

    @torch.no_grad()
    def give_back(self, place: int, trainer: Trainer) -> None:
        """Puts model `place` into `trainer`: its weights and the optimiser's state."""
        trainer.flat.values.copy_(self._values[place])
        state = {name: tensor[place].clone() for name, tensor in self._state.items()}
        trainer.optimizer.state[trainer.flat.values] = {**state, "step": torch.tensor(float(self._steps))}

    @torch.no_grad()
    def remove(self, places: Sequence[int]) -> None:
        """Takes models out of the stack."""
        kept = [place for place in range(len(self._trainers)) if place not in set(places)]
        self._trainers = [self._trainers[place] for place in kept]
        index = torch.tensor(kept, dtype=torch.int64, device=self._values.device)
        self._values = self._values[index]
        self._state = {name: tensor[index] for name, tensor in self._state.items()}
        self._arrange()
