"""Writes the parts of the reference that are made from the code: `python docs/generate.py build/reference`.

A page of docs/reference/ includes its part. Nothing of this is committed, so nothing of it can go stale; the imports
below are all that knows where in the code a part comes from.
"""

from __future__ import annotations

import argparse
import configparser
import importlib
import inspect
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from reelbank import cli
from reelbank.docs import click_pages
from reelbank.docs.click_pages import Program
from reelbank.docs.docstrings import attributes, escaped, summary, table
from reelbank.docs.notebook import NOTEBOOK, markdown
from reelbank.extract.backbones import listing
from reelbank.extract.inputs.keypoints import ALIASES, LAYOUTS, SLOTS, UNUSED
from reelbank.heads.config import HEAD_FLAGS
from reelbank.heads.judging.metrics import METRICS
from reelbank.heads.losses import LOSSES, loss_function
from reelbank.heads.models import HEADS
from reelbank.heads.recipes import RECIPES, detail_text
from reelbank.heads.reports.wording import title
from reelbank.heads.runs import run as run_files
from reelbank.manifests.manifest import GUARDED_SPLITS, IMAGE_SUFFIXES, PATH_COLUMNS, VIDEO_SUFFIXES, Clip
from reelbank.store import layout
from reelbank.store.spec import FeatureSpec, TapSpec
from reelbank.store.testing import write_store

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "reelbank"
# Annotations that are kept as text are shown in quotes.
_ANNOTATION = re.compile(r"(: |-> )'([^']*)'")
PUBLIC = {
    "reelbank.manifests": "tables of clips",
    "reelbank.manifests.datasets": "readers of data sets, for those who add one",
    "reelbank.extract": "stage 1",
    "reelbank.extract.backbones": "backbones, for those who run or add one",
    "reelbank.store": "stores: reading, checking, converting",
    "reelbank.heads": "stage 2",
    "reelbank.heads.judging.metrics": "for those who add a metric",
    "reelbank.heads.losses": "for those who add a loss",
    "reelbank.heads.models": "for those who add a head",
    "reelbank.heads.probes": "for those who add an analysis to `probe`",
    "reelbank.heads.recipes": "named experiments",
    "reelbank.testing": "checks for plug-ins; stores from arrays",
}
"""{public module: what for}. A module is public if it has `__all__`; a test holds the two equal."""


def commands() -> str:
    """Every command and option, from click."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["options.entry_points"]["console_scripts"].split("\n")
    scripts = frozenset(line.partition("=")[0].strip() for line in lines if line.strip()) - {PROGRAM}
    return click_pages.page(cli.main, Program(name=PROGRAM, scripts=scripts))


def manifest() -> str:
    """The columns, and the words and suffixes that have a meaning."""
    columns = {name: text for name, text in attributes(Clip).items() if name not in ("targets", "text")}
    rows = [(f"`{name}`", escaped(text)) for name, text in columns.items()]
    rows.append(
        (", ".join(f"`{name}`" for name in PATH_COLUMNS if name not in columns), "paths, relative as `video` is")
    )
    return "\n\n".join(
        [
            table(("column", "meaning"), rows),
            f"No group may be on two of these splits: {_coded(GUARDED_SPLITS)}.",
            f"A file is a video if its name ends in {_coded(sorted(VIDEO_SUFFIXES))}, a still image if it ends in "
            f"{_coded(sorted(IMAGE_SUFFIXES))}.",
            "## Layouts of annotated poses",
            f"Every layout becomes the {len(SLOTS)} slots {_coded(SLOTS)}.",
            f"{_coded(UNUSED)} have no slot. {', '.join(f'`{a}` stands for `{b}`' for a, b in ALIASES.items())}. "
            "The points of a layout in their order:",
            table(("layout", "points"), [(f"`{name}`", _coded(points)) for name, points in sorted(LAYOUTS.items())]),
        ]
    )


def store_format() -> str:
    """What the format's own module says, the arrays of a store that is made here, and the fields of its spec."""
    return "\n\n".join(
        [
            escaped(inspect.getdoc(layout) or ""),
            f"Format version {layout.FORMAT_VERSION}.",
            "## Every array of a store",
            "Two clips of four steps, one vector tap `cls` of six numbers and one map `layer3`:",
            _arrays(),
            "## The ledger: what is known of each clip",
            "What needs an essential array that is absent fails; a writer refuses such a store.",
            _clip_arrays("clips", layout.LEDGER),
            "## The columns of the manifest",
            "Beside them stand the targets, NaN where absent, and every other column as text.",
            _clip_arrays("manifest", layout.COLUMNS),
            "## The attributes of the root",
            f"Essential: {_coded(layout.ESSENTIAL_ATTRIBUTES)}. "
            f"May be absent: {_coded(list(layout.OTHER_ATTRIBUTES))}.",
            "## The spec: what changes the numbers",
            summary(FeatureSpec),
            _attributes(FeatureSpec),
            "## One tap",
            summary(TapSpec),
            _attributes(TapSpec),
        ]
    )


def _clip_arrays(folder: str, arrays: Mapping[str, layout.ClipArray]) -> str:
    rows = [
        (
            f"`{folder}/{name}`",
            f"`{array.dtype}`",
            escaped(array.about),
            _shown(array.fill),
            "yes" if array.essential else "",
        )
        for name, array in arrays.items()
    ]
    return table(("array", "dtype", "says", "where unknown", "essential"), rows)


