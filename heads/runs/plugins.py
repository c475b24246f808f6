"""Which code from outside a run was made with, kept beside it and compared when it is used again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.judging.metrics import METRICS
from reelbank.heads.losses import LOSSES, loss_function
from reelbank.heads.models import HEADS, build_head


def plugins_of(config: TrainConfig) -> list[dict[str, Any]]:
    """The identity of every plug-in that trains or judges: kind, name, target, package, version, sha256, files."""
    found = [HEADS.plugin(config.head.name)]
    found += [LOSSES.plugin(name) for name in sorted({config.objective.loss, config.objective.class_loss} - {"auto"})]
    found += [METRICS.plugin(name) for name in config.data.metric]
    return [plugin.identity() for plugin in found if plugin is not None]


def try_out(prepared: Prepared) -> None:
    """Runs what a plug-in gives on a few empty clips, so that a mistake of its is said before a run is made."""
    config = prepared.config
    with torch.random.fork_rng(devices=[]):
        if HEADS.plugin(config.head.name) is not None:
            build_head(config.head.name, prepared.shape, config.head.options)
        for name in sorted({config.objective.loss, config.objective.class_loss} - {"auto"}):
            if LOSSES.plugin(name) is not None:
                for count in prepared.shape.outputs.values():
                    loss_function(name)(torch.zeros(2, count), torch.full((2, count), 1 / count))


def head_identity(name: str) -> dict[str, Any] | None:
    """The identity of head `name`; None for those of this package."""
    plugin = HEADS.plugin(name)
    return None if plugin is None else plugin.identity()


def refuse_missing_head(path: Path, plugin: Mapping[str, Any]) -> None:
    """Raises TrainingError if the plug-in that the head at `path` is cannot be found here."""
    try:
        HEADS.find(plugin["name"])
    except ValueError as error:
        raise TrainingError(
            f"{path} needs {_named(plugin)}: install the package or run where its module lies. {error}"
        ) from error


def refuse_changed_plugins(what: str, stored: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> None:
    """Raises TrainingError naming the plug-ins whose source is not what it was.

    Args:
        what: begins the sentence: "RUN was trained with".
        stored: identities that were kept.
        now: those of the code that would run.
    """
    current = {(entry["kind"], entry["name"]): entry for entry in now}
    changed = []
    for entry in stored:
        found = current.get((entry["kind"], entry["name"]))
        if found is None or found["sha256"] != entry["sha256"]:
            changed.append(f"{_named(entry)}, here is {'none' if found is None else _named(found)}")
    if changed:
        raise TrainingError(f"{what} other code: {'; '.join(changed)}. Install that code again, or train another run")


def _named(entry: Mapping[str, Any]) -> str:
    package = f" of {entry['distribution']} {entry['version']}" if entry["distribution"] else ""
    return f"{entry['kind']} {entry['name']!r} ({entry['target']}{package}, source sha256 {entry['sha256'][:12]})"
