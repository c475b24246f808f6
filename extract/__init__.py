"""Stage 1: decode, preprocess, forward, store. Public names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reelbank.extract.config import FeaturizeConfig
    from reelbank.extract.errors import DecodeError
    from reelbank.extract.run.featurize import featurize

__all__ = ["DecodeError", "FeaturizeConfig", "featurize"]

_PUBLIC = {
    "DecodeError": "reelbank.extract.errors",
    "FeaturizeConfig": "reelbank.extract.config",
    "featurize": "reelbank.extract.run.featurize",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'reelbank.extract' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
