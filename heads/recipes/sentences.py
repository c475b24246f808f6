"""What a recipe says in plain sentences, from the content of recipe.json; whatever the study, metric and baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reelbank.heads.judging.intervals import FEW_GROUPS, FEW_GROUPS_SAY
from reelbank.heads.judging.paired import exact_text
from reelbank.heads.recipes.quick import QUICK_CLIPS, QUICK_JUDGED, QUICK_PASSES, QUICK_STEPS, corners_sentence
from reelbank.heads.recipes.recipe import Recipe
from reelbank.heads.recipes.rows import TrainedRow
from reelbank.heads.reports.wording import DASH, LOUD

_SHOWN_ROWS = 8
EXACT_SAYS = (
    "Exact test of a row against another: McNemar's, two-sided binomial over the clips on which exactly one of the two "
    "is right. It takes clips as independent of each other, which the interval over groups does not: where clips of a "
    "group are alike, p is too small."
)
EXACT_REPEATS = (
    " Each repeat is tested against that repeat of the other row; shown are the counts and p of the repeat whose p is "
    "in the middle, and recipe.json has all: they judge the same clips, so they are not summed."
)

Data = Mapping[str, Any]


def interval_text(entry: Data, digits: int = 0, *, units: str = "") -> str:
    """'160 [150, 171]', '160 ± 3 [150, 171]' with repeats, with `units` '160 [150, 171; 24 groups]'; a dash where it
    is undefined."""
    if entry.get("value") is None:
        return DASH
    text = f"{entry['value']:.{digits}f}"
    if entry.get("deviation") is not None:
        text += f" ± {entry['deviation']:.{digits}f}"
    if entry.get("low") is not None:
        count = f"; {entry['num_groups']} {units}" if units else ""
        text += f" [{entry['low']:.{digits}f}, {entry['high']:.{digits}f}{count}]"
    return text


def judged_columns(data: Data) -> list[Data]:
    """The columns that are judged beside a guesser, of which there are clips."""
    judged = data["judged"]
    return [one for one in data["study"]["columns"] if one["beats"] and judged[one["key"]]["value"] is not None]


def unit_of(data: Data, column: Data) -> str:
    """What stands behind a difference of a column, '' for nothing."""
    if column["scale"] == 100:
        return "points"
    if column["unit"] != "target":
        return str(column["unit"])
    return str(data["target"]["unit"] or "target units")


def guesser_text(data: Data, column: Data, *, interval: bool = True) -> str:
    """'the constant predictor (381 m: MAE 154 [150, 160; 24 groups])'."""
    entry = data["judged"][column["key"]]
    title = str(data["study"]["guessers"][column["beats"]])
    if not interval:
        return title
    says = f"{entry['says']}: " if entry["says"] else ""
    return f"{title} ({says}{column['title']} {interval_text(entry, column['digits'], units=data['interval_units'])})"


def sentences(data: Data) -> list[str]:
    """Which rows beat their guesser on each part and which do not, what the best one does, what overfits or is lost."""
    said = []
    for column in judged_columns(data):
        said += _beating(data, column)
    best = next(row for row in data["rows"] if row["name"] == data["best"])
    said += [_about_best(data, best, column) for column in judged_columns(data)]
    if data["against_references"]:
        said.append(_about_references(data, best))
    said += [_against(data, row, column) for row, column, _ in comparisons(data)]
    said += _beside(data, best)
    overfit = [row["name"] for row in data["rows"] if row.get("overfit")]
    if overfit:
        said.append(f"Overfit (final validation loss more than 5 % above its minimum): {', '.join(overfit)}.")
    return said + _losses(data["rows"]) + _without_bases(data["rows"])


def _where(data: Data, column: Data) -> str:
    return str(data["study"]["parts"][column["part"]]["said"])


def _beating(data: Data, column: Data) -> list[str]:
    rows = [row for row in data["rows"] if row["beside"] and not row["shared_with"]]  # each training once
    groups: dict[str, list[str]] = {"beats": [], "unclear": [], "worse": []}
    for row in rows:
        groups[row["beside"][column["key"]]["verdict"]].append(row["name"])
    what, where = guesser_text(data, column), _where(data, column)
    if not groups["beats"]:
        return [f"On {where} no row beats {what}."]
    said = [f"On {where} {len(groups['beats'])} of {len(rows)} rows beat {what}."]
    if others := groups["unclear"] + groups["worse"]:
        shown = ", ".join(others[:_SHOWN_ROWS])
        shown += f" and {len(others) - _SHOWN_ROWS} more" if len(others) > _SHOWN_ROWS else ""
        said.append(f"On {where} {shown} does not beat it." if len(others) == 1 else f"These do not: {shown}.")
    return said


def _about_best(data: Data, best: Data, column: Data) -> str:
    ours, entry, digits = best["ours"][column["key"]], best["beside"][column["key"]], column["digits"]
    value = interval_text(ours, digits, units=data["interval_units"])
    text = f"The {data['best_is']}, {best['name']}, has {column['title']} {value}"
    text += f" on {_where(data, column)}"
    if entry["low"] is not None:
        signed = f"+.{max(1, digits)}f"
        text += f", {entry['difference']:{signed}} {unit_of(data, column)}".rstrip()
        text += f" against {guesser_text(data, column, interval=False)} ({entry['low']:{signed}} to "
        text += f"{entry['high']:{signed}}, paired)"
    return f"{text}{overlap(ours, data['judged'][column['key']])}."


def _about_references(data: Data, best: Data) -> str:
    entry = data["against_references"]
    column = next(one for one in data["study"]["columns"] if one["key"] == entry["key"])
    signed = f"+.{max(1, column['digits'])}f"
    value = interval_text(entry, column["digits"], units=data["interval_units"])
    return (
        f"Best row of the tables on {_where(data, column)}, taken by that very number: {entry['name']} at "
        f"{'its last epoch' if entry['epoch'] == 'last' else 'the epoch chosen on validation'}, "
        f"{column['title']} {value}. {best['name']}, proposed by the "
        f"recipe, differs by {entry['difference']:{signed}} ({entry['difference_low']:{signed}} to "
        f"{entry['difference_high']:{signed}}, paired){overlap(best['ours'][column['key']], entry)}."
    )


def comparisons(data: Data) -> list[tuple[Data, Data, Data]]:
    """(row, judged column, what is found) of every row that is compared with another one."""
    return [
        (row, column, row["against"]["columns"][column["key"]])
        for row in data["rows"]
        if row.get("against")
        for column in judged_columns(data)
    ]


def _against(data: Data, row: Data, column: Data) -> str:
    """A row less the one that it is compared with."""
    found, signed = row["against"]["columns"][column["key"]], f"+.{max(1, column['digits'])}f"
    said = f"{row['name']} less {row['against']['name']}, clip by clip on {_where(data, column)}: {column['title']} "
    exact = found.get("exact")
    if found["difference"] is None:
        return f"{said}{DASH}."
    said += f"{found['difference']:{signed}} {unit_of(data, column)}".rstrip()
    count = f"{found['num_clips']} clips"
    if data["interval_units"] == "groups":
        count += " of 1 group" if found["num_groups"] == 1 else f" of {found['num_groups']} groups"
    if found["low"] is None:
        said += f" (no interval: {count})"
    else:
        clear = ", no clear difference" if found["verdict"] == "unclear" else ""
        said += f" ({found['low']:{signed}} to {found['high']:{signed}}; {count}{clear})"
    return f"{said}; {exact_text(exact)}." if exact else f"{said}."


def _beside(data: Data, best: Data) -> list[str]:
    """The columns that are only said: one sentence for each metric, where something was trained."""
    said = []
    for metric in dict.fromkeys(column["metric"] for column in data["study"]["beside"] if best["runs"]):
        columns = [column for column in data["study"]["beside"] if column["metric"] == metric]
        parts = []
        for column in columns:
            found = best["ours"].get(column["key"])
            value = "undefined" if found is None else f"{found['value']:.{column['digits']}f}"
            parts.append(f"{value} on {_where(data, column)}")
        note = f" ({columns[0]['note']})" if columns[0]["note"] else ""
        said.append(f"{columns[0]['head']}, {best['name']}: {' and '.join(parts)}{note}.")
    return said


def overlap(ours: Data, theirs: Data) -> str:
    """Whether two intervals meet, as the end of a sentence; '' where one is undefined."""
    limits = (ours["low"], ours["high"], theirs["low"], theirs["high"])
    if None in limits:
        return ""
    apart = limits[1] < limits[2] or limits[3] < limits[0]
    return f"; the two intervals {'do not overlap' if apart else 'overlap'}"


def _losses(rows: Sequence[Data]) -> list[str]:
    """Which rows have no result, by reason."""
    names: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["error"]:
            names.setdefault(("Not run" if row["not_run"] else "Failed", row["error"]), []).append(row["name"])
    return [
        f"{what} ({len(lost)} of {len(rows)} rows): {', '.join(lost)}: {reason}"
        for (what, reason), lost in names.items()
    ]


def _without_bases(rows: Sequence[Data]) -> list[str]:
    """Which rows began without a row that the stores could not give."""
    lacking = {row["name"] for row in rows if row["error"]}
    names: dict[str, list[str]] = {}
    for row in rows:
        for base in row["starts_from"]:
            if base in lacking and not row["error"]:
                names.setdefault(base, []).append(row["name"])
    return [
        f"{', '.join(started)} began without {base}, with the weights of the backbone alone."
        for base, started in names.items()
    ]


def quick_text(recipe: Recipe) -> str:
    """What the short form is."""
    if recipe.reads_arrays:
        return (
            f"at most {QUICK_PASSES} clip-passes of training in all, at most {QUICK_STEPS} frames and {QUICK_JUDGED} "
            "clips of each other part, the store's own split"
        )
    return f"a twentieth of the epochs on at most {QUICK_CLIPS} training clips"


def few_groups(data: Data) -> list[str]:
    """A warning for every part whose intervals draw few groups."""
    said = {}
    for column in judged_columns(data):
        count = data["judged"][column["key"]]["num_groups"]
        if count < FEW_GROUPS and data["interval_units"] == "groups":
            groups = "1 group" if count == 1 else f"{count} groups"
            said[_where(data, column)] = f"{groups} on {_where(data, column)}"
    if not said:
        return []
    return [f"FEW GROUPS: {' and '.join(said.values())}. {FEW_GROUPS_SAY}"]


def leaks(data: Data) -> list[str]:
    """The warnings of the runs, above all that judged clips are of groups that were trained on."""
    return [note for note in data["notes"] if note.startswith(LOUD)]


def selection_sentence(recipe: Recipe, trained: Sequence[TrainedRow], *, on_reported_sets: bool) -> str:
    """What chose epochs and rows."""
    if recipe.kind == "read":
        return "Nothing is trained and nothing is selected: the readings are reported as they are."
    selection = recipe.study.selection
    if on_reported_sets:
        return f"Published protocol (--select-on reported-set): {selection.protocol}"
    kept = {one.settings["keep"] for one in trained if one.runs}
    what = {
        frozenset({"best"}): "Every row is judged at the epoch chosen on validation",
        frozenset({"best-accuracy"}): "Every row is judged at the epoch of the highest validation accuracy",
        frozenset({"last"}): "Every row is judged at its own last epoch",
    }.get(
        frozenset(kept),
        "Rows that keep their last epoch are judged there, the others at the epoch chosen on validation",
    )
    sets = "the test set is" if sum(part.is_needed for part in recipe.study.parts) == 1 else "all test sets are"
    return (
        f"{what}; schedules and the best row follow a validation part of train, and {sets} reported once. "
        "No reported clip chooses anything."
    )


def notes(data: Data, recipe: Recipe, of_runs: Sequence[str]) -> list[str]:
    """What a reader should know beside the numbers."""
    said = [*recipe.notes, *recipe.study.notes]
    if data["quick"]:
        said.insert(0, f"QUICK: {data['quick_says']}. The numbers show that the recipe runs; they are no reproduction.")
        said[1:1] = [corners_sentence(recipe)] if recipe.corners else []
    if recipe.features:
        said.append(
            f"The publication used {recipe.features}. Its data are not these: theirs and ours compare in kind only."
        )
    unlike = [entry["store"] for entry in data["inputs"] if entry["as_published"] is False]
    if unlike and recipe.shape is not None:
        said.append(
            f"{', '.join(unlike)}: not the published shape of {recipe.shape[0]} steps of {recipe.shape[1]} numbers."
        )
    tested = [found["exact"] for _, _, found in comparisons(data) if found.get("exact")]
    if tested:
        said.append(EXACT_SAYS + (EXACT_REPEATS if any(len(one["repeats"]) > 1 for one in tested) else ""))
    units = data["interval_units"]
    one_group = ": they say nothing about other groups" if units == "clips" else ""
    said.append(f"Intervals: 95 %, bootstrap over {units}{one_group}; with repeats, of the clip's mean over them.")
    return said + [note for note in of_runs if note not in said]
