"""The table of clips: reading, checking and writing it, official data sets, and a rendered one.

Public names load on first use, so that `reelbank --help` pays for none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reelbank.manifests.manifest import Clip, Manifest, ManifestError
    from reelbank.manifests.reading import read, write

__all__ = ["Clip", "Manifest", "ManifestError", "read", "write"]

_PUBLIC = {
    "Clip": "reelbank.manifests.manifest",
    "Manifest": "reelbank.manifests.manifest",
    "ManifestError": "reelbank.manifests.manifest",
    "read": "reelbank.manifests.reading",
    "write": "reelbank.manifests.reading",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'reelbank.manifests' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
