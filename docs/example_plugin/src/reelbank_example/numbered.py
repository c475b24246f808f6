"""Reader `numbered`: videos named after their class and a number; every fifth of a class is split `test`."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from reelbank.manifests.datasets import Clip, Manifest, ManifestError, ReaderRow

ROW = ReaderRow(
    target="reelbank_example.numbered:read_numbered",
    summary="Videos named CLASS_NUMBER.mp4.",
    layout="Videos ROOT/CLASS_NUMBER.mp4; every fifth of a class, by number, is split test.",
)
NAME = re.compile(r"(?P<label>.+)_\d+\.(mp4|avi|mkv)")


def read_numbered(root: Path) -> Manifest:
    """The clips of `root`. Raises ManifestError if it is no folder or holds no such video."""
    if not root.is_dir():
        raise ManifestError(f"{root} is no folder; give the one that holds CLASS_NUMBER.mp4")
    seen: Counter[str] = Counter()
    clips = []
    for path in sorted(root.iterdir()):
        if (match := NAME.fullmatch(path.name)) is None:
            continue
        label = match["label"]
        seen[label] += 1
        split = "test" if seen[label] % 5 == 0 else "train"
        clips.append(Clip(clip_id=path.stem, video=path.name, label=label, split=split))
    if not clips:
        raise ManifestError(f"{root} holds no video named CLASS_NUMBER.mp4")
    return Manifest(path=None, root=root, clips=tuple(clips), target_names=(), text_columns=(), notes=())
