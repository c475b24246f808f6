"""Extracting as a store was made: its failed clips again, or other videos for a head that was trained on it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import reelbank.store
from reelbank.extract import backbones
from reelbank.extract.config import FeaturizeConfig
from reelbank.extract.errors import ExtractionError
from reelbank.extract.inputs import views
from reelbank.extract.run.featurize import featurize
from reelbank.manifests.manifest import Clip, Manifest
from reelbank.manifests.reading import write
from reelbank.manifests.validation import derive_ids
from reelbank.store.accepted import StrPath, paths_of
from reelbank.store.errors import StoreError
from reelbank.store.layout import FAILED, MISSING
from reelbank.store.spec import FeatureSpec


def retry_config(
    path: Path, *, manifest: Path | None = None, weights: str | None = None, workers: int | None = None
) -> FeaturizeConfig | None:
    """The config that extracts the failed clips of the store at `path` again, and those that a repair has marked.

    None if there is none.

    Args:
        path: the store; its spec gives model, taps, sampling, resize, precision and seed.
        manifest: its manifest; None is the one it was made with, else as `featurize` finds it.
        weights: where the weights file is now, for a store made from one.
        workers: worker processes.

    Raises:
        StoreError: no store there, or it was made from a weights file and none is given.
    """
    store = reelbank.store.open(path)
    marked = (store.clips.status == MISSING) & (store.clips.reason != "")
    failed = ((store.clips.status == FAILED) | marked) & (store.clips.in_manifest == 1)
    if not failed.any():
        return None
    spec = store.spec
    kind = str(spec.weights.get("kind"))
    if kind == "imported":
        raise StoreError(
            f"{path} was imported from {spec.weights.get('source')}: no video is extracted into it; add the missing "
            "arrays there and import again"
        )
    if kind == "file" and weights is None:
        weights = str(store.provenance.get("weights", {}).get("asked", ""))
        if not Path(weights).is_file():
            raise StoreError(
                f"{path} was made from the weights file {weights}, which is not there; give --weights FILE"
            )
    if manifest is None and (named := store.provenance.get("manifest")):
        own = path.parent / str(named)
        manifest = own if own.is_file() else None
    failed_clips = tuple(store.column("clip_id")[failed].tolist())
    return _config(
        spec, manifest, path, weights, workers=workers, clip=failed_clips, retry_failed=True,
        target_columns=store.target_names,
        allow_group_overlap=True,  # a store that was not meant to hold such clips would not be there
    )  # fmt: skip


def extract_as(
    spec: FeatureSpec, videos: StrPath | Iterable[StrPath], store: StrPath, *, weights: StrPath | None = None
) -> None:
    """Writes the features of `videos`, a clip each, into a new store that is made as `spec` says.

    This is what `reelbank.heads.predict_videos` is handed. A clip is called as its file, without the suffix; where two
    files have one name, as its path.

    Args:
        weights: the weights file, for a spec whose weights came from one.

    Raises:
        ExtractionError: a video that is not there, none that can be read, features that were imported. Why single
            videos failed stands in the store, as in any other.
    """
    videos, (store,) = paths_of("videos", videos, ExtractionError), paths_of("store", store, ExtractionError)
    kind = str(spec.weights.get("kind"))
    if kind == "imported":
        raise ExtractionError(f"the features were imported from {spec.weights.get('source')}: no video gives them")
    if (source := backbones.describe(spec.backbone).source) != "video":
        raise ExtractionError(
            f"{spec.backbone} reads {source}, not videos; featurize them as the run's store was made and pass --store"
        )
    if kind == "file" and weights is None:
        raise ExtractionError("the features are made by weights from a file; give --weights FILE")
    if missing := [str(video) for video in videos if not video.exists()]:
        raise ExtractionError(f"{len(missing)} of {len(videos)} videos are not there (the first: {missing[0]})")
    names = [video.name for video in videos]
    called = names if len(set(names)) == len(names) else [str(video) for video in videos]
    ids = derive_ids([(name, "", "") for name in called])
    clips = tuple(
        Clip(clip_id=clip_id, video=str(video.absolute()), split="test")
        for clip_id, video in zip(ids, videos, strict=True)
    )
    manifest = store.with_suffix(".csv")
    write(Manifest(path=None, root=store.parent, clips=clips), manifest)
    report = featurize(_config(spec, manifest, store, weights))
    if len(failures := report.stores[0].failures) == len(videos):
        clip_id, why = next(iter(failures.items()))
        raise ExtractionError(f"none of {len(videos)} videos gives features (the first, {clip_id}: {why})")


def _config(
    spec: FeatureSpec, manifest: Path | None, out: Path, weights: StrPath | None, **options: Any
) -> FeaturizeConfig:
    kind = str(spec.weights.get("kind"))
    return FeaturizeConfig(
        model=(spec.backbone,),
        manifest=manifest,
        tap=tuple(tap.name for tap in spec.taps),
        out=str(out),
        weights=weights or (kind if kind in ("pretrained", "random") else None),
        sampling=(spec.sampling,),
        past_end=spec.past_end,
        resize=spec.resize,
        square_pixels=bool(spec.square_pixels),
        precision=spec.precision,
        views=views.text_of(spec.views),
        view_split=spec.view_split,
        seed=spec.seed,
        mapping=tuple(f"{ours}={theirs}" for ours, theirs in (spec.annotation_columns or {}).items()),
        **options,
    )
