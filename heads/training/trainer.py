"""One head trained on one partition: epochs over resident tensors, nothing written, nothing printed.

The work of a step depends only on (configuration, seed, fold, epoch): the order of clips and every other draw of an
epoch come from a generator made for that epoch, so a run resumed after any epoch equals one that never stopped.
On one CPU thread that equality is to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.batches import ArrayBatches
from reelbank.heads.examples.resident import Resident, moved
from reelbank.heads.models import build_head
from reelbank.heads.optimizers import PER_BATCH
from reelbank.heads.training.direct import DirectPass, LayeredHead
from reelbank.heads.training.groups import changing_names, set_training, trained_groups
from reelbank.heads.training.job import Job, stream_seed
from reelbank.heads.training.objective import (
    auxiliary_losses,
    total_loss,
    total_loss_with_gradient,
    validation_numbers,
)
from reelbank.heads.training.optimization import advance, learning_rate, make_grouped_optimizer, make_schedule, restart
from reelbank.store.devices import is_out_of_memory

DIVERGED = 10
"""A best validation loss this many times that of equal probabilities, and of what labels tell, is of no predictor."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What one epoch gave; NaN where there is no such number.

    Attributes:
        train_accuracy: of the batches as they were trained on; of heads that read arrays.
        losses: {name: what each of several losses was, as it counts in `train_loss`}; empty where there is one.
        learning_rates: {group: its rate} where there are several.
        batch_learning_rates: of each update, where the schedule steps per batch; of several groups the first's.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_mae: float
    best: bool
    train_accuracy: float = math.nan
    losses: Mapping[str, float] = field(default_factory=dict)
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    batch_learning_rates: tuple[float, ...] = ()


