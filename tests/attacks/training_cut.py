"""Power cuts and kills while a head is trained: never a wrong result, and the same command makes it as if nothing was.

As in `power_cut.py` the training is done once over a model of a disk. In the states that a crash may leave, whatever
reads the run must say the right thing or refuse with a sentence; then the training goes on and must end at the numbers,
predictions and weights of one that was never stopped.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from part_stores import part_store

from attacks import Tried, memory_folder
from attacks.crash_points import different, wrong_states
from attacks.disk import Disk, Moment, write_state
from reelbank.heads import SweepConfig, TrainConfig, TrainingError, predict, sweep, train_head
from reelbank.heads.stored import read_tensors

COUNT = 600
TIMES = ("seconds",)
"""What differs between two runs of the same training."""


@dataclass(frozen=True)
class Training:
    """A command of `train-head`.

    Attributes:
        options: of the configuration.
        before: those of the training that is finished in the same directory before; none: nothing is there.
        result: the file that says that it has finished.
    """

    options: Mapping[str, Any]
    before: Mapping[str, Any] = field(default_factory=dict)
    result: str = "results.json"


SMALL: Mapping[str, Any] = {"head": "linear", "label": "label", "epochs": 3, "report": False, "checkpoint_seconds": 0.0}
TRAININGS: Mapping[str, Training] = {
    "run": Training(SMALL),
    "folds": Training({**SMALL, "folds": 2, "keep": "last", "epochs": 2}),
    "more epochs": Training({**SMALL, "epochs": 4}, before={**SMALL, "epochs": 2}),
    "overwrite": Training({**SMALL, "overwrite": True}, before={**SMALL, "folds": 2, "epochs": 2}),
    "sweep": Training({**SMALL, "sweep": ("lr=1e-2,1e-3",), "workers": 1}, result="sweep.json"),
}


def train(training: Training, options: Mapping[str, Any], store: Path, directory: Path) -> None:
    """Trains as a person would: resumes what is there, starts where nothing is."""
    given = {**options, "store": (store,), "run": directory}
    there = (directory / "config.json").exists() and not options.get("overwrite")
    if training.result == "sweep.json":
        sweep(SweepConfig.of(**given, resume=there))
    else:
        train_head(TrainConfig.of(**given, resume=there))


def found(training: Training, store: Path, directory: Path) -> dict[str, Any]:
    """What the finished training says, less what differs from one to the next: files, and what it predicts.

    Raises TrainingError where it is not finished.
    """
    if not (directory / training.result).is_file():
        raise TrainingError("it is not finished")
    said: dict[str, Any] = {}
    runs = sorted(directory.rglob("results.json"))
    for run in runs:
        name = run.parent.relative_to(directory).as_posix()
        predicted = predict(run.parent, store)
        said[f"{name} predicts"] = {k: v.tolist() for k, v in predicted.probabilities.items()}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.suffix == ".json":
            said[name] = _without_times(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            said[name] = [_without_times(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                said[name] = [_without_times(row) for row in csv.DictReader(file)]
        elif path.name == "best.safetensors":
            said[name] = {key: value.tolist() for key, value in read_tensors(path)[0].items()}
    for name in [name for name in said if name.endswith("config.json")]:
        said[name].pop("config")  # where it lies and whether it was resumed
    return said


def _without_times(data: Any) -> Any:
    if isinstance(data, dict):
        left = {name: _without_times(value) for name, value in data.items()}
        return {name: value for name, value in left.items() if name not in TIMES}
    return [_without_times(value) for value in data] if isinstance(data, list) else data


def problems(
    training: Training, moment: Moment, way: str, seed: int, folder: Path, store: Path, known: list[dict[str, Any]]
) -> list[str]:
    """What does not hold in one state, a sentence each; `known` is what may be said, of the whole training last."""
    write_state(moment, way, folder, seed)
    directory = folder / "run"
    wrong = []
    try:
        if found(training, store, directory) not in known:
            wrong.append("it says another thing than was found")
    except TrainingError as error:
        if moment.noted:
            wrong.append(f"it had finished and cannot be read: {error}")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the attack is for
        wrong.append(f"reading: {type(error).__name__}: {error}")
    try:
        train(training, training.options, store, directory)
        now = found(training, store, directory)
        names = [name for name in {*now, *known[-1]} if now.get(name) != known[-1].get(name)]
        if names:
            wrong.append(f"after the same command again {', '.join(sorted(names))} is another")
        if left := [p.name for p in folder.rglob(".*")]:
            wrong.append(f"after the same command again {left} is left")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the attack is for
        wrong.append(f"the same command again: {type(error).__name__}: {error}")
    return wrong


def try_training(name: str, states: int, seed: int) -> Tried:
    """Tries `states` states of a training: kills at different moments first, then power cuts."""
    training = TRAININGS[name]
    with memory_folder("training-cut-") as root:
        store = part_store(root / "s.zarr")
        moments, known = _watched(training, root, store)
        failed = wrong_states(
            moments, states, seed, root,
            lambda moment, way, own, state: problems(training, moment, way, own, state, store, known),
        )  # fmt: skip
    facts = {"moments": len(moments), "different states": len(different(moments))}
    return Tried(kind=f"training, {name}", tried=states, not_held=tuple(failed), facts=facts)


def _watched(training: Training, root: Path, store: Path) -> tuple[list[Moment], list[dict[str, Any]]]:
    """(every moment of the training, what may be said: before it and after)."""
    folder = root / "written"
    folder.mkdir()
    known = []
    if training.before:
        train(training, training.before, store, folder / "run")
        known.append(found(training, store, folder / "run"))
    disk = Disk(folder)
    with disk.recording():
        train(training, training.options, store, folder / "run")
        disk.note("finished")
    known.append(found(training, store, folder / "run"))
    return disk.moments, known


def attack(count: int, seed: int) -> Iterator[Tried]:
    """`count` states, of each training as many."""
    for name in TRAININGS:
        yield try_training(name, count // len(TRAININGS), seed)
