"""Which pictures a recipe has, drawn from its files. A study names those it shows, with their captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.recipes import figures
from reelbank.heads.recipes.measures import Clips
from reelbank.heads.recipes.rows import epochs_of, read_clips
from reelbank.heads.recipes.seeing import PICTURE
from reelbank.heads.recipes.sentences import judged_columns
from reelbank.heads.recipes.study import VALIDATION
from reelbank.heads.recipes.tables import quick_warning
from reelbank.heads.reports.confusion import confusion_panels
from reelbank.heads.reports.drawing import Heading, png
from reelbank.heads.reports.figures import scatter_by_class
from reelbank.heads.stored import read_config, read_json, read_results
from reelbank.store.files import regular

RATES = "batch_learning_rates"  # of a line of metrics.jsonl
MATRICES = 4  # of the best row and the first of the others

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Material:
    """What pictures are drawn from: the recipe's directory and the content of recipe.json."""

    directory: Path
    data: Mapping[str, Any]

    def heading(self, count: str = "", stores: Any = None) -> Heading:
        """What a picture is of, with the warnings that must travel with it."""
        warning = self.data["warning"]
        if quick_warning(self.data):
            warning = f"{warning} QUICK form: no reproduction.".strip()
        names = " + ".join(stores or self.data["stores"])
        return Heading(source=f"{self.data['recipe']} · {names}", count=count, warning=warning)

    @cached_property
    def own(self) -> dict[str, list[Path]]:
        """{row: its runs}, of rows with trainings of their own."""
        return {
            row["name"]: [self.directory / run for run in row["runs"]]
            for row in self.data["rows"]
            if row["runs"] and not row["shared_with"]
        }

    @property
    def parts(self) -> dict[str, str]:
        """{part: what its clips are}."""
        return {name: part["said"] for name, part in self.data["study"]["parts"].items()}

    def clips(self, row: str, part: str) -> Clips:
        """The predicted clips of a row's first repeat that have a target."""
        if self.data["kind"] == "read":
            values = self.data["readings"][part]
            found = {"target": np.array(values["truth"]), "predicted_target": np.array(values[row])}
            return Clips(columns={"clip_id": np.arange(len(values["truth"])).astype(str), **found})
        runs = next(entry["runs"] for entry in self.data["rows"] if entry["name"] == row)
        clips = read_clips(self.directory / runs[0], self.data["study"]["parts"][part]["split"])
        return clips.take(np.isfinite(clips.numbers("target")))

    @property
    def names(self) -> list[str]:
        """Rows that predict something of their own."""
        return list(self.own) if self.data["kind"] == "train" else [row["name"] for row in self.data["rows"]]

    @property
    def target_text(self) -> str:
        """The target with its unit, for an axis."""
        name, unit = self.data["target"]["name"], self.data["target"]["unit"]
        return unit if unit.startswith(name) else f"{name} ({unit})" if unit else name

    def limits(self, values: list[np.ndarray]) -> tuple[float, float]:
        """The study's axis where all values lie within, else theirs."""
        everything, axis = np.concatenate(values), self.data["study"]["axis"]
        low, high = float(everything.min()), float(everything.max())
        if axis is not None and axis[0] <= low and high <= axis[1]:
            return axis[0], axis[1]
        return low, high + 1e-9


Draw = Callable[[Material], "Figure | bytes | None"]
"""A figure, or a PNG that was drawn before."""


def _loss(of: Material) -> Figure | None:
    return _curves(of, "val_loss", "loss", None) if of.own else None


def _validation(of: Material) -> Figure | None:
    key = of.data["study"]["validation"]
    metric = VALIDATION[key]
    if not of.own or not metric:
        return None
    column = next((one for one in judged_columns(of.data) if one["metric"] == metric), None)
    title, guess = metric, None
    if column is not None:
        title = column["title"]
        run = next(iter(of.own.values()))[0]
        value = validation_guess(run, column["beats"], metric)
        if value is not None:
            guess = of.data["study"]["guessers"][column["beats"]].removeprefix("the "), value
    unit = of.data["target"]["unit"] if metric == "mae" else ""
    return _curves(of, key, f"{title} ({unit})" if unit else title, guess)


def _curves(of: Material, key: str, name: str, guess: tuple[str, float] | None) -> Figure:
    rows = {row["name"]: row for row in of.data["rows"]}
    return figures.curves(
        {row: [lines for run in runs for lines in epochs_of(run)] for row, runs in of.own.items()},
        key=key,
        name=name,
        settings={row: _settings(rows[row]["cells"]) for row in of.own},
        keeps_last={row: rows[row]["settings"]["keep"] == "last" for row in of.own},
        guess=guess,
        heading=of.heading(),
        marks={row: _milestones(runs[0]) for row, runs in of.own.items()},
    )


def _milestones(run: Path) -> list[int]:
    """The epochs of a run after which its rate was reduced, where its schedule names them."""
    config = read_config(run)["config"]
    last = max(line["epoch"] for lines in epochs_of(run) for line in lines)
    return [epoch for epoch in config["milestones"] if config["schedule"] == "multistep" and epoch < last]


def _motion(of: Material) -> Figure | None:
    """The further loss called `motion`, of the rows that have it."""
    found = {
        row: [
            [{**line, "train_motion": line["losses"]["motion"]} for line in lines if "motion" in line.get("losses", {})]
            for run in runs
            for lines in epochs_of(run)
        ]
        for row, runs in of.own.items()
    }
    rows = {row: repeats for row, repeats in found.items() if any(repeats)}
    if not rows:
        return None
    cells = {row["name"]: row["cells"] for row in of.data["rows"]}
    return figures.curves(
        rows,
        key="train_motion",
        name="motion loss",
        settings={row: _settings(cells[row]) for row in rows},
        keeps_last=dict.fromkeys(rows, False),
        guess=None,
        heading=of.heading(),
        marks={row: _milestones(of.own[row][0]) for row in rows},
    )


