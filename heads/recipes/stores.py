"""The stores that a recipe is given: which of them each row reads. They are opened once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import reelbank.store
from reelbank.heads.config import HEAD_FLAGS, TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.arrays import matching, read_array_table
from reelbank.heads.examples.clips import read_table
from reelbank.heads.examples.splits import KNOWN_SPLITS
from reelbank.heads.models import HEADS, parse_options, plan_of
from reelbank.heads.models.plans import HeadPlan
from reelbank.heads.models.start import WEIGHTS
from reelbank.heads.recipes.config import RecipeConfig
from reelbank.heads.recipes.recipe import Recipe, RecipeRow
from reelbank.store import Store


class GivenStores:
    """The stores of --store, in the order given, and what they cannot say: whose weights a backbone has."""

    def __init__(self, config: RecipeConfig, chosen: Recipe) -> None:
        self.paths, self._taps = config.train.data.store, config.train.features.tap
        self._weights = config.backbone_weights
        self._reads_other_set = len(chosen.of_first_set) < len(chosen.rows)
        self._groups: dict[tuple[Any, ...], int] = {}

    @cached_property
    def opened(self) -> dict[Path, Store]:
        """{path: its store}."""
        return {path: reelbank.store.open(path) for path in self.paths}

    def read_by(self, row: RecipeRow, options: Mapping[str, Any]) -> tuple[Path, ...]:
        """The stores of a row; `options` are its TrainConfig fields.

        Raises TrainingError for a head on arrays of which the stores lack an input, or all are of the first one's set
        where a row reads another.
        """
        if row.stores not in ("matching", "other-set"):
            return {"all": self.paths, "first": self.paths[:1], "last": self.paths[-1:]}[row.stores]
        plan = _plan(options)
        if plan is None:
            raise TrainingError(f"row {row.name} reads matching stores, and head {options['head']!r} says none")
        of_set = [path for path in self.paths if (path in self.of_first_set) == (row.stores == "matching")]
        if not of_set:
            raise TrainingError(
                f"row {row.name} reads a store of another data set than {self.paths[0].name}, and every store has "
                "clips of it; give one more --store after the others"
            )
        chosen = matching([self.opened[path] for path in of_set], plan, self._taps)
        return tuple(path for path in of_set if self.opened[path] in chosen)

    @cached_property
    def of_first_set(self) -> tuple[Path, ...]:
        """The stores that have clips of the first one; all of them where no row reads another set."""
        if not self._reads_other_set:
            return self.paths
        clips = {path: set(store.column("clip_id").tolist()) for path, store in self.opened.items()}
        return tuple(path for path in self.paths if path == self.paths[0] or clips[path] & clips[self.paths[0]])

    def taps_of(self, stores: Sequence[Path]) -> tuple[str, ...]:
        """Those of the taps asked for that `stores` hold; a tap that none holds is refused where it is read."""
        if not self._taps:
            return ()
        held = {name for path in stores for name in self.opened[path].taps}
        return tuple(tap for tap in self._taps if tap in held) or self._taps

    def weights_option(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The head option that says which weights its backbone has, where the store of frames that it reads cannot.

        Those of --backbone-weights, or random where a given store's are: trained ones beside them would make another
        study of it. () for the default.
        """
        given = options.get("head_option", ())
        if WEIGHTS not in HEADS.row(str(options["head"])).options or any(t.startswith(f"{WEIGHTS}=") for t in given):
            return ()
        if self._weights:
            return (f"{WEIGHTS}={self._weights}",)
        is_random = any(store.spec.weights.get("kind") == "random" for store in self.opened.values())
        return (f"{WEIGHTS}=random",) if is_random else ()

    def num_groups(self, config: TrainConfig, name: str) -> int:
        """Folds that leave one group out at a time. Raises TrainingError for clips without a group."""
        plan = config.head.plan
        key = (config.data.store, config.data.label, *(() if plan is None else plan.inputs))
        if key not in self._groups:
            self._groups[key] = _count_groups(config, name)
        return self._groups[key]


def _plan(options: Mapping[str, Any]) -> HeadPlan | None:
    head = str(options["head"])
    return plan_of(head, parse_options(head, options.get("head_option", ()), HEAD_FLAGS))


def _count_groups(config: TrainConfig, name: str) -> int:
    data, features, plan = config.data, config.features, config.head.plan
    table = read_table(data, features) if plan is None else read_array_table(data, features, plan)
    groups = table.groups[np.isin(table.splits, KNOWN_SPLITS)]
    if empty := int((groups == "").sum()):
        raise TrainingError(
            f"--recipe {name} leaves one group out at a time, and {empty} of {len(groups)} clips have no group; fill "
            "the column 'group' of the manifest and run the same featurize command again"
        )
    if len(np.unique(groups)) < 2:
        raise TrainingError(
            f"--recipe {name} leaves one group out at a time, and all {len(groups)} clips are of one group"
        )
    return len(np.unique(groups))
