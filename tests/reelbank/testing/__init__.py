"""What every backbone, head, loss, metric and reader keeps to, as functions that a plug-in's test calls: one line each.

    from reelbank import testing

    def test_histogram() -> None:
        testing.check_backbone("histogram")

A name is asked for as on the command line: an entry point's name, or `module:attribute`; a function may be given
itself. Every `check_...` raises AssertionError that says which check failed and how. They need no pytest.
The same checks run for reelbank's own rows, one test each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reelbank.manifests.lazy import lazy

__all__ = [
    "check_backbone",
    "check_dataset",
    "check_head",
    "check_loss",
    "check_metric",
    "make_manifest",
    "write_store",
]

if TYPE_CHECKING:
    from reelbank.store.testing import make_manifest, write_store
    from reelbank.testing.backbones import check_backbone
    from reelbank.testing.datasets import check_dataset
    from reelbank.testing.heads import check_head
    from reelbank.testing.losses import check_loss
    from reelbank.testing.metrics import check_metric

    __version__: str
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "check_backbone": "reelbank.testing.backbones",
            "check_dataset": "reelbank.testing.datasets",
            "check_head": "reelbank.testing.heads",
            "check_loss": "reelbank.testing.losses",
            "check_metric": "reelbank.testing.metrics",
            "make_manifest": "reelbank.store.testing",
            "write_store": "reelbank.store.testing",
        },
    )
