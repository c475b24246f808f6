"""How long a recipe of heads on arrays takes: seconds per clip-pass as the short form measured them, and the whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.recipes.config import RecipeConfig, own_repeats
from reelbank.heads.recipes.options import row_config
from reelbank.heads.recipes.quick import QUICK_PASSES
from reelbank.heads.recipes.recipe import Recipe, RecipeRow
from reelbank.heads.recipes.rows import TrainedRow, epochs_of
from reelbank.heads.recipes.stores import GivenStores
from reelbank.heads.stored import read_config, read_results

JUDGED = 1 / 3
"""Of a clip that is judged in an epoch, beside one that is trained on: forward alone, not forward and backward."""


def clip_passes(trained: float, judged: float) -> float:
    """Clip-passes of an epoch that trains and judges so many clips."""
    return trained + JUDGED * judged


def measured(runs: Sequence[Path]) -> tuple[float, float, int]:
    """(seconds, clip-passes, clips trained on in all epochs) of the epochs of `runs`."""
    seconds, passes, clips = 0.0, 0.0, 0
    for run in runs:
        counts = read_results(run)["counts"]
        for lines in epochs_of(run):
            seconds += sum(line["seconds"] for line in lines)
            passes += len(lines) * clip_passes(counts["train"], counts["val"])
            clips += len(lines) * counts["train"]
    return seconds, passes, clips


def whole_passes(config: TrainConfig, cache: FeatureCache) -> float:
    """Clip-passes of a training as `config` has it, over all of its folds."""
    _, parts = cache.clips(config)
    each = (clip_passes(len(part.train), len(part.val)) for part in parts.partitions)
    return config.optimizer.epochs * sum(each)


def projected(
    results: Mapping[str, Any], config: RecipeConfig, chosen: Recipe, trained: Sequence[TrainedRow], given: GivenStores
) -> dict[str, Any]:
    """`results` of a short form with what it measured and, from that, how long the whole takes.

    Each row gets `seconds_per_pass` (of its own frames), and `projected_seconds` of all its repeats; rows that the
    short form leaves out have the mean of the others with their number of frames. Frames count in proportion.
    `projected`: {clips: trained on in all, seconds, whole_seconds, repeats}.
    """
    repeats = own_repeats({"recipe": chosen.name}).get("repeats", 1)
    measured_rows: dict[str, tuple[float, float]] = {}  # {row: (seconds, clip-passes)}, less what others share
    clips, cache, wholes = 0, FeatureCache(), dict[str, TrainConfig]()
    for one in trained:
        if one.runs and not one.shared_with:
            seconds, passes, own = measured(one.runs)
            measured_rows[one.row.name], clips = (seconds, passes), clips + own
        if whole := _whole(config, one.row, chosen, given):
            wholes[one.row.name] = whole
    rates = {name: seconds / passes for name, (seconds, passes) in measured_rows.items() if passes}
    usual = sum(rates.values()) / len(rates)
    steps = {one.row.name: _steps(one) for one in trained if one.runs}
    rows, total, same = [], 0.0, set[str]()
    for row, one in zip(results["rows"], trained, strict=True):
        entry, name = dict(row), one.row.name
        rate = rates.get(one.shared_with or name, usual if one.left_out else None)
        key = json.dumps([wholes[name].to_json(), *one.row.starts_from], sort_keys=True) if name in wholes else ""
        if rate is not None and key and key not in same:
            same.add(key)
            asked = wholes[name].features.steps
            share = asked / steps.get(name, min(7, asked) or 1) if asked else 1.0
            entry["seconds_per_pass"] = round(rate, 3)
            entry["projected_seconds"] = round(rate * share * whole_passes(wholes[name], cache) * repeats, 1)
            total += entry["projected_seconds"]
        rows.append(entry)
    said = {
        "clips": clips,
        "seconds": round(sum(seconds for seconds, _ in measured_rows.values()), 1),
        "whole_seconds": round(total, 1),
        "repeats": repeats,
    }
    return {**results, "rows": rows, "projected": said, "sentences": [*results["sentences"], sentence(said, usual)]}


def sentence(said: Mapping[str, Any], rate: float) -> str:
    """What was measured, and what it means for the whole."""
    return (
        f"Projected: {said['clips']} clips were trained on (at most {QUICK_PASSES}), {rate:.2f} s per clip-pass on "
        f"this machine (a clip that is judged counts a third); the whole recipe, {said['repeats']} "
        f"{'run' if said['repeats'] == 1 else 'runs'} per row with all clips, epochs and frames, takes about "
        f"{duration(said['whole_seconds'])}."
    )


def duration(seconds: float) -> str:
    """'40 minutes', '7.5 hours', '12 days'."""
    for unit, size in (("days", 86_400), ("hours", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def _whole(config: RecipeConfig, row: RecipeRow, chosen: Recipe, given: GivenStores) -> TrainConfig | None:
    try:
        return row_config(replace(config, quick=False), row, chosen, given)
    except TrainingError:  # the stores lack what it reads, which its row says
        return None


def _steps(one: TrainedRow) -> int:
    """Frames that the short form read of a clip."""
    return int(read_config(one.runs[0])["config"]["steps"]) or 1
