"""One head trained on one partition: epochs over resident tensors, nothing written, nothing printed.

The work of a step depends only on (configuration, seed, fold, epoch): the order of clips and every other draw of an
epoch come from a generator made for that epoch, so a run resumed after any epoch equals one that never stopped.
On one CPU thread that equality is to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from reelbank.heads.config import ObjectiveConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.resident import Resident, moved
from reelbank.heads.examples.targets import estimate_of_logits
from reelbank.heads.losses import loss_function, loss_with_gradient
from reelbank.heads.models import build_head
from reelbank.heads.training.direct import DirectPass, LayeredHead
from reelbank.heads.training.flat import FlatParameters
from reelbank.heads.training.job import Job, Labels, stream_seed
from reelbank.heads.training.optimization import advance, learning_rate, make_optimizer, make_schedule
from reelbank.heads.training.reduction import reduce, reduce_with_shares
from reelbank.store.devices import is_out_of_memory

DIVERGED = 10
"""A best validation loss this many times that of equal probabilities, and of what labels tell, is of no predictor."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What one epoch gave; NaN where there is no such number."""

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_mae: float
    best: bool


@dataclass(kw_only=True)
class Progression:
    """Where a training stands after whole epochs."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    last_loss: float = math.inf
    stopped_early: bool = False
    finished: bool = False
    best_weights: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class FittedHead(Protocol):
    """A head on pooled vectors that looks at those of the training clips once, before its first step."""

    def fit(self, vectors: Tensor) -> None:
        """`vectors` (n, D), normalised; on the host where the features do not fit the device."""


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Global torch generators seeded inside, restored after."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class LossTerm(NamedTuple):
    """The loss of one output on a batch: a row of `LOSSES`, p (B, K) and how `reduce` makes a scalar of it.

    `mass`: sums of the rows of p (B, 1); None where they are 1.
    """

    output: str
    loss: str
    p: Tensor
    reduction: str
    weights: Tensor | None
    mass: Tensor | None = None


def loss_terms(
    objective: ObjectiveConfig, labels: Labels, logits: Mapping[str, Tensor], index: Tensor, *, complete: bool
) -> list[LossTerm]:
    """The terms of L = L_class + L_target, weights 1:1 (SYSTEMS.md 1.7).

    Args:
        index: the clips (B,) that `logits` {output: (B, K)} belong to.
        complete: every clip has every label (training); otherwise those without one do not count.
    """
    terms = []
    if labels.num_clips:
        index = index % labels.num_clips
    class_loss = objective.class_loss
    if class_loss == "auto":
        class_loss = "ce" if labels.values is not None else objective.loss
    if labels.sets is not None:
        assert labels.labelled is not None
        known = None if complete else labels.labelled[index].float()
        terms.append(LossTerm("label", class_loss, labels.sets.index_select(0, index), "sum", known))
    if labels.classes is not None:
        numbers = labels.classes[index]
        known = None if complete else (numbers >= 0).float()
        numbers = numbers if complete else numbers.clamp(min=0)
        if labels.class_weights is not None:
            weights = labels.class_weights[numbers]
            known = weights if known is None else known * weights
        p = labels.class_rows(logits["label"].shape[-1], objective.label_smoothing).index_select(0, numbers)
        terms.append(LossTerm("label", class_loss, p, "sum", known))
    if labels.values is not None:
        assert labels.distributions is not None
        known = None if complete else (~labels.values[index].isnan()).float()
        p = labels.distributions.index_select(0, index)
        mass = p.sum(dim=-1, keepdim=True) if objective.target_labels == "density" else None
        terms.append(LossTerm("target", objective.loss, p, objective.reduction, known, mass))
    return terms


def total_loss(
    objective: ObjectiveConfig, labels: Labels, logits: Mapping[str, Tensor], index: Tensor, *, complete: bool
) -> Tensor:
    """L, scalar; the arguments are those of `loss_terms`."""
    parts = []
    for term in loss_terms(objective, labels, logits, index, complete=complete):
        per_clip = loss_function(term.loss)(logits[term.output], term.p)
        parts.append(reduce(per_clip, term.p.shape[-1], term.reduction, term.weights))
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def total_loss_with_gradient(
    objective: ObjectiveConfig, labels: Labels, logits: Mapping[str, Tensor], index: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """L of a training batch and its gradient in every output's logits, without autograd through the head.

    Of M heads at once, (M,), where `logits` are {output: (M, B, K)} and `index` (M, B).
    """
    several = index.dim() > 1  # views that change nothing cost a small head a tenth of its step
    flat = {name: values.flatten(0, -2) for name, values in logits.items()} if several else logits
    parts, gradients = [], {}
    for term in loss_terms(objective, labels, flat, index.flatten(), complete=True):
        per_clip, gradient = loss_with_gradient(term.loss)(flat[term.output], term.p, term.mass)
        weights = term.weights
        if several:
            per_clip, gradient = per_clip.view(index.shape), gradient.reshape(logits[term.output].shape)
            weights = None if weights is None else weights.view(index.shape)
        loss, share = reduce_with_shares(per_clip, term.p.shape[-1], term.reduction, weights)
        parts.append(loss)
        gradients[term.output] = gradient.mul_(share)
    return (parts[0] if len(parts) == 1 else parts[0] + parts[1]), gradients


def validation_numbers(job: Job, logits: Mapping[str, Tensor], index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, accuracy and mean absolute error of the clips at `index` (scalars, NaN without such an output)."""
    labels = job.labels
    accuracy = error = torch.full((), math.nan, device=job.device)
    if labels.classes is not None:
        accuracy = (logits["label"].argmax(dim=1) == labels.classes[index]).float().mean()
    if labels.values is not None and labels.bin_values is not None:
        predicted = estimate_of_logits(logits["target"], labels.bin_values, job.config.head.estimate)
        error = (predicted - labels.values[index]).abs().nanmean()
    return total_loss(job.config.objective, labels, logits, index, complete=False), accuracy, error


