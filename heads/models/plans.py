"""What a head that reads arrays (maps, frames, fields) says of itself, as data: inputs, stages, losses beside.

A head of vectors is a shape and a forward pass. One that reads arrays may hold the rest of its backbone, is trained in
stages that reach some of its tensors, and may have further losses with targets of their own. Its row of HEADS names a
function that returns a `HeadPlan` from the head's options. No torch is loaded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from reelbank.heads.errors import TrainingError

Values = Literal["gray", "map", "pixels", "target"]


@dataclass(frozen=True, kw_only=True)
class ArrayShape:
    """An array as a head reads it: which tap of which backbone, one step of it, and how many steps at most.

    `shape` is that of one item of the sequence: of a stack of S steps the first axis has S times the tap's.
    """

    backbone: str
    tap: str
    shape: tuple[int, ...]
    dtype: str
    num_steps: int

    @property
    def name(self) -> str:
        """`backbone/tap`."""
        return f"{self.backbone}/{self.tap}"


@dataclass(frozen=True, kw_only=True)
class Input:
    """An array that a head reads.

    Attributes:
        name: under which `forward` gets it.
        about: what it is, for messages.
        taps: (pattern of the backbone's name, tap), the first that a store holds.
        values: how numbers are read: `pixels` of RGB and `gray` pictures (uint8: over 255, then less mean and over
            deviation of ImageNet's), `map` and `target` as they are, as float32.
        stack_steps: S: the head reads stacks of S consecutive steps as channels, one of each clip, which begins at a
            drawn step in training and in the middle otherwise; 0: it reads steps, those that --steps asks for.
        shape: of a step of its first tap, for counts where no store says it; empty: that of its `values`.
    """

    name: str
    about: str
    taps: tuple[tuple[str, str], ...]
    values: Values
    stack_steps: int = 0
    shape: tuple[int, ...] = ()

    def tap_of(self, backbone: str, held: Mapping[str, Any]) -> str | None:
        """The tap that is read of a store of `backbone` which holds taps `held`; None if it has none of them."""
        for pattern, tap in self.taps:
            if tap in held and fnmatchcase(backbone, pattern):
                return tap
        return None

    @property
    def wanted(self) -> str:
        """The taps that it may be, for a message."""
        return ", ".join(f"{backbone}/{tap}" for backbone, tap in self.taps)


@dataclass(frozen=True, kw_only=True)
class Rest:
    """A part of a head that is the network of a backbone, from the tap on that the head reads.

    Attributes:
        backbone: its name.
        module: where it lies in the head; its tensors are named as the backbone's own.
        input: the input whose store says which weights the backbone has; its `weights` option says so where the store
            holds frames.
    """

    backbone: str
    module: str
    input: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Tensors that are trained with one rate.

    Attributes:
        name: for --group-lr NAME=RATE.
        tensors: patterns of their names.
        lr_factor, weight_decay: of the run's rate; None: the run's weight decay.
    """

    name: str
    tensors: tuple[str, ...]
    lr_factor: float = 1.0
    weight_decay: float | None = None

    def has(self, tensor: str) -> bool:
        """Whether the tensor called `tensor` is one of them."""
        return any(fnmatchcase(tensor, pattern) for pattern in self.tensors)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one training of a head trains, and with which settings where none are asked for.

    Attributes:
        name: for --stage.
        groups: what is trained; every other tensor stays as it is, to the bit.
        evaluated: modules that stay in evaluation mode (batch norm by its statistics, no dropout) while others train.
        starts_from: heads whose trained runs it starts from, (head, its stage or '' for any); --init-from gives them.
        settings: fields of TrainConfig.
    """

    name: str
    groups: tuple[Group, ...]
    evaluated: tuple[str, ...] = ()
    starts_from: tuple[tuple[str, str], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def group_of(self, tensor: str) -> Group | None:
        """The group that trains the tensor; None where it stays as it is."""
        return next((group for group in self.groups if group.has(tensor)), None)


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """A loss beside that of the labels, in training.

    Attributes:
        name: of the head's output that it judges, for --aux-weight NAME=W.
        loss: `module:function`, (output, target or None, mask of the target (B, T) or None) -> (B,).
        target: the input that is its target; '' for none.
        weight: what its mean over the batch is multiplied by.
    """

    name: str
    loss: str
    target: str = ""
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class HeadPlan:
    """What a head reads, holds and trains.

    Attributes:
        parts: {module: head}: a part of it that is another head, which starts from a run of that one.
        aside: modules that training alone uses; a later stage may do without those of the run that it starts from.
        kept_options: options that a run which a stage starts from must have had alike.
        cam: {input: module whose output (B or B * T, C, h, w) a Grad-CAM is taken of}.
    """

    inputs: tuple[Input, ...]
    stages: tuple[Stage, ...]
    rests: tuple[Rest, ...] = ()
    auxiliary: tuple[Auxiliary, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    aside: tuple[str, ...] = ()
    kept_options: tuple[str, ...] = ()
    cam: Mapping[str, str] = field(default_factory=dict)

    @property
    def to_predict(self) -> HeadPlan:
        """The same without its targets, which only training reads."""
        return replace(self, inputs=tuple(one for one in self.inputs if one.values != "target"))

    def stage(self, name: str) -> Stage:
        """The stage called `name`; `auto` is the first. Raises TrainingError listing those there are."""
        if name == "auto":
            return self.stages[0]
        found = {stage.name: stage for stage in self.stages}
        if name not in found:
            raise TrainingError(f"--stage {name}: this head has {', '.join(sorted(found))}")
        return found[name]
