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

Values = Literal["field", "gray", "map", "pixels", "target", "unit"]
RGB: tuple[Values, ...] = ("pixels", "unit")
"""Kinds of pictures in colour."""
StackAt = Literal["drawn", "first"]


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
            deviation of ImageNet's), `unit` of RGB pictures (over 255 alone), `field` displacements in px (of 8-bit
            images what they stand for), `map` and `target` as they are, as float32.
        stack_steps: S: the head reads stacks of S consecutive steps as channels, one of each clip; of fields x0, y0,
            x1, y1, ...; 0: it reads steps.
        stack_at: where a stack begins: at a drawn step in training and in the middle in evaluation, or always at the
            first step, which must be that of the clip's first frame.
        fill_zeros: a clip with fewer steps than a stack is filled up with zero fields at the end, and repeated steps at
            its end (clips/repeated_steps) are read as zero fields, both counted; False: it is left out.
        positions: of an input that is no stacks: the stored steps at these shares of the clip, in this order, frame
            floor(p N) but at most N - 1 of its N frames; (): those that --steps asks for.
        shape: of a step of its first tap, for counts where no store says it; empty: that of its `values`.
        needs_shape: a store's first tap must have that shape, its channels first or last.
    """

    name: str
    about: str
    taps: tuple[tuple[str, str], ...]
    values: Values
    stack_steps: int = 0
    stack_at: StackAt = "drawn"
    fill_zeros: bool = False
    positions: tuple[float, ...] = ()
    shape: tuple[int, ...] = ()
    needs_shape: bool = False

    def accepts(self, tap: str, shape: tuple[int, ...]) -> bool:
        """Whether a step of `tap` may have this shape."""
        own = self.shape
        if not self.needs_shape or tap != self.taps[0][1]:
            return True
        return shape in (own, (*own[1:], own[0]), (own[-1], *own[:-1]))

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
        may_start_from: those that it may start from, where --init-from gives one.
        settings: fields of TrainConfig.
    """

    name: str
    groups: tuple[Group, ...]
    evaluated: tuple[str, ...] = ()
    starts_from: tuple[tuple[str, str], ...] = ()
    may_start_from: tuple[tuple[str, str], ...] = ()
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
        gives: {backbone: module} that are the network of a backbone whole, which nobody trained before: a run of this
            head is weights of that backbone.
        cam: {input: module whose output (B or B * T, C, h, w) a Grad-CAM is taken of}.
    """

    inputs: tuple[Input, ...]
    stages: tuple[Stage, ...]
    rests: tuple[Rest, ...] = ()
    auxiliary: tuple[Auxiliary, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    aside: tuple[str, ...] = ()
    kept_options: tuple[str, ...] = ()
    gives: Mapping[str, str] = field(default_factory=dict)
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
