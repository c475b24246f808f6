"""What the parent process and its workers tell each other. Plain data that can be pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.extract.backbones.description import Tuning
from reelbank.extract.inputs.sampling import Sampling, parse
from reelbank.manifests import Clip
from reelbank.store.spec import FeatureSpec
from reelbank.store.staging import Outcome


@dataclass(frozen=True, kw_only=True)
class ModelJob:
    """One backbone and the store that its features go to.

    Attributes:
        batch: steps of one forward pass.
        state_file: weights that the parent found or made; None for backbones without weights.
    """

    model: str
    store: Path
    spec: FeatureSpec
    batch: int
    device: str
    state_file: Path | None
    tuning: Tuning = field(default_factory=Tuning)

    @cached_property
    def sampling(self) -> Sampling:
        """The rule that the spec names."""
        return parse(self.spec.sampling)


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """One clip and the models that need it.

    Attributes:
        index: position in the run's list of clips.
        paths: {source: the files or folders that it reads of this clip, none where the manifest names none}.
        rows: (model index, row in that model's store).
        root: the folder that no path may leave; None where they may.
        crashes: workers that died on it before.
        alone: a worker that may have had it was killed, as a full memory does: it is tried with nothing beside it.
    """

    index: int
    clip: Clip
    paths: Mapping[str, tuple[Path, ...]]
    rows: tuple[tuple[int, int], ...]
    root: Path | None = None
    crashes: int = 0
    alone: bool = False


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker needs to start.

    Attributes:
        keep_damaged: store frames that are reported as damaged, and mark their steps.
        square_pixels: make pixels of videos square.
        decode_device: the GPU that decodes videos; None: FFmpeg does, on the CPU.
        remote: numbers of the models that run in the parent; the worker has the others itself.
        ring_name: shared memory through which steps go to the parent's models; None if it has none.
    """

    models: tuple[ModelJob, ...]
    max_pixels: int
    keep_damaged: bool = False
    square_pixels: bool = False
    decode_device: str | None = None
    remote: frozenset[int] = frozenset()
    ring_name: str | None = None
    ring_slot_bytes: int = 0
    ring_slots: int = 0


@dataclass(kw_only=True)
class Tally:
    """Counts and seconds of the stages; tallies add up."""

    opens: int = 0
    frames_decoded: int = 0
    steps_forwarded: int = 0
    decode_seconds: float = 0.0
    prepare_seconds: float = 0.0
    forward_seconds: float = 0.0
    write_seconds: float = 0.0

    def __iadd__(self, other: Tally) -> Tally:
        for entry in fields(self):
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))
        return self

    def __sub__(self, other: Tally) -> Tally:
        return Tally(**{e.name: getattr(self, e.name) - getattr(other, e.name) for e in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The worker has built its backbones."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """The worker has begun to decode this clip."""

    index: int


@dataclass(frozen=True, kw_only=True)
class Alive:
    """The current clip is still being read, counted or decoded."""

    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """All frames of this clip are decoded; some may still wait for a full batch.

    Attributes:
        is_sequential: another worker would have to decode its file from the start to go on in it.
    """

    index: int
    is_sequential: bool = False


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One model is done with one clip, for better or worse; its outcome is staged."""

    index: int
    model: int
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Drained:
    """No clip waits in a batch any more."""

    tally: Tally


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something a person should read.

    Attributes:
        model: of which a batch was halved.
        batch: steps of its forward passes from now on.
    """

    text: str
    model: str = ""
    batch: int | None = None


@dataclass(frozen=True, kw_only=True)
class Fatal:
    """The run cannot go on: `kind` is `disk-full` or `error`."""

    kind: str
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """A clip whose steps will come through the ring; the arrays are those of its StepPlan."""

    index: int
    model: int
    row: int
    frame_index: NDArray[np.int64]
    reads: NDArray[np.int64]
    item_of: NDArray[np.int64]
    num_views: int


@dataclass(frozen=True, kw_only=True)
class Items:
    """The next `count` slots of the ring hold items of this clip under this model."""

    index: int
    model: int
    count: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Fed:
    """All items of a clip were sent; the rest is what its record needs."""

    index: int
    model: int
    identity: Mapping[str, str]
    ledger: Mapping[str, Any]
    times_seconds: NDArray[np.float64]
    thumbnail: NDArray[np.uint8] | None
    file_stat: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A clip is decoded once more: what came of it so far is thrown away."""

    index: int
    model: int


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A clip fails for a model; what came of it is thrown away, and its failure is to be staged.

    Only one process may write a clip's staging folder: the one that the model runs in.
    """

    index: int
    model: int
    row: int
    identity: Mapping[str, str]
    ledger: Mapping[str, Any]
    file_stat: tuple[int, int] | None


ToForwarder = Opened | Items | Fed | Dropped | Refused
Message = Ready | Started | Alive | Decoded | Finished | Drained | Note | Fatal | ToForwarder
DRAIN = "drain"
