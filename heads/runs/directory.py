"""The directory of a run: what must hold before it is made or gone on with, and how its files are written.

What the files hold is described in run.py. Of code from outside the identity is kept and compared.
"""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.label_sets import joined, labels_in
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.examples.targets import Bins
from reelbank.heads.judging.evaluation import Predictions
from reelbank.heads.judging.label_sets import THRESHOLD
from reelbank.heads.judging.metrics import METRICS, point_estimate
from reelbank.heads.judging.opposites import WITHIN_PAIR, pairs, told_apart
from reelbank.heads.losses import loss_function
from reelbank.heads.run_config import RunConfig
from reelbank.heads.runs.results import FORMAT_VERSION, Finished
from reelbank.heads.runs.tensorboard import write_outcome
from reelbank.heads.stored import ANY_CONFIG, read_config, read_json
from reelbank.manifests.events import Event, Progress
from reelbank.manifests.registry import file_name
from reelbank.store.files import (
    appearing,
    leftovers,
    make_folder,
    not_written,
    only_writer,
    refuse_links,
    remove_leftovers,
    sync,
    write_whole,
)


class Resumable(Protocol):
    """A configuration: of a training, a sweep or a recipe."""

    def identity(self) -> dict[str, Any]:
        """The fields that a resumed run must share, as JSON types."""


def open_directory(run: RunConfig, name: str, asked: Resumable) -> Path:
    """Makes the directory of a new run, or finds the one to resume.

    Args:
        run: which directory, and what may be there.
        name: of a run that was given none: runs/<name>-<n> with the first free n.
        asked: what a resumed run must be of.

    Raises:
        TrainingError: --run names a directory that is not empty (without --overwrite or --resume), one that holds
            no run (with them), or a run of another configuration (with --resume).
    """
    if run.directory is None:
        return _free_directory(name)
    directory = run.directory
    is_run = (directory / "config.json").is_file()
    if is_run and (run.resume or run.overwrite):
        with only_writer(directory, TrainingError):
            pass  # before anything of it is touched
    if run.resume:
        if not is_run:
            raise TrainingError(f"--resume: {directory} holds no run (no config.json); leave --resume out to start one")
        refuse_links(directory, TrainingError)
        refuse_other_config(directory, asked)
        for folder in (directory, *directory.glob("fold-*")):
            remove_leftovers(folder)
        sync(directory.parent)  # a killed process may have made the directory without
        return directory
    if directory.is_dir() and set(directory.iterdir()) == set(leftovers(directory)):
        remove_leftovers(directory)  # of a process that was killed before it wrote config.json
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        if not run.overwrite:
            raise TrainingError(f"--run {directory} exists; pass --resume, --overwrite or another directory")
        if not is_run:
            raise TrainingError(f"--overwrite: {directory} holds no run (no config.json), so it is not removed")
        _clear(directory)
    make_folder(directory)
    sync(directory.parent)
    return directory


def _clear(directory: Path) -> None:
    """Removes what a run holds: what says that it has finished first, what says that it is a run last."""
    for result in ("results.json", "sweep.json", "recipe.json"):
        not_finished(directory, result)
    for child in directory.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        elif child.name != "config.json":
            child.unlink()
    sync(directory)
    (directory / "config.json").unlink()


def not_finished(directory: Path, result: str) -> None:
    """Takes back the file that says that a run has finished, before it goes on to other numbers."""
    if (directory / result).exists():
        (directory / result).unlink()
        sync(directory)


def start_run(prepared: Prepared) -> Path:
    """Tries the plug-ins out, then makes the directory of a run with its config.json.

    Raises what `try_out` and `open_directory` raise; for a resumed run also TrainingError where its data or the code
    of its plug-ins are no longer the same.
    """
    config = prepared.config
    try_out(prepared)
    described = prepared.description | {"plugins": plugins_of(config)}
    directory = open_directory(config.run, name_of_run(config), config)
    path = directory / "config.json"
    if config.run.resume:
        stored = read_config(directory)
        if stored["data_digest"] != described["data_digest"]:
            raise TrainingError(
                f"--resume: the stores of {directory} have changed (clips, labels or features); start another run"
            )
        what = f"--resume: {directory} was trained with"
        refuse_changed_plugins(what, stored.get("plugins", []), described["plugins"])
        not_finished(directory, "results.json")
    write_json(path, {"format_version": FORMAT_VERSION, **described})
    return directory


