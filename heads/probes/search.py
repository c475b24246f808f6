"""Nearest neighbours of a clip or a file in a store, read in blocks: only a block and what was found is in memory.

A vector is of a clip (the mean of its steps) or of a step; with steps, a clip counts by its step that is most like one
of the query's. The order is that of the cosine, largest first, to nine decimals, so that rounding decides nothing; of
equal ones the earlier row of the store comes first. A clip is never its own neighbour. Features of a file are made as
those of the store were, in a store that is gone afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

import reelbank.store
from reelbank.heads.examples.clips import StoreSource, load_table, text_column
from reelbank.heads.extraction import extracted
from reelbank.heads.probes.rows import require_finite, vector_blocks, vector_tap, without_noise
from reelbank.manifests.events import Event, Progress
from reelbank.store.layout import DONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reelbank.heads.examples.clips import ClipTable
    from reelbank.heads.examples.vectors import VectorTap
    from reelbank.heads.extraction import Extract
    from reelbank.heads.probes.search_config import FindConfig
    from reelbank.store.reader import Store

COSINE_DECIMALS = 9
NUM_NEAR_IDS = 3
TABLES = (".csv", ".jsonl", ".ndjson", ".parquet", ".tsv", ".txt")
"""What who extracts would take for a list of clips."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """What neighbours are looked for.

    Attributes:
        name: a clip id, or the path of a file.
        label, group, split: of the clip; '' where it has none.
        row: of the store; -1 for a file.
        vectors: (Q, D) float32 as stored: one of a clip, or one of each step.
        seconds: (Q,) time of each step; None where the vector is of the clip.
        picture: (72, 96, 3) uint8, black where there is none.
    """

    name: str
    label: str
    group: str
    split: str
    row: int
    vectors: NDArray[np.float32]
    seconds: NDArray[np.float64] | None
    picture: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A clip that was found.

    Attributes:
        row: of the store.
        cosine: between the two vectors, after normalisation, in [-1, 1].
        distance: Euclidean, between the same.
        own_group: whether it is of the query's group.
        seconds, query_seconds: times of the two steps that are alike; None where vectors are of clips.
    """

    row: int
    clip_id: str
    label: str
    group: str
    split: str
    cosine: float
    distance: float
    own_group: bool
    seconds: float | None = None
    query_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Neighbours, nearest first.

    Attributes:
        num_searched: clips that were compared.
        share_of_label: of these, those with the query's label; None where it has none.
        notes: what was other than asked.
    """

    query: Query
    neighbours: tuple[Neighbour, ...]
    num_searched: int
    share_of_label: float | None
    notes: tuple[str, ...]

    def sentences(self) -> list[str]:
        """What a person wants to know first, with what chance gives beside it."""
        count, first = len(self.neighbours), self.neighbours[0]
        lines = [
            f"Nearest to {self.query.name!r}: {first.clip_id!r}, cosine {first.cosine:.3f} "
            f"({self.num_searched} clips searched)."
        ]
        if self.share_of_label is not None:
            same = sum(one.label == self.query.label for one in self.neighbours)
            lines.append(
                f"{same} of {count} have its label {self.query.label!r}; of all clips searched "
                f"{100 * self.share_of_label:.0f} % have it."
            )
        if own := sum(one.own_group for one in self.neighbours):
            lines.append(
                f"{own} of {count} {'is' if own == 1 else 'are'} of its own group {self.query.group!r}, marked *; "
                "--other-groups leaves that out."
            )
        return lines


def search(
    store: Store, tap: str, config: FindConfig, progress: Progress | None = None, *, extract: Extract | None = None
) -> Found:
    """The neighbours that `config` asks for.

    Args:
        extract: makes the features of a file; `reelbank.extract.extract_as`.

    Raises:
        ValueError: no such clip (the nearest ids are named), one without features, a tap without vectors, a query of
            zeros, or nothing to compare it with; a file that is not there or gives no features like the store's.
    """
    table = load_table((StoreSource(store=store, keys={tap: tap}),), label_column=config.label)
    read = vector_tap(store, tap)
    if config.file is None:
        query = _of_clip(store, tap, _row_of(store, str(config.clip)), config)
        file_notes: list[str] = []
    else:
        query, file_notes = _of_file(store, tap, read, config, extract, progress)
    mean, spread, note = _scale(store, tap, read, table, config)
    notes = [f"{count} clips are left out: {reason}." for reason, count in table.left_out]
    notes += file_notes + ([note] if note else [])
    own = (table.groups == query.group) & (query.group != "")
    if config.other_groups and not query.group:
        raise ValueError(f"--other-groups: clip {query.name!r} has no group in {store.path}")
    kept = (table.rows[0] != query.row) & ~(own & config.other_groups)
    if not kept.any():
        what = "clip of another group" if config.other_groups else "other clip"
        raise ValueError(f"{store.path} has no {what} with features beside {query.name!r}: there is nothing to find")
    asked = (query.vectors - mean) / spread
    if not asked.any():
        raise ValueError(
            f"the vector of {query.name!r} is all zeros (tap {tap!r}, --normalize {config.normalize}): nothing is "
            "nearer to it than anything else; try another --normalize or --tap"
        )
    best = _Best(asked, config.count)
    rows = table.rows[0][kept]
    for vectors, places, steps in _blocks(store, tap, read, rows, table.clip_ids[kept], config):
        best.add((vectors - mean) / spread, places, steps)
        if progress is not None:
            progress(Event(stage="find", done=int(places[-1]) + 1, total=len(rows), message=f"of {store.path.name}"))
    if len(best.places) < config.count:
        notes.append(f"{config.count} neighbours were asked for, {len(best.places)} clips are there.")
    numbers = np.flatnonzero(kept)[best.places]
    neighbours = []
    for i, number in enumerate(numbers.tolist()):
        found, times = int(table.rows[0][number]), query.seconds
        neighbours.append(
            Neighbour(
                row=found,
                clip_id=str(table.clip_ids[number]),
                label=str(table.labels[number]),
                group=str(table.groups[number]),
                split=str(table.splits[number]),
                cosine=float(best.cosines[i]),
                distance=float(best.distances[i]),
                own_group=bool(own[number]),
                seconds=None if times is None else float(store.step_seconds(found)[best.steps[i]]),
                query_seconds=None if times is None else float(times[best.of_query[i]]),
            )
        )
    share = float((table.labels[kept] == query.label).mean()) if query.label else None
    return Found(
        query=query, neighbours=tuple(neighbours), num_searched=len(rows), share_of_label=share, notes=tuple(notes)
    )


class _Best:
    """The `count` clips most like any of the vectors asked for, of all blocks so far.

    Attributes:
        places, steps, of_query: of each clip its place, its step and the query's step; cosines, distances: theirs.
    """

    def __init__(self, asked: NDArray[np.float64], count: int) -> None:
        self._asked, self._unit, self._count = asked, _unit(asked), count
        self.places, self.steps, self.of_query = (np.empty(0, dtype=np.int64) for _ in range(3))
        self.cosines, self.distances = np.empty(0), np.empty(0)

    def add(self, vectors: NDArray[np.float64], places: NDArray[np.int64], steps: NDArray[np.int64]) -> None:
        """Takes a block in: vectors (R, D), ascending places and steps (R,)."""
        similarity = np.round(_unit(vectors) @ self._unit.T, COSINE_DECIMALS)  # (R, Q)
        of_query = similarity.argmax(axis=1)
        cosines = similarity[np.arange(len(similarity)), of_query]
        order = np.lexsort((steps, -cosines, places))
        order = order[np.unique(places[order], return_index=True)[1]]  # of each clip its best step, then the earliest
        order = order[np.lexsort((places[order], -cosines[order]))][: self._count]
        distances = np.linalg.norm(vectors[order] - self._asked[of_query[order]], axis=1)
        self.cosines = np.concatenate([self.cosines, cosines[order]])
        self.distances = np.concatenate([self.distances, distances])
        self.places = np.concatenate([self.places, places[order]])
        self.steps = np.concatenate([self.steps, steps[order]])
        self.of_query = np.concatenate([self.of_query, of_query[order]])
        kept = np.lexsort((self.places, -self.cosines))[: self._count]
        for name in ("cosines", "distances", "places", "steps", "of_query"):
            setattr(self, name, getattr(self, name)[kept])


def _row_of(store: Store, clip_id: str) -> int:
    clip_ids = text_column(store, "clip_id")
    found = np.flatnonzero(clip_ids == clip_id)
    if not len(found):
        near = get_close_matches(clip_id, clip_ids.tolist(), NUM_NEAR_IDS, 0.4) or clip_ids[:NUM_NEAR_IDS].tolist()
        raise ValueError(
            f"--clip {clip_id!r}: {store.path} has no such clip among its {len(clip_ids)}; the nearest ids are "
            f"{', '.join(map(repr, near))}"
        )
    row = int(found[0])
    if store.clips.status[row] != DONE:
        raise ValueError(
            f"--clip {clip_id!r} has no features in {store.path}: {store.clips.reason[row] or 'not extracted yet'}"
        )
    return row


def _of_file(
    store: Store,
    tap: str,
    read: VectorTap | None,
    config: FindConfig,
    extract: Extract | None,
    progress: Progress | None,
) -> tuple[Query, list[str]]:
    """The query that a picture or a video is, and what is to be said of it."""
    path, flag = config.file, "--image" if config.image else "--video"
    assert path is not None
    if extract is None:
        raise ValueError(f"{flag}: pass extract=reelbank.extract.extract_as, which makes the features of a file")
    if not path.is_file():
        raise ValueError(f"{flag} {path}: there is no such file")
    if path.suffix.lower() in TABLES:
        raise ValueError(f"{flag} {path} is a table; give one picture or video")
    if config.image and store.spec.weights.get("kind") != "imported" and _reads_motion(store.spec.backbone):
        raise ValueError(
            f"--image {path}: {store.path} holds features of motion ({store.spec.backbone} reads frames that follow "
            "each other), and a picture has none; give a --video, or search a store of appearance"
        )
    used = {tap, *(read.reading.beside if read else ())}
    taps = tuple(one for one in store.spec.taps if one.name in used)
    spec = replace(store.spec, taps=taps, views=store.spec.views[:1], view_split="train")
    with extracted(extract, [spec], [path], near=store.path.parent, like=[store.path], progress=progress) as (made,):
        found = reelbank.store.open(made)
        if found.num_clips != 1:
            raise ValueError(f"{flag} {path} holds {found.num_clips} clips; give one picture or video")
        num_frames = int(found.clips.num_frames[0])
        if config.image and num_frames > 1:
            raise ValueError(f"--image {path} has {num_frames} frames; give it as --video")
        query = _of_clip(found, tap, 0, replace(config, label="none"))
    notes = [f"{path} is a single picture: its steps are all alike."] if config.video and num_frames == 1 else []
    return replace(query, name=str(path), label="", group="", split="", row=-1), notes


def _reads_motion(backbone: str) -> bool:
    from reelbank.extract.backbones import describe

    return len(describe(backbone).step_frames) > 1


def _of_clip(store: Store, tap: str, row: int, config: FindConfig) -> Query:
    rows, name = np.array([row]), str(store.column("clip_id")[row])
    blocks = _blocks(store, tap, vector_tap(store, tap), rows, np.array([name]), config)
    vectors = np.concatenate([block for block, _, _ in blocks])
    label = "" if config.label == "none" else str(text_column(store, config.label)[row])
    return Query(
        name=name,
        label=label,
        group=str(text_column(store, "group")[row]),
        split=str(text_column(store, "split")[row]),
        row=row,
        vectors=vectors,
        seconds=store.step_seconds(row) if config.level == "step" else None,
        picture=store.thumbnail(row),
    )


def _blocks(
    store: Store,
    tap: str,
    read: VectorTap | None,
    rows: NDArray[np.int64],
    clip_ids: NDArray[np.str_],
    config: FindConfig,
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]:
    """`vector_blocks`, finite."""
    blocks = vector_blocks(store, tap, read, rows, config.level, 0, unit_steps=config.normalize == "l2")
    for vectors, places, steps in blocks:
        require_finite(store, tap, vectors, clip_ids[places])
        yield vectors, places, steps


def _scale(
    store: Store, tap: str, read: VectorTap | None, table: ClipTable, config: FindConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """What is taken off and divided by, each (D,) or (1,), and a sentence where it is not of the training rows.

    Means and squares of blocks are put together as by Chan, Golub and LeVeque (1979).
    """
    if config.normalize != "zscore":
        return np.zeros(1), np.ones(1), ""
    train = table.splits == "train"
    num_rows = int(train.sum() if config.level == "clip" else store.num_steps[table.rows[0][train]].sum())
    used = train if num_rows > 1 else np.ones(len(table), dtype=bool)
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for vectors, _, _ in _blocks(store, tap, read, table.rows[0][used], table.clip_ids[used], config):
        block = vectors.astype(np.float64)
        own, total = block.mean(axis=0), count + len(block)
        squares = squares + ((block - own) ** 2).sum(axis=0) + (own - mean) ** 2 * (count * len(block) / total)
        mean = mean + (own - mean) * (len(block) / total)
        count = total
    note = "" if num_rows > 1 else "No split 'train': the z-score uses the statistics of all clips."
    return mean, without_noise(np.sqrt(squares / count), mean), note


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit
