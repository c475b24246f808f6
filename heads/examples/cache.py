"""Clips and features read once for several trainings, in one process or in many.

With a folder, features lie there as .npy files that every process maps: the kernel keeps one copy of them, however
many processes train. Files appear whole (a folder renamed into place), so whoever needs one first writes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from reelbank.heads.config import DataConfig, TrainConfig
from reelbank.heads.examples.arrays import ArrayTap, read_array_table
from reelbank.heads.examples.batches import Held, hold
from reelbank.heads.examples.clips import ClipTable, read_table
from reelbank.heads.examples.copies import Copies
from reelbank.heads.examples.features import Features, StoredView, read_features
from reelbank.heads.examples.normalization import Normalization, fit_normalization
from reelbank.heads.examples.overlap import with_overlap
from reelbank.heads.examples.parting import parted
from reelbank.heads.examples.resident import Resident, home_of, pooled_copies
from reelbank.heads.examples.splits import Parts, effective_groups, parts_of
from reelbank.heads.features_config import FeaturesConfig
from reelbank.manifests.events import Progress
from reelbank.store.files import regular, writing

_PARTS = ("arrays", "means", "variances")


class FeatureCache:
    """What trainings share. Features are kept as long as somebody uses them, tables as long as the cache lives.

    Args:
        folder: of the mapped files; None keeps features in this process only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._tables: dict[tuple[Any, ...], ClipTable] = {}
        self._parts: dict[tuple[Any, ...], tuple[ClipTable, Parts]] = {}
        self._features: WeakValueDictionary[str, Features] = WeakValueDictionary()
        self._keys: WeakValueDictionary[str, Resident] = WeakValueDictionary()
        self._homes: dict[str, tuple[torch.device, str]] = {}

    def clips(self, config: TrainConfig) -> tuple[ClipTable, Parts]:
        """The clips that `config` can use, and their parts. Raises what `read_table` and `parts_of` raise."""
        data, features = config.data, config.features
        plan = config.head.plan
        key = (*_table_key(data, features), *(() if plan is None else plan.inputs))
        if key not in self._tables:
            self._tables[key] = read_table(data, features) if plan is None else read_array_table(data, features, plan)
        table, separator = self._tables[key], config.separator
        needs_val = not config.head.is_fitted
        key = (
            *key,
            data.folds,
            data.select_on,
            data.judge_clips,
            features.train_clips,
            config.seed,
            separator,
            needs_val,
            data.split_by,
            data.refit,
        )
        if key not in self._parts:
            groups = effective_groups(table.groups.tolist(), table.clip_ids.tolist())
            rule = data.split_rule
            table, notes = parted(table, rule, groups, seed=config.seed, separator=separator)
            parts = parts_of(
                table,
                data,
                train_clips=features.train_clips,
                seed=config.seed,
                separator=separator,
                needs_val=needs_val,
                notes=notes,
            )
            self._parts[key] = table, with_overlap(parts, refit=data.refit == "yes", always=not rule.is_own)
        return self._parts[key]

    def features(self, table: ClipTable, config: TrainConfig, progress: Progress | None = None) -> Features:
        """The features of `table` as the head of `config` reads them. Raises what `read_features` raises."""
        steps, read = config.head.needs_steps, config.features
        unit_steps = read.normalize == "l2" and not steps
        key = _digest(
            *_table_key(config.data, read), steps, read.pool, read.segments, read.train_views, unit_steps
        )  # fmt: skip
        found = self._features.get(key)
        if found is None:

            def load() -> Features:
                return read_features(table, read, needs_steps=steps, unit_steps=unit_steps, progress=progress)

            found = load() if self._folder is None else self._mapped_features(f"features-{key}", load)
            self._features[key] = found
        return found

    def held(self, tap: ArrayTap, views: NDArray[np.int64]) -> Held:
        """The steps of `views` of one input, as `hold` reads them; in the folder, where there is one."""
        if self._folder is None:
            return hold(tap, views)
        key = _digest(tap.store.path, tap.tap, *(one.tobytes().hex() for one in (tap.rows, tap.index, tap.mask, views)))

        def make() -> dict[str, NDArray[Any]]:
            made = hold(tap, views)
            return {"values": made.values.numpy(), "first": made.first}

        found = self._mapped(f"arrays-{key}", make)
        return Held(values=torch.from_numpy(found["values"]), first=np.asarray(found["first"]))

    def home(self, features: Features, num_bytes: int, device: torch.device) -> tuple[torch.device, str]:
        """`home_of` the `features`, decided once: the next training must not count what the last one has taken."""
        key = _digest(*(key for key, value in self._features.items() if value is features), num_bytes, device)
        if key not in self._homes:
            self._homes[key] = home_of(num_bytes, device)
        return self._homes[key]

    def resident(
        self,
        features: Features,
        table: ClipTable,
        copies: Copies | None,
        config: TrainConfig,
        train: NDArray[np.int64],
        device: torch.device,
        home: torch.device,
    ) -> Resident:
        """`features` of `table` with `copies`, normalised by the clips `train`, on `home` for training on `device`."""
        normalization = fit_normalization(features, train, config.features.normalize)
        found = self._resident(features, normalization, train, device, home)
        return found if copies is None else self._with_copies(found, copies, table, config, train)

    def _resident(
        self,
        features: Features,
        normalization: Normalization,
        train: NDArray[np.int64],
        device: torch.device,
        home: torch.device,
    ) -> Resident:
        names = [key for key, value in self._features.items() if value is features]
        if not names:
            return Resident.load(features, normalization, device, home)
        rows = train.tobytes().hex() if normalization.kind == "zscore" else ""
        key = _digest(*names, normalization.kind, rows, device, home)
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
                found = Resident.load(features, normalization, device, home)
            self._keys[key] = found
        return found

    def _with_copies(
        self,
        resident: Resident,
        copies: Copies,
        table: ClipTable,
        config: TrainConfig,
        train: NDArray[np.int64],
    ) -> Resident:
        """`resident` with the augmented copies of the clips `train`: made at each read, or at once where pooled."""
        if not copies.augmentations:
            return resident
        if config.head.needs_steps:
            return replace(resident, copies=copies)

        def make() -> dict[str, NDArray[Any]]:
            normalization = resident.normalization.to(torch.device("cpu"))
            made = pooled_copies(copies, table, config.features, normalization, train)
            return {key: torch.cat([array.cpu(), made[key]]).numpy() for key, array in resident.arrays.items()}

        if self._folder is None:
            arrays: Mapping[str, NDArray[Any]] = make()
        else:
            names = [key for key, value in self._keys.items() if value is resident]
            texts = [one.text for one in copies.augmentations]
            arrays = self._mapped(f"copies-{_digest(*names, *texts, copies.seed, train.tobytes().hex())}", make)
        tensors = {key: torch.from_numpy(array).to(resident.home) for key, array in arrays.items()}
        mask = torch.ones(len(next(iter(tensors.values()))), 1, device=resident.mask.device) > 0
        return replace(resident, arrays=tensors, mask=mask)

    def _mapped_features(self, name: str, load: Callable[[], Features]) -> Features:
        def parts() -> dict[str, NDArray[Any]]:
            loaded = load()
            whole = {"mask": loaded.mask.numpy(), "num_steps": loaded.num_steps}
            whole["unit_steps"] = np.array(loaded.unit_steps)
            whole |= {f"views.{view.number}": view.has for view in loaded.views}
            if loaded.step_index is not None:
                whole["step_index"] = loaded.step_index.numpy()
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
            step_index=torch.from_numpy(found["step_index"]) if "step_index" in found else None,
            unit_steps=bool(found["unit_steps"]),
            views=tuple(StoredView(number=int(number), has=has) for number, has in under("views").items()),
        )

    def _mapped(self, name: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        assert self._folder is not None
        folder = self._folder / name
        if not folder.is_dir():
            made = make()  # before there is a folder: what it refuses leaves nothing behind
            partial = self._folder / f".{name}.{os.getpid()}"
            with writing(folder):
                partial.mkdir()
                names = []
                for number, (key, array) in enumerate(made.items()):
                    np.save(partial / f"{number}.npy", array)
                    names.append(key)
                (partial / "names").write_text("\n".join(names), encoding="utf-8")
            try:
                partial.rename(folder)
            except OSError:  # another process was first
                shutil.rmtree(partial)
        keys = regular(folder / "names").read_text(encoding="utf-8").split("\n")
        # Mode "c": torch wants writable memory; a write, which nothing does, would stay in this process.
        return {key: np.load(regular(folder / f"{number}.npy"), mmap_mode="c") for number, key in enumerate(keys)}


def _table_key(data: DataConfig, features: FeaturesConfig) -> tuple[Any, ...]:
    return data.store, features.tap, data.label, data.join, features.view


def _digest(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:24]
