"""A file of tensors with a header of ours, as training runs keep them: safetensors, JSON under the key `reelbank`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reelbank.store.files import json_object, reading, regular
from reelbank.store.kinds import check_kinds

HEADER = "reelbank"
"""Key of the header's JSON in the metadata of the file."""


@contextmanager
def tensor_file(path: Path, kinds: Mapping[str, Any], kind: type[ValueError]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """(the open file of `safetensors`, its header, which is of `kinds`); no tensor is read yet.

    Raises `kind` for a file that is none of these, or damaged, and FileNotFoundError.
    """
    from safetensors import SafetensorError, safe_open

    with reading(path, kind):
        try:
            with safe_open(regular(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if HEADER not in metadata:
                    raise kind(f"{path} is not a checkpoint of reelbank: it has no header of a training run")
                header = json_object(metadata[HEADER])
                check_kinds(header, dict(kinds), "")
                yield file, header
        except SafetensorError as error:
            raise kind(f"{path} is not a checkpoint of reelbank: {error}") from error
