"""What this machine has, and what a manifest would ask of it."""

from __future__ import annotations

import importlib.util
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelbank import manifests
from reelbank.extract import backbones
from reelbank.extract.run.todo import versions
from reelbank.extract.weights.files import cached_file
from reelbank.store.cores import available_cores
from reelbank.store.devices import unseen_gpu


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


def examine(manifest: Path | None = None, folder: Path = Path()) -> Diagnosis:
    """Looks at cores, devices, decoder, free disk and weights, and at the files of a manifest.

    Raises:
        ManifestError: the manifest named cannot be read.
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
    if manifest is not None:
        found += _manifest(manifest)
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
    for column in ("annotations", "flow_x", "flow_y", "motion_maps"):
        named = [p for clip in table.clips if (p := table.path_of(clip, column)) is not None]
        if named:
            found.append(("manifest", f"{column} of {len(named)} clips, {sum(map(_is_there, named))} of them there"))
    return found + [("manifest", note) for note in table.notes]
