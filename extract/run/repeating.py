"""Extracting as a store was made: its failed clips again, or other videos for a head that was trained on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import reelbank.store
from reelbank.extract import backbones
from reelbank.extract.config import FeaturizeConfig
from reelbank.extract.errors import ExtractionError
from reelbank.extract.inputs import views
from reelbank.extract.run.featurize import featurize
from reelbank.extract.run.report import REMARKS
from reelbank.extract.weights.files import WeightsError, WeightsFile, file_of_sum, given_file
from reelbank.extract.weights.runs import run_folder
from reelbank.manifests.datasets.folder import gather
from reelbank.manifests.delimited import SUFFIXES
from reelbank.manifests.events import Event, Progress
from reelbank.manifests.manifest import Manifest, ManifestError
from reelbank.manifests.reading import FORMATS, read, write
from reelbank.store.accepted import StrPath, paths_of
from reelbank.store.errors import StoreError
from reelbank.store.layout import FAILED, MISSING
from reelbank.store.spec import FeatureSpec

TABLES = frozenset((*FORMATS, *SUFFIXES))
"""Suffixes of tables of clips."""


def retry_config(
    path: Path, *, manifest: Path | None = None, weights: str | None = None, workers: int | None = None
) -> FeaturizeConfig | None:
    """The config that extracts the failed clips of the store at `path` again, and those that a repair has marked.

    None if there is none.

    Args:
        path: the store; its spec gives model, taps, sampling, resize, precision and seed.
        manifest: its manifest; None is the one it was made with, else as `featurize` finds it.
        weights: where the weights file or the training run is now, for a store made from one.
        workers: worker processes.

    Raises:
        StoreError: no store there, or it was made from a weights file or a run that is gone, and none is given.
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
    if kind in ("file", "run") and weights is None:
        asked = store.weights_asked
        if asked is None or not (asked.is_file() if kind == "file" else asked.is_dir()):
            what, give = ("weights file", "FILE") if kind == "file" else ("training run", "RUN")
            lay = asked or "that it does not name"
            raise StoreError(f"{path} was made from the {what} {lay}, which is not there; give --weights {give}")
        weights = str(asked)
    if manifest is None and (named := store.provenance.get("manifest")):
        own = path.parent / str(named)
        manifest = own if own.is_file() else None
    failed_clips = tuple(store.column("clip_id")[failed].tolist())
    weights = weights or (kind if kind in ("pretrained", "random") else None)
    return _config(
        [spec], manifest, str(path), weights, workers=workers, clip=failed_clips, retry_failed=True,
        target_columns=store.target_names,
        allow_group_overlap=True,  # a store that was not meant to hold such clips would not be there
    )  # fmt: skip


