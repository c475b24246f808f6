"""Batches of arrays for a head: held in memory where they fit, else read anew from their stores, a block at a time.

Both give the same numbers in the same order: rows are drawn before anything is read. A chunk of a store is one view of
one clip, so a shuffled row costs one read whatever came before it; a block of batches is read in the order of the
shards while the block before it is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reelbank.extract.backbones.flow_taps import LEVELS_PER_PX, STILL
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.arrays import ArrayTap, Draw
from reelbank.heads.examples.copies import Copies
from reelbank.heads.examples.crops import Crop
from reelbank.heads.examples.normalization import Normalization
from reelbank.heads.examples.pixel_augment import NUMBERS, PixelAugment
from reelbank.heads.models.plans import RGB, Values
from reelbank.store.description import readable

Pixels = dict[str, tuple[Tensor, Tensor]]
"""{input: values (B, T, *shape) as stored, mask (B, T)}."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LOADED_BYTES = 2**26  # read from a store at once while arrays are loaded
ROOM = 0.85
"""Of the budget is planned for: reading itself takes some, and freed memory is not all given back."""
FLOAT_BYTES = 4
SCALING_COPIES = 3
"""Copies of pictures in float32 that exist at once while they are scaled."""
STEADY = Normalization(kind="none", mean={}, scale={})


