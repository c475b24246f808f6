"""A store's manifest and ledger as a DataFrame, its features as an xarray Dataset."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reelbank.store.bridges.readable import Readable
from reelbank.store.layout import COLUMNS, LEDGER

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

STATUS = ("missing", "done", "failed")
"""What the numbers of `clips/status` are called."""
CATEGORIES = ("split", "label", "group")


def needed(library: str, method: str) -> Any:
    """A library that is no requirement. Raises ImportError that says what to install."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(
            f"Store.{method} needs {library}, which is not installed ({error}); pip install 'reelbank[notebook]'"
        ) from None


def to_pandas(store: Readable) -> pd.DataFrame:
    """See `Bridges.to_pandas`."""
    pandas = needed("pandas", "to_pandas")
    order = (*COLUMNS, *store.target_names)
    names = [*order, *(name for name in store.column_names if name not in order)]
    table: dict[str, Any] = {}
    for name in names:
        if (values := store.column(name)).ndim != 1:
            continue  # of a later version
        if name in CATEGORIES:
            table[name] = pandas.Categorical([value or None for value in values.tolist()])
        else:
            table[name] = pandas.array(values, dtype="string") if values.dtype == object else values
    for name, kind in LEDGER.items():
        if kind.axis:
            continue
        column = store.clips.arrays[name]
        if name == "status":
            cells = pandas.Categorical.from_codes(np.where(column < len(STATUS), column, -1), STATUS)
        elif name in ("in_manifest", "end_known"):
            cells = column == 1
        else:
            cells = pandas.array(column, dtype="string") if column.dtype == object else column
        table[f"ledger_{name}" if name in table else name] = cells
    return pandas.DataFrame(table)


def to_xarray(store: Readable, tap: str, view: int, rows: Sequence[int] | None) -> xr.Dataset:
    """See `Bridges.to_xarray`."""
    xarray = needed("xarray", "to_xarray")
    chosen = store.done_rows() if rows is None else np.asarray(rows, dtype=np.int64)
    features, mask = store.gather(tap, chosen, view)
    seconds = np.full(mask.shape, np.nan)
    for i, row in enumerate(chosen.tolist()):
        times = store.step_seconds(row)
        seconds[i, : len(times)] = times
    texts = {name: ("clip", store.column(name)[chosen].astype(str)) for name in ("clip_id", *CATEGORIES)}
    targets = {name: ("clip", store.column(name)[chosen]) for name in store.target_names}
    axes = [f"{axis}_of_{tap}" if axis in ("clip", "step") else axis for axis in store.spec.tap(tap).axes]
    made: xr.Dataset = xarray.Dataset(
        {"features": (("clip", "step", *axes), _zeroed(features, mask))},
        coords={
            **targets, **texts, "row": ("clip", chosen), "mask": (("clip", "step"), mask),
            "step_seconds": (("clip", "step"), seconds),
        },
        attrs={
            "store": str(store.path), "backbone": store.spec.backbone, "tap": tap, "view": store.spec.views[view],
            "sampling": store.spec.sampling, "spec_digest": store.spec_digest,
            "weights_are_random": int(store.weights_are_random),
        },
    )  # fmt: skip
    return made


def _zeroed(features: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """`features` with zeros where no step is."""
    features[~mask] = 0
    return features
