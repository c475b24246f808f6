"""What the CNN + LSTM networks read and train (SYSTEMS.md 3.5), as data. No torch is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.errors import TrainingError
from reelbank.heads.models.plans import Group, HeadPlan, Input, Stage

FRAMES = "frames"
OPTIONS: Mapping[str, Any] = {"net": 2, "width": 128, "dropout": 0.0}
LAST_MAPS: Mapping[int, str] = {1: "cnn.8", 2: "cnn.11", 3: "cnn.23"}
"""{net: the module before its global pool}."""
SETTINGS: Mapping[str, Any] = {
    "optimizer": "adam", "lr": 1e-4, "weight_decay": 0.0, "batch": 8, "epochs": 10, "schedule": "none",
    "early_stop_epochs": 0, "keep": "last",
}  # fmt: skip
READ_FRAMES = Input(
    name=FRAMES,
    about="RGB frames",
    taps=(("frames:112", "rgb"), ("frames*", "rgb")),
    values="unit",
    shape=(3, 112, 112),
)


def plan(options: Mapping[str, Any]) -> HeadPlan:
    """Of `cnn-lstm` with these options. Raises TrainingError for values that no network has."""
    if options["net"] not in LAST_MAPS:
        raise TrainingError(f"--head-option net={options['net']}: the networks are {', '.join(map(str, LAST_MAPS))}")
    if options["width"] < 4 or options["width"] % 4:
        raise TrainingError(f"--head-option width={options['width']}: expected a multiple of 4, as 128 or 256")
    if not 0 <= options["dropout"] < 1:
        raise TrainingError(f"--head-option dropout={options['dropout']}: expected a share below 1")
    return HeadPlan(
        inputs=(READ_FRAMES,),
        stages=(Stage(name="1", groups=(Group(name="all", tensors=("*",)),), settings=SETTINGS),),
        cam={FRAMES: LAST_MAPS[options["net"]]},
    )