def extract_as(
    specs: Sequence[FeatureSpec],
    videos: StrPath | Iterable[StrPath],
    folder: StrPath,
    *,
    like: Sequence[Path] = (),
    weights: StrPath | Iterable[StrPath] = (),
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Writes the features of videos and images into new stores below `folder`, one for each spec and made as it says.

    This is what `reelbank.heads.predict_videos` is handed. Specs that differ in models and samplings alone are done in
    one pass over each video. The features are those that `featurize` gives of the same files, bit for bit; where draws
    are made, of clips with the same ids.

    Args:
        videos: files, folders (all that lies below them), or one manifest; see `reelbank.manifests.datasets.folder`.
        folder: is made; what an earlier call has left there is gone on with.
        like: where stores of these specs lie, or lay: they know where a weights file was taken from.
        weights: weights files and training runs, for specs whose weights came from such; each takes the one of its
            checksum.
        progress: called with each step, and with what a report of `featurize` says of the clips as notes.

    Returns:
        The stores, in the order of `specs`. Why a clip failed stands in them, as in any other.

    Raises:
        ExtractionError: features that were imported, or of models that read no videos.
        ManifestError: a file that is not there, or a folder without videos and images.
        SpecMismatch: this machine makes other features than a spec asks for; nothing was extracted.
        WeightsError: no weights of a spec's checksum are at hand.
    """
    (folder,) = paths_of("folder", folder, ExtractionError)
    for spec in specs:
        _refuse_without_videos(spec)
    chosen = _weights_of(specs, like, paths_of("weights", weights, ExtractionError))
    passes = _passes(specs, chosen)
    tell = _without(folder, progress)
    manifest = _manifest_of(paths_of("videos", videos, ExtractionError))
    for note in manifest.notes:
        tell(Event(stage="extract", done=0, total=0, note=note))
    stores: dict[int, Path] = {}
    for place, numbers in enumerate(passes):
        first, below = specs[numbers[0]], folder / str(place)
        clips = manifest.clips
        if len(first.views) > 1 and first.view_split != "all":
            clips = tuple(replace(clip, split=first.view_split) for clip in clips)
        below.mkdir(parents=True, exist_ok=True)
        write(replace(manifest, clips=clips), below / "manifest.csv", overwrite=True)
        config = _config(
            [specs[number] for number in numbers], below / "manifest.csv", str(below / "{model}.zarr"),
            chosen[numbers[0]], target_columns=manifest.target_names, allow_group_overlap=True,
        )  # fmt: skip
        report = featurize(config, tell, like={specs[number].backbone: specs[number] for number in numbers})
        for one in report.stores:
            for name, count in one.remarks.items():
                remark = REMARKS[name].format(n=f"{count} clip{'s' * (count != 1)}")
                tell(Event(stage="extract", done=len(clips), total=len(clips), note=f"{one.model}: {remark}"))
        stores |= {number: config.store_path(specs[number].backbone) for number in numbers}
    return tuple(stores[number] for number in range(len(specs)))


def _without(folder: Path, progress: Progress | None) -> Progress:
    """`progress` without what is said of the stores in a folder, which nobody asked for by name."""

    def tell(event: Event) -> None:
        if progress is not None:
            progress(replace(event, note="") if event.note.startswith(str(folder)) else event)

    return tell


def _passes(specs: Sequence[FeatureSpec], weights: Sequence[str | None]) -> list[list[int]]:
    """The numbers of specs that one run of `featurize` can do together: each model once, all else alike."""
    passes: dict[tuple[object, ...], list[int]] = {}
    for number, spec in enumerate(specs):
        alike = (spec.past_end, spec.resize, spec.square_pixels, spec.precision, spec.views, spec.view_split, spec.seed)
        before = sum(spec.backbone == other.backbone for other in specs[:number])
        passes.setdefault((*alike, spec.decoder, weights[number], before), []).append(number)
    return list(passes.values())


def _refuse_without_videos(spec: FeatureSpec) -> None:
    if spec.weights.get("kind") == "imported":
        raise ExtractionError(f"the features were imported from {spec.weights.get('source')}: no video gives them")
    if (source := backbones.describe(spec.backbone).source) != "video":
        raise ExtractionError(
            f"{spec.backbone} reads {source}, not videos; featurize them as the run's store was made and pass --store"
        )


def _manifest_of(videos: Sequence[Path]) -> Manifest:
    tables = [path for path in videos if path.suffix.lower() in TABLES and path.is_file()]
    if tables and len(videos) > 1:
        raise ManifestError(f"{tables[0]} is a table of clips: give it alone, or the videos without it")
    return read(tables[0], allow_group_overlap=True) if tables else gather(videos)


def _weights_of(specs: Sequence[FeatureSpec], like: Sequence[Path], offered: Sequence[str | Path]) -> list[str | None]:
    """`--weights` of each spec: what has its checksum among the `offered`, else as its store was made.

    Models without weights take what the others do, so that they share their pass.
    """
    folders = [folder for path in offered if (folder := run_folder(str(path))) is not None]
    files = [given_file(path) for path in offered if run_folder(str(path)) is None]
    by_sum = {file.sha256: str(file.path) for file in files}
    found: dict[str, str] = {}
    for number, spec in enumerate(specs):
        kind, sha256 = str(spec.weights.get("kind")), str(spec.weights.get("sha256"))
        store = like[number] if number < len(like) else None
        if sha256 in by_sum:
            found[spec.digest] = by_sum[sha256]
        elif kind == "file":
            found[spec.digest] = _file_of(sha256, spec.backbone, store, files)
        elif kind == "run":
            found[spec.digest] = _run_of(sha256, spec.backbone, store, folders)
        elif kind != "none":
            found[spec.digest] = kind
    if unused := sorted(path for path in (*by_sum.values(), *map(str, folders)) if path not in found.values()):
        wanted = ", ".join(f"{spec.backbone} {spec.weights.get('sha256') or 'none'}" for spec in specs)
        raise WeightsError(f"--weights {unused[0]}: its sha256 is not one that is asked for ({wanted})")
    usual = next(iter(found.values()), None)
    return [found.get(spec.digest, usual) for spec in specs]


def _file_of(sha256: str, backbone: str, store: Path | None, offered: Sequence[WeightsFile]) -> str:
    """The weights file of this checksum: where the store had it from, or in the folder for weights files."""
    recorded = _asked_of(store)
    if (path := file_of_sum(sha256, [] if recorded is None else [recorded])) is not None:
        return str(path)
    what = "has changed" if recorded and recorded.exists() else "is gone"
    lay = "" if recorded is None else f" (they were {recorded}, which {what})"
    not_it = f"; {offered[0].path} has another one, {offered[0].sha256}" if offered else ""
    raise WeightsError(
        f"{backbone} had weights from a file{lay}: give the file of sha256 {sha256} as --weights FILE{not_it}"
    )


def _run_of(sha256: str, backbone: str, store: Path | None, offered: Sequence[Path]) -> str:
    """The training run whose network has this checksum: one that is offered, or where the store had it from."""
    recorded = _asked_of(store)
    reasons = []
    for folder in (*offered, *([] if recorded is None else [recorded])):
        try:
            weights = backbones.build(backbone, weights=folder, device="cpu").weights
        except (WeightsError, OSError) as error:
            reasons.append(str(error))
        else:
            if weights["sha256"] == sha256:
                return str(folder)
            reasons.append(f"that of {folder} is {weights['sha256']}")
    why = f" ({'; '.join(reasons)})" if reasons else ""
    raise WeightsError(
        f"{backbone} had weights of a training run: give the run whose network has the sha256 {sha256} as --weights "
        f"RUN{why}"
    )


def _asked_of(store: Path | None) -> Path | None:
    """The weights file or the run that was named when the store was made; None where that is not known."""
    with suppress(ValueError, OSError, RuntimeError):  # a store may hold anything, and be gone
        return None if store is None else reelbank.store.open(store).weights_asked
    return None


def _config(
    specs: Sequence[FeatureSpec], manifest: Path | None, out: str, weights: str | None, **options: Any
) -> FeaturizeConfig:
    """Of specs that differ in what a model can have for itself alone."""
    first = specs[0]
    return FeaturizeConfig(
        model=tuple(spec.backbone for spec in specs),
        manifest=manifest,
        tap=tuple(f"{spec.backbone}={tap.name}" for spec in specs for tap in spec.taps),
        out=out,
        weights=weights,
        sampling=tuple(f"{spec.backbone}={spec.sampling}" for spec in specs),
        past_end=first.past_end,
        resize=first.resize,
        square_pixels=bool(first.square_pixels),
        decode="cpu" if first.decoder is None else "cuda",
        precision=first.precision,
        views=views.text_of(first.views),
        view_split=first.view_split,
        seed=first.seed,
        mapping=tuple(f"{ours}={theirs}" for ours, theirs in (first.annotation_columns or {}).items()),
        **options,
    )
