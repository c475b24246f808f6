"""What is minimised: losses of classes and of a target's bins, and weights. No torch is loaded here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reelbank.heads.errors import TrainingError
from reelbank.heads.losses import LOSSES
from reelbank.manifests.plugins import Plugin
from reelbank.store.options import check_options, option

PLUGIN = "PLUG-IN"
"""What stands in the help for the name of an installed package's row, or `module:attribute`."""


@contextmanager
def flagged(flag: str) -> Iterator[None]:
    """Puts the flag before what a table says of a name that it does not know."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{flag}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is minimised. Losses of two objectives cannot be compared."""

    loss: str = option(
        "ce",
        "--loss",
        "loss on the target's bins; without a target, on the classes; jsd-sum: jsd without its halves",
        choices=sorted(LOSSES),
        more=PLUGIN,
        group="Loss",
    )
    class_loss: str = option(
        "auto",
        "--class-loss",
        "loss on the classes; auto: ce beside a target, else --loss",
        choices=("auto", *sorted(LOSSES)),
        more=PLUGIN,
    )
    class_weights: str = option(
        "none",
        "--class-weights",
        "weights of the class loss; balanced: N / (K * clips of the class)",
        choices=("balanced", "none"),
    )
    label_smoothing: float = option(
        0.0, "--label-smoothing", "share of the class label spread over all classes, 0 to 1"
    )
    bins: int = option(
        1000, "--bins", "number of bins of the target", least=2, most=100_000, group="Bins of the target"
    )
    range: tuple[float, float] | None = option(
        None,
        "--range",
        "LOW:HIGH of the bins in target units; default: 0:1000 for kcal, else the training range",
    )
    sigma: float = option(5.0, "--sigma", "width of the softened target in bins (standard deviation)", above=0)
    target_labels: str = option(
        "soft",
        "--target-labels",
        "soft: Gaussian over bins that sums to 1; density: its raw density, less near the borders; hard: one bin",
        choices=("density", "hard", "soft"),
    )
    reduction: str = option("sum", "--reduction", "of the target's loss over its bins", choices=("mean", "sum"))

    def __post_init__(self) -> None:
        check_options(self, TrainingError)
        for flag, name in (("--loss", self.loss), ("--class-loss", self.class_loss)):
            if name not in (*LOSSES, "auto"):
                with flagged(flag):
                    LOSSES.row(name)
        if self.range is not None and not self.range[0] < self.range[1]:
            raise TrainingError(f"--range {self.range[0]}:{self.range[1]}: LOW must be below HIGH")
        if not 0 <= self.label_smoothing < 1:
            raise TrainingError(f"--label-smoothing {self.label_smoothing} must be in [0, 1)")

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses that are named, sorted."""
        return tuple(sorted({self.loss, self.class_loss} - {"auto"}))

    @property
    def independent(self) -> bool:
        """Whether the classes are judged each by itself: clips may have several labels."""
        return LOSSES.row(self.loss if self.class_loss == "auto" else self.class_loss).independent

    @property
    def plugins(self) -> dict[str, Plugin]:
        """{loss: where it comes from} of those that are not of this package."""
        return {name: plugin for name in self.losses if (plugin := LOSSES.plugin(name)) is not None}