class Trainer:
    """A head, its optimiser and schedule, and how far they are."""

    def __init__(self, job: Job) -> None:
        self.job = job
        config = job.config
        self._fold = 0 if job.fold is None else job.fold + 1
        with seeded(stream_seed(config.seed, self._fold, 0), job.device):
            self.head = build_head(config.head.name, job.shape, config.head.options).to(job.device)
        if isinstance(self.head, FittedHead):
            vectors = job.resident.vectors()
            self.head.fit(vectors.index_select(0, torch.from_numpy(job.train).to(vectors.device)))
        self.flat = FlatParameters(self.head)
        self._direct = DirectPass(self.head) if isinstance(self.head, LayeredHead) else None
        self.optimizer = make_optimizer(self.flat.values, config.optimizer)
        self.schedule = make_schedule(self.optimizer, config.optimizer)
        self.state = Progression()
        self._vectors = job.resident.vectors() if self._direct is not None else torch.empty(0)
        self._train = torch.from_numpy(job.train).to(job.resident.index_device)
        self._val = torch.from_numpy(job.val).to(job.device)

    def run_epoch(self) -> EpochRecord:
        """One epoch and its validation. Raises TrainingError if the loss is no longer finite."""
        rate = learning_rate(self.optimizer)
        with seeded(self.seed_of(self.state.epoch + 1), self.job.device):
            train_loss = self._train_once(self.draw_order())
        # The one wait for the device per epoch.
        return self.record(rate, torch.stack([train_loss, *self._validate()]).tolist())

    def draw_order(self) -> Tensor:
        """The training rows in the order (n,) of an epoch, where `Resident.batch` reads it; see `draw`."""
        return self.rows_at(self.draw())

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
        best = val_loss < state.best_loss
        state.epoch, state.last_loss = epoch, val_loss
        if best:
            state.best_epoch, state.best_loss = epoch, val_loss
            state.best_weights = {name: value.detach().clone() for name, value in self.head.state_dict().items()}
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
        self.head.train()
        parts = torch.split(order, job.config.optimizer.batch)
        step = self.optimizer.step
        losses = []
        with torch.inference_mode(self._direct is not None):  # a tenth of a small step is what autograd notes down
            for index in parts:
                losses.append(self._gradient(index))
                step()
        sizes = torch.tensor([len(index) for index in parts], dtype=torch.float32).to(job.device)
        return torch.stack(losses) @ sizes / len(order)

    def _gradient(self, index: Tensor) -> Tensor:
        """Fills the flat gradient from the clips at `index` (B,); their loss (scalar, on the device)."""
        job = self.job
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
        if self.job.config.optimizer.keep == "best":
            self.head.load_state_dict(self.state.best_weights)

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
def forward(head: nn.Module, resident: Resident, index: Tensor) -> dict[str, Tensor]:
    """Logits {output: (n, K)} of the clips at `index`, in evaluation mode."""
    head.eval()
    return in_parts(lambda part: head(*resident.inputs(head, part)), index, resident.evaluation_clips)


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
    head: nn.Module, resident: Resident, rows: np.ndarray, *, independent: bool = False
) -> dict[str, np.ndarray]:
    """Softmax of the logits {output: float64 (n, K)} of the clips at `rows`; empty for no rows.

    Args:
        independent: each label has a probability of its own, the sigmoid of its logit.
    """
    index = torch.from_numpy(rows).to(resident.mask.device)
    logits = forward(head, resident, index)
    return {
        name: (z.sigmoid() if independent and name == "label" else z.softmax(dim=1)).cpu().numpy()
        for name, z in ((name, values.double()) for name, values in logits.items())
    }
