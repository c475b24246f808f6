"""The table of a recipe in the publication's layout, theirs and ours and the baselines: text, Markdown, LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelbank.heads.reports.html import DASH


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
    """(heading, rows) in the publication's layout: for each row theirs and ours, then the baselines.

    Where the publication has curves only, what it says of them is a leading column and not a row of its own.
    """
    cells = _leading(data)
    columns = [c for c in COLUMNS if any(row["published"].get(c.key) is not None for row in data["rows"])]
    if not columns or data["kind"] == "kmeans":  # nothing printed to keep to: all we have
        columns = [c for c in COLUMNS if any(c.key in row["ours"] for row in data["rows"])]
    head = [*cells, "", *(column.head for column in columns), "remark"]
    lines = []
    for row in data["rows"]:
        published = row["published"]
        leading = [published["outcome"] if name == THEIRS else row["cells"].get(name, "") for name in cells]
        if THEIRS not in cells and (any(published.get(c.key) is not None for c in columns) or published["outcome"]):
            theirs = ["" if published.get(c.key) is None else _plain(published[c.key], c) for c in columns]
            lines.append([*leading, "theirs", *theirs, published["outcome"]])
            leading = [""] * len(cells)
        if row["error"]:
            lines.append([*leading, "ours", *[""] * len(columns), "not run" if row["not_run"] else "failed"])
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


THEIRS = "theirs"
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


def _plain(value: float, column: Column) -> str:
    """As printed; the tables give the NLL two digits or more, and 8.20 is no 8.2."""
    text = f"{value:g}"
    return f"{value:.2f}" if column.metric == "nll" and len(text.partition(".")[2]) < 2 else text


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


def num_leading(data: Mapping[str, Any]) -> int:
    """How many columns of the table say what a row is; a baseline's name takes all of them."""
    return len(_leading(data))


def _leading(data: Mapping[str, Any]) -> list[str]:
    names = list(dict.fromkeys(name for row in data["rows"] for name in row["cells"]))
    published = [row["published"] for row in data["rows"]]
    has_numbers = any(one.get(c.key) is not None for one in published for c in COLUMNS)
    has_words = any(one["outcome"] for one in published)
    return [*names, THEIRS] if has_words and not has_numbers else names


def remarks(data: Mapping[str, Any]) -> list[str]:
    """What must travel with the table: the legend, how was selected, and why the numbers are none to cite."""
    lost = [text for text in data["sentences"] if text.startswith(("Not run", "Failed"))]
    return [text for text in (f"{LEGEND}.", data["selection"], quick_warning(data), data["warning"], *lost) if text]


def quick_warning(data: Mapping[str, Any]) -> str:
    """'' where the recipe ran as it is; k-means has no short form."""
    if not data["quick"] or data["kind"] == "kmeans":
        return ""
    return "QUICK form: a twentieth of the epochs on at most 64 training clips; no reproduction."


def markdown_table(data: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    head, rows = table_of(data)
    escape: Callable[[str], str] = lambda text: text.replace("|", r"\|")  # noqa: E731
    rules = ["---"] * len(head)
    rules[num_leading(data) + 1 : -1] = ["---:"] * (len(head) - num_leading(data) - 2)
    lines = ["| " + " | ".join(map(escape, head)) + " |", "|" + "|".join(rules) + "|"]
    lines += ["| " + " | ".join(map(escape, row)) + " |" for row in rows]
    below = "\n\n".join(remarks(data))
    return f"**{data['recipe']}: {data['title']}**\n\n" + "\n".join(lines) + f"\n\n{below}\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", DASH: "--", NOT_BETTER: r"$\dagger$",
    "<": "$<$", ">": "$>$",
}  # fmt: skip


def latex_text(text: str) -> str:
    """`text` with no character that LaTeX reads as a command; two hyphens stay two."""
    return "".join(_LATEX.get(c, c) for c in text.replace("--", "-\0-")).replace("\0", "{}")


def latex_table(data: Mapping[str, Any]) -> str:
    """The table in LaTeX: package `booktabs`, and what must travel with it in small print below."""
    head, rows = table_of(data)
    count = num_leading(data)
    kinds = "l" * (count + 1) + "r" * (len(head) - count - 2) + "l"
    lines = [
        rf"% \usepackage{{booktabs}}; {data['recipe']}: {data['title']}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        " & ".join(map(latex_text, head)) + r" \\",
    ]
    before = ""
    for row in rows:
        if before == "" or (row[count] == "baseline") != (before == "baseline"):
            lines.append(r"\midrule")
        before = row[count]
        cells = list(map(latex_text, row))
        if before == "baseline" and count > 1:
            cells[:count] = [rf"\multicolumn{{{count}}}{{l}}{{{cells[0]}}}"]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", "", rf"{{\footnotesize {latex_text(' '.join(remarks(data)))}\par}}"]
    return "\n".join(lines) + "\n"


def text_table(directory: Path, data: Mapping[str, Any]) -> str:
    """The table for a terminal, with the sentences and where the files are."""
    head, rows = table_of(data, intervals=False)
    count = num_leading(data)
    named = [row for row in rows if row[count] != "baseline"]
    wide = [max(len(line[i]) for line in [head, *named]) for i in range(count)]
    longest = max((len(row[0]) for row in rows if row[count] == "baseline"), default=0)
    wide[-1] += max(0, longest - sum(wide) - 2 * (count - 1))  # a baseline's name runs over the leading columns
    wide += [max(len(line[i]) for line in [head, *rows]) for i in range(count, len(head) - 1)]
    lines = []
    for line in [head, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(line, [*wide, 0], strict=True)]
        if line[count] == "baseline":
            cells[:count] = [line[0].ljust(sum(wide[:count]) + 2 * (count - 1))]
        lines.append("  ".join(cells).rstrip())
    said = [quick_warning(data), data["warning"], *data["sentences"], data["selection"]]
    files = [f"Report: {directory / 'report.html'}", f"Numbers: {directory / 'recipe.json'}"]
    return "\n".join([f"{data['recipe']}: {data['title']}", *lines, LEGEND, "", *(s for s in said if s), *files])
