"""The page of a training run, drawn from the files that `reelbank.heads.runs.run` describes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.errors import TrainingError
from reelbank.heads.reports import html
from reelbank.heads.reports.clip_rows import (
    ClipRow,
    Thumbnails,
    clip_table,
    mistakes,
    read_clip_rows,
    script,
    target_pairs,
)
from reelbank.heads.reports.drawing import figures_as, files_of
from reelbank.heads.reports.learning_curves import MOST_STEPS
from reelbank.heads.reports.mistakes_page import MISTAKES, write_mistakes
from reelbank.heads.reports.wording import (
    confused_text,
    counted,
    shared_text,
    title,
    units_of,
    warnings_first,
    with_interval,
    with_unit,
)
from reelbank.heads.stored import read_config, read_confusion, read_epochs, read_results
from reelbank.store.files import refuse_links, regular, write_whole

MOST_OPEN_CLASSES = 15
"""Of more classes their table opens on a click."""
_CLASS_COLUMNS = ("clips", "predicted", "precision", "recall", "f1")
INPUTS = "inputs.png"
"""The picture of what a head reads, which the run made when it ended: its stores need not be there later."""


def write_run_report(run_dir: Path | str, *, figures_kind: str = "png") -> Path:
    """Writes `report.html` and `figures/*.png` of a finished run; returns the page.

    Args:
        run_dir: of the run.
        figures_kind: what figures are also written as, `svg` or `pdf`.

    Raises:
        ValueError: a folder without `results.json` or `config.json`: the run is not finished or is none.
    """
    from reelbank.heads.reports import figures

    run_dir = Path(run_dir)
    for name in ("config.json", "results.json"):
        if not (run_dir / name).is_file():
            raise ValueError(f"{run_dir} has no {name}: not a finished run; train it first, or pass another --run")
    refuse_links(run_dir, TrainingError)
    config, results = read_config(run_dir), read_results(run_dir)
    heading = figures.Heading(
        source=f"{results['run']} · {_stores(config)}",
        count=f"n = {results['counts'].get('clips')} clips",
        warning=_warning_lines(results)[0],
    )
    predictions = run_dir / "predictions.csv"
    rows = read_clip_rows(predictions) if predictions.is_file() else []
    with figures_as(figures_kind):
        drawn = _run_pictures(run_dir, config, results, rows, heading)
    folder = run_dir / "figures"
    folder.mkdir(exist_ok=True)
    for name, (content, _) in drawn.items():
        for file, data in files_of(name, content).items():
            write_whole(folder / file, data)
    thumbnails = Thumbnails(config["stores"])
    write_mistakes(
        run_dir,
        rows,
        results["reported"],
        thumbnails,
        title=f"Mistakes of {results['run']}",
        subtitle=_stores(config),
        warnings=_warning_lines(results),
    )
    page = run_dir / "report.html"
    write_whole(page, _run_page(run_dir, config, results, rows, drawn, thumbnails))
    return page


def _stores(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{Path(store['path']).name} ({store['backbone']})" for store in config["stores"])


def _warning_lines(results: Mapping[str, Any]) -> list[str]:
    lines = [results.get("warning") or ""]
    if results.get("shuffled_labels"):
        lines.append("Control experiment: the training labels were shuffled. A score above chance is a fault.")
        lines[0] = lines[0] or "control experiment: shuffled labels"
    return lines


def _run_pictures(
    run_dir: Path, config: Mapping[str, Any], results: Mapping[str, Any], rows: Sequence[ClipRow], heading: Any
) -> dict[str, tuple[bytes, str]]:
    """{file name: (PNG, caption)} of what the run's files allow."""
    from reelbank.heads.reports import figures

    drawn: dict[str, tuple[bytes, str]] = {}
    epochs, pairs = [], target_pairs(rows)
    if (run_dir / "metrics.jsonl").is_file() and not results.get("choices"):  # a fitted head has no epochs
        epochs = read_epochs(run_dir / "metrics.jsonl")
    if epochs:
        figure = figures.learning_curves(epochs, heading=heading, steps=rate_steps(config["config"]))
        drawn["learning-curves.png"] = (figures.png(figure), "Learning curves; a dot marks the best epoch")
    if (run_dir / "confusion.json").is_file():
        confusion = read_confusion(run_dir / "confusion.json")
        for number, (split, entry) in enumerate(sorted(confusion.items())):
            counts = np.array(entry["counts"], dtype=np.int64)
            if not counts.size:
                continue
            figure = figures.confusion_matrix(
                counts,
                entry["labels"],
                title=f"Confusion matrix, {split}",
                heading=replace(heading, count=f"n = {int(counts.sum())} clips"),
            )
            safe = split if split.isascii() and split.isalnum() else f"part-{number}"
            drawn[f"confusion-{safe}.png"] = (figures.png(figure), f"Confusion matrix of split {split}, clips")
            figure = figures.confusion_matrix(
                counts,
                entry["labels"],
                title=f"Confusion matrix, {split}",
                heading=replace(heading, count=f"n = {int(counts.sum())} clips"),
                normalised=True,
            )
            caption = f"Confusion matrix of split {split}, percent of each true class"
            drawn[f"confusion-{safe}-shares.png"] = (figures.png(figure), caption)
    if pairs and results.get("target_name"):
        figure = figures.predicted_vs_true(
            pairs, target_name=results["target_name"], unit=results.get("target_unit") or "", heading=heading
        )
        drawn["predicted-vs-true.png"] = (
            figures.png(figure),
            f"Predicted and true {results['target_name']}, and their distributions",
        )
    strip = run_dir / "figures" / INPUTS
    if strip.is_file() and html.is_png(content := regular(strip).read_bytes()):
        drawn[INPUTS] = (content, "What the head reads of one clip")
    return drawn


