"""What a sweep has found: which combination validation prefers, as JSON, CSV, a table and a picture."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.judging.evaluation import number
from reelbank.heads.objective_config import ObjectiveConfig
from reelbank.heads.reports.drawing import PALETTE, Heading, clean_axes, name_text, new_figure, png
from reelbank.heads.reports.wording import title
from reelbank.heads.stored import read_epochs, read_results
from reelbank.heads.sweeps.config import SweepConfig
from reelbank.heads.sweeps.grid import Axis, Member, value_text
from reelbank.store.files import appearing
from reelbank.store.options import options

FORMAT_VERSION = 1
HIGHER_IS_BETTER = {"val_accuracy": True, "val_loss": False, "val_mae": False}
MAX_DRAWN = 60  # combinations in the ranked picture
MOST_WRITTEN = 9  # columns of a heat map whose numbers have room


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of one member; the numbers are of the epoch whose weights it keeps, the mean over folds."""

    member: Member
    error: str | None
    val_loss: float = math.nan
    val_accuracy: float = math.nan
    val_mae: float = math.nan
    best_epoch: int = 0
    epochs_run: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Combination:
    """The repeats of one combination of values: mean and standard deviation of the selecting metric."""

    values: Mapping[str, Any]
    trials: tuple[Trial, ...]
    mean: float
    deviation: float


def trial_of(member: Member, error: str | None) -> Trial:
    """Reads the run directory of a trained member."""
    if error is not None:
        return Trial(member=member, error=error)
    directory = member.directory
    results = read_results(directory)
    lines = read_epochs(directory / "metrics.jsonl")
    folds = results["folds"] or [{"fold": None, **results["training"]}]
    kept = []
    for fold in folds:
        epoch = fold["best_epoch"] if member.config.optimizer.keep == "best" else fold["epochs_run"]
        lasting = [line for line in lines if line["fold"] == fold["fold"] and line["epoch"] == epoch]
        if not lasting:
            where = f"{directory / 'metrics.jsonl'} has no epoch {epoch} of fold {fold['fold']}"
            raise TrainingError(f"{where}: it is damaged")
        kept.append(lasting[0])

    def mean(name: str) -> float:
        return float(np.mean([math.nan if line[name] is None else line[name] for line in kept]))

    return Trial(
        member=member,
        error=None,
        val_loss=mean("val_loss"),
        val_accuracy=mean("val_accuracy"),
        val_mae=mean("val_mae"),
        best_epoch=folds[0]["best_epoch"],
        epochs_run=folds[0]["epochs_run"],
        seconds=results["training"]["seconds"],
    )


def criterion(sweep_by: str, axes: Sequence[Axis], *, has_target: bool = False) -> tuple[str, str]:
    """(metric, why): the column that chooses the winner."""
    if sweep_by != "auto":
        return sweep_by, "as asked for by --sweep-by"
    changed = sorted(axis.field for axis in axes if options(TrainConfig)[axis.field].part is ObjectiveConfig)
    if not changed:
        return "val_loss", "the loss that training lowers"
    metric = "val_mae" if has_target else "val_accuracy"
    return metric, f"losses of different {', '.join(changed)} cannot be compared"


def ranked(trials: Sequence[Trial], metric: str) -> list[Combination]:
    """Combinations from best to worst by the mean over their repeats; those with a failed member come last."""
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(tuple(trial.member.values.items()), []).append(trial)
    made = []
    for key, group in groups.items():
        values = np.array([math.nan if trial.error else getattr(trial, metric) for trial in group])
        deviation = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        made.append(Combination(values=dict(key), trials=tuple(group), mean=float(values.mean()), deviation=deviation))
    sign = -1 if HIGHER_IS_BETTER[metric] else 1
    return sorted(made, key=lambda one: sign * one.mean if math.isfinite(one.mean) else math.inf)


def choose(trials: Sequence[Trial], metric: str) -> Combination:
    """The best combination. Raises TrainingError if none has a finite metric."""
    best = ranked(trials, metric)[0]
    if math.isfinite(best.mean):
        return best
    reason = next((trial.error for trial in trials if trial.error), f"{metric} is undefined")
    raise TrainingError(f"no combination of the sweep could be trained and judged by {metric}; the first: {reason}")


