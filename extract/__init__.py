"""Stage 1: decode, preprocess, forward, store. Public names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reelbank.manifests.lazy import lazy

__all__ = ["DecodeError", "FeaturizeConfig", "extract_as", "featurize"]

if TYPE_CHECKING:
    from reelbank.extract.config import FeaturizeConfig
    from reelbank.extract.errors import DecodeError
    from reelbank.extract.run.featurize import featurize
    from reelbank.extract.run.repeating import extract_as

    __version__: str
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "DecodeError": "reelbank.extract.errors",
            "FeaturizeConfig": "reelbank.extract.config",
            "extract_as": "reelbank.extract.run.repeating",
            "featurize": "reelbank.extract.run.featurize",
        },
    )