@dataclass(kw_only=True)
class Progression:
    """Where a training stands after whole epochs."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    best_accuracy: float = -math.inf
    last_loss: float = math.inf
    stopped_early: bool = False
    finished: bool = False
    best_weights: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class FittedHead(Protocol):
    """A head on pooled vectors that looks at those of the training clips once, before its first step."""

    def fit(self, vectors: Tensor) -> None:
        """`vectors` (n, D), normalised; on the host where the features do not fit the device."""


@runtime_checkable
class CalibratedHead(Protocol):
    """A head on arrays that fits a few numbers to the validation clips, from the logits of its parts, at once."""

    def streams(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{output: logits of each part (B, parts, K)}."""

    def calibrate(self, logits: Tensor, classes: Tensor) -> None:
        """`logits` (n, parts, K) of the validation clips and their classes (n,)."""


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Global torch generators seeded inside, restored after."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class Trainer:
    """A head, its optimiser and schedule, and how far they are."""

    def __init__(self, job: Job) -> None:
        self.job = job
        config = job.config
        self._fold = 0 if job.fold is None else job.fold + 1
        with seeded(stream_seed(config.seed, self._fold, 0), job.device):
            self.head = build_head(config.head.name, job.shape, config.head.options)
        if job.start is not None:
            job.start.apply(self.head)
        self.head.to(job.device)
        if isinstance(self.head, FittedHead):
            assert isinstance(job.resident, Resident)
            vectors = job.resident.vectors()
            self.head.fit(vectors.index_select(0, torch.from_numpy(job.train).to(vectors.device)))
        self._groups = trained_groups(self.head, job.stage, config.optimizer)
        self.flat = self._groups[0].flat
        self._changing = changing_names(self.head, job.stage)
        self._direct = DirectPass(self.head) if isinstance(self.head, LayeredHead) else None
        self.optimizer = make_grouped_optimizer(self._groups, config.optimizer)
        self.schedule = make_schedule(self.optimizer, config.optimizer)
        self._batch_rates: list[float] = []
        self.state = Progression()
        self._vectors = torch.empty(0)
        if self._direct is not None and isinstance(job.resident, Resident):
            self._vectors = job.resident.vectors()
        self._train = torch.from_numpy(job.train).to(job.resident.index_device)
        self._val = torch.from_numpy(job.val).to(job.device)

    def run_epoch(self) -> EpochRecord:
        """One epoch and its validation. Raises TrainingError if the loss is no longer finite."""
        if self.schedule is not None and self.job.config.optimizer.restart_each_epoch and self.state.epoch:
            restart(self.schedule)
        self._batch_rates.clear()
        rates = {
            group.name: float(one["lr"]) for group, one in zip(self._groups, self.optimizer.param_groups, strict=True)
        }
        with seeded(self.seed_of(self.state.epoch + 1), self.job.device):
            if isinstance(self.head, CalibratedHead):
                numbers, names = self._calibrate(self.head), list[str]()
            elif isinstance(self.job.resident, ArrayBatches):
                numbers, names = self._train_arrays(self.job.resident, self.draw_order())
            else:
                numbers, names = self._train_once(self.draw_order()).unsqueeze(0), []
        # The one wait for the device per epoch.
        train_loss, *parts, val_loss, accuracy, error = torch.cat([numbers, torch.stack(self._validate())]).tolist()
        record = self.record(next(iter(rates.values())), [train_loss, val_loss, accuracy, error])
        record = replace(record, batch_learning_rates=tuple(self._batch_rates))
        if not names:
            return record
        losses = dict(zip(names, parts, strict=True))
        train_accuracy = losses.pop("accuracy")
        return replace(
            record,
            train_accuracy=train_accuracy,
            losses=losses if len(losses) > 1 else {},
            learning_rates=rates if len(rates) > 1 else {},
        )

    def draw_order(self) -> Tensor:
        """The training rows in the order (n,) of an epoch, where `Resident.batch` reads it; see `draw`."""
        rows = self.rows_at(self.draw())
        copies = self.job.copies
        return rows if copies is None else copies.drawn(rows)

    def draw(self) -> Tensor:
        """Places (n,) in the training rows, on the host, from torch's global generator as it stands."""
        if self.job.draw_weights is None:
            return torch.randperm(len(self._train))
        return torch.multinomial(torch.from_numpy(self.job.draw_weights), len(self._train), replacement=True)

    def rows_at(self, places: Tensor) -> Tensor:
        """The training rows at `places` (n,)."""
        return self._train.index_select(0, moved(places, self._train.device))

    def seed_of(self, epoch: int) -> int:
        """The seed of every draw of `epoch` (from 1)."""
        return stream_seed(self.job.config.seed, self._fold, epoch)

    def record(self, rate: float, numbers: Sequence[float]) -> EpochRecord:
        """Takes note of a trained epoch: keeps the best weights, moves the schedule, decides whether to go on.

        Args:
            rate: learning rate of the epoch.
            numbers: training loss, validation loss, validation accuracy, validation MAE.
        """
        state, optimizer = self.state, self.job.config.optimizer
        epoch = state.epoch + 1
        train_loss, val_loss, val_accuracy, val_mae = numbers
        if not math.isfinite(train_loss) or not math.isfinite(val_loss):
            raise TrainingError(
                f"epoch {epoch}: training loss {train_loss}, validation loss {val_loss}; a smaller --lr "
                f"(now {optimizer.lr:g}) or --normalize zscore keeps it finite"
            )
        best = val_accuracy > state.best_accuracy if optimizer.watches == "accuracy" else val_loss < state.best_loss
        state.epoch, state.last_loss = epoch, val_loss
        state.best_loss = min(state.best_loss, val_loss)
        if best:
            state.best_epoch = epoch
            state.best_accuracy = val_accuracy
            state.best_weights = {name: value.detach().clone() for name, value in self.changing().items()}
        if optimizer.schedule not in PER_BATCH:
            advance(self.schedule, val_loss)
        patience = optimizer.early_stop_epochs
        state.stopped_early = bool(patience) and epoch - state.best_epoch >= patience
        state.finished = state.stopped_early or epoch >= optimizer.epochs
        if state.finished and state.best_loss > DIVERGED * max(guessed := self._guessed_loss(), self._information()):
            raise TrainingError(
                f"the training diverged: its best validation loss is {state.best_loss:.4g} (epoch {state.best_epoch}), "
                f"equal probabilities for everything have {guessed:.4g}; try a smaller --lr than {optimizer.lr:g}"
            )
        return EpochRecord(
            epoch=epoch,
            learning_rate=rate,
            train_loss=train_loss,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            val_mae=val_mae,
            best=best,
        )

    def _train_once(self, order: Tensor) -> Tensor:
        """The clips of `order` once; their mean loss (scalar, on the device)."""
        job = self.job
        set_training(self.head, job.stage)
        parts = torch.split(order, job.config.optimizer.batch)
        step = self.optimizer.step
        losses = []
        with torch.inference_mode(self._direct is not None):  # a tenth of a small step is what autograd notes down
            for index in parts:
                losses.append(self._gradient(index))
                step()
                self._advance_batch()
        sizes = torch.tensor([len(index) for index in parts], dtype=torch.float32).to(job.device)
        return torch.stack(losses) @ sizes / len(order)

    def _advance_batch(self) -> None:
        if self.job.config.optimizer.schedule in PER_BATCH:
            self._batch_rates.append(learning_rate(self.optimizer))
            advance(self.schedule, 0.0)

    def _train_arrays(self, batches: ArrayBatches, order: Tensor) -> tuple[Tensor, list[str]]:
        """The clips of `order` once: the mean loss, then what is named, as one tensor on the device; and the names."""
        job, plan = self.job, self.job.config.head.plan
        assert plan is not None
        set_training(self.head, job.stage)
        objective, rows, sizes = job.config.objective, [], []
        names: list[str] = []
        for index, (arrays, masks) in batches.batches(order, job.config.optimizer.batch):
            here = moved(index, job.device)
            for group in self._groups:
                group.flat.gradient.zero_()
            outputs = self.head(arrays, masks)
            logits = {name: outputs[name] for name in job.shape.outputs}
            parts = {"labels": total_loss(objective, job.labels, logits, here, complete=True)}
            parts |= auxiliary_losses(plan.auxiliary, job.config.head.aux_weights, outputs, arrays, masks)
            loss = torch.stack(list(parts.values())).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self._advance_batch()
            parts["accuracy"] = job.labels.accuracy(logits, here)
            names = list(parts)
            rows.append(torch.stack([loss.detach(), *(value.detach() for value in parts.values())]))
            sizes.append(len(index))
            del arrays, masks, outputs, logits, parts, loss  # before the next batch is made, which is as large
        shares = torch.tensor(sizes, dtype=torch.float32).to(job.device) / len(order)
        return shares @ torch.stack(rows), names

    def _calibrate(self, head: CalibratedHead) -> Tensor:
        """Fits the head to the validation clips; their loss (1,)."""
        job, batches = self.job, self.job.resident
        assert isinstance(batches, ArrayBatches)
        if not len(self._val) or job.labels.classes is None:
            raise TrainingError(
                f"{job.config.head.name} is fitted to the classes of validation clips, and there are none; give the "
                "store a 'val' split and a column of labels"
            )
        self.head.eval()
        with torch.no_grad():
            parts = [
                head.streams(*batches.evaluated(index))["label"]
                for index in torch.split(self._val, batches.evaluation_clips)
            ]
        classes = job.labels.classes[self._val]
        head.calibrate(torch.cat(parts)[classes >= 0], classes[classes >= 0])
        return self._validate()[0].detach().reshape(1)

    def _gradient(self, index: Tensor) -> Tensor:
        """Fills the flat gradient from the clips at `index` (B,); their loss (scalar, on the device)."""
        job = self.job
        assert isinstance(job.resident, Resident)
        here = moved(index, job.device)
        if self._direct is not None:
            return self._direct.backward(
                moved(self._vectors.index_select(0, index), job.device),
                lambda logits: total_loss_with_gradient(job.config.objective, job.labels, logits, here),
            )
        self.flat.gradient.zero_()
        logits = self.head(*job.resident.inputs(self.head, index))
        loss = total_loss(job.config.objective, job.labels, logits, here, complete=True)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _validate(self) -> tuple[Tensor, Tensor, Tensor]:
        return validation_numbers(self.job, forward(self.head, self.job.resident, self._val), self._val)

    @torch.no_grad()
    def _guessed_loss(self) -> float:
        """Validation loss of equal probabilities for every clip; NaN without validation clips."""
        outputs = self.job.shape.outputs.items()
        logits = {name: torch.zeros(len(self._val), size, device=self.job.device) for name, size in outputs}
        return float(validation_numbers(self.job, logits, self._val)[0])

    def _information(self) -> float:
        """What one label of each output tells, in nats, as the loss counts it: softened labels tell less."""
        per_bin = self.job.config.objective.reduction == "mean"
        outputs = self.job.shape.outputs.items()
        independent = self.job.labels.sets is not None  # the mean over labels of what each tells
        sizes = [(name, 2 if independent and name == "label" else size) for name, size in outputs]
        return sum(math.log(size) / (size if per_bin and name == "target" else 1) for name, size in sizes)

    def use_kept_weights(self) -> None:
        """Loads the weights that the run keeps: the best epoch's, or leaves the last ones (`--keep last`)."""
        if self.job.config.optimizer.keep != "last":
            self.use_weights(self.state.best_weights)

    def changing(self) -> dict[str, Tensor]:
        """The tensors of the head that training may change, by their names."""
        return {name: value for name, value in self.head.state_dict().items() if name in self._changing}

    def use_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Loads tensors of the head; of those that no training changes none need be among them."""
        self.head.load_state_dict({**self.head.state_dict(), **weights})

    @property
    def options(self) -> Mapping[str, Any]:
        """What builds the head again before its weights are loaded."""
        return self.job.config.head.options

    def probabilities(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """{output: float64 (n, K)} of the clips at `rows`."""
        return probabilities(self.head, self.job.resident, rows, independent=self.job.labels.sets is not None)

    def train(self, after_epoch: Callable[[EpochRecord], None]) -> None:
        """Epochs until the last one or an early stop; `after_epoch` sees each."""
        while not self.state.finished:
            after_epoch(self.run_epoch())


@torch.no_grad()
def forward(head: nn.Module, resident: Resident | ArrayBatches, index: Tensor) -> dict[str, Tensor]:
    """Logits {output: (n, K)} of the clips at `index`, in evaluation mode."""
    head.eval()
    return in_parts(lambda part: resident.logits(head, part), index, resident.evaluation_clips)


def in_parts(logits_of: Callable[[Tensor], dict[str, Tensor]], index: Tensor, size: int) -> dict[str, Tensor]:
    """Logits {output: (..., n, K)} of the clips at `index` (n,), `size` at once, or fewer where memory is short."""
    parts, start = [], 0
    while start < len(index):
        part = index[start : start + size]
        try:
            parts.append(logits_of(part))
        except (MemoryError, RuntimeError) as error:
            if len(part) == 1 or not is_out_of_memory(error):
                raise
            size = len(part) // 2
            continue
        start += len(part)
    return {name: torch.cat([part[name] for part in parts], dim=-2) for name in (parts[0] if parts else {})}


def probabilities(
    head: nn.Module, resident: Resident | ArrayBatches, rows: np.ndarray, *, independent: bool = False
) -> dict[str, np.ndarray]:
    """Softmax of the logits {output: float64 (n, K)} of the clips at `rows`; empty for no rows.

    Args:
        independent: each label has a probability of its own, the sigmoid of its logit.
    """
    index = torch.from_numpy(rows).to(resident.device)
    logits = forward(head, resident, index)
    return {
        name: (z.sigmoid() if independent and name == "label" else z.softmax(dim=1)).cpu().numpy()
        for name, z in ((name, values.double()) for name, values in logits.items())
    }
