"""The table of a recipe in the publication's layout, theirs and ours and the baselines: text, Markdown, LaTeX."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reelbank.heads.judging.metrics import METRICS
from reelbank.heads.recipes.sentences import few_groups, guesser_text, interval_text, judged_columns, leaks
from reelbank.heads.reports.wording import DASH

THEIRS, OURS, AT_CHOSEN, BASELINE = "theirs", "ours", "at chosen epoch", "baseline"
NOT_BETTER = "\u2020"
Data = Mapping[str, Any]


def table_of(data: Data, *, intervals: bool = True) -> tuple[list[str], list[list[str]]]:
    """(heading, rows) in the publication's layout: for each row theirs and ours, then the baselines.

    Where a row keeps its last epoch and validation chose another, a third line has the numbers of that one. Where the
    publication has curves only, what it says of them is a leading column and not a row of its own. The column `epoch`
    is left out where nothing was trained.
    """
    cells, columns = _leading(data), _shown(data)
    has_epochs = any(row.get("epochs") for row in data["rows"])
    head = [*cells, "", *(_heading(data, column, intervals) for column in columns)]
    head += [*(["epoch"] if has_epochs else []), "remark"]
    lines = []
    for row in data["rows"]:
        for line in _lines(data, row, cells, columns, intervals):
            lines.append(line if has_epochs else [*line[:-2], line[-1]])
    end = [""] * (2 if has_epochs else 1)
    for name, label in data["study"]["baselines"].items():
        values = [_baseline(data, name, column) for column in columns]
        if any(values):
            lines.append([label, *[""] * (len(cells) - 1), BASELINE, *values, *end])
    return head, lines


def _lines(data: Data, row: Data, cells: Sequence[str], columns: Sequence[Data], intervals: bool) -> list[list[str]]:
    """The lines of one row, each with an epoch."""
    published, lines = row["published"], []
    leading = [published["outcome"] if name == THEIRS else row["cells"].get(name, "") for name in cells]
    printed = [published["values"].get(column["key"]) for column in columns]
    if THEIRS not in cells and (any(value is not None for value in printed) or published["outcome"]):
        theirs = [_as_printed(value, column) for value, column in zip(printed, columns, strict=True)]
        lines.append([*leading, THEIRS, *theirs, "", published["outcome"]])
        leading = [""] * len(cells)
    if row["left_out"]:
        return [*lines, [*leading, OURS, *[""] * len(columns), "", "not in the QUICK form"]]
    if row["error"]:
        return [*lines, [*leading, OURS, *[""] * len(columns), "", "not run" if row["not_run"] else "failed"]]
    ours = [_number(row["ours"], column, intervals, row["beside"]) for column in columns]
    keeps_last = row["settings"].get("keep") == "last"
    epochs = row.get("epochs" if keeps_last else "best_epochs", [])
    lines.append([*leading, OURS, *ours, _range(epochs), _remark(row, data)])
    if row["at_chosen_epoch"]:
        chosen = [_number(row["at_chosen_epoch"], column, intervals, {}) for column in columns]
        lines.append([*[""] * len(cells), AT_CHOSEN, *chosen, _range(row["best_epochs"]), ""])
    return lines


def _number(found: Data, column: Data, intervals: bool, beside: Data) -> str:
    entry = found.get(column["key"], {})
    names = ("value", "deviation", "low", "high") if intervals and column["beats"] else ("value", "deviation")
    lost = column["key"] in beside and beside[column["key"]]["verdict"] != "beats"
    text = interval_text({name: entry.get(name) for name in names}, column["digits"])
    return text + (f" {NOT_BETTER}" if lost else "")


def _heading(data: Data, column: Data, intervals: bool) -> str:
    """With the number of groups that its intervals draw."""
    if not intervals or not column["beats"]:
        return str(column["head"])
    count, units = data["judged"][column["key"]]["num_groups"], data["interval_units"]
    return f"{column['head']} ({count} {units.removesuffix('s') if count == 1 else units})"


def _range(epochs: Sequence[int]) -> str:
    if not epochs:
        return ""
    least, most = min(epochs), max(epochs)
    return str(least) if least == most else f"{least} to {most}"


def _shown(data: Data) -> list[Data]:
    """The columns that the publication prints, and those that are judged; where it prints none, all that we have."""
    columns: list[Data] = list(data["study"]["columns"])
    printed = {key for row in data["rows"] for key in row["published"]["values"]}
    if printed and data["kind"] == "train":
        return [column for column in columns if column["key"] in printed or column["beats"]]
    return [column for column in columns if any(column["key"] in row["ours"] for row in data["rows"])]


def _as_printed(value: float | None, column: Data) -> str:
    """A published value; 8.20 is no 8.2 where all others have two digits."""
    if value is None:
        return ""
    text = f"{value:g}"
    least = column["least_digits"]
    return f"{value:.{least}f}" if len(text.partition(".")[2]) < least else text


def _baseline(data: Data, name: str, column: Data) -> str:
    if name == column["beats"]:
        return interval_text(data["judged"][column["key"]], column["digits"])
    if column["group"] or column["over"] == "folds":  # those of a run are of all its clips
        return ""
    value = data["baselines"].get(column["part"], {}).get(name, {}).get(column["metric"])
    return "" if value is None else f"{column['scale'] * value:.{column['digits']}f}"


def _remark(row: Data, data: Data) -> str:
    parts = []
    if row["chosen"]:
        parts.append("kept" if row["step"] >= 0 else "proposed" if data["proposed"] else "best")
    if row.get("overfit"):
        parts.append("overfit")
    kept = {one["settings"].get("keep") for one in data["rows"] if one["ours"]}
    if row["settings"].get("keep") == "best" and len(kept) > 1:
        parts.append("at the epoch chosen on validation")
    if row["shared_with"]:
        parts.append(f"same run as {row['shared_with']}")
    return ", ".join(parts)


def num_leading(data: Data) -> int:
    """How many columns of the table say what a row is; a baseline's name takes all of them."""
    return len(_leading(data))


