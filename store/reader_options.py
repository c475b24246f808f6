"""How the options that a row of `READERS` names are written on the command line; for `cli.py` alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from reelbank.store.console import GroupedOption
from reelbank.store.options import MAX_SEED

PATH = click.Path(path_type=Path)
SHARE = click.FloatRange(0.0, 1.0, min_open=True, max_open=True)


def _pairs(ctx: click.Context, param: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    mapping: dict[str, str] = {}
    for pair in pairs:
        ours, separator, theirs = pair.partition("=")
        if not separator:
            raise click.BadParameter(f"{pair!r} is not of the form OURS=THEIRS", ctx, param)
        if mapping.get(ours, theirs) != theirs:
            raise click.BadParameter(f"{ours!r} is mapped to {mapping[ours]!r} and to {theirs!r}", ctx, param)
        mapping[ours] = theirs
    return mapping


reading = partial(click.option, cls=GroupedOption, group="What is read")
splitting = partial(click.option, cls=GroupedOption, group="Splits")
READER_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "allow_group_overlap": splitting(
        "--allow-group-overlap", is_flag=True, help="Note a group on both sides of a split instead of refusing it."
    ),
    "classes": reading("--classes", type=PATH, help="A file with a class of the set per line: others are left out."),
    "decimal": reading(
        "--decimal", type=click.Choice(["comma", "point"]), help="What 1.200 is, where FILE does not tell: 1200 or 1.2."
    ),
    "fold": splitting("--fold", type=click.IntRange(1, 3), default=1, show_default=True, help="Official split."),
    "groups": splitting(
        "--groups", type=click.Choice(["films", "names", "none"]), default="none", show_default=True,
        help="names: the group of a clip is the film that it was cut from, by its file name, within its class; films: "
        "whatever the class.",
    ),
    "labels": reading("--labels", type=PATH, help="The label file.  [default: the only one in ROOT]"),
    "mapping": reading(
        "--map", "mapping", multiple=True, metavar="OURS=THEIRS", callback=_pairs,
        help="Column of the manifest = column of FILE.",
    ),
    "merge_splits": splitting(
        "--merge-splits", is_flag=True, help="Make one of the official parts, and hold --test-share of it out."
    ),
    "rate_fps": reading("--rate-fps", type=float, help="Frames per second of the frame folders."),
    "rename": reading(
        "--rename", type=PATH, help="A file with lines old,new: other names for classes, which sets may then share."
    ),
    "root": reading("--root", type=PATH, help="Folder of the videos.  [default: FILE's folder]"),
    "seed": splitting(
        "--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, help="Of a cut that is made here."
    ),
    "splits": splitting(
        "--splits", type=PATH, help="Folder of the official split files.  [default: found under ROOT]"
    ),
    "target_columns": reading(
        "--target-columns", multiple=True, help="Numeric target columns.  [default: kcal, else target*]"
    ),
    "test_share": splitting(
        "--test-share", type=SHARE, help="Of every class, with --merge-splits: ceil(share x n) in all.  [default: 0.1]"
    ),
    "unknown": splitting(
        "--unknown", multiple=True, metavar="CLASS",
        help="A class that training never sees; may be repeated. The split is made by this.",
    ),
    "val_by": splitting(
        "--val-by", type=click.Choice(["clip", "group"]), default="clip", show_default=True,
        help="What --val-share holds out: clips, or whole groups, as near to the share as they allow.",
    ),
    "val_share": splitting(
        "--val-share", type=SHARE, help="Part of the training clips of every class that becomes val: ceil(share x n)."
    ),
}  # fmt: skip
"""How an option of `READERS` is written on the command line."""
