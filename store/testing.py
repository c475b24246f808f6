"""Makes real stores from arrays: for tests, and for features that were computed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelbank.manifests import Clip, Manifest
from reelbank.store.accepted import StrPath
from reelbank.store.files import only_writer
from reelbank.store.reader import Store
from reelbank.store.spec import FeatureSpec, TapSpec
from reelbank.store.staging import ClipStage, stage_failure
from reelbank.store.writer import StoreWriter, clip_identity

_FIELDS = {"clip_id", "video", "split", "label", "group", "start_seconds", "end_seconds"}


def make_manifest(path: StrPath, clips: Sequence[Mapping[str, Any]]) -> Manifest:
    """A manifest of `clips`: {clip_id, label, split, group, any number = a target, any string = a text column}."""
    rows = []
    for given in clips:
        extra = {k: v for k, v in given.items() if k not in _FIELDS}
        rows.append(
            Clip(
                clip_id=given["clip_id"],
                video=given.get("video", ""),
                split=given.get("split", "train"),
                label=given.get("label", ""),
                start_seconds=given.get("start_seconds"),
                end_seconds=given.get("end_seconds"),
                group=given.get("group", ""),
                targets={k: float(v) for k, v in extra.items() if not isinstance(v, str)},
                text={k: v for k, v in extra.items() if isinstance(v, str)},
            )
        )
    targets = tuple(dict.fromkeys(name for clip in rows for name in clip.targets))
    texts = tuple(dict.fromkeys(name for clip in rows for name in clip.text))
    return Manifest(path=None, root=Path(path), clips=tuple(rows), target_names=targets, text_columns=texts, notes=())


def write_store(
    path: StrPath,
    features: Mapping[str, Sequence[NDArray[Any] | None]],
    clips: Sequence[Mapping[str, Any]],
    *,
    backbone: str = "imported",
    weights: Mapping[str, Any] | None = None,
    sampling: str = "all",
    fixed_steps: int | None = None,
    thumbnails: Sequence[NDArray[np.uint8] | None] | None = None,
    views: Mapping[str, Mapping[str, Sequence[NDArray[Any] | None]]] | None = None,
    frames: Sequence[Sequence[int]] | None = None,
    num_frames: Sequence[int] | None = None,
    frame_box: Sequence[Sequence[int]] | None = None,
    repeated_steps: Sequence[int] | None = None,
    codec: str = "none",
) -> Store:
    """Writes a store through the real writer.

    Args:
        path: the store's folder.
        features: {tap: one array (T, *axes) per clip, None for a clip that failed}.
        clips: what `make_manifest` takes.
        backbone, weights, sampling: of the spec.
        fixed_steps: T where every clip has the same number of steps.
        thumbnails: one (72, 96, 3) array per clip.
        views: {name of a further view: its `features`}; a clip whose first one is None has view 0 only.
        frames: for each clip the frame of each of its steps; None: 0, 1, 2, ...
        num_frames: frames of each clip; None: as many as steps.
        frame_box: for each clip where the frame lies in what is stored (`layout.FRAME_BOX`).
        repeated_steps: steps at the end of each clip that repeat the one before; None: not known.
        codec: of all taps, as of `TapSpec`.
    """
    path, others = Path(path), dict(views or {})
    taps = []
    for name, arrays in features.items():
        first = next(a for a in arrays if a is not None)
        axes = ("channel", "y", "x", "z")[: first.ndim - 1]
        taps.append(TapSpec(name=name, dtype=str(first.dtype), axes=axes, shape=first.shape[1:], codec=codec))
    spec = FeatureSpec(
        backbone=backbone,
        weights=weights or {"kind": "none"},
        taps=tuple(taps),
        sampling=sampling,
        views=("original", *others),
    )
    manifest = make_manifest(path.parent, clips)
    with only_writer(path):
        writer = StoreWriter.open_or_create(
            path, spec, fixed_steps=fixed_steps, num_clips=len(clips), provenance={"tool": "write_store"}
        )
        rows = writer.sync_manifest(manifest)
        by_unit: dict[int, list[Any]] = {}
        for i, row in enumerate(rows.tolist()):
            identity = clip_identity(manifest.clips[i], spec.digest, "")
            given = {tap: features[tap.name][i] for tap in taps}
            if any(a is None for a in given.values()):
                outcome = stage_failure(path, row, identity, {"reason": "no features given"}, None)
            else:
                extra = [
                    {tap: view[tap.name][i] for tap in taps}
                    for view in others.values()
                    if view[taps[0].name][i] is not None
                ]
                stage = ClipStage(path, row, tuple(taps), 1 + len(extra))
                steps = 0
                for tap, array in given.items():
                    assert array is not None
                    stage.append(tap, array)
                    steps = len(array)
                    for number, further in enumerate(extra, start=1):
                        found = further[tap]
                        assert found is not None
                        stage.append(tap, found, number)
                thumbnail = thumbnails[i] if thumbnails else None
                outcome = stage.finish(
                    identity,
                    {
                        "num_frames": num_frames[i] if num_frames else steps,
                        **({"frame_box": tuple(frame_box[i])} if frame_box else {}),
                        **({"repeated_steps": repeated_steps[i]} if repeated_steps else {}),
                    },
                    np.arange(steps) / 25.0,
                    np.asarray(frames[i]) if frames else np.arange(steps),
                    thumbnail,
                    None,
                )
            by_unit.setdefault(writer.geometry.unit_of(row), []).append(outcome)
        for unit, outcomes in by_unit.items():
            writer.commit(unit, outcomes, {"batch": 0, "device": "none"})
    return Store(path)
