"""A finished training run as weights of a backbone: the tensors that it trained, and what says which the others are.

The run's `best.safetensors` is a predictor; a head that trains layers of a backbone keeps them there. In its header,
under `backbones`, stands for each backbone by its name:

    prefix    what the names of its tensors begin with in the file; behind it they are torchvision's
    weights   the `weights` of a store's spec: of the network before the training. Tensors that are not in the file are
              those of that network
    sha256    `reelbank.extract.backbones.identity.rest_digest` of the tensors that are not in the file
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelbank.extract.weights.files import WeightsError
from reelbank.store.tensor_files import tensor_file

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT, RESULTS = "best.safetensors", "results.json"
_FOLD = re.compile(r"fold-\d+")
_TEXT = (str, None)
_WEIGHTS = {"kind": str, "seed?": int, "sha256?": _TEXT, "base?": _TEXT, "*": object}
_KINDS = {"head?": str, "backbones?": {"*": {"prefix": str, "weights": _WEIGHTS, "sha256": str}}, "*": object}
_BASES = {
    "file": "a weights file",
    "pretrained": "the published weights",
    "random": "random weights",
    "run": "weights of another run",
}


@dataclass(frozen=True, kw_only=True)
class RunWeights:
    """What a run holds of one backbone.

    Attributes:
        path: the file.
        name: of the run; of one fold of it, run/fold.
        prefix: what the names of its tensors begin with in the file.
        base: `weights` of the network that the others are of.
        sha256: digest of those others.
    """

    path: Path
    name: str
    prefix: str
    base: Mapping[str, Any]
    sha256: str

    def tensors(self) -> dict[str, Tensor]:
        """What the run trained, by the names that torchvision gives it. Raises WeightsError for a damaged file."""
        with tensor_file(self.path, _KINDS, WeightsError) as (file, _):
            names = [name for name in file.keys() if name.startswith(self.prefix)]  # noqa: SIM118 (no mapping)
            return {name.removeprefix(self.prefix): file.get_tensor(name) for name in names}

    @property
    def began_with(self) -> str:
        """What the tensors that the run does not hold are of, in words."""
        kind, sha256 = str(self.base["kind"]), self.base.get("sha256")
        named = _BASES.get(kind, f"weights of kind {kind!r}")
        return named + (f", seed {self.base.get('seed', 0)}" if kind == "random" else f" of sha256 {sha256}")

    @property
    def origin(self) -> str:
        """The kind of weights that the run began with, also where it began with those of another run."""
        kind = str(self.base["kind"])
        return str(self.base.get("base") or kind) if kind == "run" else kind


def run_folder(weights: str) -> Path | None:
    """The folder that `--weights` names, None where it names none."""
    path = Path(os.path.expanduser(weights))  # noqa: PTH111  # that of Path raises where nobody has the name
    return path if path.is_dir() else None


def read_run(folder: Path, backbone: str) -> RunWeights:
    """What the run at `folder` holds of `backbone`; no tensor is read yet.

    Raises:
        WeightsError: no finished run, one whose head trained no backbone or another one, or a damaged file.
    """
    path = _checkpoint(folder)
    with tensor_file(path, _KINDS, WeightsError) as (_, header):
        entry = _entry(folder, header, backbone)
    return RunWeights(
        path=path,
        name=path.parent.relative_to(_run_of(path.parent).parent).as_posix(),
        prefix=entry["prefix"],
        base=entry["weights"],
        sha256=entry["sha256"],
    )


def runs_beside(run: RunWeights, backbone: str) -> Iterator[RunWeights]:
    """Other finished runs of this backbone in the folder that `run` lies in."""
    for folder in sorted(_run_of(run.path.parent).parent.iterdir()):
        if folder != run.path.parent and folder.is_dir():
            with suppress(WeightsError, OSError):
                yield read_run(folder, backbone)


def _run_of(folder: Path) -> Path:
    """The run that a folder is, or is one fold of."""
    return folder.parent if _FOLD.fullmatch(folder.name) else folder


def _checkpoint(folder: Path) -> Path:
    """The file of a finished run. Raises WeightsError for a folder that is none."""
    path = folder.resolve() / CHECKPOINT
    is_finished = (_run_of(path.parent) / RESULTS).is_file()
    if path.is_file() and is_finished:
        return path
    folds = sorted(one.name for one in folder.glob("fold-*") if (one / CHECKPOINT).is_file())
    if folds and is_finished:
        raise WeightsError(
            f"--weights {folder}: a run of {len(folds)} folds, each with weights of its own; name one, as in "
            f"{folder / folds[0]}"
        )
    absent = RESULTS if path.is_file() else CHECKPOINT
    raise WeightsError(
        f"--weights {folder}: a folder without {absent}, so no finished training run; give pretrained, random, a "
        "weights file or the folder of a run that trained the backbone"
    )


def _entry(folder: Path, header: Mapping[str, Any], backbone: str) -> Mapping[str, Any]:
    """What the header says of the backbone."""
    entries: Mapping[str, Any] = header.get("backbones", {})
    if not entries:
        raise WeightsError(
            f"--weights {folder}: its head {header.get('head', 'of no name')!r} trained no backbone; only a head that "
            "goes on training layers of one keeps them (see `reelbank heads`)"
        )
    if backbone not in entries:
        raise WeightsError(
            f"--weights {folder}: the run trained {', '.join(sorted(entries))}, not {backbone}; ask for "
            f"--model {min(entries)}, or give {backbone} other weights in a run of its own"
        )
    found: Mapping[str, Any] = entries[backbone]
    return found
