"""Clips and features read once for several trainings, in one process or in many.

With a folder, features lie there as .npy files that every process maps: the kernel keeps one copy of them, however
many processes train. Files appear whole (a folder renamed into place), so whoever needs one first writes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from reelbank.heads.config import TrainConfig
from reelbank.heads.data import ClipTable, Features, load_features, load_table, open_sources
from reelbank.heads.events import Progress
from reelbank.heads.models import head_row
from reelbank.heads.normalization import Normalization
from reelbank.heads.training import Resident

_PARTS = ("arrays", "means", "variances")


class FeatureCache:
    """What trainings share. Features are kept as long as somebody uses them, tables as long as the cache lives.

    Args:
        folder: of the mapped files; None keeps features in this process only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._tables: dict[tuple[Any, ...], ClipTable] = {}
        self._features: WeakValueDictionary[str, Features] = WeakValueDictionary()
        self._keys: WeakValueDictionary[str, Resident] = WeakValueDictionary()

    def table(self, config: TrainConfig) -> ClipTable:
        """The clips that `config` can use. Raises what `open_sources` and `load_table` raise."""
        key = (config.store, config.tap, config.label, config.join, config.view)
        if key not in self._tables:
            sources = open_sources(config.store, config.tap)
            self._tables[key] = load_table(sources, label_column=config.label, join=config.join, view=config.view)
        return self._tables[key]

    def features(self, table: ClipTable, config: TrainConfig, progress: Progress | None = None) -> Features:
        """The features of `table` as the head of `config` reads them. Raises what `load_features` raises."""
        steps = head_row(config.head).needs_steps
        key = _digest(*map(str, config.store), *config.tap, config.join, config.view, config.label, steps, config.pool)
        found = self._features.get(key)
        if found is None:

            def load() -> Features:
                return load_features(table, needs_steps=steps, pool=config.pool, view=config.view, progress=progress)

            found = load() if self._folder is None else self._mapped_features(f"features-{key}", load)
            self._features[key] = found
        return found

    def resident(
        self, features: Features, normalization: Normalization, train: NDArray[np.int64], device: torch.device
    ) -> Resident:
        """`features` on `device`, normalised by the training rows `train` that `normalization` was fitted on."""
        names = [key for key, value in self._features.items() if value is features]
        if not names:
            return Resident.load(features, normalization, device)
        rows = train.tobytes().hex() if normalization.kind == "zscore" else ""
        key = _digest(*names, normalization.kind, rows, device)
        found = self._keys.get(key)
        if found is None:
            if self._folder is not None and device.type == "cpu" and features.mask.shape[1] == 1:
                arrays = self._mapped(
                    f"resident-{key}",
                    lambda: {k: v.numpy() for k, v in Resident.load(features, normalization, device).arrays.items()},
                )
                tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
                found = Resident(arrays=tensors, mask=features.mask, normalization=normalization)
            else:
                found = Resident.load(features, normalization, device)
            self._keys[key] = found
        return found

    def _mapped_features(self, name: str, load: Callable[[], Features]) -> Features:
        def parts() -> dict[str, NDArray[Any]]:
            loaded = load()
            whole = {"mask": loaded.mask.numpy(), "num_steps": loaded.num_steps}
            for part in _PARTS:
                entries = getattr(loaded, part)
                whole |= {f"{part}.{key}": np.asarray(values) for key, values in entries.items()}
            return whole

        found = self._mapped(name, parts)

        def under(part: str) -> dict[str, NDArray[Any]]:
            return {key.partition(".")[2]: value for key, value in found.items() if key.startswith(f"{part}.")}

        return Features(
            arrays={key: torch.from_numpy(value) for key, value in under("arrays").items()},
            mask=torch.from_numpy(found["mask"]),
            means=under("means"),
            variances=under("variances"),
            num_steps=found["num_steps"],
        )

    def _mapped(self, name: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        assert self._folder is not None
        folder = self._folder / name
        if not folder.is_dir():
            partial = self._folder / f".{name}.{os.getpid()}"
            partial.mkdir()
            names = []
            for number, (key, array) in enumerate(make().items()):
                np.save(partial / f"{number}.npy", array)
                names.append(key)
            (partial / "names").write_text("\n".join(names), encoding="utf-8")
            try:
                partial.rename(folder)
            except OSError:  # another process was first
                shutil.rmtree(partial)
        keys = (folder / "names").read_text(encoding="utf-8").split("\n")
        # Mode "c": torch wants writable memory; a write, which nothing does, would stay in this process.
        return {key: np.load(folder / f"{number}.npy", mmap_mode="c") for number, key in enumerate(keys)}


def _digest(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:24]
