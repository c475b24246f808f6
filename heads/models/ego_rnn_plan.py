"""What Ego-RNN reads, holds and trains (SYSTEMS.md 2.3, 2.6 to 2.9), as data. No torch is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelbank.heads.errors import TrainingError
from reelbank.heads.models.plans import Auxiliary, Group, HeadPlan, Input, Rest, Stage

ATTENDED = {"prebn": "ego-attended", "postbn": "ego-attended-postbn"}
"""As `KINDS` of `reelbank.extract.backbones.ego_rnn`, which loads numpy."""
OPTIONS: Mapping[str, Any] = {
    "attention": "cam", "attended": "prebn", "pooled": "cell", "all_of_conv5": False, "motion": "none",
    "motion_loss": "binary", "motion_target": "bw", "pixelwise": False, "discriminator": "none", "repflow": False,
    "repflow_learnt": True, "repflow_compat": "none", "weights": "pretrained",
}  # fmt: skip
CHOICES: Mapping[str, tuple[str, ...]] = {
    "attention": ("cam", "none"),
    "attended": tuple(sorted(ATTENDED)),
    "pooled": ("cell", "hidden"),
    "motion": ("conv3", "conv4", "conv5", "none"),
    "motion_loss": ("binary", "regression"),
    "motion_target": ("bw", "gray"),
    "discriminator": ("conv5", "convlstm", "none"),
    "repflow_compat": ("none", "public"),
}
ASIDE = ("motion", "discriminator")
CAM = "seen"
NETWORK = ("attention", "attended", "pooled")
"""Options that say what the network is, whichever stage trains it."""
SIZES = {"conv3": 28, "conv4": 14, "conv5": 7}
"""px of the maps that a motion head judges."""
CONVOLUTIONS = {"conv3": "net.layer2.?.conv?.weight", "conv4": "net.layer3.?.conv?.weight"}
MODULE = "reelbank.heads.models.ego_rnn"
ADAM: Mapping[str, Any] = {
    "optimizer": "adam", "weight_decay": 4e-5, "eps": 1e-4, "batch": 32, "schedule": "multistep",
    "early_stop_epochs": 0, "keep": "best-accuracy",
}  # fmt: skip
STAGE_1 = {**ADAM, "lr": 1e-3, "epochs": 200, "milestones": (25, 75, 150), "factor": 0.1}
STAGE_2 = {**ADAM, "lr": 1e-4, "epochs": 150, "milestones": (25, 75), "factor": 0.1}
LATER_STAGE_2 = {**STAGE_2, "milestones": (30, 80), "factor": 0.2}
"""Of the resolution study, the discriminator and the representation flow."""


def entry_of(tap: str) -> str:
    """Where in the network a tap enters: `frames`, `layer1` to `layer3`, or `attended`."""
    return {"rgb": "frames"}.get(tap, tap if tap.startswith("layer") and tap != "layer4" else "attended")


def check_options(head: str, options: Mapping[str, Any]) -> None:
    """Raises TrainingError for values that are none, or that contradict each other."""
    for name, choices in CHOICES.items():
        if options[name] not in choices:
            raise TrainingError(
                f"--head-option {name}={options[name]}: head {head!r} has {', '.join(choices)} there"
            )  # fmt: skip
    refused = {
        "motion_target=gray needs motion_loss=regression: a class per pixel has no degrees": (
            options["motion_loss"] == "binary" and options["motion_target"] == "gray"
        ),
        "repflow=true needs attention=none: the layer stands in its place": (
            options["repflow"] and options["attention"] == "cam"
        ),
        "repflow=true has a step less than there are motion maps: leave motion out": (
            options["repflow"] and options["motion"] != "none"
        ),
    }
    for said, is_so in refused.items():
        if is_so:
            raise TrainingError(f"--head-option {said}")


def plan(options: Mapping[str, Any]) -> HeadPlan:
    """Of `ego-rnn` with these options."""
    check_options("ego-rnn", options)
    targets, further = further_losses(options)
    is_later = options["discriminator"] != "none" or options["repflow"]
    return HeadPlan(
        inputs=(frames_input(options), *targets),
        rests=(Rest(backbone="resnet34", module="net", input="frames"),),
        auxiliary=further,
        aside=ASIDE,
        kept_options=NETWORK,
        cam={"frames": CAM},
        stages=(
            Stage(
                name="1",
                groups=(Group(name="head", tensors=("convlstm.*", "classifiers.*")),),
                evaluated=("net",),
                settings=STAGE_1,
            ),
            Stage(
                name="2",
                groups=(Group(name="head", tensors=trained_in_stage_2(options)), *bias_of_evidence(options)),
                evaluated=("net",),
                starts_from=(("ego-rnn", "1"),),
                settings=LATER_STAGE_2 if is_later else STAGE_2,
            ),
        ),
    )


def further_losses(options: Mapping[str, Any]) -> tuple[tuple[Input, ...], tuple[Auxiliary, ...]]:
    """The targets that the options ask for, and the losses beside that of the labels."""
    motion, targets, found = options["motion"], [], []
    if motion != "none":
        tap = f"bits{SIZES[motion]}" if options["motion_target"] == "bw" else "grid28"
        targets.append(Input(name="motion", about="motion maps", taps=(("motion-map*", tap),), values="target"))
        loss = f"{MODULE}:motion_{options['motion_loss']}_loss"
        found.append(Auxiliary(name="motion", loss=loss, target="motion"))
    if options["discriminator"] != "none":
        found.append(Auxiliary(name="dynamic", loss=f"{MODULE}:static_dynamic_loss"))
    return tuple(targets), tuple(found)


def frames_input(options: Mapping[str, Any]) -> Input:
    """RGB: the tap before the first trained layer, or frames; frames first where that tap is larger than they are."""
    frames, motion = ("frames*", "rgb"), options["motion"]
    if motion == "conv3":
        taps: tuple[tuple[str, str], ...] = (frames, ("resnet34", "layer1"))
    elif motion == "conv4" or options["repflow"]:
        taps = (frames, ("resnet34", "layer2"))
    else:
        done = ATTENDED[options["attended"]]
        taps = (("resnet34", "layer3"), frames, ("resnet34", done if options["attention"] == "cam" else "layer4"))
    return Input(name="frames", about="RGB frames or their maps", taps=taps, values="pixels")


def trained_in_stage_2(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Patterns of the tensors that stage 2 trains: 3x3 convolutions, no batch norm, no 1x1 convolution of ResNet-34."""
    patterns = ["convlstm.*", "classifiers.*"]
    patterns.append("net.layer4.*" if options["all_of_conv5"] else "net.layer4.?.conv?.weight")
    if options["attention"] == "cam":
        patterns.append("net.fc.weight")
    if options["motion"] in ("conv3", "conv4") or options["repflow"]:
        patterns.append(CONVOLUTIONS["conv4"])
    if options["motion"] == "conv3":
        patterns.append(CONVOLUTIONS["conv3"])
    return (*patterns, "motion.*", "discriminator.*", "flow.*")


def bias_of_evidence(options: Mapping[str, Any], prefix: str = "") -> tuple[Group, ...]:
    """The bias of fc, a group of its own: it takes part in which class is seen alone, which gives it no gradient.

    torch's optimisers pass over a tensor without one; weight decay must not move it here either.
    """
    if options["attention"] != "cam":
        return ()
    return (Group(name="bias", tensors=(f"{prefix}net.fc.bias",), weight_decay=0.0),)