def validation_guess(run: Path, guesser: str, metric: str) -> float | None:
    """What a guesser has on the clips of a run's validation curve, those of the test where these choose the epoch.

    None where a run judges no such clips: with folds.
    """
    results = read_results(run)
    entry = {} if results["folds"] else results["splits"].get("val", results["splits"].get("test", {}))
    value: float | None = entry.get("baselines", {}).get(guesser, {}).get(metric)
    return value


def _settings(cells: Mapping[str, str]) -> str:
    """What tells a row's curve from the others; the epochs stand on the axis."""
    if "varied" in cells:
        return f"{cells['varied']} {cells['value']}; {cells['others']}"
    return ", ".join(text for name, text in cells.items() if name not in ("figure", "epochs") and text)


def _distributions(of: Material) -> Figure | None:
    if not of.data["target"]["name"]:
        return None
    best: str = of.data["best"]
    parts: dict[str, dict[str, Any]] = {}
    for part, said in of.parts.items():
        chosen = of.clips(best, part)
        parts[said] = {
            "truth": chosen.numbers("target"),
            "best": chosen.numbers("predicted_target"),
            "others": [of.clips(row, part).numbers("predicted_target") for row in of.names if row != best],
        }
    limits = of.limits([own for values in parts.values() for own in (values["truth"], values["best"])])
    return figures.distributions(parts, best=best, limits=limits, name=of.target_text, heading=of.heading())


def _compared(of: Material) -> Figure | None:
    if not of.data["compared"] or not of.data["target"]["name"]:
        return None
    rows: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for row in of.data["compared"]:
        clips = {said: of.clips(row, part) for part, said in of.parts.items()}
        rows[row] = {said: (own.numbers("target"), own.numbers("predicted_target")) for said, own in clips.items()}
    limits = of.limits([values for parts in rows.values() for pair in parts.values() for values in pair])
    return figures.compared(rows, limits=limits, name=of.target_text, heading=of.heading())


def _classes(of: Material) -> Figure | None:
    classes = of.data["classes"]
    if not classes:
        return None
    column = judged_columns(of.data)[0]
    parts = {part: said for part, said in of.parts.items() if any(entry["part"] == part for entry in classes)}
    counts = [f"{sum(entry['clips'] for entry in classes if entry['part'] == part)} {part}" for part in parts]
    unit = of.data["target"]["unit"] if column["unit"] == "target" else "%" if column["scale"] == 100 else ""
    return figures.class_values(
        classes,
        best=of.data["best"],
        title=f"{column['title']} ({unit})" if unit else column["title"],
        guessers=of.data["study"]["by_class"],
        parts=parts,
        heading=of.heading(f"{', '.join(counts)} clips"),
    )


def _calibration(of: Material) -> Figure | None:
    if not of.own or not of.data["target"]["name"]:
        return None
    best = of.data["best"]
    masses = {part: of.clips(best, part).numbers("target_cdf") for part in of.parts}
    return figures.calibration(masses, best=best, heading=of.heading())


def _map(of: Material) -> Figure | None:
    clips = of.data.get("map")
    if not clips:
        return None
    points = np.array([clips["x"], clips["y"]]).T
    labels = [label or "no label" for label in clips["labels"]]
    heading = of.heading(clips["note"], clips.get("stores"))
    return scatter_by_class(points, labels, clips["splits"], title="t-SNE by class", heading=heading, numbered=True)


def _rates(of: Material) -> Figure | None:
    """The rate of every batch, of the rows whose schedule makes a step per batch."""
    found = {
        row: [rate for line in epochs_of(runs[0])[0] for rate in line.get(RATES, ())] for row, runs in of.own.items()
    }
    found = {row: rates for row, rates in found.items() if rates}
    return figures.batch_rates(found, heading=of.heading()) if found else None


def _confusion(of: Material) -> Figure | None:
    """Of the best row and of the first others, each the first run, on the clips that are judged first."""
    split = of.data["study"]["parts"][judged_columns(of.data)[0]["part"]]["split"]
    tables = {}
    for row, runs in of.own.items():
        path = runs[0] / "confusion.json"
        found = read_json(path).get(split) if path.exists() else None
        if found is not None:
            tables[row] = np.array(found["counts"]), found["labels"]
    order = [of.data["best"], *(row for row in tables if row != of.data["best"])]
    shown = {row: tables[row] for row in order[:MATRICES] if row in tables}
    return confusion_panels(shown, heading=of.heading()) if shown else None


def _grad_cam(of: Material) -> bytes | None:
    path = of.directory / "figures" / PICTURE
    drawn = of.data.get("grad_cam")
    return regular(path).read_bytes() if drawn and "error" not in drawn and path.exists() else None


PICTURES: Mapping[str, Draw] = {
    "loss.png": _loss,
    "validation.png": _validation,
    "motion.png": _motion,
    "compared.png": _compared,
    "distributions.png": _distributions,
    "classes.png": _classes,
    "confusion.png": _confusion,
    "grad-cam.png": _grad_cam,
    "rates.png": _rates,
    "calibration.png": _calibration,
    "tsne.png": _map,
}
"""Every picture there is; a drawing is None where the recipe has nothing to draw it from."""


def draw_all(directory: Path, data: Mapping[str, Any]) -> dict[str, bytes]:
    """{file name: PNG} of the pictures that the study shows."""
    of = Material(directory, data)
    drawn = {name: PICTURES[name](of) for name in data["study"]["captions"]}
    return {name: one if isinstance(one, bytes) else png(one) for name, one in drawn.items() if one is not None}
