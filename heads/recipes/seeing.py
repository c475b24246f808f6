"""Where the networks of a recipe look: Grad-CAM of a few classes, a clip each, of every row that is judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reelbank.heads.errors import TrainingError
from reelbank.heads.recipes.recipe import Recipe
from reelbank.heads.recipes.rows import read_clips
from reelbank.heads.runs.class_maps import class_maps
from reelbank.store.files import make_folder

PICTURE = "grad-cam.png"
NUM_CLASSES = 2


def draw_grad_cams(directory: Path, chosen: Recipe, results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Draws `figures/grad-cam.png`; {classes, clips, notes} of it, or {error} where it could not be drawn.

    Of the recipe's `seen_classes` those that the clips have, else the first of theirs; of each class the first reported
    clip that the best row gets right. None for a recipe without.
    """
    if not chosen.seen_classes:
        return None
    part = results["study"]["parts"][chosen.study.judged[0].part]["split"]
    judged = {row.name for row in chosen.of_first_set}
    runs = {
        row["name"]: directory / row["runs"][0]
        for row in results["rows"]
        if row["runs"] and not row["shared_with"] and row["name"] in judged
    }
    clips = read_clips(runs[results["best"]], part)
    labels, right = clips.texts("label").tolist(), clips.texts("correct").tolist()
    there = sorted({label for label in labels if label})
    classes = [name for name in chosen.seen_classes if name in there] or there[:NUM_CLASSES]
    names = clips.texts("clip_id").tolist()
    chosen_clips = []
    for name in classes:
        own = [place for place, label in enumerate(labels) if label == name]
        chosen_clips.append(names[next((place for place in own if right[place] == "1"), own[0])])
    make_folder(directory / "figures")
    try:
        found = class_maps(list(runs.values()), chosen_clips, classes, picture=directory / "figures" / PICTURE)
    except TrainingError as error:  # the numbers of the rows stand all the same
        return {"error": str(error)}
    return {"classes": classes, "clips": chosen_clips, "notes": list(found.notes)}
