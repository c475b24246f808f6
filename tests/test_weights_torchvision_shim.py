"""torchvision imports beside any torch build, and a build that fits is left alone."""

from __future__ import annotations

import subprocess
import sys

from reelbank.extract.weights import torchvision_shim


def test_torchvision_and_timm_import_after_ensure_without_warnings() -> None:
    code = (
        "from reelbank.extract.weights import torchvision_shim as s; s.ensure(); s.ensure();"
        "import timm, torch, torchvision; assert len(s._LIBRARIES) <= 1;"
        "torch.ops.torchvision.nms; torchvision.models.resnet18(weights=None)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


def test_nothing_is_declared_where_torchvision_imports() -> None:
    torchvision_shim.ensure()
    declared = list(torchvision_shim._LIBRARIES)
    torchvision_shim.ensure()
    assert declared == torchvision_shim._LIBRARIES