def _leading(data: Data) -> list[str]:
    names = list(dict.fromkeys(name for row in data["rows"] for name in row["cells"]))
    published = [row["published"] for row in data["rows"]]
    has_numbers = any(one["values"] for one in published)
    has_words = any(one["outcome"] for one in published)
    return [*names, THEIRS] if has_words and not has_numbers else names


def legend(data: Data) -> str:
    """What the marks of the table mean."""
    columns = judged_columns(data)
    guessers = dict.fromkeys(guesser_text(data, column, interval=False) for column in columns)
    titles = dict.fromkeys(str(column["title"]) for column in columns)
    said = [f"{NOT_BETTER} does not beat {' or '.join(guessers)}", "best, kept: by the selection named"]
    said.append(f"{', '.join(titles)} with 95 % interval over {data['interval_units']}")
    if any(row["at_chosen_epoch"] for row in data["rows"]):
        said.append(f"{AT_CHOSEN}: the same training with the weights of the epoch chosen on validation")
    return "; ".join(said) + "."


def remarks(data: Data) -> list[str]:
    """What must travel with the table: the legend, how was selected, and why the numbers are none to cite."""
    lost = [text for text in data["sentences"] if text.startswith(("Not run", "Failed"))]
    said = (
        legend(data),
        data["selection"],
        quick_warning(data),
        data["warning"],
        *leaks(data),
        *few_groups(data),
        *lost,
    )
    return [text for text in said if text]


def quick_warning(data: Data) -> str:
    """'' where the recipe ran as it is."""
    if not data["quick"]:
        return ""
    return f"QUICK form: {data['quick_says']}; no reproduction."


def markdown_table(data: Data) -> str:
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


def units(data: Data) -> list[str]:
    """A sentence with the columns that are in the unit of the target, if the manifest says which that is."""
    unit = data["target"]["unit"]
    own = {name for name, metric in METRICS.items() if metric.unit == "target"}
    heads = [column["head"] for column in _shown(data) if column["metric"] in own]
    return [f"{', '.join(heads)} in {unit}."] if unit and heads else []


def latex_text(text: str) -> str:
    """`text` with no character that LaTeX reads as a command; two hyphens stay two."""
    return "".join(_LATEX.get(c, c) for c in text.replace("--", "-\0-")).replace("\0", "{}")


def latex_table(data: Data) -> str:
    """The table in LaTeX (package `booktabs`): caption, label, units, and what must travel with it in small print."""
    head, rows = table_of(data)
    count = num_leading(data)
    kinds = "l" * (count + 1) + "r" * (len(head) - count - 2) + "l"
    caption = latex_text(" ".join([f"{data['title'].rstrip('.')}.", *units(data)]))
    lines = [
        rf"% \usepackage{{booktabs}}; {data['recipe']}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', data['recipe'].lower())}}}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        " & ".join(map(latex_text, head)) + r" \\",
    ]
    before = ""
    for row in rows:
        if before == "" or (row[count] == BASELINE) != (before == BASELINE):
            lines.append(r"\midrule")
        before = row[count]
        cells = list(map(latex_text, row))
        if before == BASELINE and count > 1:
            cells[:count] = [rf"\multicolumn{{{count}}}{{l}}{{{cells[0]}}}"]
        lines.append(" & ".join(cells) + r" \\")
    small = rf"\par\smallskip{{\footnotesize {latex_text(' '.join(remarks(data)))}\par}}"
    lines += [r"\bottomrule", r"\end{tabular}", small, r"\end{table}"]
    return "\n".join(lines) + "\n"


