"""What one head is, for a person: options, inputs, stages, further losses, and how many numbers of it are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from reelbank.heads.models import HEADS, HeadShape, build_head, parse_options, plan_of
from reelbank.heads.models.plans import RGB, ArrayShape, HeadPlan, Input

WHOLE = ("frames", "flow:")
"""Backbones whose pictures a network reads from its first layer on."""
SHAPES: Mapping[str, tuple[int, ...]] = {
    "field": (2, 224, 224), "gray": (10, 224, 224), "map": (1, 28, 28), "pixels": (3, 224, 224), "target": (28, 28),
    "unit": (3, 112, 112),
}  # fmt: skip


def describe_head(name: str, options: Sequence[str] = (), *, outputs: int = 10, width: int = 512) -> dict[str, Any]:
    """The facts about head `name` as JSON types.

    Args:
        options: NAME=VALUE.
        outputs: classes.
        width: numbers per step of the one tap of a head of vectors; heads of arrays are counted from pictures on.

    Returns:
        name, summary, options; parameters: {total, modules: {part: count}} or null for a fitted head; inputs, stages
        (each with what it trains, in which groups, and its settings) and auxiliary losses of a head of arrays.

    Raises:
        TrainingError: an unknown head or option.
    """
    row = HEADS.row(name)
    given = {**row.options, **parse_options(name, options, ())}
    facts: dict[str, Any] = {"name": name, "summary": row.summary, "options": given, "outputs": outputs}
    if row.is_fitted:
        return facts | {"parameters": None, "inputs": [], "stages": [], "auxiliary": []}
    plan = plan_of(name, given)
    with torch.device("meta" if HEADS.plugin(name) is None else "cpu"):
        head = build_head(name, nominal_shape(name, given, outputs=outputs, width=width), given)
    counts = {name: parameter.numel() for name, parameter in head.named_parameters()}
    modules: dict[str, int] = {}
    for parameter, count in counts.items():
        part = parameter.partition(".")[0]
        modules[part] = modules.get(part, 0) + count
    facts["parameters"] = {"total": sum(counts.values()), "modules": modules}
    return facts | ({"inputs": [], "stages": [], "auxiliary": []} if plan is None else _plan_facts(plan, counts))


def nominal_shape(name: str, options: Mapping[str, Any], *, outputs: int, width: int) -> HeadShape:
    """The shape that head `name` with these options is described for; see `describe_head`."""
    row, plan = HEADS.row(name), plan_of(name, options)
    arrays = {} if plan is None else {one.name: _nominal(one) for one in plan.inputs}
    taps = {"features": width} if plan is None else {}
    return HeadShape(taps=taps, outputs={"label": outputs}, num_steps=int(row.needs_steps) * 16 or 1, arrays=arrays)


def _nominal(one: Input) -> ArrayShape:
    """The array that counts are given for: pictures where the head can read them."""
    backbone, tap = next((pair for pair in one.taps if pair[0].startswith(WHOLE)), one.taps[0])
    shape = one.shape or SHAPES[one.values]
    if one.values in RGB and shape[-1] == 3:
        shape = (3, *shape[:2])
    if one.values == "field" and one.stack_steps:
        shape = (one.stack_steps * shape[0], *shape[1:])
    steps = len(one.positions) or (1 if one.stack_steps else 7)
    return ArrayShape(backbone=backbone, tap=tap, shape=shape, dtype="uint8", num_steps=steps)


def _plan_facts(plan: HeadPlan, counts: Mapping[str, int]) -> dict[str, Any]:
    stages = []
    for stage in plan.stages:
        groups = {group.name: 0 for group in stage.groups}
        for name, count in counts.items():
            if (group := stage.group_of(name)) is not None:
                groups[group.name] += count
        stages.append(
            {
                "name": stage.name,
                "trained": sum(groups.values()),
                "groups": groups,
                "starts_from": [f"{head}, stage {name}" if name else head for head, name in stage.starts_from],
                "may_start_from": [head for head, _ in stage.may_start_from],
                "settings": {name: list(v) if isinstance(v, tuple) else v for name, v in stage.settings.items()},
            }
        )
    return {
        "inputs": [
            {"name": one.name, "about": one.about, "taps": [f"{a}/{b}" for a, b in one.taps]} for one in plan.inputs
        ],
        "stages": stages,
        "auxiliary": [{"name": one.name, "weight": one.weight, "target": one.target or None} for one in plan.auxiliary],
    }  # fmt: skip


def head_text(facts: Mapping[str, Any]) -> str:
    """`describe_head` for a terminal."""
    lines = [f"{facts['name']}: {facts['summary']}"]
    lines += [f"  option    {name}={_plain(value)}" for name, value in facts["options"].items()]
    lines += [f"  reads     {one['name']}: {one['about']} ({', '.join(one['taps'])})" for one in facts["inputs"]]
    if (parameters := facts["parameters"]) is None:
        return "\n".join([*lines, "  fitted in one go: how large it becomes the clips decide"])
    parts = ", ".join(f"{name} {count:,}" for name, count in parameters["modules"].items())
    lines.append(f"  numbers   {parameters['total']:,} for {facts['outputs']} classes: {parts}")
    for stage in facts["stages"]:
        groups = f" ({', '.join(f'{name} {count:,}' for name, count in stage['groups'].items())})"
        lines.append(
            f"  stage {stage['name']:<5} trains {stage['trained']:,}{groups if len(stage['groups']) > 1 else ''}"
        )
        if stage["starts_from"]:
            lines.append(f"            starts from a run of {' and one of '.join(stage['starts_from'])} (--init-from)")
        if stage["may_start_from"]:
            lines.append(f"            may start from a run of {' or '.join(stage['may_start_from'])} (--init-from)")
        settings = ", ".join(f"{name} {_plain(value)}" for name, value in stage["settings"].items())
        lines.append(f"            {settings}")
    for one in facts["auxiliary"]:
        target = f", target {one['target']}" if one["target"] else ""
        lines.append(f"  loss      {one['name']}, weight {one['weight']:g} (--aux-weight){target}")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
