"""Makes torchvision importable beside a torch build that its compiled operators do not fit.

PyPI's torchvision wheel is built for CUDA. Beside a CPU-only torch its C++ library does not load, and
`import torchvision` fails with `operator torchvision::nms does not exist`, because its Python files
attach shape functions to operators that nobody declared. Declaring the two schemas makes models and
transforms work. With a matching build nothing is declared.
"""

from __future__ import annotations

import sys
from typing import Any

# Kept for the life of the process: a Library takes its declarations with it when it is collected.
_LIBRARIES: list[Any] = []

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def ensure() -> None:
    """Imports torchvision, declaring its missing operators first if need be. Call before torchvision or timm.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: torchvision fails to import for another reason than the missing operators.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declare_operators()
        # The failed import leaves half-made submodules behind; they must not be found again.
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision  # noqa: F401


def _declare_operators() -> None:
    import torch

    # Any: torch leaves this class without annotations.
    library: Any = torch.library
    library = library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _LIBRARIES.append(library)
