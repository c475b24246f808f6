"""Which manifest a command means when none is named."""

from __future__ import annotations

import os
from pathlib import Path

from reelbank.manifests.manifest import ManifestError

VARIABLE = "REELBANK_MANIFEST"


def find_manifest(folder: Path = Path()) -> Path:
    """`$REELBANK_MANIFEST`, else `manifest.csv`, else the single CSV under `manifests/`.

    Raises:
        ManifestError: there is none, or there are several; what was looked for is listed.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    if (folder / "manifest.csv").is_file():
        return folder / "manifest.csv"
    found = sorted((folder / "manifests").glob("*.csv"))
    if len(found) == 1:
        return found[0]
    if found:
        raise ManifestError(
            f"{folder.resolve()}/manifests holds {len(found)} CSV files: {', '.join(p.name for p in found)}; "
            "choose one with --manifest"
        )
    raise ManifestError(
        f"no manifest: ${VARIABLE} is not set, and {folder.resolve()} has no manifest.csv and no CSV under manifests/; "
        "name one with --manifest, or make one: `reelbank manifest folder VIDEOS --out manifest.csv`"
    )
