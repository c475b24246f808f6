"""The readers behind `reelbank manifest NAME`: one file and one row each.

A reader takes a folder or file and keyword options, and returns a `Manifest`; it writes nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from reelbank.manifests.manifest import Manifest, ManifestError

READERS: dict[str, str] = {
    "csv": "reelbank.manifests.csv_map:read_csv",
    "folder": "reelbank.manifests.folder:read_folder",
    "hmdb51": "reelbank.manifests.hmdb51:read_hmdb51",
    "ucf101": "reelbank.manifests.ucf101:read_ucf101",
}


def reader(name: str) -> Callable[..., Manifest]:
    """The function of one row of `READERS`.

    Raises:
        ManifestError: no such reader; the known ones are listed.
    """
    if name not in READERS:
        raise ManifestError(f"there is no reader {name!r}; choose one of {', '.join(sorted(READERS))}")
    module, function = READERS[name].split(":")
    found: Callable[..., Manifest] = getattr(importlib.import_module(module), function)
    return found
