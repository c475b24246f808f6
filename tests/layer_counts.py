"""Layer rows of published networks (`fixtures/layer_counts.json`), and their comparison with a network of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

TABLES: Mapping[str, Mapping[str, Any]] = json.loads(
    (Path(__file__).parent / "fixtures" / "layer_counts.json").read_text()
)
"""{network: {layers: {row: numbers}, total, fwd_bwd_mb}}, from SYSTEMS.md 6."""


def assert_rows(table: str, network: nn.Module, ours: Mapping[str, str]) -> None:
    """Every row of a table counts the tensors of `network` below its name, and all tensors are in one of them.

    Args:
        ours: {what a row's name begins with: what it is called here}.
    """
    counts = {name: parameter.numel() for name, parameter in network.named_parameters()}
    seen: set[str] = set()
    for row, expected in TABLES[table]["layers"].items():
        first = next((one for one in ours if row == one or row.startswith(f"{one}.")), None)
        name = row if first is None else ours[first] + row.removeprefix(first)
        own = {tensor for tensor in counts if tensor == name or tensor.startswith(f"{name}.")}
        assert sum(counts[tensor] for tensor in own) == expected, (row, name)
        assert not own & seen, row
        seen |= own
    assert seen == set(counts)
    assert sum(counts.values()) == TABLES[table]["total"]
