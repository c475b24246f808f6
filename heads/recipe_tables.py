"""The table of a recipe in the publication's layout, theirs and ours and the baselines: text, Markdown, LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelbank.heads.page import DASH


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of numbers: published and ours.

    Attributes:
        key: attribute of `Published`.
        head: its heading.
        split, metric: where ours stands in results.json.
        scale: what ours is multiplied by.
        digits: after the point.
    """

    key: str
    head: str
    split: str
    metric: str
    scale: float = 1.0
    digits: int = 0


COLUMNS = (
    Column(key="accuracy", head="acc. %", split="known", metric="accuracy", scale=100),
    Column(key="mae_known", head="MAE known", split="known", metric="mae"),
    Column(key="spc_known", head="SPC known", split="known", metric="spc_bins", digits=3),
    Column(key="nll_known", head="NLL known", split="known", metric="nll", digits=2),
    Column(key="mae_unknown", head="MAE unkn.", split="unknown", metric="mae"),
    Column(key="spc_unknown", head="SPC unkn.", split="unknown", metric="spc_bins", digits=3),
    Column(key="nll_unknown", head="NLL unkn.", split="unknown", metric="nll", digits=2),
)


def interval_text(entry: Mapping[str, Any], digits: int = 0) -> str:
    """'160 [150, 171]', '160 ± 3 [150, 171]' with repeats; a dash where it is undefined."""
    if entry.get("value") is None:
        return DASH
    text = f"{entry['value']:.{digits}f}"
    if entry.get("deviation") is not None:
        text += f" ± {entry['deviation']:.{digits}f}"
    if entry.get("low") is not None:
        text += f" [{entry['low']:.{digits}f}, {entry['high']:.{digits}f}]"
    return text


def table_of(data: Mapping[str, Any], *, intervals: bool = True) -> tuple[list[str], list[list[str]]]:
    """(heading, rows) in the publication's layout: for each row theirs and ours, then the baselines."""
    cells = list(dict.fromkeys(name for row in data["rows"] for name in row["cells"]))
    columns = [c for c in COLUMNS if any(row["published"].get(c.key) is not None for row in data["rows"])]
    if not columns or data["kind"] == "kmeans":  # nothing printed to keep to: all we have
        columns = [c for c in COLUMNS if any(c.key in row["ours"] for row in data["rows"])]
    head = [*cells, "", *(column.head for column in columns), "remark"]
    lines = []
    for row in data["rows"]:
        published = row["published"]
        leading = [row["cells"].get(name, "") for name in cells]
        if any(published.get(c.key) is not None for c in columns) or published["outcome"]:
            theirs = ["" if published.get(c.key) is None else _plain(published[c.key]) for c in columns]
            lines.append([*leading, "theirs", *theirs, published["outcome"]])
            leading = [""] * len(cells)
        if row["error"]:
            lines.append([*leading, "ours", *[""] * len(columns), f"failed: {row['error']}"])
            continue
        ours = []
        for column in columns:
            entry = row["ours"].get(column.key, {})
            is_mae = column.metric == "mae"
            shown = entry if intervals and is_mae else {k: v for k, v in entry.items() if k in ("value", "deviation")}
            lost = is_mae and row["against_constant"][column.split]["verdict"] != "beats"
            ours.append(interval_text(shown, column.digits) + (f" {NOT_BETTER}" if lost else ""))
        lines.append([*leading, "ours", *ours, _remark(row, proposed=bool(data.get("proposed")))])
    for name, label in BASELINES.items():
        values = [_baseline(data, name, column) for column in columns]
        if any(values):
            lines.append([label, *[""] * (len(cells) - 1), "baseline", *values, ""])
    return head, lines


NOT_BETTER = "\u2020"
LEGEND = (
    f"{NOT_BETTER} does not beat the constant predictor; best, kept: by the selection named; MAE with 95 % interval"
)

BASELINES = {
    "constant_median": "constant: median of train",
    "random_training_label": "random training label",
    "uniform_random_bin": "random bin",
    "class_mean_oracle": "class-mean oracle",
    "label_marginal": "label marginal of train",
    "majority_class": "most frequent class",
}


def _plain(value: float) -> str:
    return f"{value:g}"


def _baseline(data: Mapping[str, Any], name: str, column: Column) -> str:
    if name == "constant_median" and column.metric == "mae":
        return interval_text(data["constant_intervals"][column.split])
    value = data["baselines"][column.split].get(name, {}).get(column.metric)
    return "" if value is None else f"{column.scale * value:.{column.digits}f}"


def _remark(row: Mapping[str, Any], *, proposed: bool) -> str:
    parts = []
    if row.get("chosen"):
        parts.append("kept" if row["step"] >= 0 else "proposed" if proposed else "best")
    if row.get("overfit"):
        parts.append("overfit")
    if row.get("shared_with"):
        parts.append(f"same run as {row['shared_with']}")
    return ", ".join(parts)


def markdown_table(data: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    head, rows = table_of(data)
    escape: Callable[[str], str] = lambda text: text.replace("|", r"\|")  # noqa: E731
    lines = ["| " + " | ".join(map(escape, head)) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(escape, row)) + " |" for row in rows]
    return f"**{data['recipe']}: {data['title']}**\n\n" + "\n".join(lines) + f"\n\n{LEGEND}.\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", DASH: "--", NOT_BETTER: r"$\dagger$",
}  # fmt: skip


def latex_table(data: Mapping[str, Any]) -> str:
    """The table in LaTeX: `booktabs` rules, nothing else is needed."""
    head, rows = table_of(data)
    escape: Callable[[str], str] = lambda text: "".join(_LATEX.get(c, c) for c in text)  # noqa: E731
    lines = [
        r"\begin{tabular}{" + "l" * len(head) + "}",
        r"\toprule",
        " & ".join(map(escape, head)) + r" \\",
        r"\midrule",
        *(" & ".join(map(escape, row)) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def text_table(directory: Path, data: Mapping[str, Any]) -> str:
    """The table for a terminal, with the sentences and where the files are."""
    head, rows = table_of(data, intervals=False)
    wide = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head) - 1)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, [*wide, 0], strict=True)).rstrip()
        for line in [head, *rows]
    ]
    said = [data["warning"], *data["sentences"], data["selection"]]
    files = [f"Report: {directory / 'report.html'}", f"Numbers: {directory / 'recipe.json'}"]
    return "\n".join([f"{data['recipe']}: {data['title']}", *lines, LEGEND, "", *(s for s in said if s), *files])
