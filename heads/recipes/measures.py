"""What predictions are worth, clip by clip, and what guessers who never look at a video would predict.

Both are functions on the columns of predictions.csv, so that a study may bring its own. A baseline is a guesser: it
fills in predictions, and whatever measure judges a row judges the guesser too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reelbank.heads.errors import TrainingError

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Predicted clips of one part.

    Attributes:
        columns: {column of predictions.csv: texts or numbers (n,)}.
    """

    columns: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.columns["clip_id"])

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> Clips:
        """The clips in lines of predictions.csv; `names` of its columns."""
        return cls(columns={name: np.array([row[name] for row in rows], dtype=str) for name in names})

    @property
    def groups(self) -> Array:
        """`effective_groups` of the clips, (n,)."""
        from reelbank.heads.examples.splits import effective_groups  # loads torch, which the table of recipes must not

        return effective_groups(self.texts("group").tolist(), self.texts("clip_id").tolist())

    def texts(self, name: str) -> Array:
        """A column as texts (n,). Raises TrainingError if there is none of that name."""
        if name not in self.columns:
            raise TrainingError(f"predictions have no column {name!r}; they have {', '.join(sorted(self.columns))}")
        return self.columns[name].astype(str)

    def numbers(self, name: str) -> Array:
        """A column as float64 (n,), NaN where it is empty. Raises TrainingError if there is none of that name."""
        found = self.columns.get(name)
        if found is not None and found.dtype.kind == "f":
            return found
        texts = self.texts(name)
        values = np.full(len(texts), np.nan)
        values[texts != ""] = texts[texts != ""].astype(np.float64)
        return values

    def but(self, **columns: Any) -> Clips:
        """The same clips with other columns; a single value stands for every clip."""
        made = {name: np.broadcast_to(np.asarray(values), (len(self),)) for name, values in columns.items()}
        return replace(self, columns={**self.columns, **made})

    def take(self, chosen: Array) -> Clips:
        """Only the clips where `chosen` (n,) is true."""
        return replace(self, columns={name: values[chosen] for name, values in self.columns.items()})


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a guesser may know: class (n,) and target (n,) of the training clips, NaN without a target."""

    labels: Array
    targets: Array


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that judges predictions; exactly one of `per_clip` and `whole` is given.

    Attributes:
        title: as a sentence has it.
        higher_is_better: the direction.
        unit: of a difference in sentences; `target` for the target's own. A column in percent says "points".
        per_clip: clips -> (n,), whose mean is the measure; NaN for a clip that does not count.
        whole: clips -> float, where no mean over clips gives it: it has no interval and is not judged.
        is_hit: whether `per_clip` is 1 for right and 0 for wrong: two rows are compared by an exact test, too.
    """

    title: str
    higher_is_better: bool
    unit: str = ""
    per_clip: Callable[[Clips], Array] | None = None
    whole: Callable[[Clips], float] | None = None
    is_hit: bool = False

    def __post_init__(self) -> None:
        if (self.per_clip is None) == (self.whole is None):
            raise ValueError(f"measure {self.title!r}: give one of per_clip and whole")
        if self.is_hit and (self.per_clip is None or not self.higher_is_better):
            raise ValueError(f"measure {self.title!r}: hits are of single clips, and more are better")


@dataclass(frozen=True, kw_only=True)
class Guesser:
    """Someone who predicts without looking.

    Attributes:
        title: as a sentence has it: `the constant predictor`.
        guess: (clips, training) -> the clips with guesses as their predictions.
        says: (training, unit of the target) -> what it always says, '' where that differs from clip to clip.
    """

    title: str
    guess: Callable[[Clips, Training], Clips]
    says: Callable[[Training, str], str] = lambda training, unit: ""


def hits(clips: Clips) -> Array:
    """1 where the predicted class is the true one, 0 where not, NaN where no class can be right."""
    right = (clips.texts("predicted") == clips.texts("label")).astype(np.float64)
    found: Array = np.where(clips.texts("correct") == "", np.nan, right)
    return found


def absolute_errors(clips: Clips) -> Array:
    """|predicted - true| in target units, NaN for a clip without a target."""
    errors: Array = np.abs(clips.numbers("predicted_target") - clips.numbers("target"))
    return errors


MEASURES: Mapping[str, Measure] = {
    "accuracy": Measure(title="accuracy", higher_is_better=True, per_clip=hits, is_hit=True),
    "mae": Measure(title="mean absolute error", higher_is_better=False, unit="target", per_clip=absolute_errors),
}
"""Under the names of `heads.judging.metrics.METRICS`, whose values they equal to the digits of predictions.csv."""


def training_median(training: Training) -> float:
    """Median of the training targets."""
    return float(np.nanmedian(training.targets))


def commonest_class(training: Training) -> str:
    """The most frequent class of training, the first of equals in alphabetical order."""
    names, counts = np.unique(training.labels[training.labels != ""], return_counts=True)
    return str(names[counts.argmax()]) if len(names) else ""


def class_means(clips: Clips) -> Clips:
    """Every clip gets the mean target of its class among the clips themselves: what knowing the class would give."""
    truth, labels = clips.numbers("target"), clips.texts("label")
    means = np.full(len(clips), np.nan)
    for label in np.unique(labels):
        own = (labels == label) & np.isfinite(truth)
        means[labels == label] = truth[own].mean() if own.any() else np.nan
    return clips.but(predicted_target=means)


GUESSERS: Mapping[str, Guesser] = {
    "class_mean_oracle": Guesser(
        title="the class-mean oracle", guess=lambda clips, training: class_means(clips)
    ),
    "constant_median": Guesser(
        title="the constant predictor",
        guess=lambda clips, training: clips.but(predicted_target=training_median(training)),
        says=lambda training, unit: f"{training_median(training):.4g} {unit or 'target units'}",
    ),
    "majority_class": Guesser(
        title="the most frequent class",
        guess=lambda clips, training: clips.but(predicted=commonest_class(training)),
        says=lambda training, unit: repr(commonest_class(training)),
    ),
}  # fmt: skip
