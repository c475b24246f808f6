"""The arrays that a head reads of stores: which tap is which input, and which stored steps are read of each clip.

A training row is a clip in one stored view, and of inputs that are stacks one start: `Draw`. Nothing is held here;
`reelbank.heads.examples.batches` reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reelbank.store
from reelbank.extract.backbones.flow_taps import STILL
from reelbank.heads.config import DataConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.clips import ClipTable, StoreSource, load_table
from reelbank.heads.examples.steps import first_steps, nearest_steps, own_steps, position_steps, spread_steps
from reelbank.heads.features_config import FeaturesConfig
from reelbank.heads.models.plans import RGB, ArrayShape, HeadPlan, Input
from reelbank.store import Store
from reelbank.store.spec import TapSpec

FRAME_PX = 224
"""Side of the pictures that networks read."""
WHOLE_FRAME_PX = (256, 341)
"""Height and width of stored frames that are cropped when they are read."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Training or evaluation rows.

    Attributes:
        clips, views: int64 (B,): places in the table, stored views.
        starts: float64 (B,) in [0, 1): where among its possible starts a stack begins; NaN: in the middle.
        changes: float64 (B, numbers) in [0, 1), of which `PixelAugment` changes pictures; None: they stay.
    """

    clips: NDArray[np.int64]
    views: NDArray[np.int64]
    starts: NDArray[np.float64]
    changes: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def part(self, start: int, stop: int) -> Draw:
        """Rows `start` to `stop`."""
        rows = slice(start, stop)
        changes = None if self.changes is None else self.changes[rows]
        return Draw(clips=self.clips[rows], views=self.views[rows], starts=self.starts[rows], changes=changes)


@dataclass(frozen=True, kw_only=True)
class ArrayTap:
    """One input of a head.

    Attributes:
        rows: (N,) row of each clip in the store.
        index: (N, T) the stored steps that are read, in order; of an input that is stacks (N, S) all of them, but
            those that are read as zero fields.
        mask: (N, T) which of them are valid.
        moved: how many steps are others than asked for, as the store has none of that frame.
    """

    input: Input
    store: Store
    tap: str
    rows: NDArray[np.int64]
    index: NDArray[np.int64]
    mask: NDArray[np.bool_]
    moved: int = 0

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(N,) steps of each clip that are read, and held."""
        counted: NDArray[np.int64] = self.mask.sum(axis=1).astype(np.int64)
        return counted

    @property
    def num_views(self) -> NDArray[np.int64]:
        """(N,) stored views of each clip."""
        views: NDArray[np.int64] = self.store.clips.num_views[self.rows].astype(np.int64)
        return views

    @property
    def stack_steps(self) -> int:
        """S of stacks that are made here; 1 where each stored step is of a stack that was read before; 0: no stacks."""
        return stack_of(self.input, self.store, self.tap)

    @property
    def step_shape(self) -> tuple[int, ...]:
        """Of one stored step."""
        return self.store.taps[self.tap].shape

    @property
    def step_bytes(self) -> int:
        """Bytes of one stored step."""
        return self.store.taps[self.tap].step_bytes

    @property
    def still(self) -> int:
        """The stored value of a picture of flow, or of a field, in which nothing moves."""
        return STILL if self.input.values in ("field", "gray") and self.store.taps[self.tap].dtype == "uint8" else 0

    @property
    def is_whole_frame(self) -> bool:
        """Whether a step is a frame that views are cut of when it is read."""
        return self.input.values in ("gray", *RGB) and _holds_whole_frames(self.store.taps[self.tap])

    @property
    def shape(self) -> ArrayShape:
        """As the head is told: pictures with their channels first, cropped."""
        spec, stack = self.store.taps[self.tap], self.stack_steps
        shape, num_steps = spec.shape, self.mask.shape[1]
        if self.input.values in RGB and shape[-1] == 3:
            shape = (3, *shape[:2])
        if self.is_whole_frame:
            shape = (shape[0], FRAME_PX, FRAME_PX)
        if stack:
            shape, num_steps = (stack * shape[0], *shape[1:]), 1
        return ArrayShape(
            backbone=self.store.spec.backbone, tap=self.tap, shape=shape, dtype=spec.dtype, num_steps=num_steps
        )

    def places(self, draw: Draw) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Which of the held steps of its clip each item of `draw` reads (B, T), and which of them are valid.

        Of a stack T is its length; what is not valid there is read as zero fields.
        """
        stack = self.stack_steps
        if not stack:
            mask = self.mask[draw.clips]
            return np.broadcast_to(np.arange(mask.shape[1]), mask.shape), mask
        held = self.counts[draw.clips]
        counts = np.maximum(held, stack)  # what is too short is filled up, see `long_enough`
        if stack == 1:  # each step is a stack that was made before
            most, middle = counts - 1, (counts - 1) // 2
        else:  # starts 1 to N - 5 of N images, the middle at ceil((N - 5) / 2) (SYSTEMS.md 2.2), here counted from 0
            most = np.maximum(counts - stack - 1, 0)
            middle = np.maximum(-(-(counts - stack) // 2) - 1, 0)
        given = np.nan_to_num(draw.starts)
        starts = np.where(np.isnan(draw.starts), middle, np.minimum((given * (most + 1)).astype(np.int64), most))
        if self.input.stack_at == "first":
            starts = np.zeros_like(starts)
        places = starts[:, None] + np.arange(stack)
        return places, places < held[:, None]


def stack_of(one: Input, store: Store, tap: str) -> int:
    """Steps of a stack of `tap`, which are pictures or fields; maps of stacks are read one at a time."""
    spec = store.taps[tap]
    is_field = one.values == "field" and len(spec.shape) == 3 and spec.shape[0] == 2
    return one.stack_steps if spec.dtype == "uint8" or is_field else min(one.stack_steps, 1)


def read_array_table(data: DataConfig, features: FeaturesConfig, plan: HeadPlan) -> ClipTable:
    """The clips that a head of `plan` can use. Raises what `open_inputs`, `load_table` and `long_enough` raise."""
    sources = open_inputs(data.store, plan, features.tap)
    table = load_table(sources, label_column=data.label, join=data.join, view=0)
    return long_enough(table, plan)


def open_inputs(paths: Sequence[Path | Store], plan: HeadPlan, taps: Sequence[str]) -> tuple[StoreSource, ...]:
    """The stores, each with the inputs of the head that its taps are; `taps` names which where a store has several.

    Raises:
        TrainingError: an input that no store has, or more than one; a store that is of no use, or whose steps have
            another shape than the head needs.
        StoreError: a path that is no store.
    """
    stores = [one if isinstance(one, Store) else reelbank.store.open(one) for one in paths]
    held = sorted({name for store in stores for name in store.taps})
    if missing := [tap for tap in taps if tap not in held]:
        raise TrainingError(f"--tap {missing[0]}: no store holds it; there are {', '.join(held)}")
    keys: list[dict[str, str]] = [{} for _ in stores]
    for one in plan.inputs:
        found = []
        for place, store in enumerate(stores):
            of_store = {tap: spec for tap, spec in store.taps.items() if not taps or tap in taps}
            tap = one.tap_of(store.spec.backbone, of_store)
            if tap is not None:
                found.append((place, tap))
        if len(found) != 1:
            has = "; ".join(f"{store.path} is {store.spec.backbone} with {', '.join(store.taps)}" for store in stores)
            count = "none of the stores has it" if not found else "several stores have it: give one"
            raise TrainingError(f"the head reads {one.about} ({one.wanted}), and {count}: {has}")
        place, tap = found[0]
        _refuse_other_shape(one, stores[place], tap)
        keys[place][one.name] = tap
    for store, own in zip(stores, keys, strict=True):
        if not own:
            wanted = "; ".join(f"{one.about} ({one.wanted})" for one in plan.inputs)
            raise TrainingError(f"the head reads nothing of {store.path} ({store.spec.backbone}): it reads {wanted}")
    return tuple(
        StoreSource(store=store, keys=own, as_arrays=True) for store, own in zip(stores, keys, strict=True)
    )  # fmt: skip


def matching(stores: Sequence[Store], plan: HeadPlan, taps: Sequence[str] = ()) -> tuple[Store, ...]:
    """Those of `stores` that a head of `plan` reads: for each input the one whose tap it would rather have.

    Args:
        taps: that may be read; () for all.

    Raises TrainingError for an input that none of them has.
    """
    chosen = set()
    for one in plan.inputs:
        ranks = []
        for place, store in enumerate(stores):
            of_store = {tap: spec for tap, spec in store.taps.items() if not taps or tap in taps}
            tap = one.tap_of(store.spec.backbone, of_store)
            if tap is not None:
                backbone = store.spec.backbone
                ranks.append(
                    (next(i for i, (p, t) in enumerate(one.taps) if t == tap and fnmatchcase(backbone, p)), place)
                )
        if not ranks:
            has = "; ".join(
                f"{store.path.name} is {store.spec.backbone} with {', '.join(store.taps)}" for store in stores
            )
            raise TrainingError(f"the head reads {one.about} ({one.wanted}), and none of the stores has it: {has}")
        chosen.add(min(ranks)[1])
    return tuple(store for place, store in enumerate(stores) if place in chosen)


def long_enough(table: ClipTable, plan: HeadPlan) -> ClipTable:
    """`table` without clips that have fewer steps than a stack, which are counted in `left_out`.

    Raises TrainingError if none is left.
    """
    inputs = {one.name: one for one in plan.inputs}
    keep, left_out = np.ones(len(table), dtype=bool), Counter(dict(table.left_out))
    for source, rows in zip(table.sources, table.rows, strict=True):
        for name in source.keys:
            stack = 0 if inputs[name].fill_zeros else stack_of(inputs[name], source.store, source.keys[name])
            short = source.store.num_steps[rows] < stack
            if count := int((short & keep).sum()):
                left_out[f"fewer than {stack} steps of {inputs[name].about}"] += count
                keep &= ~short
    if not keep.any():
        raise TrainingError(f"no clip has enough steps: {'; '.join(left_out)}")
    if keep.all():
        return table
    return replace(table.take(np.flatnonzero(keep)), left_out=tuple(sorted(left_out.items())))


def array_taps(table: ClipTable, plan: HeadPlan, *, steps: int, train_views: str, view: int) -> dict[str, ArrayTap]:
    """{input: its tap}, with the steps that are read of each clip.

    Targets are read at the frames of the first input: of a frame that their store lacks, the nearest that it has, of
    two the later one (SYSTEMS.md 2.1).

    Args:
        steps: frames that are read of each clip; 0: all that are stored.
        train_views: of FeaturesConfig; with more than one view the stores must hold the same.

    Raises:
        TrainingError: a frame that is asked for and not stored, or stores of other views.
    """
    _refuse_other_views(table, train_views, view)
    inputs = {one.name: one for one in plan.inputs}
    where = {
        name: (source.store, tap, rows)
        for source, rows in zip(table.sources, table.rows, strict=True)
        for name, tap in source.keys.items()
    }
    found: dict[str, ArrayTap] = {}
    frames: list[NDArray[np.int64]] | None = None
    for one in plan.inputs:
        store, tap, rows = where[one.name]
        moved = 0
        if one.values == "target" and frames is not None:
            lists, moved = nearest_steps(store, rows, frames)
        else:
            lists = _steps_read(one, store, tap, rows, table.clip_ids, steps)
        if frames is None and not one.stack_steps and any(other.values == "target" for other in inputs.values()):
            frames = [store.frame_index(int(row))[steps_of] for row, steps_of in zip(rows.tolist(), lists, strict=True)]
        index, mask = _padded(lists)
        found[one.name] = ArrayTap(
            input=one, store=store, tap=tap, rows=rows, index=index, mask=mask, moved=moved
        )  # fmt: skip
    return found


def _steps_read(
    one: Input, store: Store, tap: str, rows: NDArray[np.int64], clip_ids: NDArray[Any], steps: int
) -> list[NDArray[np.int64]]:
    """The stored steps of each clip that an input which is no target reads, in order."""
    stack = stack_of(one, store, tap)
    if stack and one.stack_at == "first":
        first_steps(store, rows, clip_ids, stack)
    if stack > 1 and one.fill_zeros:
        return own_steps(store, rows)
    if one.positions and not one.stack_steps:
        return position_steps(store, rows, clip_ids, one.positions)
    if steps and not one.stack_steps:
        return spread_steps(store, rows, clip_ids, steps)
    return [np.arange(count) for count in store.num_steps[rows].tolist()]


def notes_of(taps: Mapping[str, ArrayTap]) -> list[str]:
    """Sentences for the report about steps that are others than asked for, and about zero fields."""
    notes = [
        f"{tap.moved} of {int(tap.mask.sum())} steps of {tap.input.about} are the nearest that are stored, as there is "
        "none of that frame."
        for tap in taps.values()
        if tap.moved
    ]
    return notes + [note for tap in taps.values() if (note := _zeros_note(tap))]


def _zeros_note(tap: ArrayTap) -> str:
    """Which stacks are filled up, '' for none."""
    stack = tap.stack_steps
    zeros = np.maximum(stack - tap.counts, 0)
    if not tap.input.fill_zeros or not zeros.any():
        return ""
    clips = int((zeros > 0).sum())
    repeated = int(np.minimum(tap.store.num_steps[tap.rows] - tap.counts, zeros).sum())
    return (
        f"{clips} of {len(zeros)} clips are too short for {stack} steps of {tap.input.about}: {int(zeros.sum())} steps "
        f"at their end are zero fields, {repeated} of them in the place of a step that repeats the one before."
    )


def _refuse_other_shape(one: Input, store: Store, tap: str) -> None:
    held = store.taps[tap].shape
    if one.accepts(tap, held) or (one.values in RGB and _holds_whole_frames(store.taps[tap])):
        return
    sides = one.shape[1:] if one.values in RGB and one.shape[0] == 3 else one.shape[:2]
    made = f"frames:squash{sides[0]}" if one.values in RGB else "flow" if one.values == "field" else ""
    advice = f"featurize with --model {made}" if made else "featurize another backbone or tap"
    raise TrainingError(
        f"the head reads {one.about} of {_sizes(one.shape)}, and {store.path} ({store.spec.backbone}) holds {tap} of "
        f"{_sizes(held)}; {advice}"
    )


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _refuse_other_views(table: ClipTable, train_views: str, view: int) -> None:
    stores = [source.store for source in table.sources]
    for store in stores:
        if view >= len(store.spec.views):
            raise TrainingError(
                f"--view {view}: {store.path} holds views 0 to {len(store.spec.views) - 1}: {_views_text(store)}"
            )
    if train_views == "one" and not view:
        return
    own = [
        (source.store, rows)
        for source, rows in zip(table.sources, table.rows, strict=True)
        if not all(_holds_whole_frames(source.store.taps[tap]) for tap in source.keys.values())
    ]
    for other, rows in own[1:]:
        first, of_first = own[0]
        same = other.spec.views == first.spec.views and other.spec.seed == first.spec.seed
        if not same or (other.clips.num_views[rows] != first.clips.num_views[of_first]).any():
            raise TrainingError(
                f"--train-views {train_views} reads the same view of every store, and they hold others: {first.path} "
                f"{_views_text(first)}, {other.path} {_views_text(other)}; featurize them with one --views, "
                "--view-split and --seed"
            )


def _holds_whole_frames(spec: TapSpec) -> bool:
    """Whether steps of a tap are frames that views are cut of when they are read."""
    sides = spec.shape[:2] if spec.shape[-1] == 3 else spec.shape[1:]
    return spec.dtype == "uint8" and sides == WHOLE_FRAME_PX


def _views_text(store: Store) -> str:
    names = store.spec.views
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}; seed {store.spec.seed})"


def _padded(lists: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    longest = max((len(one) for one in lists), default=0)
    index = np.zeros((len(lists), longest), dtype=np.int64)
    mask = np.zeros((len(lists), longest), dtype=bool)
    for place, one in enumerate(lists):
        index[place, : len(one)], mask[place, : len(one)] = one, True
    return index, mask
