"""The layers of one head in the order in which they compute, as torchsummary lists them, and what they take in memory.

Rows are modules without modules in them, once per call. Activations that work in place are none: they give no tensor of
their own, as functions do not, and published tables have none either. Memory is counted as that program does: what
every row gives, in float32 and twice (forward and backward), in MB of 2^20 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from reelbank.heads.errors import TrainingError
from reelbank.heads.models import HEADS, HeadShape, build_head, parse_options, plan_of
from reelbank.heads.models.listing import nominal_shape
from reelbank.heads.models.plans import HeadPlan

FLOAT_BYTES = 4
MB = 2**20


def describe_layers(name: str, options: Sequence[str] = (), *, outputs: int = 10, width: int = 512) -> dict[str, Any]:
    """The layers of head `name` on one clip as JSON types; the arguments are those of `describe_head`.

    Returns:
        name, options, outputs; inputs: {name: shape}; layers: [{layer: class and number, module: where it lies,
        output_shape: with its first axis, clips or clips times steps, parameters: its own at its first call}];
        parameters: of the whole head; unlisted_parameters: of modules whose weights are read where they are not called;
        input_mb, forward_backward_mb, parameters_mb, total_mb; parts: {module: {parameters, forward_backward_mb,
        parameters_mb}} of those that are other heads, or the begin of one.

    Raises:
        TrainingError: an unknown head or option, or one that is fitted and has no layers.
    """
    row = HEADS.row(name)
    if row.is_fitted:
        raise TrainingError(f"head {name!r} is fitted in one go and has no layers to list")
    given = {**row.options, **parse_options(name, options, ())}
    plan = plan_of(name, given)
    shape = nominal_shape(name, given, outputs=outputs, width=width)
    layers, inputs, total = _listed(name, shape, given, plan, "meta" if HEADS.plugin(name) is None else "cpu")
    parts = {} if plan is None else {part: [row for row in layers if _lies_in(row, part)] for part in plan.parts}
    sizes = {
        "input_mb": sum(map(math.prod, inputs.values())) * FLOAT_BYTES / MB,
        "forward_backward_mb": _passes_mb(layers),
        "parameters_mb": total * FLOAT_BYTES / MB,
    }
    return {
        "name": name,
        "options": given,
        "outputs": outputs,
        "inputs": {name: list(size) for name, size in inputs.items()},
        "layers": layers,
        "parameters": total,
        "unlisted_parameters": total - sum(row["parameters"] for row in layers),
        **{name: round(size, 6) for name, size in sizes.items()},
        "total_mb": round(sum(sizes.values()), 6),
        "parts": {part: _sizes_of(rows) for part, rows in parts.items()},
    }


def _sizes_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    count = sum(row["parameters"] for row in rows)
    return {
        "parameters": count,
        "forward_backward_mb": round(_passes_mb(rows), 6),
        "parameters_mb": round(count * FLOAT_BYTES / MB, 6),
    }


def _listed(
    name: str, shape: HeadShape, options: Mapping[str, Any], plan: HeadPlan | None, device: str
) -> tuple[list[dict[str, Any]], dict[str, tuple[int, ...]], int]:
    """(rows, {input: shape of one clip}, numbers of the head). On the meta device no number is made."""
    with torch.device(device):
        head = build_head(name, shape, options).eval()
        if plan is None:
            arrays = {tap: torch.zeros(1, shape.num_steps, size) for tap, size in shape.taps.items()}
            masks: Any = torch.ones(1, shape.num_steps, dtype=torch.bool)
        else:
            read = {one.name: shape.arrays[one.name] for one in plan.to_predict.inputs}
            arrays = {name: torch.zeros(1, one.num_steps, *one.shape) for name, one in read.items()}
            masks = {name: torch.ones(1, one.num_steps, dtype=torch.bool) for name, one in read.items()}
    # A network that was published with its softmax shows it.
    network: Any = getattr(head, "probabilities", head)
    with _watched(head) as rows, torch.no_grad():
        network(arrays, masks)
    sizes = {name: tuple(array.shape[1:]) for name, array in arrays.items()}
    return rows, sizes, sum(parameter.numel() for parameter in head.parameters())


@contextmanager
def _watched(head: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """The rows of what `head` computes in the block."""
    rows: list[dict[str, Any]] = []
    counted: set[str] = set()

    def seen(where: str, module: nn.Module, given: Any) -> None:
        first = given
        while not isinstance(first, Tensor):
            first = next(iter(first.values() if isinstance(first, Mapping) else first))
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        rows.append(
            {
                "layer": f"{type(module).__name__}-{len(rows) + 1}",
                "module": where,
                "output_shape": list(first.shape),
                "parameters": 0 if where in counted else own,
            }
        )
        counted.add(where)

    hooks = [
        module.register_forward_hook(lambda one, _, given, where=where: seen(where, one, given))
        for where, module in head.named_modules()
        if _is_row(module)
    ]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def _is_row(module: nn.Module) -> bool:
    is_leaf = not any(True for _ in module.children()) or any(True for _ in module.parameters(recurse=False))
    return is_leaf and not getattr(module, "inplace", False)


def _lies_in(row: Mapping[str, Any], part: str) -> bool:
    return str(row["module"]).startswith(f"{part}.")


def _passes_mb(rows: Sequence[Mapping[str, Any]]) -> float:
    numbers: int = sum(math.prod(row["output_shape"]) for row in rows)
    return 2 * numbers * FLOAT_BYTES / MB


def layers_text(facts: Mapping[str, Any]) -> str:
    """`describe_layers` for a terminal."""
    rows = [("layer", "output shape", "numbers", "module")] + [
        (row["layer"], " x ".join(map(str, row["output_shape"])), f"{row['parameters']:,}", row["module"])
        for row in facts["layers"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    layer, output, numbers = widths
    lines = [f"{row[0]:<{layer}}  {row[1]:>{output}}  {row[2]:>{numbers}}  {row[3]}".rstrip() for row in rows]
    inputs = ", ".join(f"{name} {' x '.join(map(str, size))}" for name, size in facts["inputs"].items())
    lines += [
        "",
        f"of one clip ({inputs}), {facts['outputs']} classes",
        f"numbers                {facts['parameters']:,}",
        f"input                  {facts['input_mb']:.6f} MB",
        f"forward/backward pass  {facts['forward_backward_mb']:.6f} MB",
        f"parameters             {facts['parameters_mb']:.6f} MB",
        f"together               {facts['total_mb']:.6f} MB",
    ]
    if unlisted := facts["unlisted_parameters"]:
        lines.append(f"  {unlisted:,} numbers are of modules that are read without being called: in no row")
    for part, sizes in facts["parts"].items():
        lines.append(
            f"  {part}: {sizes['parameters']:,} numbers, {sizes['parameters_mb']:.6f} MB, forward/backward "
            f"{sizes['forward_backward_mb']:.6f} MB"
        )
    return "\n".join(lines)
