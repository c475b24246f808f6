"""Reports as one self-contained HTML page: nothing is loaded from a network, and data is only ever text.

`write_run_report` draws a training run from the files that `reelbank.heads.runs.run` describes; the page of a
probe is in `probe_page`. Both are made of the parts below. Class names, file names and notes are data from
strangers: every part escapes what it is given, scripts carry data as JSON that cannot end their element, and
the page's content security policy runs only the scripts whose hash it lists.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from reelbank.heads.errors import TrainingError
from reelbank.heads.reports.drawing import figures_as, files_of
from reelbank.heads.stored import read_config, read_confusion, read_epochs, read_results, read_table
from reelbank.store.files import reading, refuse_links, write_whole

_STYLE = """
:root { --ink: #1b1f24; --soft: #5b6470; --line: #d9dee4; --accent: #0072b2; --warn: #b00020; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; max-width: 1060px; padding: 1.2rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
p, li { overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.warning { background: #fdecee; border-left: 5px solid var(--warn); color: var(--warn); font-weight: 600;
  padding: .6rem .9rem; margin: .8rem 0; }
.verdict { background: #eef5fa; border-left: 5px solid var(--accent); padding: .6rem .9rem; margin: .8rem 0; }
.verdict p { margin: .2rem 0; }
.wide { overflow-x: auto; }
.dense { font-size: .8rem; }
.dense th, .dense td { padding-right: .5rem; }
.dense th { white-space: normal; vertical-align: bottom; }
table { border-collapse: collapse; font-size: .92rem; margin: .3rem 0 .9rem; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th { white-space: nowrap; }
th.n { text-align: right; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; border: 1px solid var(--line); }
.keys { display: flex; flex-wrap: wrap; gap: .15rem .9rem; font-size: .85rem; margin: .5rem 0; }
pre { overflow-x: auto; background: #f6f8fa; padding: .8rem; font-size: .8rem; }
summary { cursor: pointer; color: var(--accent); }
"""


DASH = "\u2013"
"""What stands where a value is undefined."""

MOST_ROOMY_COLUMNS = 6
"""A table with more is set in smaller print, so that it fits the page."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """A script of ours; never made from data."""

    text: str

    @property
    def hash(self) -> str:
        """Its source expression in a content security policy."""
        return f"'sha256-{base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode()}'"


def document(*, title: str, subtitle: str, warnings: Iterable[str], body: str, scripts: Sequence[Script] = ()) -> str:
    """The whole page. `body` is HTML made of the parts below; the other texts are escaped here."""
    allowed = " ".join(script.hash for script in scripts) or "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    banners = "".join(f'<p class="warning">{escape(text)}</p>\n' for text in warnings if text)
    inline = "".join(f"<script>{script.text}</script>\n" for script in scripts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="soft">{escape(subtitle)}</p>\n{banners}</header>\n'
        f"<main>\n{body}</main>\n{inline}</body>\n</html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """A headed section of `parts` (HTML); nothing where all of them are empty."""
    content = "".join(parts)
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}</section>\n" if content else ""


def paragraphs(texts: Iterable[str], *, kind: str = "") -> str:
    """One block of paragraphs; `kind` is a class of the style sheet."""
    inner = "".join(f"<p>{escape(text)}</p>" for text in texts if text)
    return f'<div class="{escape(kind)}">{inner}</div>\n' if inner else ""


def items(texts: Iterable[str]) -> str:
    """A list."""
    inner = "".join(f"<li>{escape(text)}</li>" for text in texts if text)
    return f"<ul>{inner}</ul>\n" if inner else ""


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, lead: int = 0) -> str:
    """A table; numbers are right-aligned, None is a dash. Nothing where there are no rows.

    Among the first `lead` cells of a row the first runs over those after it that are empty.
    """
    lines = [list(row) for row in rows]
    if not lines:
        return ""
    numeric = [all(_is_number_like(row[i]) for row in lines) for i in range(len(head))]
    open_tags = ['class="n"' if n else "" for n in numeric]
    top = "".join(f"<th {tag}>{escape(name)}</th>" for tag, name in zip(open_tags, head, strict=True))
    body = ""
    for row in lines:
        span = next((i for i in range(1, lead) if row[i] != ""), lead) if lead and row[0] != "" else 1
        cells = [f"<td {tag}>{escape(cell(v))}</td>" for tag, v in zip(open_tags, row, strict=True)]
        if span > 1:
            cells[:span] = [f'<td colspan="{span}">{escape(cell(row[0]))}</td>']
        body += "<tr>" + "".join(cells) + "</tr>\n"
    kind = ' class="dense"' if len(head) > MOST_ROOMY_COLUMNS else ""
    return f'<div class="wide"><table{kind}><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>\n'


def cell(value: Any) -> str:
    """A value as a reader wants it: four significant digits (two of small ones), a dash for what is undefined."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


def with_interval(value: Mapping[str, Any]) -> str:
    """'0.63 [0.51, 0.74]', '1 [0.82, 1; Wilson]'; without an interval the value alone."""
    if value.get("value") is None:
        return DASH
    if value.get("low") is None or value.get("high") is None:
        return f"{value['value']:.4g}"
    kind = "; Wilson" if value.get("interval") == "Wilson" else ""
    return f"{value['value']:.4g} [{value['low']:.4g}, {value['high']:.4g}{kind}]"


def counted(split: Mapping[str, Any]) -> str:
    """'30 clips, 7 groups' of a split of results.json; 'no groups' where the manifest has none."""
    num_groups = split["num_groups"]
    return f"{split['num_clips']} clips, {'no groups' if num_groups is None else f'{num_groups} groups'}"


def picture(content: bytes, caption: str) -> str:
    """A PNG inside the page."""
    data = base64.b64encode(content).decode()
    alt = escape(caption, quote=True)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{alt}"><figcaption>{escape(caption)}'
        "</figcaption></figure>\n"
    )


def details(summary: str, text: str) -> str:
    """Preformatted text that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>\n"


def data_block(identifier: str, data: Any) -> str:
    """JSON for a script of the page. '<', '>' and '&' are written as escapes: it cannot end its element."""
    text = json.dumps(data, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{escape(identifier)}">{text}</script>\n'


def _is_number_like(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, int | float)
        or (isinstance(value, str) and value[:1] in f"{DASH}-0123456789")
    )


# --- the report of a training run ----------------------------------------------------------------


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
    with figures_as(figures_kind):
        drawn = _run_pictures(run_dir, results, heading)
    folder = run_dir / "figures"
    folder.mkdir(exist_ok=True)
    for name, (content, _) in drawn.items():
        for file, data in files_of(name, content).items():
            write_whole(folder / file, data)
    page = run_dir / "report.html"
    write_whole(page, _run_page(run_dir, config, results, drawn))
    return page


def _stores(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{Path(store['path']).name} ({store['backbone']})" for store in config["stores"])


def _warning_lines(results: Mapping[str, Any]) -> list[str]:
    lines = [results.get("warning") or ""]
    if results.get("shuffled_labels"):
        lines.append("Control experiment: the training labels were shuffled. A score above chance is a fault.")
        lines[0] = lines[0] or "control experiment: shuffled labels"
    return lines


def _run_pictures(run_dir: Path, results: Mapping[str, Any], heading: Any) -> dict[str, tuple[bytes, str]]:
    """{file name: (PNG, caption)} of what the run's files allow."""
    from reelbank.heads.reports import figures

    drawn: dict[str, tuple[bytes, str]] = {}
    epochs, pairs = [], {}
    if (run_dir / "metrics.jsonl").is_file():
        epochs = read_epochs(run_dir / "metrics.jsonl")
    if (run_dir / "predictions.csv").is_file():
        pairs = _target_pairs(run_dir / "predictions.csv")
    if epochs:
        figure = figures.learning_curves(epochs, heading=heading)
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
            drawn[f"confusion-{safe}.png"] = (figures.png(figure), f"Confusion matrix of split {split}")
    if pairs and results.get("target_name"):
        figure = figures.predicted_vs_true(
            pairs, target_name=results["target_name"], unit=results.get("target_unit") or "", heading=heading
        )
        drawn["predicted-vs-true.png"] = (
            figures.png(figure),
            f"Predicted and true {results['target_name']}, and their distributions",
        )
    return drawn


def _run_page(
    run_dir: Path, config: Mapping[str, Any], results: Mapping[str, Any], drawn: Mapping[str, tuple[bytes, str]]
) -> str:
    counts, training = results["counts"], results["training"]
    asked = config["config"]
    facts = [
        ("stores", _stores(config)),
        ("taps", ", ".join(tap for store in config["stores"] for tap in store["taps"])),
        ("head", f"{asked.get('head')}, {config.get('num_parameters')} parameters"),
        ("loss", asked.get("loss")),
        (
            "clips",
            ", ".join(f"{name} {counts[name]}" for name in ("train", "val", "test", "unknown") if counts.get(name)),
        ),
        ("classes", counts.get("classes")),
        ("groups", counts.get("groups")),
        ("selection", results["selection"]["sentence"]),
        ("epochs", f"best {training.get('best_epoch')} of {training.get('epochs_run')}"),
        ("training time", f"{training.get('seconds', 0):.1f} s"),
    ]
    left_out = [f"{entry['count']} clips are left out: {entry['reason']}." for entry in counts.get("left_out", [])]
    notes = dict.fromkeys([*results.get("notes", []), *config.get("notes", []), *left_out])  # each once
    files = sorted(
        str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file() and path.name != "report.html"
    )
    body = (
        paragraphs([results["verdict"]] if isinstance(results["verdict"], str) else results["verdict"], kind="verdict")
        + section("Results", *(_split_table(results, split) for split in results["splits"]))
        + section("Average precision of each label", *(_class_table(results, split) for split in results["splits"]))
        + section("Pictures", *(picture(content, caption) for content, caption in drawn.values()))
        + section("Folds", _fold_table(results.get("folds", [])))
        + section("What was trained", table(["", ""], [row for row in facts if row[1] not in (None, "")]))
        + section("Notes", items(notes))
        + section("Files", items(files), details("configuration", json.dumps(config, indent=2, ensure_ascii=False)))
    )
    return document(
        title=f"Run {results['run']}", subtitle=_stores(config), warnings=_warning_lines(results), body=body
    )


def _split_table(results: Mapping[str, Any], split: str) -> str:
    entry = results["splits"][split]
    baselines = {name: values for name, values in entry["baselines"].items() if values}
    shown = [name for name, metric in entry["metrics"].items() if metric.get("value") is not None]
    rows = [
        [
            f"{name} ({_unit(entry['metrics'][name], results)})",
            with_interval(entry["metrics"][name]),
            *(values.get(name) for values in baselines.values()),
            "higher" if entry["metrics"][name].get("higher_is_better") else "lower",
        ]
        for name in shown
    ]
    head = ["metric", "this run [95 % interval]", *(name.replace("_", " ") for name in baselines), "better"]
    reported = " (reported)" if split == results.get("reported") else ""
    caption = f"Split {split}{reported}: {counted(entry)}"
    return paragraphs([caption], kind="soft") + table(head, rows)


def _class_table(results: Mapping[str, Any], split: str) -> str:
    """Where clips may have several labels: what each label comes to; nothing elsewhere."""
    rows = results["splits"][split].get("per_class")
    if not rows:
        return ""
    head = ["label", "clips", "share of clips", "average precision", "of a random order"]
    return paragraphs([f"Split {split}"], kind="soft") + table(
        head,
        [[row["label"], row["clips"], row["share"], row["average_precision"], row["random_order"]] for row in rows],
    )


def _unit(metric: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    unit = metric.get("unit", "")
    return (results.get("target_unit") or "target units") if unit == "target" else unit


def _fold_table(folds: Sequence[Mapping[str, Any]]) -> str:
    if not folds:
        return ""
    names = list(folds[0]["metrics"])
    head = ["fold", "train", "val", "test", "best epoch", "epochs", *names]
    rows = [
        [
            f["fold"],
            f["train"],
            f["val"],
            f["test"],
            f["best_epoch"],
            f["epochs_run"],
            *(f["metrics"].get(n) for n in names),
        ]
        for f in folds
    ]
    return table(head, rows)


def _target_pairs(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """split -> (true, predicted) from predictions.csv, rows with both numbers only."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    with reading(path, TrainingError):
        for row in read_table(path, ("split",))[1]:
            if row.get("target") and row.get("predicted_target"):
                pair = float(row["target"]), float(row["predicted_target"])
                if not all(map(math.isfinite, pair)):
                    raise ValueError(f"a target is {pair[0]} and its prediction {pair[1]}")
                pairs.setdefault(row["split"], []).append(pair)
    return {split: (np.array(values)[:, 0], np.array(values)[:, 1]) for split, values in sorted(pairs.items())}