def rate_steps(asked: Mapping[str, Any]) -> list[int]:
    """Epochs after which the schedule of a run changes its rate, by the configuration in its config.json."""
    every, milestones = asked.get("step_epochs"), asked.get("milestones")
    if asked.get("schedule") == "multistep" and isinstance(milestones, list):
        return [epoch for epoch in milestones if isinstance(epoch, int)]
    if asked.get("schedule") == "step" and isinstance(every, int) and every > 0:
        return list(range(every, every * (MOST_STEPS + 2), every))
    return []


def _run_page(
    run_dir: Path,
    config: Mapping[str, Any],
    results: Mapping[str, Any],
    rows: Sequence[ClipRow],
    drawn: Mapping[str, tuple[bytes, str]],
    thumbnails: Thumbnails,
) -> str:
    links = thumbnails.links(run_dir)
    counts, training = results["counts"], results["training"]
    asked = config["config"]
    facts = [
        *(links or [("stores", _stores(config))]),
        ("taps", ", ".join(tap for store in config["stores"] for tap in store["taps"])),
        ("head", f"{asked.get('head')}, {training.get('num_parameters'):,} numbers"),
        ("loss", None if results.get("choices") else asked.get("loss")),
        (
            "clips",
            ", ".join(f"{name} {counts[name]}" for name in ("train", "val", "test", "unknown") if counts.get(name)),
        ),
        ("classes", counts.get("classes")),
        ("groups", counts.get("groups")),
        ("clips whose group was trained on", shared_text(results.get("group_overlap", {})) or None),
        ("selection", results["selection"]["sentence"]),
        (
            "epochs",
            None if results.get("choices") else f"best {training.get('best_epoch')} of {training.get('epochs_run')}",
        ),
        ("training time", f"{training.get('seconds', 0):.1f} s"),
    ]
    left_out = [f"{entry['count']} clips are left out: {entry['reason']}." for entry in counts.get("left_out", [])]
    warnings, notes = warnings_first([*results.get("notes", []), *config.get("notes", []), *left_out])
    files = html.files_below(run_dir)
    splits = sorted(results["splits"], key=lambda split: split != results["reported"])  # what is reported comes first
    clips, unit = clip_table(rows), results.get("target_unit") or ""
    body = (
        html.paragraphs(
            [results["verdict"]] if isinstance(results["verdict"], str) else results["verdict"], kind="verdict"
        )
        + html.section("Results", *(_split_table(results, split) for split in splits))
        + html.section("Notes", html.items(notes))
        + html.section(
            "Average precision of each label", *(_class_table(results, split) for split in results["splits"])
        )
        + html.section("By class", *(_class_report(results, split) for split in splits))
        + html.section("Pictures", *(html.picture(content, caption) for content, caption in drawn.values()))
        + html.section(
            "Worst mistakes", *mistakes(rows, results["reported"], unit, thumbnails), _more_mistakes(run_dir)
        )
        + html.section("Clips", *clips)
        + html.section("Folds", _fold_table(results.get("folds", []), has_epochs=not results.get("choices")))
        + html.section("What inner validation chose", *_choice_tables(results))
        + html.section("What was trained", html.fact_table(facts))
        + html.section(
            "Files", html.items(files), html.details("configuration", json.dumps(config, indent=2, ensure_ascii=False))
        )
    )
    return html.document(
        title=f"Run {results['run']}",
        subtitle=_stores(config),
        warnings=[*_warning_lines(results), *warnings],
        body=body,
        scripts=[script()] if clips else [],
    )


