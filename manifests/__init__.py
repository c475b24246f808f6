"""The table of clips: reading, checking and writing it, official data sets, and a rendered one.

Public names load on first use, so that `reelbank --help` pays for none of them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if sys.platform == "win32":  # here, because every stage imports this package first
    raise ImportError(
        "reelbank runs on Linux and macOS, not on Windows itself, which lacks the file locks that it needs: "
        "install WSL2 (`wsl --install` in PowerShell), and reelbank in its Linux"
    )

from reelbank.manifests.lazy import lazy

__all__ = ["Clip", "Manifest", "ManifestError", "PluginError", "read", "write"]

if TYPE_CHECKING:
    from reelbank.manifests.manifest import Clip, Manifest, ManifestError
    from reelbank.manifests.plugins import PluginError
    from reelbank.manifests.reading import read, write

    __version__: str
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "Clip": "reelbank.manifests.manifest",
            "Manifest": "reelbank.manifests.manifest",
            "ManifestError": "reelbank.manifests.manifest",
            "PluginError": "reelbank.manifests.plugins",
            "read": "reelbank.manifests.reading",
            "write": "reelbank.manifests.reading",
        },
    )