def _arrays() -> str:
    """Every array of a small store, written by the real writer."""
    features: dict[str, list[NDArray[Any] | None]]
    features = {"cls": [np.zeros((4, 6), np.float16)] * 2, "layer3": [np.zeros((4, 3, 2, 2), np.float16)] * 2}
    clips = [{"clip_id": name, "label": "walk", "group": name, "kcal": 100.0} for name in ("a17", "a18")]
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder, "small.zarr"), features, clips, fixed_steps=4)
        group = zarr.open_group(Path(folder, "small.zarr"), mode="r")
        found = dict(group.members(max_depth=None))
    rows = []
    for name, array in sorted(found.items()):
        if isinstance(array, zarr.Array) and array.ndim:
            axes = ", ".join(str(axis) for axis in getattr(array.metadata, "dimension_names", None) or ())
            shape = " x ".join(map(str, array.shape))
            dtype = "str" if "String" in str(array.dtype) else str(array.dtype)
            rows.append((f"`{name}`", f"`{dtype}`", shape, escaped(axes)))
    return table(("array", "dtype", "shape", "axes"), rows)


def run_directory() -> str:
    """The docstring of the run's module: a section per file."""
    paragraphs = (inspect.getdoc(run_files) or "").split("\n\n")
    parts = []
    for paragraph in paragraphs:
        first, _, rest = paragraph.partition("\n")
        if first.startswith("`") and rest.startswith(" "):
            names, _, note = first.partition("  (")
            said = f"{note[:1].upper()}{note.rstrip().removesuffix(')')[1:]}."
            parts += [f"## {names.strip()}", escaped(said), f"```text\n{inspect.cleandoc(rest)}\n```"]
        else:
            parts.append(escaped(" ".join(paragraph.split())))
    return "\n\n".join(parts)


def _head_option(name: str, value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`--{name} {text}`" if name in HEAD_FLAGS else f"`--head-option {name}={text}`"


def heads() -> str:
    """The tables of heads, losses and metrics."""
    head_rows = [
        (
            f"`{name}`",
            escaped(row.summary),
            "arrays, see `reelbank heads NAME`"
            if row.plan
            else "every step"
            if row.needs_steps
            else "one pooled vector",
            ", ".join(_head_option(option, value) for option, value in row.options.items()) or "-",
        )
        for name, row in sorted(HEADS.items())
    ]
    loss_rows = [(f"`{name}`", escaped(summary(loss_function(name)))) for name in sorted(LOSSES)]
    metric_rows = [
        (
            f"`{name}`",
            title(name),
            escaped(summary(metric.per_clip or metric.whole)),
            metric.unit,
            "more" if metric.higher_is_better else "less",
        )
        for name, metric in METRICS.items()
    ]
    return "\n\n".join(
        [
            "## Heads",
            table(("head", "what it is", "sees of a clip", "options with their defaults"), head_rows),
            "## Losses",
            "p is the label's distribution, q the predicted one.",
            table(("loss", "formula"), loss_rows),
            "## Metrics",
            table(("metric", "shown as", "what it is", "unit", "better is"), metric_rows),
        ]
    )


def recipes() -> str:
    """A section per recipe, as `reelbank recipes NAME` shows it."""
    rows = [(f"`{name}`", escaped(one.title), str(one.num_rows)) for name, one in sorted(RECIPES.items())]
    parts = [table(("recipe", "experiment", "rows"), rows)]
    parts += [f"## {name}\n\n```text\n{detail_text(name)}\n```" for name in sorted(RECIPES)]
    return "\n\n".join(parts)


def python() -> str:
    """The public modules, and the names of each."""
    parts = [table(("public module", "for"), [(f"`{module}`", escaped(what)) for module, what in PUBLIC.items()])]
    for name in PUBLIC:
        module = importlib.import_module(name)
        parts += [f"## {name}", escaped(summary(module))]
        for member in module.__all__:
            thing = getattr(module, member)
            if inspect.isclass(thing) or not callable(thing):
                signature = ""
            else:
                signature = _ANNOTATION.sub(r"\1\2", str(inspect.signature(thing)))
            parts.append(f"`{member}{signature}`\n: {escaped(summary(thing))}")
    return "\n\n".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "backbones": listing.markdown,
    "commands": commands,
    "heads": heads,
    "manifest": manifest,
    "python": python,
    "recipes": recipes,
    "run-directory": run_directory,
    "store-format": store_format,
}
"""{page of docs/reference/: what makes its part}."""


def _attributes(cls: type) -> str:
    return table(("field", "meaning"), [(f"`{name}`", escaped(text)) for name, text in attributes(cls).items()])


def _coded(words: Sequence[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _shown(fill: object) -> str:
    return "empty" if fill == "" else "NaN" if fill != fill else f"{fill}"


def write(folder: Path) -> None:
    """Writes every part into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (folder / f"{name}.md").write_text(make() + "\n", encoding="utf-8")
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    (folder / "notebook.md").write_text(markdown(notebook) + "\n", encoding="utf-8")  # of a how-to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the parts are written, build/reference")
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