TEXT_WIDTH = 100
"""Of the table for a terminal; a wider one breaks headings and names at their spaces, and has its columns in blocks."""
NAME_WIDTH = 36


def text_table(directory: Path, data: Data) -> str:
    """The table for a terminal, with the sentences and where the files are."""
    head, rows = table_of(data, intervals=False)
    count = num_leading(data)
    lines = _aligned([head], rows, count)
    if max(map(len, lines)) > TEXT_WIDTH:
        split = [name.split(" ") if i >= count else [name] for i, name in enumerate([*head[:-1], ""])]
        depth = max(map(len, split))
        heads = [[words[i] if i < len(words) else "" for words in split] for i in range(depth)]
        lines = _in_blocks(heads, [part for row in rows for part in _folded(row, count)], count)
    said = [
        quick_warning(data),
        data["warning"],
        *leaks(data),
        *few_groups(data),
        *data["sentences"],
        data["selection"],
    ]
    files = [f"Report: {directory / 'report.html'}", f"Numbers: {directory / 'recipe.json'}"]
    return "\n".join([f"{data['recipe']}: {data['title']}", *lines, legend(data), "", *(s for s in said if s), *files])


def _aligned(heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], count: int) -> list[str]:
    """The lines of a table; a baseline's name runs over its `count` leading cells and over what it is."""
    named = [row for row in rows if row[count] != BASELINE]
    wide = [max(len(line[i]) for line in [*heads, *named]) for i in range(count + 1)]
    longest = max((len(row[0]) for row in rows if row[count] == BASELINE), default=0)
    wide[-1] += max(0, longest - sum(wide) - 2 * count)
    wide += [max(len(line[i]) for line in [*heads, *rows]) for i in range(count + 1, len(rows[0]) - 1)]
    lines = []
    for line in [*heads, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(line, [*wide, 0], strict=True)]
        if line[count] == BASELINE:
            cells[: count + 1] = [line[0].ljust(sum(wide[: count + 1]) + 2 * count)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _folded(row: Sequence[str], count: int) -> list[list[str]]:
    """A row as lines whose leading cells are no wider than NAME_WIDTH; all else of it is in the first."""
    width = 2 * NAME_WIDTH if row[count] == BASELINE else NAME_WIDTH // (1 + count // 3)
    parts = [textwrap.wrap(cell, width) or [""] for cell in row[:count]]
    first, *more = itertools.zip_longest(*parts, fillvalue="")
    mark = BASELINE if row[count] == BASELINE else ""
    return [[*first, *row[count:]], *([*cells, mark, *[""] * (len(row) - count - 1)] for cells in more)]


def _in_blocks(heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], count: int) -> list[str]:
    """The lines of a wide table: as many columns at a time as fit, each time beside what tells the rows apart."""

    def lines_of(columns: Sequence[int]) -> list[str]:
        shown = [*range(count + 1), *columns]
        cut = [[*(line[i] for i in shown), ""] for line in (*heads, *rows)]
        return _aligned(cut[: len(heads)], cut[len(heads) :], count)

    blocks: list[list[int]] = [[]]
    for column in range(count + 1, len(rows[0]) - 1):
        if blocks[-1] and max(map(len, lines_of([*blocks[-1], column]))) > TEXT_WIDTH:
            blocks.append([])
        blocks[-1].append(column)
    remarks = [*[""] * len(heads), *(row[-1] for row in rows)]
    lines = [_remarked(line, remark) for line, remark in zip(lines_of(blocks[0]), remarks, strict=True)]
    for block in blocks[1:]:
        lines += ["", *lines_of(block)]
    return lines


def _remarked(line: str, remark: str) -> str:
    """A line with its remark: behind it, or below it where that would be too wide."""
    if not remark or len(line) + 2 + len(remark) <= TEXT_WIDTH:
        return f"{line}  {remark}".rstrip()
    return f"{line}\n    {remark}"
