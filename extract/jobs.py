"""What the parent process and its workers tell each other. Plain data that can be pickled."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

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


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """One clip and the models that need it.

    Attributes:
        index: position in the run's list of clips.
        video: resolved path; None where the manifest gives none.
        rows: (model index, row in that model's store).
        crashes: workers that died on it before.
    """

    index: int
    clip: Clip
    video: Path | None
    rows: tuple[tuple[int, int], ...]
    crashes: int = 0


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker needs to start."""

    models: tuple[ModelJob, ...]
    max_pixels: int


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
    """Frames of the current clip still arrive."""

    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """All frames of this clip are decoded; some may still wait for a full batch."""

    index: int


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
    """Something a person should read, such as a halved batch."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Fatal:
    """The run cannot go on: `kind` is `disk-full` or `error`."""

    kind: str
    text: str


Message = Ready | Started | Alive | Decoded | Finished | Drained | Note | Fatal
DRAIN = "drain"
