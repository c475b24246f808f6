"""How the features of a clip are read, and which training rows an epoch draws. No torch is loaded here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from reelbank.heads import augmentation
from reelbank.heads.augmentation import Augmentation
from reelbank.heads.errors import TrainingError
from reelbank.store.accepted import Many
from reelbank.store.errors import StoreError
from reelbank.store.indexing import SegmentRule, parse_segments
from reelbank.store.options import check_options, option


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """How the features of a clip are read, and which training rows an epoch draws."""

    tap: Many[str] = option(
        (), "--tap", "tap(s) to read; default: the first tap of each store", multiple=True, group="Features"
    )
    view: int = option(0, "--view", "stored view to read; 0 is the evaluation view", least=0, most=10_000)
    pool: str = option(
        "auto",
        "--pool",
        "what heads without steps get of a clip's steps; auto: mean+std for auto and trees, else mean",
        choices=("auto", "mean", "mean+std"),
    )
    segments: str | None = option(
        None,
        "--segments",
        "read the stored steps as overlapping segments, by index: segments:16:starts=guard (90 steps give 160) or "
        "segments:16:stride=8; heads without steps get the mean over them; none, the default: every step once",
    )
    steps: int = option(
        0,
        "--steps",
        "heads on arrays: read N frames spread over the clip, floor(linspace(1, frames, N, endpoint excluded)), which "
        "must be stored; 0: all that are stored",
        least=0,
        most=1_000_000,
    )
    normalize: str = option(
        "zscore",
        "--normalize",
        "zscore by training rows | l2: each step over its length, before any mean | none",
        choices=("l2", "none", "zscore"),
    )
    train_views: str = option(
        "one",
        "--train-views",
        "all: every stored view of a training clip is a training row, beside --view; draw: each epoch reads a training "
        "clip in one of its stored views other than --view, the same of every store; other clips keep to --view",
        choices=("all", "draw", "one"),
        group="Training clips",
    )
    augment: Many[str] = option(
        (),
        "--augment",
        "METHOD[=AMOUNT]: one more copy of each training clip; dropout (rate 0.1), noise (0.1), scaling (0.1), "
        "shift (2 steps)",
        multiple=True,
    )
    pixel_augment: Many[str] = option(
        (),
        "--pixel-augment",
        "heads on arrays: change pictures and flow of training clips, drawn anew per clip and epoch: flip (every "
        "second one), crop (0.8 to 1 of each side, enlarged), brightness (times 0.8 to 1.2, not of flow)",
        choices=("brightness", "crop", "flip"),
        multiple=True,
    )
    train_clips: int = option(
        0,
        "--train-clips",
        "train on at most this many clips, drawn class by class; 0: all",
        least=0,
        most=100_000_000,
    )
    balance: str = option(
        "none",
        "--balance",
        "draw the clips of an epoch with replacement, so that classes or groups are as frequent as each other",
        choices=("class", "group", "none"),
    )

    def __post_init__(self) -> None:
        check_options(self, TrainingError)
        self.segment_rule()
        _ = self.augmentations

    @cached_property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """What `augment` asks for. Raises TrainingError for a method or an amount that there is not."""
        return augmentation.parse(self.augment)

    def segment_rule(self) -> SegmentRule | None:
        """The rule of `segments`, None where every step is read once. Raises TrainingError for one it cannot read."""
        if self.segments in (None, "none"):
            return None
        try:
            return parse_segments(str(self.segments))
        except StoreError as error:
            raise TrainingError(f"--segments {error}") from None
