"""The store: one Zarr group, one manifest under one FeatureSpec (see layout.py for the format).

Public names load on first use.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reelbank.manifests.lazy import lazy

__all__ = [
    "FeatureSpec", "Ledger", "SpecMismatch", "Store", "StoreError", "TapSpec",
    "diff", "export", "import_store", "merge", "open", "repair", "upgrade", "verify",
]  # fmt: skip

if TYPE_CHECKING:
    from reelbank.store.comparing import diff
    from reelbank.store.errors import SpecMismatch, StoreError
    from reelbank.store.exchange.exporting import export
    from reelbank.store.exchange.importing import import_store
    from reelbank.store.ledger import Ledger
    from reelbank.store.merging import merge
    from reelbank.store.reader import Store
    from reelbank.store.repairing import repair
    from reelbank.store.spec import FeatureSpec, TapSpec
    from reelbank.store.upgrading import upgrade
    from reelbank.store.verification import verify

    __version__: str
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "FeatureSpec": "reelbank.store.spec",
            "Ledger": "reelbank.store.ledger",
            "SpecMismatch": "reelbank.store.errors",
            "Store": "reelbank.store.reader",
            "StoreError": "reelbank.store.errors",
            "TapSpec": "reelbank.store.spec",
            "diff": "reelbank.store.comparing",
            "export": "reelbank.store.exchange.exporting",
            "import_store": "reelbank.store.exchange.importing",
            "merge": "reelbank.store.merging",
            "repair": "reelbank.store.repairing",
            "upgrade": "reelbank.store.upgrading",
            "verify": "reelbank.store.verification",
        },
    )


def open(path: Path | str) -> Store:
    """Opens a store for reading. Raises StoreError if `path` is not one."""
    from reelbank.store.reader import Store

    return Store(path)
