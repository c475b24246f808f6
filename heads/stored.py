"""The files of a run as they are read: each is held against what a run writes before anything of it is used.

What they mean is described in runs/run.py. A run may come from anywhere, so a file may hold anything.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelbank.heads.errors import TrainingError
from reelbank.store.files import json_object, reading, regular
from reelbank.store.kinds import REAL, check_kinds
from reelbank.store.tensor_files import tensor_file

if TYPE_CHECKING:
    from torch import Tensor

_NUMBER = (float, None)
_TEXT = (str, None)
PLUGIN: Mapping[str, Any] = {
    "kind": str, "name": str, "target": str, "distribution": _TEXT, "version": _TEXT, "sha256": str,
}  # fmt: skip
_METRIC = {
    "value": _NUMBER, "low?": _NUMBER, "high?": _NUMBER, "interval?": str, "drawn?": int,
    "higher_is_better?": (bool, None), "unit?": _TEXT,
}  # fmt: skip
_SPLIT = {
    "num_clips": int, "num_groups": (int, None), "metrics": {"*": _METRIC}, "baselines": {"*": ({"*": _NUMBER}, None)},
    "per_class?": [{"label": str, "clips": int, "share": float, "average_precision": _NUMBER, "random_order": _NUMBER}],
    "class_report?": [
        {"label": str, "clips": int, "predicted": int, "precision": _NUMBER, "recall": _NUMBER, "f1": _NUMBER}
    ],
    "most_confused?": [{"true": str, "predicted": str, "clips": int, "share": float}],
}  # fmt: skip
_ENDED = {"best_epoch": int, "epochs_run": int, "stopped_early": bool, "overfit": bool}
_FOLD = {**_ENDED, "fold": int, "train": int, "val": int, "test": int, "metrics": {"*": _NUMBER}}
_COUNTS = {"left_out?": [{"reason": str, "count": int}], "*": (int, None)}
_SPLITS = {"*": _SPLIT}
RESULTS: Mapping[str, Any] = {
    "run": str, "warning": str, "weights_are_random": bool, "shuffled_labels?": bool, "reported": str,
    "selection": {"sentence": str, "*": str}, "counts": _COUNTS, "splits": _SPLITS, "folds": [_FOLD],
    "at_best_epoch?": (None, {"splits": _SPLITS, "folds": [{"fold": int, "metrics": {"*": _NUMBER}}]}),
    "training": {**_ENDED, "seconds": float, "num_parameters": int}, "notes": [str], "verdict": (str, [str]),
    "target_name": _TEXT, "target_unit": _TEXT,
    "choices?": [{"fold": (int, None), "output": str, "chosen": str, "clips": int, "losses": {"*": float}}],
}  # fmt: skip
CONFIG: Mapping[str, Any] = {
    "config": {"label": str, "epochs": int, "*": object}, "warning": str, "num_parameters": int, "notes": [str],
    "stores": [{"path": str, "backbone": str, "taps": [str], "*": object}], "data_digest": str, "plugins?": [PLUGIN],
}  # fmt: skip
ANY_CONFIG: Mapping[str, Any] = {"config": {"*": object}, "data_digest?": str}
"""Of a sweep or a recipe, which have runs below them."""
EPOCH: Mapping[str, Any] = {
    "fold": (int, None), "epoch": int, "learning_rate": float, "train_loss": _NUMBER, "val_loss": _NUMBER,
    "val_accuracy": _NUMBER, "val_mae": _NUMBER, "seconds?": float, "best?": bool, "train_accuracy?": _NUMBER,
    "losses?": {"*": float}, "learning_rates?": {"*": float}, "batch_learning_rates?": [float],
}  # fmt: skip
PLACE: Mapping[str, Any] = {"fold": (int, None), "epoch": int, "*": object}
"""What a resumed run must know of a line."""
CONFUSION: Mapping[str, Any] = {"*": {"labels": [str], "counts": [[int]]}}
_READING = {"rule": str, "beside": [str]}
_ARRAY = {"backbone": str, "tap": str, "shape": [int], "dtype": str, "num_steps": int}
_BACKBONE = {"module": str, "prefix": str, "weights": {"kind": str, "*": object}, "left_out": [str], "sha256": str}
PREDICTOR: Mapping[str, Any] = {
    "head": str, "options": {"*": object}, "labels": (None, [str]), "pool": str, "segments?": _TEXT, "estimate?": str,
    "separator?": _TEXT,
    "shape": {"taps": {"*": int}, "outputs": {"*": int}, "num_steps": int, "arrays?": {"*": _ARRAY}},
    "unit_steps?": bool, "normalize": str, "stage?": str, "steps?": int, "from?": [str],
    "trained_on?": str, "backbones?": {"*": _BACKBONE},
    "bins": (None, {"target": str, "num_bins": int, "low": float, "high": float, "sigma_bins": float, "*": str}),
    "sources": [{"spec": {"*": object}, "keys": {"*": str}, "readings?": {"*": _READING}}], "plugin?": (None, PLUGIN),
}  # fmt: skip
PROGRESS: Mapping[str, Any] = {
    "epoch": int, "best_epoch": int, "best_accuracy?": REAL, "best_loss": REAL, "last_loss": REAL,
    "stopped_early": bool,
    "learning_rates": [float], "schedule": (None, {"*": (REAL, bool, [REAL])}),
}  # fmt: skip


def read_tensors(path: Path, kinds: Mapping[str, Any] | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, header) of a file that `write_tensors` wrote, whose header must be of `kinds`.

    Raises TrainingError if it is not one.
    """
    with _checkpoint(path, kinds) as (file, header):
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 (no mapping)


