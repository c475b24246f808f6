"""What the runs of the study of first-person actions share (SYSTEMS.md 2.3 to 2.9; results are those of its 2.11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.recipes.recipe import Published, RecipeRow

FEATURES = (
    "GTEA61 (457 videos of four users in 61 classes, trained on S1, S3, S4, tested on the 116 of S2) and ResNet-34 "
    "with ImageNet's weights"
)
SHARED: Mapping[str, Any] = {"target": "none", "batch": 32, "early_stop_epochs": 0, "keep": "best-accuracy"}
ADAM: Mapping[str, Any] = {"optimizer": "adam", "weight_decay": 4e-5, "eps": 1e-4, "schedule": "multistep"}
SGD: Mapping[str, Any] = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "lr": 1e-2}

STAGE_1: Mapping[str, Any] = {
    "head": "ego-rnn", "stage": "1", **ADAM, "lr": 1e-3, "epochs": 200, "milestones": (25, 75, 150), "factor": 0.1,
}  # fmt: skip
"""Of Ego-RNN and O-RNN alone."""
LATER_STAGE_1: Mapping[str, Any] = {**STAGE_1, "epochs": 150, "milestones": (50, 100)}
"""Before motion segmentation and all that came after it."""
STAGE_2: Mapping[str, Any] = {
    "head": "ego-rnn", "stage": "2", **ADAM, "lr": 1e-4, "epochs": 150, "milestones": (25, 75), "factor": 0.1,
}  # fmt: skip
LATER_STAGE_2: Mapping[str, Any] = {**STAGE_2, "milestones": (30, 80), "factor": 0.2}
"""Of the resolution of motion maps, the discriminator and the representation flow."""
FLOW: Mapping[str, Any] = {
    "head": "flow-resnet34", "stage": "1", **SGD, "epochs": 750, "schedule": "multistep",
    "milestones": (150, 300, 500), "factor": 0.5,
}  # fmt: skip
JOINT: Mapping[str, Any] = {
    "head": "ego-two-stream", "stage": "joint", **SGD, "epochs": 250, "schedule": "step", "step_epochs": 1,
    "factor": 0.99, "group_lr": ("flow=1e-4",),
}  # fmt: skip
"""One hundredth less after every epoch: what the cited code does where the publication prints [1] and 0.99."""

MEANS_NOTE = "Published accuracies are means of three runs, as are ours with the recipe's own --repeats 3."
SINGLE_NOTE = (
    "Published accuracies are of single runs on 116 videos, as are ours: the spread of a grid is mostly the noise of a "
    "run."
)


def accuracy(value: float | None) -> Published:
    """The only number that the publication prints of a run; None for a run that it does not print."""
    return Published() if value is None else Published(values={"accuracy": value})


def motion(level: str, loss: str, target: str) -> tuple[str, ...]:
    """Options of a head with motion segmentation."""
    return (f"motion={level}", f"motion_loss={loss}", f"motion_target={target}")


def row(
    name: str,
    cells: Mapping[str, str],
    settings: Mapping[str, Any],
    frames: int = 0,
    *,
    options: tuple[str, ...] = (),
    starts_from: tuple[str, ...] = (),
    against: str = "",
    published: float | None = None,
    **more: Any,
) -> RecipeRow:
    """A training: `settings` of its stage, `options` of its head, `frames` of each clip (0: stacks of flow)."""
    own = {**({"steps": frames} if frames else {}), **({"head_option": options} if options else {})}
    return RecipeRow(
        name=name,
        cells=cells,
        options={**settings, **own, **more},
        starts_from=starts_from,
        against=against,
        published=accuracy(published),
        stores="matching",
    )
