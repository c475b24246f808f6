"""What every reader of a data set keeps to: a manifest that can be written and read, the same twice, no sentinel."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reelbank import manifests
from reelbank.manifests.datasets import READERS, Manifest, reader
from reelbank.testing.checking import name_of, named


def check_dataset(given: str | Callable[..., Manifest], place: Path | str, **options: Any) -> Manifest:
    """Reads a small tree in the layout of a data set and checks everything that a reader promises.

    Args:
        given: the reader's name or function.
        place: the tree, or the file that it reads.
        options: of the reader.

    Returns:
        The manifest, for whatever else its author wants to see in it.
    """
    name, place = name_of(given), Path(place)
    what = f"reader {name!r}"
    with named(what, "options_of_the_row_are_its_arguments"):
        options_are_arguments(name)
    with named(what, "an_absent_place_is_named"):
        absent_place_is_named(name, place)
    made = reader(name)(place, **options)
    with named(what, "same_manifest_twice"):
        assert len(made) > 0, f"{place} gave no clip"
        assert made.digest() == reader(name)(place, **options).digest(), "two readings of one place differ"
    with named(what, "what_is_written_can_be_read"), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "manifest.csv"
        manifests.write(made, file)
        again = manifests.read(file, root=made.root, target_columns=made.target_names or None, allow_group_overlap=True)
        for column in ("clip_id", "split", "label", "group"):
            assert list(again.column(column)) == list(made.column(column)), f"column {column} is another once read"
    return made


def options_are_arguments(name: str) -> None:
    """The command offers what the row lists: the function must take it."""
    arguments = list(inspect.signature(reader(name)).parameters.values())
    assert arguments[0].default is inspect.Parameter.empty, "the first argument is the place and has no default"
    assert sorted(argument.name for argument in arguments[1:]) == sorted(READERS.row(name).options)


def absent_place_is_named(name: str, place: Path) -> None:
    absent = place.parent / "nowhere.csv"
    try:
        reader(name)(absent)
    except (ValueError, OSError) as error:
        assert "nowhere" in str(error), f"the error does not name the place: {error}"
    else:
        raise AssertionError(f"{absent} is not there, and nothing was said")
