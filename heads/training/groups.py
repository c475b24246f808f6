"""Which tensors of a head are trained, in which groups, and which of its modules are in training mode."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from reelbank.heads.errors import TrainingError
from reelbank.heads.models.plans import Group, Stage
from reelbank.heads.optimizers import OptimizerConfig
from reelbank.heads.training.flat import FlatParameters

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class TrainedGroup:
    """Tensors with one rate and one weight decay, as one vector."""

    name: str
    flat: FlatParameters
    lr: float
    weight_decay: float


def trained_groups(head: nn.Module, stage: Stage | None, config: OptimizerConfig) -> list[TrainedGroup]:
    """The groups of `stage`, one without; every other tensor of `head` stops asking for a gradient.

    Raises TrainingError for a group of which the head has no tensor.
    """
    if stage is None:
        return [TrainedGroup(name=ALL, flat=FlatParameters(head), lr=config.lr, weight_decay=config.weight_decay)]
    members: dict[str, list[str]] = {group.name: [] for group in stage.groups}
    for name, parameter in head.named_parameters():
        group = stage.group_of(name)
        parameter.requires_grad_(group is not None)
        if group is not None:
            members[group.name].append(name)
    if empty := [name for name, own in members.items() if not own]:
        raise TrainingError(f"stage {stage.name} trains the group {empty[0]!r}, of which the head has no tensor")
    return [_group(head, group, members[group.name], config) for group in stage.groups]


def _group(head: nn.Module, group: Group, names: list[str], config: OptimizerConfig) -> TrainedGroup:
    rate = config.group_lrs.get(group.name, config.lr * group.lr_factor)
    decay = config.weight_decay if group.weight_decay is None else group.weight_decay
    return TrainedGroup(
        name=group.name, flat=FlatParameters(head, frozenset(names)), lr=rate, weight_decay=decay
    )  # fmt: skip


def set_training(head: nn.Module, stage: Stage | None) -> None:
    """Training mode for `head` but for the modules that `stage` keeps in evaluation."""
    head.train()
    modules = dict(head.named_modules())
    for name in () if stage is None else stage.evaluated:
        if name in modules:  # what a tap replaces is not there
            modules[name].eval()


def changing_names(head: nn.Module, stage: Stage | None) -> frozenset[str]:
    """Tensors of `head` that training may change, by name: what is trained, statistics of modules in training mode."""
    if stage is None:
        return frozenset(head.state_dict())
    still = {name for name, parameter in head.named_parameters() if not parameter.requires_grad}
    still |= {
        name
        for name, _ in head.named_buffers()
        if any(name.startswith(f"{module}.") for module in stage.evaluated)
    }  # fmt: skip
    return frozenset(head.state_dict()) - still
