"""Reads weights files of strangers as plain tensors, and says clearly when they are of another network.

`.safetensors` holds nothing but tensors; `.pth`, `.pt` and `.bin` are read with `weights_only=True`, which
refuses to run code. A TorchScript archive is a program: only files whose sha256 is a published one are
opened (OpenAI ships CLIP that way).
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelbank.extract.weights.files import WeightsError, WeightsFile
from reelbank.manifests.files import regular

if TYPE_CHECKING:
    from torch import Tensor, nn

TRUSTED_TORCHSCRIPT = {
    # Published by OpenAI as a part of the download addresses of CLIP ViT-B/32, ViT-B/16, ViT-L/14 and RN50.
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
}

# Checkpoints wrap their tensors in one of these (training scripts, DINOv2's, timm's).
_WRAPPERS = ("state_dict", "model", "teacher")
_NAMES_SHOWN = 4


def read_state(file: WeightsFile) -> dict[str, Tensor]:
    """The named tensors of a weights file, on the CPU, in the dtype of the file.

    Raises:
        WeightsError: the file is damaged, holds other things than tensors, or would have to be executed.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = file.path
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        elif _is_torchscript(path):
            state = _torchscript_state(file)
        elif not _is_pytorch(path):
            raise WeightsError(f"{path}: not a readable weights file, expected PyTorch's .pth or .pt, or .safetensors")
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: refused, because it holds more than tensors and reading it could run code of its author; "
            f"convert it to .safetensors where you trust it ({_first_line(error)})"
        ) from error
    # torch's unpickler meets arbitrary bytes with whatever its stack machine stumbles over.
    except (
        RuntimeError,
        EOFError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
        OSError,
        SafetensorError,
    ) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"{path}: not a readable weights file, expected PyTorch's .pth or .pt, or .safetensors "
            f"({type(error).__name__}: {_first_line(error)})"
        ) from error
    return _tensors(path, state)


def _is_pytorch(path: Path) -> bool:
    """Whether the file begins as torch.save writes it: a zip archive, or a pickle of protocol 2 or later."""
    with regular(path).open("rb") as file:
        start = file.read(4)
    return start.startswith((b"PK", b"\x80"))


def fit_state(module: nn.Module, state: Mapping[str, Tensor], *, file: Path) -> dict[str, Tensor]:
    """The tensors of `state` in the dtypes of `module`, if they are exactly what it needs.

    Counters of seen batches, which old batch-norm checkpoints lack, are filled with 0.

    Raises:
        WeightsError: missing or unexpected tensors or other shapes, with their counts and the first few.
    """
    import torch

    wanted = module.state_dict()
    given = dict(state)
    for key in wanted.keys() - given.keys():
        if key.endswith(".num_batches_tracked"):
            given[key] = torch.zeros((), dtype=torch.int64)
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    misshapen = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    if missing or unexpected or misshapen:
        parts = [
            f"{len(names)} {what}: {', '.join(names[:_NAMES_SHOWN])}{', ...' if len(names) > _NAMES_SHOWN else ''}"
            for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
            if names
        ]
        raise WeightsError(
            f"{file}: these are weights of another network than {type(module).__name__} "
            f"({len(wanted)} tensors wanted, {len(state)} found): " + "; ".join(parts)
        )
    # Copies in torch's own memory: a tensor mapped from a file or transposed is aligned and laid out otherwise,
    # and the matrix kernels then round otherwise. The same weights must give the same bits on every way.
    return {key: torch.empty(tensor.shape, dtype=tensor.dtype).copy_(given[key]) for key, tensor in wanted.items()}


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _torchscript_state(file: WeightsFile) -> Mapping[str, Tensor]:
    import torch

    if file.sha256 not in TRUSTED_TORCHSCRIPT:
        raise WeightsError(
            f"{file.path}: a TorchScript archive is a program, and this one (sha256 {file.sha256}) is not a "
            "published one; convert its state dict to .safetensors where you trust it"
        )
    with warnings.catch_warnings():
        # Loading is deprecated in favour of export, which cannot read this published file.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        archive: Any = torch.jit
        state: Mapping[str, Tensor] = archive.load(file.path, map_location="cpu").state_dict()
    return state


def _tensors(path: Path, state: Any) -> dict[str, Tensor]:
    import torch

    while isinstance(state, Mapping) and (inner := next((k for k in _WRAPPERS if k in state), None)):
        if not isinstance(state[inner], Mapping):
            break
        state = state[inner]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"{path}: expected named tensors (a state dict), found {_contents(state)}")
    # nn.DataParallel puts this before every name.
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _contents(state: Any) -> str:
    if not isinstance(state, Mapping):
        return f"a {type(state).__name__}"
    names = ", ".join(f"{key!r}: {type(value).__name__}" for key, value in list(state.items())[:_NAMES_SHOWN])
    return f"a {type(state).__name__} of {len(state)} entries ({names})"