def read_header(path: Path, kinds: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The header of such a file, without its tensors. Raises TrainingError as `read_tensors`."""
    with _checkpoint(path, kinds) as (_, header):
        return header


@contextmanager
def _checkpoint(path: Path, kinds: Mapping[str, Any] | None) -> Iterator[tuple[Any, dict[str, Any]]]:
    if path.is_dir():
        raise TrainingError(f"{path} is a folder: this run has no checkpoint of that kind")
    try:
        with tensor_file(path, kinds or {}, TrainingError) as opened:
            yield opened
    except FileNotFoundError:
        raise TrainingError(f"{path} is missing: this run has no checkpoint of that kind") from None


def read_json(path: Path, kinds: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The object in a JSON file of a run. Raises TrainingError naming the file if it is missing or damaged."""
    try:
        with reading(path, TrainingError):
            data = json_object(regular(path).read_bytes(), constants=False)
            check_kinds(data, dict(kinds or {}), "")
    except FileNotFoundError:
        raise TrainingError(f"{path} is missing: {path.parent} is not a finished run{_runs_below(path)}") from None
    return data


def _runs_below(path: Path) -> str:
    """Which runs lie below the folder of a file that is not there: a sweep or a recipe is asked for one of its runs."""
    runs = sorted(found.parent for depth in ("*", "*/*", "*/*/*") for found in path.parent.glob(f"{depth}/{path.name}"))
    return f"; it holds {len(runs)} runs, name one of them, such as {runs[0]}" if runs else ""


def read_results(run: Path) -> dict[str, Any]:
    """results.json of a finished run. Raises TrainingError."""
    return read_json(run / "results.json", RESULTS)


def read_config(run: Path) -> dict[str, Any]:
    """config.json of a run. Raises TrainingError."""
    return read_json(run / "config.json", CONFIG)


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl. Raises TrainingError naming file and line."""
    with reading(path, TrainingError):
        lines = regular(path).read_text(encoding="utf-8").splitlines()
    return [epoch_of(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def epoch_of(path: Path, number: int, line: str, kinds: Mapping[str, Any] = EPOCH) -> dict[str, Any]:
    """Line `number` of metrics.jsonl. Raises TrainingError naming file and line."""
    with reading(Path(f"{path}, line {number},"), TrainingError):
        entry = json_object(line, constants=False)
        check_kinds(entry, dict(kinds), "")
    return entry


def read_confusion(path: Path) -> dict[str, Any]:
    """confusion.json: as many names as rows and columns. Raises TrainingError."""
    data = read_json(path, CONFUSION)
    for split, entry in data.items():
        rows = entry["counts"]
        if any(len(side) != len(entry["labels"]) for side in (rows, *rows)):
            raise TrainingError(f"{path} is damaged: the counts of {split!r} are not those of its labels")
    return data


def read_table(path: Path, columns: tuple[str, ...]) -> tuple[list[str], list[dict[str, str]]]:
    """(names of the columns, rows) of a CSV of a run. Raises TrainingError naming the file if it has not `columns`."""
    with reading(path, TrainingError), regular(path).open(encoding="utf-8", newline="") as file:
        try:
            reader = csv.DictReader(file, strict=True, restval="")
            names, rows = list(reader.fieldnames or ()), list(reader)
        except csv.Error as error:
            raise ValueError(str(error)) from error
        if missing := [name for name in columns if name not in names]:
            raise ValueError(f"it has no column {missing[0]!r}")
        if any(None in row for row in rows):
            raise ValueError("a row has more cells than there are columns")
    return names, rows
