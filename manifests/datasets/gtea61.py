"""GTEA61: frame folders of 61 first-person actions by four users, with motion maps and warp flow.

Layout and split as in Ego-RNN (Sudhakaran and Lanz, arXiv:1807.11794): user S2 is the test part.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from reelbank.manifests.datasets.official import folder_entries, manifest_from, root_with, some
from reelbank.manifests.manifest import Manifest, ManifestError

FRAMES = "processed_frames2"
FLOW = {"flow_x": "flow_x_processed", "flow_y": "flow_y_processed"}
TEST_USER = "S2"
MIN_FRAMES = 5
FRAME_PATTERN = "rgb%04d.png"

_EXPECTED = f"{FRAMES}/S1/<action>/<inst>/rgb/rgb0001.png"
_USER = re.compile(r"^S\d+$")
_FRAME = re.compile(r"^rgb\d+\.png$")
_MAP = re.compile(r"^map\d+\.png$")


def read_gtea61(root: str | os.PathLike[str], *, rate_fps: float = 15.0) -> Manifest:
    """One clip per folder `processed_frames2/S?/<action>/<inst>`.

    Args:
        root: `GTEA61/`, or the folder that holds it.
        rate_fps: of the frame folders, which do not tell it. 15 is the rate at which GTEA's videos are used for action
            segmentation (Abu Farha and Gall, arXiv:1903.01945); it moves times, and no frame.

    Returns:
        Clips `S?/<action>/<inst>` with group = user, split `test` for S2 and `train` for the others, and the columns
        `motion_maps`, `flow_x`, `flow_y` (folders, empty where a clip has none), `frame_pattern`, `rate_fps`. Clips of
        fewer than 5 frames are left out and noted.

    Raises:
        ManifestError: folders are missing (named), or none of them holds a clip.
    """
    if not (math.isfinite(rate_fps) and rate_fps > 0):
        raise ManifestError(f"rate_fps = {rate_fps} must be above 0")
    root = root_with(root, FRAMES, dataset="GTEA61", expected=_EXPECTED)
    flow_trees = [name for name in FLOW.values() if (root / name).is_dir()]
    if len(flow_trees) == 1:
        lacking = next(name for name in FLOW.values() if name not in flow_trees)
        raise ManifestError(
            f"GTEA61: {root} holds {flow_trees[0]} and no {lacking}; flow needs both folders (or neither, for RGB only)"
        )
    rows, short, gaps = [], [], []
    without: dict[str, list[str]] = {"motion maps": [], "flow": []}
    for clip in _clips(root):
        folder = root / FRAMES / clip
        num_frames = _count(folder / "rgb", _FRAME)
        if num_frames < MIN_FRAMES:
            short.append(f"{clip} ({num_frames})")
            continue
        num_maps = _count(folder / "mmaps", _MAP)
        flow = {column: f"{tree}/{clip}" for column, tree in FLOW.items() if (root / tree / clip).is_dir()}
        if not num_maps:
            without["motion maps"].append(clip)
        elif num_maps < num_frames:
            gaps.append(clip)
        if flow_trees and len(flow) < 2:
            without["flow"].append(clip)
        user, action, _ = clip.split("/")
        rows.append(
            {
                "clip_id": clip,
                "video": f"{FRAMES}/{clip}/rgb",
                "split": "test" if user == TEST_USER else "train",
                "label": action,
                "group": user,
                "motion_maps": f"{FRAMES}/{clip}/mmaps" if num_maps else "",
                "flow_x": flow.get("flow_x", "") if len(flow) == 2 else "",
                "flow_y": flow.get("flow_y", "") if len(flow) == 2 else "",
                "frame_pattern": FRAME_PATTERN,
                "rate_fps": f"{rate_fps:g}",
            }
        )
    if not rows:
        found = f"{len(short)} clips of fewer than {MIN_FRAMES} frames" if short else some(_names(root / FRAMES))
        raise ManifestError(f"GTEA61: no clip under {root / FRAMES}; expected {_EXPECTED}; found {found or 'nothing'}")
    notes = [f"the folders do not tell their rate: {rate_fps:g} frames per second were assumed (--rate-fps)"]
    if not flow_trees:
        notes.append(f"no {' and '.join(FLOW.values())} under {root}: flow_x and flow_y are empty")
    if short:
        notes.append(f"{len(short)} clips have fewer than {MIN_FRAMES} frames, left out: {some(short)}")
    if gaps:
        notes.append(f"{len(gaps)} clips have fewer motion maps than frames: {some(gaps)}")
    notes += [f"{len(clips)} clips have no {what}: {some(clips)}" for what, clips in without.items() if clips]
    if TEST_USER not in {row["group"] for row in rows}:
        notes.append(f"user {TEST_USER} is not there: no clip is in split test")
    return manifest_from(rows, root, place="clip", notes=notes)


def _clips(root: Path) -> list[str]:
    """`S1/<action>/<inst>` of every instance folder, sorted."""
    top = root / FRAMES
    users = [name for name in _names(top) if _USER.match(name)]
    actions = [f"{user}/{action}" for user in users for action in _names(top / user)]
    return [f"{action}/{instance}" for action in actions for instance in _names(top / action)]


def _names(folder: Path) -> list[str]:
    return [name for name, is_folder in folder_entries(folder) if is_folder]


def _count(folder: Path, names: re.Pattern[str]) -> int:
    return sum(1 for name, is_folder in folder_entries(folder) if not is_folder and names.match(name))
