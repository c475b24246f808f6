"""What was chosen, in a sentence and in results.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.fitting.choosing import CONSTANT, Chosen

Choices = Sequence[tuple[int | None, Mapping[str, Chosen]]]
"""(fold, {output: what was chosen}) of each partition."""


def choice_entries(choices: Choices) -> list[dict[str, Any]]:
    """What results.json keeps of it."""
    return [
        {"fold": fold, "output": output, "chosen": one.candidate.name, "clips": len(one.rows), "losses": one.losses}
        for fold, chosen in choices
        for output, one in chosen.items()
    ]


def choice_sentences(prepared: Prepared, choices: Choices) -> list[str]:
    """A sentence per output: what predicts it, and what inner validation said of it and of the others."""
    found = []
    for output in prepared.shape.outputs if choices else ():
        chosen = [one[output] for _, one in choices if output in one]
        name, unit = ("Classes", "nats") if output == "label" else _target(prepared)
        if len(chosen) > 1:
            counts = Counter(one.candidate.name for one in chosen)
            told = "; ".join(f"{candidate} in {count}" for candidate, count in counts.most_common())
            found.append(f"{name}: of {len(chosen)} folds, each by its own inner validation: {told}.")
            continue
        (one,) = chosen
        if not one.losses:
            found.append(f"{name}: {one.candidate.name} (too few groups for inner validation: taken without it).")
            continue
        loss = one.losses[one.candidate.name]
        others = {candidate: value for candidate, value in one.losses.items() if candidate != one.candidate.name}
        best = min(others, key=lambda candidate: others[candidate])
        told = f"{name}: {one.candidate.name}, by inner validation on {len(one.rows)} clips ({loss:.3g} {unit}"
        if best != CONSTANT and others[best] < loss:
            told += f"; {best}: {others[best]:.3g}, less by no more than chance gives"
        elif best != CONSTANT:
            told += f"; next best: {best}, {others[best]:.3g}"
        if one.candidate.name == CONSTANT:
            found.append(f"{told}): no predictor did better there than the training clips' own frequencies.")
        else:
            found.append(f"{told}; the training clips' own frequencies: {one.losses[CONSTANT]:.3g}).")
    return found


def _target(prepared: Prepared) -> tuple[str, str]:
    assert prepared.bins is not None
    unit = prepared.bins.unit or prepared.bins.target
    return prepared.bins.target, f"{unit} of error"