@dataclass(frozen=True, kw_only=True)
class Held:
    """The steps of one input in memory: (clip, view) pairs side by side.

    Attributes:
        values: (all steps, *shape) as stored.
        first: (N, V) where the steps of a pair begin; -1 for a pair that is not held.
    """

    values: Tensor
    first: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ArrayBatches:
    """What a trainer reads its batches from, as `reelbank.heads.examples.resident.Resident` of vectors.

    Attributes:
        taps: {input: its tap}.
        crops: {input: how views are cut of its frames} of stores that hold whole frames.
        view: the stored view that is evaluated.
        drawn: (N,) how many other stored views an epoch draws from for each clip; None: rows say their view.
        held: {input: its steps}, None where batches are read from the stores.
        budget: bytes that a block of batches, the one read meanwhile and a batch as it is computed with may take.
        evaluation_clips: clips per forward pass without gradients.
        segments: starts that a stack is evaluated at, whose logits are averaged; 1: the middle.
        augment: how pictures are changed in training.
    """

    taps: Mapping[str, ArrayTap]
    crops: Mapping[str, Crop]
    device: torch.device
    view: int
    budget: int
    evaluation_clips: int
    drawn: NDArray[np.int64] | None = None
    copies: Copies | None = None
    held: Mapping[str, Held] | None = None
    segments: int = 1
    augment: PixelAugment | None = None
    normalization: Normalization = field(default=STEADY)

    @property
    def index_device(self) -> torch.device:
        """Where rows lie."""
        return torch.device("cpu")

    @property
    def num_clips(self) -> int:
        """N."""
        return len(next(iter(self.taps.values())).rows)

    def batches(self, order: Tensor, size: int) -> Iterator[tuple[Tensor, tuple[Any, ...]]]:
        """An epoch of training: (rows (B,) of `order`, what `head` is called with), `size` rows at a time.

        Views, starts and changes of pictures are drawn from torch's global generator as it stands, for the whole epoch
        at once.

        Raises TrainingError where one batch is larger than the memory that was given.
        """
        draw = self._drawn(order)
        for start, read in self._read(draw, size):
            prepared = self._prepared(draw.part(start, start + size), read)
            del read  # a step is computed with what was made of it
            yield order[start : start + size], prepared
            del prepared

    def logits(self, head: nn.Module, index: Tensor) -> dict[str, Tensor]:
        """Logits {output: (n, K)} of the clips at `index` in evaluation, the mean over `segments` starts."""
        outputs: Mapping[str, Tensor] = head(*self.evaluated(index))
        return {name: z.view(len(index), self.segments, -1).mean(dim=1) for name, z in outputs.items()}

    def evaluated(self, index: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What a head is called with for the clips at `index` in evaluation: each clip once per start."""
        clips = index.cpu().numpy()
        again = np.repeat(clips, self.segments)
        starts = np.tile((np.arange(self.segments) + 0.5) / self.segments, len(clips))
        if self.segments == 1:
            starts[:] = np.nan
        draw = Draw(clips=again, views=np.full(len(again), self.view), starts=starts)
        read = self._taken(draw) if self.held is not None else self._from_stores(draw)
        return self._prepared(draw, read)

    def _drawn(self, order: Tensor) -> Draw:
        rows = order.numpy()
        clips, views = rows % self.num_clips, np.full(len(rows), self.view)
        if self.copies is not None:
            numbers = np.array([self.view, *(view.number for view in self.copies.views)])
            views = numbers[rows // self.num_clips]
        chances, starts = torch.rand(len(rows), dtype=torch.float64), torch.rand(len(rows), dtype=torch.float64)
        if self.drawn is not None:
            others = self.drawn[clips]
            place = np.minimum((chances.numpy() * others).astype(np.int64), np.maximum(others - 1, 0))
            views = np.where(others > 0, place + (place >= self.view), self.view)
        changes = None if self.augment is None else torch.rand(len(rows), NUMBERS, dtype=torch.float64).numpy()
        return Draw(clips=clips, views=views, starts=starts.numpy(), changes=changes)

    def _read(self, draw: Draw, size: int) -> Iterator[tuple[int, Pixels]]:
        """The batches of `draw` in their order, with the row that each begins at."""
        places = range(0, len(draw), size)
        if self.held is not None:
            for start in places:
                yield start, self._taken(draw.part(start, start + size))
            return
        most = max(self._num_bytes(draw.part(start, start + size)) for start in places)
        read = max(self._num_bytes(draw.part(start, start + size), as_read=True) for start in places)
        if most + read > self.budget:
            raise TrainingError(
                f"a batch of {size} clips takes {readable(most)}, and {readable(read)} as it is computed with: more "
                f"than the {readable(self.budget)} of main memory that arrays may take; pass a smaller --batch or a "
                "larger --memory"
            )
        room = int(ROOM * self.budget) - read
        per_block = max(1, room // (2 * most))
        blocks = [places[i : i + per_block] for i in range(0, len(places), per_block)]
        if 2 * most > room:  # none to read ahead
            for start in places:
                yield start, self._from_stores(draw.part(start, start + size))
            return
        with ThreadPoolExecutor(1, thread_name_prefix="reelbank-read") as reader:
            waiting = reader.submit(self._block, draw, blocks[0], size)
            for place, block in enumerate(blocks):
                ready = waiting.result()
                if place + 1 < len(blocks):
                    waiting = reader.submit(self._block, draw, blocks[place + 1], size)
                for start in block:
                    yield start, ready.pop(start)
                del ready

    def _block(self, draw: Draw, starts: Sequence[int], size: int) -> dict[int, Pixels]:
        """The batches that begin at `starts`, read row by row as they lie in the stores."""
        whole = draw.part(starts[0], starts[-1] + size)
        made = {start: self._empty(draw.part(start, start + size)) for start in starts}
        for name, tap in self.taps.items():
            for place in np.lexsort((whole.views, tap.rows[whole.clips])).tolist():
                start = starts[place // size]
                self._fill(tap, whole, place, made[start][name], place % size)
        return made

    def _from_stores(self, draw: Draw) -> Pixels:
        return self._block(draw, [0], len(draw))[0]

    def _empty(self, draw: Draw) -> Pixels:
        made = {}
        for name, tap in self.taps.items():
            places, mask = tap.places(draw)
            dtype = getattr(torch, tap.store.taps[tap.tap].dtype)
            shape = (*places.shape, *tap.step_shape)
            values = torch.empty(shape, dtype=dtype)
            if tap.input.fill_zeros or not mask.all():  # else every step of it is read
                values.fill_(tap.still)
            made[name] = values, torch.from_numpy(mask)
        return made

    def _fill(self, tap: ArrayTap, draw: Draw, place: int, into: tuple[Tensor, Tensor], row: int) -> None:
        one = draw.part(place, place + 1)
        steps = steps_of(tap, int(one.clips[0]), self._view_in(tap, int(one.views[0])))
        places, mask = tap.places(one)
        valid = mask[0]
        into[0][row, : int(valid.sum())] = torch.from_numpy(steps[places[0][valid]])

    def _num_bytes(self, draw: Draw, *, as_read: bool = False) -> int:
        """Bytes of a batch as it is stored, or in float32 with what scaling pictures takes for a moment."""
        total = 0
        for tap in self.taps.values():
            count = tap.places(draw)[1].size
            is_changed = tap.store.taps[tap.tap].dtype == "uint8" or self.augment is not None
            times = SCALING_COPIES if is_changed else 1
            total += count * (math.prod(tap.step_shape) * FLOAT_BYTES * times if as_read else tap.step_bytes)
        return total

    def _taken(self, draw: Draw) -> Pixels:
        """A batch of what is held."""
        assert self.held is not None
        made = {}
        for name, tap in self.taps.items():
            held = self.held[name]
            places, mask = tap.places(draw)
            views = draw.views if name not in self.crops else np.zeros_like(draw.views)
            where = np.where(mask, held.first[draw.clips, views][:, None] + places, 0)  # (B, T)
            index = torch.from_numpy(where.ravel()).to(held.values.device)
            valid = torch.from_numpy(mask)
            values = held.values.index_select(0, index).view(*where.shape, *tap.step_shape)
            if not mask.all():
                values[~valid.to(values.device)] = tap.still
            made[name] = values, valid
        return made

    def _view_in(self, tap: ArrayTap, view: int) -> int:
        """The stored view that `view` is read of: whole frames are stored once."""
        return 0 if tap.input.name in self.crops else view

    def _prepared(self, draw: Draw, read: Pixels) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What a head is called with: {input: (B, T, *shape) float32} and {input: mask (B, T)}, on the device."""
        arrays, masks = {}, {}
        for name, (stored, mask) in read.items():
            tap = self.taps[name]
            values = stored.to(self.device, non_blocking=True)
            if name in self.crops:
                values = self.crops[name].of(values, draw)
            if self.augment is not None and draw.changes is not None:
                values = self.augment.of(unscaled(values, tap.input.values), tap.input.values, draw.changes)
            is_cut = values.dtype != stored.dtype
            if tap.stack_steps:  # (B, S, C, H, W) -> (B, 1, S C, H, W): x1, y1, x2, y2, ...
                values, mask = values.flatten(1, 2).unsqueeze(1), torch.ones(len(mask), 1, dtype=torch.bool)
            arrays[name] = scaled(values, tap.input.values, cut=is_cut)
            masks[name] = mask.to(self.device)
        return arrays, masks


def scaled(values: Tensor, kind: Values, *, cut: bool = False) -> Tensor:
    """Stored values (B, T, *shape) as a network reads them, float32; pictures are (..., H, W, 3) or (..., C, H, W).

    RGB: over 255, less ImageNet's mean, over its deviation, channels first; `unit`: over 255 alone. Gray: the means of
    both (SYSTEMS.md 2.2). Fields: displacements in px, of 8-bit images what they stand for. Maps that a store holds in
    the place of pictures are read as they are.

    Args:
        cut: whether they are pictures whatever their dtype, or fields in px: cut out of what is stored, or changed.
    """
    if values.dtype != torch.uint8 and not cut:
        return values.float()
    if kind == "unit":
        return _channels_first(values) / 255  # of bytes in one pass
    values = unscaled(values, kind)
    if kind == "pixels":
        mean, std = (torch.tensor(one, device=values.device).view(3, 1, 1) for one in (MEAN, STD))
        return (values / 255 - mean) / std
    if kind == "gray":
        return (values / 255 - sum(MEAN) / 3) / (sum(STD) / 3)
    return values


def unscaled(values: Tensor, kind: Values) -> Tensor:
    """Stored pictures in 0 to 255, channels first, and fields in px, float32.

    Of 8-bit flow what `decode_8bit` of `reelbank.extract.backbones.flow_taps` gives.
    """
    if kind == "field" and values.dtype == torch.uint8:
        return (values.float() - STILL) / LEVELS_PER_PX
    return (_channels_first(values) if kind in RGB else values).float()


def _channels_first(pictures: Tensor) -> Tensor:
    """RGB pictures (..., H, W, 3) or (..., 3, H, W) -> (..., 3, H, W)."""
    return pictures.movedim(-1, -3) if pictures.shape[-1] == 3 else pictures


def steps_of(tap: ArrayTap, clip: int, view: int) -> NDArray[Any]:
    """The stored steps of a clip that are read, in the order that they are held (T, *shape)."""
    row = int(tap.rows[clip])
    features = tap.store.gather(tap.tap, [row], view)[0][0]
    steps: NDArray[Any] = features[tap.index[clip][tap.mask[clip]]]
    return steps


def views_read(tap: ArrayTap, *, view: int, all_views: bool, whole_frames: bool) -> NDArray[np.int64]:
    """(N, V) which views of each clip are held: 1 for those."""
    counts = tap.num_views
    if whole_frames:
        return np.ones((len(counts), 1), dtype=np.int64)
    numbers = np.arange(len(tap.store.spec.views))
    held = (numbers == view) if not all_views else numbers < counts[:, None]
    return np.broadcast_to(held, (len(counts), len(numbers))).astype(np.int64)


def held_bytes(tap: ArrayTap, views: NDArray[np.int64]) -> int:
    """What the steps of `views` (N, V) of one input take in memory."""
    return int((tap.counts * views.sum(axis=1)).sum()) * tap.step_bytes


def hold(tap: ArrayTap, views: NDArray[np.int64]) -> Held:
    """The steps of `views` (N, V) of one input, read into memory."""
    spec = tap.store.taps[tap.tap]
    counts = tap.counts[:, None] * views
    ends = np.cumsum(counts).reshape(counts.shape)
    first = np.where(views > 0, ends - counts, -1)
    values = np.empty((int(ends[-1, -1]) if ends.size else 0, *spec.shape), dtype=spec.dtype)
    at_once = max(1, LOADED_BYTES // max(1, spec.step_bytes * int(tap.store.num_steps[tap.rows].max(initial=1))))
    for view in range(views.shape[1]):
        clips = np.flatnonzero(views[:, view])
        for start in range(0, len(clips), at_once):
            part = clips[start : start + at_once]
            read, _ = tap.store.gather(tap.tap, tap.rows[part], view)
            for steps, clip in zip(read, part.tolist(), strict=True):
                begin = first[clip, view]
                values[begin : begin + tap.counts[clip]] = steps[tap.index[clip][tap.mask[clip]]]
    return Held(values=torch.from_numpy(values), first=first)
