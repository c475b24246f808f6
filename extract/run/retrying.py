"""Doing the failed clips of a store again, exactly as the others were done."""

from __future__ import annotations

from pathlib import Path

import reelbank.store
from reelbank.extract.config import FeaturizeConfig
from reelbank.extract.inputs import views
from reelbank.store.errors import StoreError
from reelbank.store.layout import FAILED


def retry_config(
    path: Path, *, manifest: Path | None = None, weights: str | None = None, workers: int | None = None
) -> FeaturizeConfig | None:
    """The config that extracts the failed clips of the store at `path` again; None if none has failed.

    Args:
        path: the store; its spec gives model, taps, sampling, resize, precision and seed.
        manifest: its manifest; None is the one it was made with, else as `featurize` finds it.
        weights: where the weights file is now, for a store made from one.
        workers: worker processes.

    Raises:
        StoreError: no store there, or it was made from a weights file and none is given.
    """
    store = reelbank.store.open(path)
    failed = (store.clips.status == FAILED) & (store.clips.in_manifest == 1)
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
    return FeaturizeConfig(
        model=(spec.backbone,),
        manifest=manifest,
        clip=tuple(store.column("clip_id")[failed].tolist()),
        tap=tuple(tap.name for tap in spec.taps),
        out=str(path),
        weights=weights or (kind if kind in ("pretrained", "random") else None),
        sampling=(spec.sampling,),
        past_end=spec.past_end,
        resize=spec.resize,
        precision=spec.precision,
        views=views.text_of(spec.views),
        view_split=spec.view_split,
        seed=spec.seed,
        workers=workers,
        retry_failed=True,
    )
