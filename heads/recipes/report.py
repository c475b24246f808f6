"""The page of a recipe: one self-contained HTML file and its pictures as PNG, drawn from the files of the recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reelbank.heads.judging.paired import p_text
from reelbank.heads.recipes import gallery
from reelbank.heads.recipes.inputs import input_text
from reelbank.heads.recipes.rows import read_recipe
from reelbank.heads.recipes.sentences import comparisons, few_groups, judged_columns, leaks, unit_of
from reelbank.heads.recipes.tables import BASELINE, legend, num_leading, quick_warning, table_of
from reelbank.heads.reports import html
from reelbank.heads.reports.drawing import figures_as, files_of
from reelbank.heads.reports.wording import DASH, shared_text
from reelbank.store.files import write_whole

Data = Mapping[str, Any]


def write_recipe_page(directory: Path, *, figures_kind: str = "png") -> Path:
    """Writes `report.html` and `figures/*.png` of a finished recipe, also as `figures_kind`; returns the page.

    Raises TrainingError where `recipe.json` is missing or of another version.
    """
    data = read_recipe(directory)
    with figures_as(figures_kind):
        drawn = gallery.draw_all(directory, data)
    folder = directory / "figures"
    folder.mkdir(exist_ok=True)
    for name, content in drawn.items():
        for file, data_of in files_of(name, content).items():
            write_whole(folder / file, data_of)
    path = directory / "report.html"
    write_whole(path, _page(directory, data, drawn))
    return path


def _page(directory: Path, data: Data, drawn: Mapping[str, bytes]) -> str:
    head, rows = table_of(data)
    lead = num_leading(data)
    # A baseline's name takes the columns that tell rows apart, and the one that would say "baseline".
    rows = [
        [row[0], *[""] * lead, *row[lead + 1 :]]
        if row[lead] == BASELINE
        else [*row[:lead], _whole(row[lead]), *row[lead + 1 :]]
        for row in rows
    ]
    warnings = [data["warning"], quick_warning(data), *leaks(data), *few_groups(data)]
    if data["select_on"] == "reported-set":
        warnings.append("Selected on the reported sets, as published: the numbers are too good.")
    captions = data["study"]["captions"]
    body = (
        html.paragraphs(data["sentences"], kind="verdict")
        + html.paragraphs([data["text"]])
        + html.section(
            "Theirs, ours, baselines",
            html.table(head, rows, lead=lead + 1),
            html.paragraphs([legend(data)], kind="soft"),
        )
        + _comparisons(data)
        + _folds(data)
        + html.section("Pictures", *(html.picture(drawn[name], captions[name]) for name in captions if name in drawn))
        + _classes(data)
        + _what_was_run(data)
        + html.section("Notes", html.items(data["notes"]))
        + html.section("Rows", html.details("options of every row", json.dumps(_options(data), indent=1)))
        + html.section("Files", html.items(html.files_below(directory, deep=False)))
    )
    return html.document(
        title=f"{data['recipe']}: {data['title']}",
        subtitle=" + ".join(data["stores"]),
        warnings=warnings,
        body=body,
    )


def _whole(text: str) -> str:
    """A text that a narrow column does not break."""
    return text.replace(" ", "\u00a0")


def _comparisons(data: Data) -> str:
    """Rows that are compared with another row, clip by clip: the difference, and the clips that it comes from."""
    lines, several = [], len(judged_columns(data)) > 1
    for row, column, found in comparisons(data):
        signed, exact = f"+.{max(1, column['digits'])}f", found.get("exact")
        difference = DASH if found["difference"] is None else f"{found['difference']:{signed}} {unit_of(data, column)}"
        if found["low"] is not None:
            difference += f" [{found['low']:{signed}}, {found['high']:{signed}}]"
        counts = [exact["only_this"], exact["only_other"], p_text(exact["p"])] if exact else [DASH] * 3
        of = [column["head"]] if several else []
        lines.append([row["name"], row["against"]["name"], *of, difference, found["num_clips"], *counts])
    head = ["row", "less", *(["of"] if several else []), "difference [95 % interval, paired]", "clips"]
    head += ["only this row right", "only the other right", "p, exact test"]
    return html.section("Row against row", html.table(head, lines))


def _folds(data: Data) -> str:
    """Each judged column, fold by fold: a row of the recipe in a line, the mean of the folds at its end."""
    tables = []
    for column in judged_columns(data):
        lines = [(row["name"], row["folds"].get(column["key"])) for row in data["rows"]]
        filled = [(name, folds) for name, folds in lines if folds]
        if not filled:
            continue
        names = list(filled[0][1])
        rows = [
            [name, *(_digits(folds[fold], column) for fold in names), _digits(_mean(folds), column)]
            for name, folds in filled
        ]
        caption = f"{column['head']}: trained on the other groups, tested on the one named."
        tables += [html.paragraphs([caption], kind="soft"), html.table(["row", *names, "mean of folds"], rows)]
    return html.section("Fold by fold", *tables)


def _digits(value: float | None, column: Data) -> str:
    return DASH if value is None else f"{value:.{column['digits']}f}"


def _mean(folds: Mapping[str, float | None]) -> float | None:
    values = [value for value in folds.values() if value is not None]
    return sum(values) / len(values) if values else None


def _classes(data: Data) -> str:
    guessers, of = data["study"]["by_class"], {entry["part"] for entry in data["classes"]}
    parts = {name: part for name, part in data["study"]["parts"].items() if name in of}
    rows = [
        [
            entry["label"] or "no label",
            *([parts[entry["part"]]["said"]] if len(parts) > 1 else []),
            entry["clips"],
            entry["ours"],
            *(entry["guesses"][name] for name in guessers),
        ]
        for entry in data["classes"]
    ]
    head = ["class", *(["clips of"] if len(parts) > 1 else []), "clips", data["best"], *guessers.values()]
    title = str(judged_columns(data)[0]["title"]) if rows else ""
    return html.section(f"{title[:1].upper()}{title[1:]} by class", html.table(head, rows))


def _what_was_run(data: Data) -> str:
    """What all rows share as facts, what they differ in as a table."""
    counts = data["counts"]
    clips = ", ".join(f"{name} {counts[name]}" for name in ("train", "val", "test", "unknown") if counts.get(name))
    own = [row for row in data["rows"] if row["runs"] and not row["shared_with"]]
    if any(row["folds"] for row in own):
        clips += " (train and val: of the first fold)"
    settings = [name for name in dict.fromkeys(name for row in own for name in row["settings"]) if name not in _HIDDEN]
    shared = {name for name in settings if len({row["settings"].get(name) for row in own}) == 1 and len(own) > 1}
    seen = [shared_text(row.get("group_overlap", {})) for row in own]
    facts = [
        *((f"store {entry['store']}", input_text(entry, data["shape"])) for entry in data["inputs"]),
        ("published features", data["features"]),
        ("clips", clips),
        *((_TITLES.get(name, name), own[0]["settings"][name]) for name in settings if name in shared),
        ("repeats", f"{data['repeats']}, seeds from {data['seed']}"),
        ("selection", data["selection"]),
        *([(_SEEN, seen[0])] if len(set(seen)) == 1 and seen[0] else []),
        ("time", f"{data.get('seconds', 0):.0f} s"),
    ]
    varied = [name for name in settings if name not in shared]
    head = [
        "row",
        "parameters",
        *(_TITLES.get(name, name) for name in varied),
        "epochs run",
        "lowest loss at",
        "seconds",
    ]
    rows = [
        [
            row["name"],
            f"{row['num_parameters']:,}",
            *(row["settings"].get(name, DASH) for name in varied),
            _list(row["epochs"]),
            _list(row["best_epochs"]),
            f"{row['seconds']:.0f}",
        ]
        for row in own
    ]
    of_groups = [[row["name"], text] for row, text in zip(own, seen, strict=True)] if len(set(seen)) > 1 else []
    return html.section(
        "What was run", html.fact_table(facts), html.table(head, rows), html.table(["row", _SEEN], of_groups)
    )


_HIDDEN = ("folds",)
_SEEN = "clips whose group was trained on"
_TITLES = {"keep": "weights kept"}


def _list(epochs: list[int]) -> str:
    if len(set(epochs)) == 1:
        return str(epochs[0])
    return ", ".join(map(str, epochs)) if len(epochs) <= 4 else f"{min(epochs)} to {max(epochs)}"


def _options(data: Data) -> list[dict[str, Any]]:
    keys = ("name", "options", "runs", "epochs", "best_epochs", "overfit", "seconds", "shared_with")
    return [{key: row[key] for key in keys if row.get(key) not in (None, "")} for row in data["rows"]]
