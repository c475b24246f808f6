"""Small stores for tests of recipes, and how a recipe is run on them in a moment."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remembered import write_store

from reelbank.heads import RecipeConfig, run_recipe
from reelbank.heads.judging import intervals
from reelbank.heads.recipes import gallery, quick
from reelbank.heads.recipes import run as recipe_run

Change = Callable[[list[dict[str, Any]]], None]


def calorie_store(
    path: Path, *, views: bool = True, change: Change | None = None, width: int = 6, backbone: str = "toy"
) -> Path:
    """48 clips of 4 steps whose mean feature tells the kcal, with known and unknown classes and stored views."""
    random = np.random.default_rng(3)
    clips, features = [], []
    for i in range(48):
        split = ("train", "train", "train", "val", "test", "unknown")[(i // 2) % 6]
        kcal = float(random.uniform(100, 800))
        label = f"novel {i % 2}" if split == "unknown" else f"class {i % 2}"
        clips.append({"clip_id": f"c{i}", "split": split, "label": label, "group": f"s{i // 2}", "kcal": kcal})
        steps = random.normal(size=(4, width)) * 0.3
        steps[:, 0] += kcal / 200
        features.append(steps.astype(np.float16))
    if change is not None:
        change(clips)
    train = [clip["split"] == "train" for clip in clips]
    copies = {"cls": [a if own else None for a, own in zip(features, train, strict=True)]}
    others = dict.fromkeys(("flip", "rotation", "jitter"), copies) if views else None
    write_store(path, {"cls": features}, clips, backbone=backbone, weights={"kind": "pretrained"}, views=others)
    return path


def class_store(path: Path, *, users: int = 4, clips_per_user: int = 12, split: bool = True) -> Path:
    """Three classes that the first numbers of a step tell, no target; the last user is the test part with `split`."""
    random = np.random.default_rng(5)
    clips, features = [], []
    for user in range(1, users + 1):
        for i in range(clips_per_user):
            part = "test" if split and user == users else "train"
            clips.append(
                {"clip_id": f"u{user}c{i}", "split": part, "label": f"class {i % 3}", "group": f"S{user}"}
            )  # fmt: skip
            steps = random.normal(size=(2, 5)) * 0.4
            steps[:, i % 3] += 2
            features.append(steps.astype(np.float16))
    write_store(path, {"cls": features}, clips, backbone="toy", weights={"kind": "pretrained"})
    return path


def shorten(patch: pytest.MonkeyPatch, *, pictures: bool = False) -> None:
    """Two epochs a row, rough intervals, no map, no pictures: what they look like has tests of its own."""
    patch.setattr(quick, "QUICK_SHARE", 0.001)
    patch.setattr(quick, "QUICK_CLIPS", 12)
    patch.setattr(intervals, "RESAMPLES", 40)
    patch.setattr(intervals, "WHOLE_RESAMPLES", 20)
    patch.setattr(recipe_run, "vector_map", lambda prepared, seed: {})
    if not pictures:
        patch.setattr(gallery, "draw_all", lambda directory, data: {})


def run(store: Path | tuple[Path, ...], directory: Path, name: str, **values: Any) -> Any:
    """A recipe in its short form."""
    given = {"workers": 1, "quick": True, **values}
    stores = store if isinstance(store, tuple) else (store,)
    return run_recipe(RecipeConfig.of(store=stores, recipe=name, run=directory, **given))


def run_calories(store: Path, directory: Path, name: str, **values: Any) -> Any:
    """One of the calorie study in its short form."""
    return run(store, directory, f"calories/{name}", **{"bins": 30, **values})


def assert_markdown(text: str, least: int) -> None:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) > least
    assert len({line.count("|") for line in lines}) == 1
    assert "does not beat the constant" in text


def assert_latex(text: str, lost: str = "the constant") -> None:
    """Balanced, every row as wide as the columns declared, no character left that LaTeX would take as a command."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert code.count(r"\begin{") == code.count(r"\end{") == 2
    assert re.search(r"\\caption{[^\n]+\.}\n\\label{tab:[a-z0-9-]+}", code)
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", code):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    width = len(re.search(r"\\begin{tabular}{([lr]+)}", code).group(1))  # type: ignore[union-attr]
    for row in re.findall(r"^(.*) \\\\$", code, re.MULTILINE):
        spanned = sum(int(count) - 1 for count in re.findall(r"\\multicolumn{(\d+)}", row))
        assert len(re.split(r"(?<!\\)&", row)) + spanned == width
    plain = re.sub(r"\$\\(pm|dagger)\$|\$[<>]\$", "", code)
    assert not re.search(r"(?<!\\)[$#_%~^]|[^\x00-\x7f]", plain)
    assert f"does not beat {lost}" in code