def _more_mistakes(run_dir: Path) -> str:
    """The way to the page of mistakes, where there is one."""
    path = run_dir / MISTAKES
    return html.items([html.link_to(path, run_dir, "mistakes of every class")]) if path.is_file() else ""


def _split_table(results: Mapping[str, Any], split: str) -> str:
    entry = results["splits"][split]
    baselines = {name: values for name, values in entry["baselines"].items() if values}
    shown = [name for name, metric in entry["metrics"].items() if metric.get("value") is not None]
    rows = [
        [
            with_unit(name, _unit(entry["metrics"][name], results)),
            with_interval(entry["metrics"][name], units_of(entry)),
            *(values.get(name) for values in baselines.values()),
            "higher" if entry["metrics"][name].get("higher_is_better") else "lower",
        ]
        for name in shown
    ]
    head = ["metric", "this run [95 % interval]", *map(title, baselines), "better"]
    reported = " (reported)" if split == results.get("reported") else ""
    caption = f"Split {split}{reported}: {counted(entry)}"
    return html.paragraphs([caption], kind="soft") + html.table(head, rows)


def _class_table(results: Mapping[str, Any], split: str) -> str:
    """Where clips may have several labels: what each label comes to; nothing elsewhere."""
    rows = results["splits"][split].get("per_class")
    if not rows:
        return ""
    head = ["label", "clips", "share of clips", "average precision", "of a random order"]
    return html.paragraphs([f"Split {split}"], kind="soft") + html.table(
        head,
        [[row["label"], row["clips"], row["share"], row["average_precision"], row["random_order"]] for row in rows],
    )


def _class_report(results: Mapping[str, Any], split: str) -> str:
    """Where clips have one class: what is most often taken for what, and each class with its numbers."""
    entry = results["splits"][split]
    rows = entry.get("class_report")
    if not rows:
        return ""
    said = [f"Split {split}: {confused_text(entry.get('most_confused', []))}"]
    head = ["class", "clips", "predicted", "precision", "recall", "F1"]
    table = html.table(head, [[row["label"], *(row[name] for name in _CLASS_COLUMNS)] for row in rows])
    if len(rows) > MOST_OPEN_CLASSES:
        table = html.folded(f"precision, recall and F1 of {len(rows)} classes", table)
    return html.paragraphs(said, kind="soft") + table


def _unit(metric: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    unit = metric.get("unit", "")
    return (results.get("target_unit") or "target units") if unit == "target" else unit


def _choice_tables(results: Mapping[str, Any]) -> list[str]:
    """Of a fitted head: per output the mean loss out of fold of each candidate, and how often it was taken."""
    choices = results.get("choices", [])
    made = []
    for output in dict.fromkeys(one["output"] for one in choices):
        own = [one for one in choices if one["output"] == output]
        names = list(dict.fromkeys(name for one in own for name in one["losses"]))
        unit = "nats" if output == "label" else results.get("target_unit") or "target units"
        rows = []
        for name in names:
            losses = [one["losses"][name] for one in own if name in one["losses"]]
            rows.append([name, sum(losses) / len(losses), sum(one["chosen"] == name for one in own)])
        subject = "classes" if output == "label" else results.get("target_name") or "target"
        counted = "taken" if len(own) == 1 else f"taken in {len(own)} folds"
        rows.sort(key=lambda row: row[1])
        made.append(html.table([f"what predicts {subject}", f"loss out of fold, {unit}", counted], rows))
    return made


def _fold_table(folds: Sequence[Mapping[str, Any]], *, has_epochs: bool) -> str:
    if not folds:
        return ""
    names = list(folds[0]["metrics"])
    epochs = {"best epoch": "best_epoch", "epochs": "epochs_run"} if has_epochs else {}
    head = ["fold", "train", "val", "test", *epochs, *map(title, names)]
    rows = [
        [
            f["fold"],
            f["train"],
            f["val"],
            f["test"],
            *(f[name] for name in epochs.values()),
            *(f["metrics"].get(n) for n in names),
        ]
        for f in folds
    ]
    return html.table(head, rows)
