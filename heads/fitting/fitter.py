"""A head that is fitted in one go, where a `Trainer` goes through epochs: choose, then fit to all that may be seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from multiprocessing import parent_process
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.examples.splits import Partition
from reelbank.heads.fitting.choosing import MOST_FOLDS, Chosen, Fitting, choose, tap_sets
from reelbank.heads.fitting.tasks import Task
from reelbank.heads.models.combination import Combination, Constant, Linear, Normal, as_logits
from reelbank.heads.models.trees import ForestSize, Trees
from reelbank.heads.training.job import Job, make_job
from reelbank.heads.training.objective import validation_numbers
from reelbank.heads.training.refitting import refits
from reelbank.heads.training.trainer import EpochRecord, Progression, probabilities
from reelbank.manifests.events import Event, Progress
from reelbank.store.cores import available_cores

KINDS = {"auto": ("trees", "linear"), "trees": ("trees",)}
"""Head -> the kinds of parts that it may be made of; of a target, `linear` is `normal`."""


class Fitter:
    """The head of one partition. After `train`, `choices` says per output what was taken and why.

    Clips of the validation part are fitted, too, where there is a part that is reported beside it: no epoch has to be
    chosen on them, and inner validation says what they would have said. They are then predicted out of fold.
    """

    def __init__(self, prepared: Prepared, partition: Partition, progress: Progress | None = None) -> None:
        self.job: Job = make_job(prepared, partition)
        self.state = Progression()
        self.choices: dict[str, Chosen] = {}
        self.head: Any = None
        self._prepared, self._partition, self._progress = prepared, partition, progress
        self._done = self._total = 0

    @property
    def options(self) -> Mapping[str, Any]:
        """What builds the head again before its weights are loaded."""
        made = {output: list(self.head.parts[output]) for output in self.choices}
        return {
            "parts": _parts(self.choices, made),
            "independent": self.head.independent,
            "widening": self.head.widening,
        }

    @property
    def _independent(self) -> bool:
        return self._prepared.config.objective.independent

    @property
    def rows(self) -> NDArray[np.int64]:
        """The clips that are fitted."""
        part = self._partition
        return np.union1d(part.train, part.val) if refits(self._prepared.config, part) else part.train

    def train(self, after_epoch: Callable[[EpochRecord], None]) -> None:
        """Chooses and fits; `after_epoch` sees the one epoch that this is."""
        made: dict[str, list[torch.nn.Module]] = {}
        tasks = self._tasks()
        for number, (output, task) in enumerate(tasks.items()):
            rows = self.rows[task.known[self.rows]]
            fitting = self._fitting(task)
            steps = MOST_FOLDS * len(tap_sets(tuple(fitting.vectors))) + 1
            self._done, self._total = number * steps, len(tasks) * steps
            chosen = choose(fitting, task, self._prepared.groups, rows, self._partition.val, self._tell)
            if not len(chosen.rows):  # what cannot be predicted out of fold must not be fitted
                rows = self._partition.train[task.known[self._partition.train]]
            self._done = (number + 1) * steps - 1
            self._tell(f"fitting {chosen.candidate.name} to {len(rows)} clips")
            made[output] = [fitting.of(part, task, rows) for part in chosen.candidate.parts]
            self.choices[output] = chosen
        self.head = _head(self.job, self.choices, made, independent=self._independent)
        after_epoch(self._record())

    def use_kept_weights(self) -> None:
        """There are no others."""

    def probabilities(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """{output: (n, K)} of the clips `rows`; of those that were fitted by fits that saw none of their group."""
        found = probabilities(self.head, self.job.resident, rows, independent=self._independent)
        for output, chosen in self.choices.items():
            place = {row: i for i, row in enumerate(chosen.rows.tolist())}
            seen = np.array([place.get(row, -1) for row in rows.tolist()], dtype=np.int64)
            if len(seen):
                found[output][seen >= 0] = chosen.out_of_fold[seen[seen >= 0]]
        return found

    def _record(self) -> EpochRecord:
        part, job = self._partition, self.job
        index = torch.from_numpy(part.train).to(job.device)
        fitted = probabilities(self.head, job.resident, part.train, independent=self._independent)
        train_loss = float(validation_numbers(job, self._logits(fitted), index)[0])
        numbers = [math.nan] * 3
        if len(part.val):
            index = torch.from_numpy(part.val).to(job.device)
            numbers = [float(x) for x in validation_numbers(job, self._logits(self.probabilities(part.val)), index)]
        self.state = Progression(epoch=1, best_epoch=1, best_loss=numbers[0], last_loss=numbers[0], finished=True)
        return EpochRecord(
            epoch=1, learning_rate=0.0, train_loss=train_loss, val_loss=numbers[0], val_accuracy=numbers[1],
            val_mae=numbers[2], best=True,
        )  # fmt: skip

    def _logits(self, found: Mapping[str, NDArray[np.float64]]) -> dict[str, Tensor]:
        tensors = {name: torch.from_numpy(values).float().to(self.job.device) for name, values in found.items()}
        return {name: as_logits(p, independent=self._independent and name == "label") for name, p in tensors.items()}

    def _fitting(self, task: Task) -> Fitting:
        config, job = self._prepared.config, self.job
        vectors = {tap: values[:, 0].float().cpu().numpy() for tap, values in job.vectors.arrays.items()}
        kinds = KINDS[config.head.name]
        options = config.head.options
        return Fitting(
            vectors=vectors,
            kinds=tuple("normal" if kind == "linear" and task.bins is not None else kind for kind in kinds),
            trees=int(options.get("trees", 0)),
            leaf=int(options.get("leaf", 1)),
            seed=config.seed,
            jobs=_jobs(config.run.threads),
        )

    def _tasks(self) -> dict[str, Task]:
        prepared, labels = self._prepared, self.job.labels
        count = len(prepared.table)
        found = {}
        if labels.sets is not None and labels.labelled is not None:
            truth = labels.sets.cpu().numpy()
            found["label"] = Task(
                kind="labels", columns=truth.shape[1], truth=truth, known=labels.labelled.cpu().numpy(),
                weights=np.ones(count),
            )  # fmt: skip
        elif labels.classes is not None and prepared.labels is not None:
            numbers = labels.classes.cpu().numpy()
            weights = np.ones(count)
            if labels.class_weights is not None:
                weights = labels.class_weights.double().cpu().numpy()[numbers]
            found["label"] = Task(
                kind="classes", columns=len(prepared.labels), truth=numbers, known=numbers >= 0, weights=weights
            )
        if labels.values is not None and prepared.bins is not None:
            values = labels.values.double().cpu().numpy()
            found["target"] = Task(
                kind="target", columns=prepared.bins.num_bins, truth=values, known=np.isfinite(values),
                weights=np.ones(count), bins=prepared.bins, estimate=prepared.config.head.estimate,
            )  # fmt: skip
        return found

    def _tell(self, text: str) -> None:
        if self._progress is not None:
            self._progress(Event(stage="fit", done=self._done, total=self._total, message=text))
        self._done += 1


def _jobs(threads: int) -> int:
    """Threads that grow trees, which are the same whatever their number: all cores, but `threads` beside siblings."""
    return threads if parent_process() is not None else max(threads, available_cores())


def _head(
    job: Job, choices: Mapping[str, Chosen], made: Mapping[str, list[torch.nn.Module]], *, independent: bool
) -> Combination:
    if not choices:
        raise TrainingError("there is nothing to predict: no class and no target")
    widening = choices["target"].widening if "target" in choices else 0.0
    head = Combination(job.shape, _parts(choices, made), independent=independent, widening=widening)
    for output, modules in made.items():
        for place, module in enumerate(modules):
            head.parts[output][place].load_state_dict(module.state_dict())  # type: ignore[index]
    return head.to(job.device)


def _parts(choices: Mapping[str, Chosen], made: Mapping[str, list[torch.nn.Module]]) -> dict[str, list[dict[str, Any]]]:
    """What `Combination` is built from."""
    return {
        output: [
            {"kind": part.kind, "taps": list(part.taps), "options": _options(module)}
            for part, module in zip(chosen.candidate.parts, made[output], strict=True)
        ]
        for output, chosen in choices.items()
    }


def _options(module: torch.nn.Module) -> dict[str, Any]:
    """What `PARTS` needs to make an empty part like this one."""
    if isinstance(module, Trees):
        size = ForestSize(
            trees=len(module.roots), nodes=len(module.feature), entries=len(module.column), depth=module.depth
        )
        return {"size": size.to_json(), "sigma": module.sigma}
    if isinstance(module, Linear):
        return {"independent": module.independent}
    assert isinstance(module, Constant | Normal)
    return {}
