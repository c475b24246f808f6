"""What a training takes of its device's memory, and what is said where that does not suffice."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reelbank.heads.errors import TrainingError
from reelbank.store.devices import is_out_of_memory


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, counts the bytes of all tensors that operations make, on any device.

    Attributes:
        most: what was held at the worst moment, beyond what was there before.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        operation: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        given = {
            tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)
        }
        made = operation(*args, **kwargs)
        for tensor in tree_leaves(made):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            key, num_bytes = storage._cdata, storage.nbytes()
            if key not in given and key not in self._known:  # neither a view nor written in place
                self._known.add(key)
                self._now += num_bytes
                self.most = max(self.most, self._now)
                weakref.finalize(storage, self._freed, key, num_bytes)
        return made

    def _freed(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self._now -= num_bytes


def does_not_fit(device: torch.device, batch: int) -> TrainingError:
    """The error of one training whose step is too large."""
    instead = "" if device.type == "cpu" else ", or --device cpu"
    return TrainingError(
        f"the memory of {device} does not suffice to train with {batch} clips per step; pass a smaller --batch{instead}"
    )


@contextmanager
def fitting(device: torch.device, batch: int) -> Iterator[None]:
    """Raises TrainingError, `does_not_fit`, where memory runs out inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise does_not_fit(device, batch) from error