def summarize(
    config: SweepConfig,
    prepared: Prepared,
    axes: Sequence[Axis],
    trials: Sequence[Trial],
    steps: Sequence[Mapping[str, Any]],
    *,
    run: str,
    executor: str,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of sweep.json; `notes` are what was said while it ran.

    Only the winner's reported metrics are read: nothing else may choose by them.

    format_version · run · weights_are_random · warning · fields {field: [values as text]} · repeats · executor ·
    selection {metric, higher_is_better, sentence} · steps [{field, chosen, <metric>}] of --stepwise · combinations
    (best first) [{values, members, mean, deviation, failed}] · members [{name, values, seed, status "done"|"failed",
    error, val_loss, val_accuracy, val_mae, best_epoch, epochs_run, seconds}] · winner {values, members, value,
    reported: split, metrics {name: {mean, deviation, count, unit}}} · notes
    """
    metric, why = criterion(config.sweep_by, axes, has_target=prepared.bins is not None)
    order = ranked(trials, metric)
    best = choose(trials, metric)
    names = [trial.member.name for trial in best.trials]
    finished = [read_results(trial.member.directory) for trial in best.trials]
    reported = finished[0]["reported"]
    metrics = {}
    for name in finished[0]["splits"][reported]["metrics"]:
        entries = [entry["splits"][reported]["metrics"].get(name, {}) for entry in finished]
        values = [entry.get("value") for entry in entries]
        known = [value for value in values if value is not None]
        metrics[name] = {
            "mean": float(np.mean(known)) if known else None,
            "deviation": float(np.std(known, ddof=1)) if len(known) > 1 else None,
            "count": len(known),
            "unit": entries[0].get("unit"),
        }
    failed = sum(trial.error is not None for trial in trials)
    if failed:
        notes = [*notes, f"{failed} of {len(trials)} members could not be trained; sweep.json says why."]
    return {
        "format_version": FORMAT_VERSION,
        "run": run,
        "weights_are_random": prepared.weights_are_random,
        "warning": prepared.warning,
        "fields": {axis.field: [value_text(value) for value in axis.values] for axis in axes},
        "repeats": config.members.repeats,
        "executor": executor,
        "selection": {
            "metric": metric,
            "higher_is_better": HIGHER_IS_BETTER[metric],
            "sentence": _sentence(config, metric, why, reported),
        },
        "steps": list(steps),
        "combinations": [
            {
                "values": _texts(one.values),
                "members": [trial.member.name for trial in one.trials],
                "mean": number(one.mean),
                "deviation": number(one.deviation),
                "failed": sum(trial.error is not None for trial in one.trials),
            }
            for one in order
        ],
        "members": [_member_entry(trial) for one in order for trial in one.trials],
        "winner": {
            "values": _texts(best.values),
            "members": names,
            "value": number(best.mean),
            "reported": reported,
            "metrics": metrics,
        },
        "notes": list(notes),
    }


def _sentence(config: SweepConfig, metric: str, why: str, reported: str) -> str:
    repeats = config.members.repeats
    each = f"mean of {repeats} seeds" if repeats > 1 else "one seed"
    chosen = f"The winner has the best {title(metric)} ({each}; {why})"
    if config.train.data.select_on == "reported-set":
        return f"{chosen}, chosen on the reported set itself (--select-on reported-set): its numbers are too good."
    if reported != "test":
        return f"{chosen}; only validation is reported, on the very clips that chose the winner."
    return f"{chosen}, chosen on validation; test is reported once, for the winner alone."


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: value_text(value) for name, value in values.items()}


def _member_entry(trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.member.name,
        "values": _texts(trial.member.values),
        "seed": trial.member.seed,
        "status": "failed" if trial.error else "done",
        "error": trial.error or "",
        "val_loss": number(trial.val_loss),
        "val_accuracy": number(trial.val_accuracy),
        "val_mae": number(trial.val_mae),
        "best_epoch": trial.best_epoch,
        "epochs_run": trial.epochs_run,
        "seconds": trial.seconds,
    }


def write_csv(path: Path, results: Mapping[str, Any]) -> None:
    """sweep.csv: one row per member, best combination first."""
    swept = list(results["fields"])
    columns = ["name", *swept, "seed", "status", "val_loss", "val_accuracy", "val_mae", "best_epoch", "epochs_run"]
    with appearing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, "seconds", "error"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**member["values"], **member} for member in results["members"])


def sweep_text(directory: Path, results: Mapping[str, Any]) -> str:
    """sweep.json for a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    metric = results["selection"]["metric"]
    table = Table(
        title=f"{len(results['combinations'])} combinations by {title(metric)}, best first", title_justify="left"
    )
    for column in [*results["fields"], title(metric), "+-", "seeds", "failed"]:
        table.add_column(column, overflow="fold")
    for one in results["combinations"]:
        cells = [*one["values"].values(), _shown(one["mean"]), _shown(one["deviation"])]
        table.add_row(*(Text(cell) for cell in [*cells, str(len(one["members"])), str(one["failed"] or "")]))
    console = Console(width=110)
    with console.capture() as captured:
        console.print(table)
    winner = results["winner"]
    values = ", ".join(f"{name} {value}" for name, value in winner["values"].items()) or "the one configuration"
    lines = [results["warning"], captured.get().rstrip(), f"Winner: {values}", results["selection"]["sentence"]]
    width = max([13, *(len(title(name)) for name in winner["metrics"])])
    for name, entry in winner["metrics"].items():
        spread = "" if entry["deviation"] is None else f" +- {_shown(entry['deviation'])} over {entry['count']} seeds"
        lines.append(f"  {winner['reported']} {title(name):<{width}} {_shown(entry['mean'])}{spread}")
    lines += results["notes"]
    lines += [f"Runs of the winner: {directory / 'members' / name}" for name in winner["members"]]
    lines.append(f"Sweep: {directory / 'sweep.json'}, {directory / 'sweep.csv'}, {directory / 'sweep.png'}")
    if (directory / "report.html").exists():
        lines.append(f"Report: {directory / 'report.html'}")
    return "\n".join(line for line in lines if line)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def draw(results: Mapping[str, Any], prepared: Prepared) -> bytes:
    """The grid as PNG: a heat map of two fields, else the combinations from best to worst."""
    heading = Heading(
        source=" + ".join(str(source.store.path.name) for source in prepared.table.sources),
        count=f"{len(results['members'])} trainings, {title(results['selection']['metric'])}",
        warning=results["warning"],
    )
    if len(results["fields"]) == 2 and not results["steps"]:
        return _heat_map(results, heading)
    return _ranking(results, heading)


def _heat_map(results: Mapping[str, Any], heading: Heading) -> bytes:
    (rows, row_values), (columns, column_values) = results["fields"].items()
    grid = np.full((len(row_values), len(column_values)), math.nan)
    for one in results["combinations"]:
        place = row_values.index(one["values"][rows]), column_values.index(one["values"][columns])
        grid[place] = math.nan if one["mean"] is None else one["mean"]
    figure = new_figure(2.6 + 0.9 * len(column_values), 2.2 + 0.5 * len(row_values), "Sweep", heading)
    axes = figure.subplots()
    higher = results["selection"]["higher_is_better"]
    image = axes.imshow(grid, aspect="auto", cmap="viridis" if higher else "viridis_r")
    figure.colorbar(image, ax=axes, label=title(results["selection"]["metric"]))
    # Of more columns the numbers would lie on each other: the table of the page and sweep.csv have them.
    shown = np.ndenumerate(grid) if len(column_values) <= MOST_WRITTEN else ()
    for (row, column), value in shown:
        axes.text(
            column, row, "failed" if math.isnan(value) else f"{value:.4g}", ha="center", va="center",
            fontsize=8, bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    axes.set_xticks(range(len(column_values)), [name_text(value) for value in column_values])
    axes.set_yticks(range(len(row_values)), [name_text(value) for value in row_values])
    axes.set(xlabel=columns, ylabel=rows)
    return png(figure)


def _ranking(results: Mapping[str, Any], heading: Heading) -> bytes:
    shown = [one for one in results["combinations"] if one["mean"] is not None][:MAX_DRAWN][::-1]
    heads = "Sweep" if len(shown) == len(results["combinations"]) else f"Sweep ({len(shown)} best)"
    figure = new_figure(8.0, 1.9 + 0.24 * len(shown), heads, heading)
    axes = figure.subplots()
    means = [one["mean"] for one in shown]
    axes.errorbar(
        means, range(len(shown)), xerr=[one["deviation"] or 0.0 for one in shown], fmt="o", color=PALETTE[0], capsize=3
    )
    axes.plot(means[-1], len(shown) - 1, "o", color=PALETTE[3], label="winner", zorder=3)
    labels = [", ".join(f"{name}={value}" for name, value in one["values"].items()) or "base" for one in shown]
    axes.set_yticks(range(len(shown)), [label.replace("$", r"\$") for label in labels], fontsize=8)
    axes.set(xlabel=title(results["selection"]["metric"]))
    axes.legend(fontsize=8, frameon=False)
    clean_axes(axes)
    return png(figure)
