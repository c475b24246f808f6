"""K models as one stack of parameters (K, P): an epoch of all of them, step by step at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from reelbank.heads.examples.resident import moved
from reelbank.heads.optimizers import OPTIMIZERS
from reelbank.heads.training.direct import DirectPass, LayeredHead
from reelbank.heads.training.fused import FUSED
from reelbank.heads.training.job import Job
from reelbank.heads.training.memory import Allocations
from reelbank.heads.training.objective import total_loss, total_loss_with_gradient, validation_numbers
from reelbank.heads.training.optimization import load
from reelbank.heads.training.stacked_optimizers import FusedAdam, Hyperparameters, Update
from reelbank.heads.training.trainer import Trainer, in_parts, seeded


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Bytes that each model of a stack takes: `kept` as long as it is there, more during a step and in validation."""

    kept: int
    step: int
    validation: int


class Stack:
    """K models: parameters (K, P), their gradient and the optimiser's state, all on the device."""

    def __init__(self, trainers: Sequence[Trainer], most_validated: int) -> None:
        """`most_validated`: models that are validated at once."""
        self._trainers = list(trainers)
        self._first = trainers[0]
        self._most_validated = most_validated
        self._job: Job = trainers[0].job
        self._values = torch.stack([trainer.flat.values.detach() for trainer in trainers])
        self._steps = 0
        row = OPTIMIZERS[self._job.config.optimizer.name]
        self._written: Update = load(row.update)
        self._state = {name: torch.zeros_like(self._values) for name in row.state}
        self._val = torch.from_numpy(self._job.val).to(self._job.device)
        for trainer in trainers:
            # The schedule moves the rate of an optimiser that never steps itself; torch would warn of that.
            trainer.optimizer._opt_called = True  # type: ignore[attr-defined]
        self._arrange()

    def _arrange(self) -> None:
        """Makes the tensors of the models views of the stack; again after a model has left."""
        flat = self._first.flat
        self._gradient = torch.zeros_like(self._values)
        self._parameters = {name: view.requires_grad_() for name, view in flat.views(self._values.detach()).items()}
        gradients = flat.views(self._gradient)
        self._gradient_views = list(gradients.values())
        head = self._first.head
        self._direct = None
        if isinstance(head, LayeredHead):
            self._direct = DirectPass(head, flat.views(self._values), gradients)
        configs = [trainer.job.config.optimizer for trainer in self._trainers]
        self._hyper = Hyperparameters.of(configs, self._values.device)
        kernel = FUSED.get(self._job.config.optimizer.name)
        self._fused = None if kernel is None else FusedAdam(kernel, configs)

    def run_epoch(self, rates: Sequence[float]) -> list[list[float]]:
        """One epoch of every model: rows of training loss, validation loss, accuracy and MAE. One wait for the device.

        Args:
            rates: learning rate of each model.
        """
        job = self._job
        drawn = []
        for trainer in self._trainers:
            with seeded(trainer.seed_of(trainer.state.epoch + 1), job.device):
                drawn.append(trainer.draw())
        order = self._first.rows_at(torch.cat(drawn)).view(len(drawn), -1)  # (K, n), moved at once
        self._first.head.train()
        total = torch.zeros(len(rates), device=job.device)
        update = self._update_at(rates)
        with torch.inference_mode(self._direct is not None):
            for index in torch.split(order, job.config.optimizer.batch, dim=1):
                total += self._step(index, update) * index.shape[1]
        rows = torch.cat([(total / order.shape[1]).unsqueeze(1), self._validate()], dim=1)
        result: list[list[float]] = rows.tolist()
        return result

    def _update_at(self, rates: Sequence[float]) -> Callable[[], None]:
        """What updates every model at its learning rate by the gradient as it then is."""
        fused, device = self._fused, self._values.device
        if fused is not None and fused.suits(groups := fused.groups(rates), device):
            number = torch.zeros((), device=device)
            return lambda: fused.step(groups, self._values, self._gradient, self._state, number.fill_(self._steps))
        rate = torch.tensor(rates, dtype=torch.float64).unsqueeze(1).to(device)
        return lambda: self._written(self._values, self._gradient, self._state, self._hyper, rate, self._steps)

    def _step(self, index: Tensor, update: Callable[[], None]) -> Tensor:
        """One update of every model from its own clips at `index` (K, B); the losses (K,)."""
        losses = self._backward(index, moved(index, self._job.device))
        self._steps += 1
        with torch.no_grad():
            update()
        return losses

    def _backward(self, index: Tensor, here: Tensor) -> Tensor:
        """Writes the gradient of every model at its clips `index` (K, B), `here` on the device; the losses (K,)."""
        job, count = self._job, index.shape[0]
        if self._direct is not None:
            vectors = moved(job.vectors.vectors().index_select(0, index.flatten()), job.device)
            return self._direct.backward(
                vectors.view(count, -1, vectors.shape[1]),
                lambda logits: total_loss_with_gradient(job.config.objective, job.labels, logits, here),
            )
        features, mask = job.vectors.batch(index.flatten())
        arrays = {key: array.view(count, -1, *array.shape[1:]) for key, array in features.items()}  # (K, B, T, D)

        def loss_of(
            parameters: Mapping[str, Tensor], arrays: Mapping[str, Tensor], mask: Tensor, index: Tensor
        ) -> Tensor:
            logits = functional_call(self._first.head, dict(parameters), (arrays, mask))
            return total_loss(job.config.objective, job.labels, logits, index, complete=True)

        losses: Tensor = vmap(loss_of, randomness="different")(
            self._parameters, arrays, mask.view(count, -1, mask.shape[1]), here
        )
        gradients = torch.autograd.grad(losses.sum(), list(self._parameters.values()))
        torch._foreach_copy_(self._gradient_views, gradients)
        return losses.detach()

    @torch.no_grad()
    def _validate(self) -> Tensor:
        """Validation loss, accuracy and MAE of every model, (K, 3)."""
        job, index, resident = self._job, self._val, self._job.vectors
        self._first.head.eval()
        rows = []
        for start in range(0, len(self._trainers), self._most_validated):
            some = {name: value[start : start + self._most_validated] for name, value in self._parameters.items()}

            def logits_of(part: Tensor, some: Mapping[str, Tensor] = some) -> dict[str, Tensor]:
                inputs = resident.batch(part)
                made: dict[str, Tensor] = vmap(
                    lambda parameters: functional_call(self._first.head, dict(parameters), inputs)
                )(some)
                return made

            logits = in_parts(logits_of, index, resident.evaluation_clips)  # {output: (k, n, K)}
            rows.append(torch.stack(vmap(lambda one: validation_numbers(job, one, index))(logits), dim=1))
        return torch.cat(rows)

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

    @classmethod
    def needs(cls, trainer: Trainer) -> Needs:
        """What a model like that of `trainer` takes, measured in one step and one validation of it; it stays as it is.

        No constant would do: beside gradients, a step of `attentive` holds 3.5 times its batch, of `additive` 9 times.
        """
        stack, job = cls([trainer], 1), trainer.job
        with seeded(trainer.seed_of(1), job.device):
            index = trainer.draw_order()[: job.config.optimizer.batch].unsqueeze(0)
            trainer.head.train()
            with Allocations() as step:
                stack._step(index, stack._update_at([0.0]))
            with Allocations() as validation:
                stack._validate()
        # In the stack: values, gradient, state. The trainer's own: values, gradient, the best, in the end the state.
        copies = 5 + 2 * len(stack._state)
        num_bytes = stack._values.numel() * stack._values.element_size()
        return Needs(kept=copies * num_bytes, step=step.most, validation=validation.most)
