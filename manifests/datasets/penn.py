"""Penn Action (Zhang, Zhu, Derpanis, ICCV 2013): frame folders and 13 joints per frame."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from reelbank.manifests.datasets.matlab import MatlabError, MatlabReader, matlab_reader
from reelbank.manifests.datasets.official import folder_entries, manifest_from, root_with, some
from reelbank.manifests.files import regular
from reelbank.manifests.manifest import Manifest, ManifestError

FRAME_PATTERN = "%06d.jpg"

_EXPECTED = "labels/0001.mat and frames/0001/000001.jpg"
_LABEL = re.compile(r"^(\d{4})\.mat$")


def read_penn(root: str | os.PathLike[str], *, rate_fps: float = 30.0) -> Manifest:
    """One clip per `labels/NNNN.mat`.

    Args:
        root: `Penn_Action/`, or the folder that holds it.
        rate_fps: of the frame folders, which do not tell it; it moves times, and no frame.

    Returns:
        Clips `NNNN` with the official train/test flag and the columns `annotations` (the .mat file), `frame_pattern`
        and `rate_fps`. `video` is `frames/NNNN`, empty where that folder is missing: joints need no video.

    Raises:
        ManifestError: no `labels`, or a file of it that cannot be read or lacks action or train (named).
    """
    if not (math.isfinite(rate_fps) and rate_fps > 0):
        raise ManifestError(f"rate_fps = {rate_fps} must be above 0")
    root = root_with(root, "labels", dataset="Penn Action", expected=_EXPECTED)
    names = [match[1] for name, _ in folder_entries(root / "labels") if (match := _LABEL.match(name))]
    if not names:
        raise ManifestError(f"Penn Action: no file like 0001.mat in {root / 'labels'}; expected {_EXPECTED}")
    folders = {name for name, is_folder in folder_entries(root / "frames") if is_folder}
    rows = []
    with matlab_reader() as reader:
        labels = {name: _read_label(reader, root / "labels" / f"{name}.mat") for name in names}
    for name, (action, is_train) in labels.items():
        has_frames = name in folders
        rows.append(
            {
                "clip_id": name,
                "video": f"frames/{name}" if has_frames else "",
                "split": "train" if is_train else "test",
                "label": action,
                "annotations": f"labels/{name}.mat",
                "frame_pattern": FRAME_PATTERN if has_frames else "",
                "rate_fps": f"{rate_fps:g}",
            }
        )
    notes = [f"the folders do not tell their rate: {rate_fps:g} frames per second were assumed (--rate-fps)"]
    if bare := [name for name in names if name not in folders]:
        notes.append(f"{len(bare)} of {len(names)} clips have no folder under {root / 'frames'}: {some(bare)}")
    if extra := sorted(folders - set(names)):
        notes.append(f"not taken, no file in labels: {some([f'frames/{name}' for name in extra])}")
    return manifest_from(rows, root, place="clip", notes=notes)


def _read_label(reader: MatlabReader, path: Path) -> tuple[str, bool]:
    """(action, whether it is a training clip); the flag is 1 or -1."""
    try:
        content = reader.read(regular(path), ["action", "train"])
    except (MatlabError, OSError) as error:
        raise ManifestError(f"{path} cannot be read: {error}; expected a MATLAB file of Penn Action") from error
    missing = [name for name in ("action", "train") if name not in content]
    if missing:
        raise ManifestError(f"{path} has no variable {missing[0]!r}; expected action, train, x, y, visibility")
    flag = content["train"]
    if flag not in ("-1", "0", "1"):
        raise ManifestError(f"{path}: train is {flag}, expected 1 (train) or -1 (test)")
    return content["action"].strip(), flag == "1"
