"""Rendered still images in the layout of Stanford 40, of the classes of `synth-hmdb51`: a trail shows the direction.

What a model of single frames is trained on first. Behind each outline lie fainter copies of it, where it has been; no
clip has those, so what is learnt about directions here is of no use there, and what is learnt about outlines is.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from reelbank.manifests.datasets.stanford40 import IMAGES, read_stanford40
from reelbank.manifests.events import Event, Progress
from reelbank.manifests.files import filling
from reelbank.manifests.manifest import Manifest, ManifestError
from reelbank.manifests.notebooks import with_bar
from reelbank.manifests.rendered.drifting import CLASSES, DIRECTIONS, draw, make_look, make_scene
from reelbank.manifests.rendered.synth_hmdb51 import earlier_files

LISTS = "ImageSplits"
TRAIN_SHARE = 0.4
"""Of each class: Stanford 40 has 4,000 training images of 9,532."""
ECHOES, ECHO_STEP_PX = 3, 6.0

_OUR_FILE = re.compile(rf"{IMAGES}/({'|'.join(CLASSES)})_\d{{3}}\.jpg|{LISTS}/({'|'.join(CLASSES)})_(train|test)\.txt")


@with_bar("render")
def render(
    directory: str | os.PathLike[str],
    *,
    images_per_class: int = 40,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Render DIRECTORY/JPEGImages/ and the lists DIRECTORY/ImageSplits/; DIRECTORY/manifest.csv comes last.

    Args:
        directory: made where it is not there.
        images_per_class: 2 to 999; image n has the same looks and places in all classes, of nobody in `synth-hmdb51`.
        seed: the same one gives the same pictures and, with the same Pillow, the same bytes.
        overwrite: replace the rendered images that are there.
        progress: called after each image.

    Returns:
        The manifest, as `reelbank manifest stanford40` gives it.

    Raises:
        ManifestError: images, lists or a manifest are there already and `overwrite` is not set, those there are not
            rendered, or an argument is out of range.
    """
    from PIL import Image

    from reelbank.manifests.reading import read, write

    directory = Path(directory)
    path = directory / "manifest.csv"
    if not 2 <= images_per_class <= 999 or seed < 0:
        raise ManifestError(
            f"synth-stanford40: {images_per_class = }, {seed = }: expected 2 to 999 images, numbered by three digits, "
            "and a seed of 0 or more"
        )
    earlier = earlier_files(directory, (IMAGES, LISTS), _OUR_FILE)
    if (earlier or path.exists()) and not overwrite:
        raise ManifestError(
            f"{path if path.exists() else directory / earlier[0]} is there already; render into another folder or pass "
            "--overwrite"
        )
    names: dict[str, list[str]] = {label: [] for label in CLASSES}
    with filling(directory, stale=earlier, last=path.name) as made:
        for folder in (IMAGES, LISTS):
            (made / folder).mkdir()
        for number in range(1, images_per_class + 1):
            rng = np.random.default_rng([seed, 2, number])
            scene = make_scene(rng, make_look(rng))
            for label in CLASSES:
                outline, direction = label.split("_")
                dx, dy = DIRECTIONS[direction]
                picture = draw(scene, outline, trail=(-dx * ECHO_STEP_PX, -dy * ECHO_STEP_PX), echoes=ECHOES)
                names[label].append(f"{label}_{number:03d}.jpg")
                Image.fromarray(picture).save(made / IMAGES / names[label][-1], quality=90)
            if progress is not None:
                progress(Event(stage="render", done=number, total=images_per_class, message=f"image {number}"))
        num_train = max(int(TRAIN_SHARE * images_per_class), 1)
        for label, own in names.items():
            for part, files in (("train", own[:num_train]), ("test", own[num_train:])):
                (made / LISTS / f"{label}_{part}.txt").write_text("".join(f"{file}\n" for file in files))
        write(replace(read_stanford40(made), notes=()), made / path.name)
    return read(path)
