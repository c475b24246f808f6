"""What this machine has, and what a manifest would ask of it."""

from __future__ import annotations

import importlib.util
import shutil
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelbank import manifests
from reelbank.extract import backbones
from reelbank.extract.config import FeaturizeConfig
from reelbank.extract.errors import DecodeError
from reelbank.extract.run.todo import versions
from reelbank.extract.video.plan import scan
from reelbank.extract.video.scan import HDR_TRANSFERS, SEEN_ASPECT
from reelbank.extract.video.stills import is_pictures
from reelbank.extract.video.timeline import COUNTED, LATE_SECONDS, REPAIRED
from reelbank.extract.weights.files import cached_file
from reelbank.manifests.events import Progress
from reelbank.manifests.finding import find_manifest
from reelbank.store.cores import available_cores
from reelbank.store.devices import unseen_gpu

# A scan reads whole files and decodes those whose container does not tell: the smallest, as long as they are this much.
MOST_SCANNED_BYTES = 2 * 2**30


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Findings, each a (topic, sentence)."""

    findings: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """{topic: [sentences]}."""
        found: dict[str, list[str]] = {}
        for topic, sentence in self.findings:
            found.setdefault(topic, []).append(sentence)
        return found

    def text(self) -> str:
        """A line per finding."""
        return "\n".join(f"{topic:<10}{sentence}" for topic, sentence in self.findings)


def examine(
    manifest: Path | None = None,
    folder: Path = Path(),
    *,
    run: FeaturizeConfig | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Looks at cores, devices, decoder, free disk and weights, and at the files of a manifest.

    Args:
        run: of which time and needs are told, too; a few clips are extracted for it.
        progress: told of those clips.

    Raises:
        ManifestError: the manifest named cannot be read.
        ValueError, ExtractionError: what `run` asks for cannot be done.
    """
    found = [("cores", f"{available_cores()} may be used: that many workers by default")]
    found += [("device", sentence) for sentence in _devices()]
    found.append(("versions", ", ".join(f"{name} {number}" for name, number in versions().items())))
    found.append(("disk", f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free in {folder.resolve()}"))
    for name in backbones.names():
        for source in backbones.describe(name).sources[:1]:
            path = cached_file(source)
            found.append(("weights", f"{name}: {path if path else f'{source.file_name} is not cached'}"))
    found.append(("parquet", "readable" if importlib.util.find_spec("pyarrow") else "needs reelbank[parquet]"))
    if run is not None and manifest is None:
        manifest = find_manifest()
    if manifest is not None:
        found += _manifest(manifest)
    if run is not None:
        from reelbank.extract.estimating import estimate

        found += estimate(run, progress)
    elif manifest is not None:
        found.append(("estimate", "with --model, as for featurize: seconds, bytes and memory of a run"))
    return Diagnosis(findings=tuple(found))


def _devices() -> list[str]:
    import torch

    if torch.backends.mps.is_available():
        return ["cpu; a GPU of Apple is here, and is asked for by featurize --device mps"]
    if not torch.cuda.is_available():
        return [unseen_gpu() or "cpu only; torch sees no GPU"]
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # longer than a file system allows, a loop of links
        return False


def _manifest(path: Path) -> list[tuple[str, str]]:
    table = manifests.read(path)
    splits = Counter(clip.split for clip in table.clips)
    found = [("manifest", f"{path}: {len(table)} clips; " + ", ".join(f"{k} {v}" for k, v in sorted(splits.items())))]
    missing = [c.clip_id for c in table.clips if (video := table.video_path(c)) is not None and not _is_there(video)]
    if missing:
        found.append(("manifest", f"{len(missing)} videos are not there, e.g. of clip {missing[0]!r}"))
    files = {v for c in table.clips if (v := table.video_path(c)) is not None and _is_there(v) and v.is_file()}
    if files:
        found.append(("manifest", f"{len(files)} video files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB"))
        videos = [path for path in files if not is_pictures(path)]
        found += [("videos", sentence) for sentence in _scanned(videos) if videos]
    for column in ("annotations", "flow_x", "flow_y", "motion_maps"):
        named = [p for clip in table.clips if (p := table.path_of(clip, column)) is not None]
        if named:
            found.append(("manifest", f"{column} of {len(named)} clips, {sum(map(_is_there, named))} of them there"))
    return found + [("manifest", note) for note in table.notes]


def _scanned(files: Collection[Path]) -> list[str]:
    """What stands in the way of features of these videos, or of their times: a sentence per kind, with an example."""
    left, num_scanned = MOST_SCANNED_BYTES, 0
    examples: dict[str, list[str]] = {}
    for path in sorted(files, key=lambda path: (path.stat().st_size, path)):
        left -= path.stat().st_size
        if left < 0:
            break
        num_scanned += 1
        for kind, example in _kinds(path).items():
            examples.setdefault(kind, []).append(example)
    said = f"{num_scanned} of {len(files)} were scanned" + (", the smallest" if num_scanned < len(files) else "")
    return [said, *(f"{len(found)} {kind}, e.g. {found[0]}" for kind, found in sorted(examples.items()))]


def _kinds(path: Path) -> dict[str, str]:
    """{what is the matter: the file, and what is known of it}."""
    try:
        found = scan(path)
    except DecodeError as error:
        return {"cannot be read": f"{path.name}: {error.reason}"}
    late, rate, damage = found.first_frame_seconds, float(found.rate_fps), {**found.lost, **found.damaged}
    kinds = {
        "end early": found.broken and f"{path.name}: {found.broken}",
        "have some wrong timestamps, repaired from their neighbours": found.time_source == REPAIRED and path.name,
        "have no usable timestamps and count at one rate": found.time_source == COUNTED
        and f"{path.name}: {rate:g} frames/s",
        "begin later than their file, where intervals count from": late >= LATE_SECONDS and f"{path.name}: {late:g} s",
        "have pixels that are not square (featurize --square-pixels)": abs(found.pixel_aspect - 1) > SEEN_ASPECT
        and f"{path.name}: {found.pixel_aspect}",
        "are HDR, whose pictures look pale": found.transfer in HDR_TRANSFERS.values()
        and f"{path.name}: {found.transfer}",
        "have damage inside": not found.broken and damage and f"{path.name}: {next(iter(damage.values()))}",
    }
    return {kind: example for kind, example in kinds.items() if example}