def plugins_of(config: TrainConfig) -> list[dict[str, Any]]:
    """The identity of every plug-in that trains or judges: kind, name, target, package, version, sha256, files."""
    found = [config.head.plugin, *config.objective.plugins.values(), *map(METRICS.plugin, config.data.metric)]
    return [plugin.identity() for plugin in found if plugin is not None]


def try_out(prepared: Prepared) -> None:
    """Runs what plug-ins give on a few empty clips, so that a mistake of theirs is said before a run is made.

    Raises PluginError, and TrainingError for a metric that judges what is not trained.
    """
    config = prepared.config
    judged = ["labels" if name == "label" and config.separator else name for name in prepared.shape.outputs]
    for name in config.data.metric:
        if (output := METRICS.row(name).output) not in judged:
            raise TrainingError(f"--metric {name} judges the {output}, which this run does not train")
    with torch.random.fork_rng(devices=[]):
        _ = prepared.num_parameters  # a plug-in's head is built, and tried, to count them
        for loss in map(loss_function, config.objective.plugins):
            for count in prepared.shape.outputs.values():
                loss(torch.zeros(2, count), torch.full((2, count), 1 / count))


def name_of_run(config: TrainConfig) -> str:
    """What the directory of a run is called before its number: stores, head and, of a network, loss."""
    stores = "+".join(path.stem for path in config.data.store)
    if config.head.is_fitted:
        return f"{stores}-{file_name(config.head.name)}"
    return f"{stores}-{file_name(config.head.name)}-{file_name(config.objective.loss)}"


def _free_directory(name: str) -> Path:
    number = 1
    while True:
        directory = Path("runs") / f"{name}-{number}"
        try:
            make_folder(directory.parent)
            directory.mkdir()
        except FileExistsError:
            number += 1
        else:
            sync(directory.parent)
            return directory


def refuse_other_config(directory: Path, asked: Resumable) -> None:
    """Raises TrainingError if `directory` holds a run of another configuration than `asked`, naming the fields."""
    stored = read_json(directory / "config.json", ANY_CONFIG)["config"]
    # A run of an earlier version lacks newer fields: it was trained with their defaults.
    defaults = TrainConfig.of(store=(Path(),)).to_json()
    wanted = asked.identity()
    names = [name for name, value in wanted.items() if stored.get(name, defaults.get(name)) != value]
    if names:
        lines = [f"  {name}: the run has {stored.get(name)!r}, asked {wanted[name]!r}" for name in names]
        raise TrainingError(
            f"--resume: {directory} was trained with other options:\n" + "\n".join(lines) + "\n"
            "Ask for the same ones, or start another run."
        )


def refuse_changed_plugins(what: str, stored: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> None:
    """Raises TrainingError naming the plug-ins whose source is not what it was.

    Args:
        what: begins the sentence: "RUN was trained with".
        stored: identities that were kept.
        now: those of the code that would run.
    """
    current = {(entry["kind"], entry["name"]): entry for entry in now}
    changed = []
    for entry in stored:
        found = current.get((entry["kind"], entry["name"]))
        if found is None or found["sha256"] != entry["sha256"]:
            changed.append(f"{named_plugin(entry)}, here is {'none' if found is None else named_plugin(found)}")
    if changed:
        raise TrainingError(f"{what} other code: {'; '.join(changed)}. Install that code again, or train another run")


def named_plugin(entry: Mapping[str, Any]) -> str:
    """A plug-in's identity in words."""
    package = f" of {entry['distribution']} {entry['version']}" if entry["distribution"] else ""
    return f"{entry['kind']} {entry['name']!r} ({entry['target']}{package}, source sha256 {entry['sha256'][:12]})"


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replaces a JSON file: after a crash it is the old one or the new one."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, text + "\n")


def write_predictions(path: Path, prepared: Prepared, parts: Iterable[Predictions]) -> None:
    """predictions.csv of a run: see run.py for the columns."""
    columns = ["clip_id", "split", "fold", "group", "label", "predicted", "probability", "correct"]
    if prepared.label_sets is not None:
        columns += [probability_column(label) for label in prepared.labels or ()]
    elif prepared.labels is not None:
        columns += ["true_probability", *([WITHIN_PAIR] if pairs(prepared.labels) else [])]
    if prepared.bins is not None:
        columns += ["target", "predicted_target", "target_cdf"]
    with appearing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for part in parts:
            writer.writerows(_rows(prepared, part))


def write_finished(directory: Path, prepared: Prepared, found: Finished, progress: Progress | None = None) -> None:
    """Everything that is written last: a run without results.json is not finished. Then the report, if it is asked."""
    tell = progress or (lambda event: None)
    tell(Event(stage="evaluate", done=1, total=1, message=found.results["verdict"]))
    files = {"predictions.csv": found.predictions}
    if found.best_epoch:
        files["predictions-best-epoch.csv"] = found.best_epoch
    for name, parts in files.items():
        write_predictions(directory / name, prepared, parts.values())
    if found.confusions:
        write_json(directory / "confusion.json", found.confusions)
    if prepared.config.run.tensorboard:
        write_outcome(directory, prepared.config, found.results)
    write_json(directory / "results.json", found.results)
    if prepared.config.run.report:
        from reelbank.heads.reports.run_page import write_run_report
        from reelbank.heads.runs.showing import write_input_strip

        if why := write_input_strip(directory, prepared, found):
            tell(Event(stage="report", done=0, total=1, note=why))
        write_run_report(directory, figures_kind=prepared.config.run.figures)
        tell(Event(stage="report", done=1, total=1, message=f"report in {directory}"))


def mass_below(probabilities: np.ndarray, bins: Bins, value: float) -> float:
    """How much of a predicted distribution (K,) lies below `value`, its own bin counted half.

    Over many clips evenly spread in [0, 1] where the distributions are right (Dawid 1984, the prequential approach).
    """
    place = int(bins.nearest(np.array([value]))[0])
    return float(probabilities[:place].sum() + 0.5 * probabilities[place])


def probability_column(label: str) -> str:
    """What the column with the probability of a label is called, where a clip may have several."""
    return f"probability of {label}"


def _rows(prepared: Prepared, part: Predictions) -> Iterable[dict[str, Any]]:
    table, names = prepared.table, prepared.labels or ()
    has_pairs = prepared.label_sets is None and bool(pairs(names))
    if prepared.bins is not None:
        values, kind = prepared.bins.values(), prepared.config.head.estimate
        predicted = point_estimate(part.probabilities["target"], values, kind)
    for i, row in enumerate(part.rows.tolist()):
        entry: dict[str, Any] = {
            "clip_id": table.clip_ids[row],
            "split": part.split,
            "fold": "" if part.folds[i] < 0 else int(part.folds[i]),
            "group": table.groups[row],
            "label": table.labels[row],
            "predicted": "",
            "probability": "",
            "correct": "",
        }
        if prepared.label_sets is not None and prepared.config.separator is not None:
            chances = part.probabilities["label"][i]
            separator = prepared.config.separator
            (entry["predicted"],) = joined(chances[None] >= THRESHOLD, names, separator)
            entry |= {probability_column(name): f"{p:.6f}" for name, p in zip(names, chances.tolist(), strict=True)}
            if part.split != "unknown" and entry["label"]:
                same = set(labels_in(entry["predicted"], separator)) == set(labels_in(entry["label"], separator))
                entry["correct"] = str(int(same))
        elif prepared.labels is not None:
            best = int(part.probabilities["label"][i].argmax())
            entry["predicted"] = prepared.labels[best]
            entry["probability"] = f"{part.probabilities['label'][i, best]:.6f}"
            entry["true_probability"] = ""
            if entry["label"] in names:
                true = names.index(entry["label"])
                entry["true_probability"] = f"{part.probabilities['label'][i, true]:.6f}"
            if part.split != "unknown" and entry["label"]:
                entry["correct"] = str(int(entry["predicted"] == entry["label"]))
            if has_pairs:
                told = told_apart(part.probabilities["label"][i], entry["label"], names)
                entry[WITHIN_PAIR] = "" if told is None else str(int(told))
        if prepared.bins is not None and prepared.target_values is not None:
            value = prepared.target_values[row]
            entry["target"] = f"{value:.6g}" if np.isfinite(value) else ""
            entry["predicted_target"] = f"{predicted[i]:.6g}"
            if np.isfinite(value):
                entry["target_cdf"] = f"{mass_below(part.probabilities['target'][i], prepared.bins, value):.6f}"
        yield entry


@contextmanager
def resumable(directory: Path) -> Iterator[None]:
    """A KeyboardInterrupt from inside carries, as a note, the options that go on in `directory`; a full disk too.

    Raises TrainingError if another process trains there.
    """
    options = f"--run {shlex.quote(str(directory))} --resume"
    try:
        with only_writer(directory, TrainingError):
            yield
    except KeyboardInterrupt as stop:
        stop.add_note(options)
        raise
    except Exception as error:
        if full := not_written(error):
            full.add_note(f"what is in {directory} is whole; the same command with {options} goes on")
            raise full from error
        raise
