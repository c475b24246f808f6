"""Weights on disk: safetensors with a JSON header, so that a file from a stranger can hold numbers only.

`best.safetensors` is a predictor; `last.safetensors` is where a training stands. After a crash each is the old one or
the new one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.normalization import Normalization
from reelbank.heads.examples.targets import Bins
from reelbank.heads.models import HEADS, HeadShape, build_head, plan_of
from reelbank.heads.models.combination import Combination
from reelbank.heads.models.start import BEGUN_RANDOM, HEAD, WEIGHTS, Base, Start, base_of
from reelbank.heads.runs.directory import named_plugin, refuse_changed_plugins
from reelbank.heads.stored import PREDICTOR, PROGRESS, read_header, read_tensors
from reelbank.heads.training.trainer import Progression, Trainer
from reelbank.store.files import appearing, reading
from reelbank.store.tensor_files import HEADER


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Replaces `path` by a safetensors file with `header` as JSON under the key `reelbank`."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with appearing(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode  # as the umask asks; safetensors' own files are their owner's alone
        save_file(plain, partial, metadata={HEADER: json.dumps(header, sort_keys=True)})
        partial.chmod(mode)


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A trained head with all that is needed to apply it to another store.

    Attributes:
        labels: class names in the order of the logits, None without a class output.
        separator: what stands between several labels of one clip, which are then independent (`TrainConfig.separator`).
        bins: of the target output, None without one.
        segments: rule of the segments that it reads (`FeaturesConfig.segments`).
        estimate: the value that a distribution over the bins stands for (`HeadConfig.estimate`).
        unit_steps: whether it reads means of steps that were divided by their length (`Features.unit_steps`).
        sources: for each store of the training: {"spec": its FeatureSpec as JSON, "keys": {key: tap}, "readings": {key:
            its `Reading` as JSON} of taps that are not read as stored}.
        start: what a head that holds the rest of its backbone began with; what stayed as it was is left out.
        stage: of such a head.
        steps: frames that it reads of each clip (`FeaturesConfig.steps`).
        trained_on: `fingerprints` of the clips that trained it or chose its epoch, so that no later stage reports them.
    """

    head_name: str
    options: Mapping[str, Any]
    shape: HeadShape
    labels: tuple[str, ...] | None
    bins: Bins | None
    pool: str
    normalization: Normalization
    sources: tuple[Mapping[str, Any], ...]
    head: nn.Module
    segments: str | None = None
    estimate: str = "argmax"
    unit_steps: bool = False
    separator: str | None = None
    start: Start | None = None
    stage: str = ""
    steps: int = 0
    trained_on: str = ""

    def save(self, path: Path) -> None:
        """Writes the predictor to `path`."""
        kept: Mapping[str, Tensor] = self.head.state_dict()
        rests: Mapping[str, Any] = {}
        if self.start is not None:
            kept, rests = self.start.header(self.head)
        tensors = {f"{HEAD}{name}": value for name, value in kept.items()}
        for key in self.normalization.mean:
            tensors[f"normalisation.{key}.mean"] = self.normalization.mean[key]
            tensors[f"normalisation.{key}.scale"] = self.normalization.scale[key]
        header = {
            "format_version": 1,
            "head": self.head_name,
            "options": dict(self.options),
            "shape": self.shape.to_json(),
            "labels": None if self.labels is None else list(self.labels),
            "bins": None if self.bins is None else self.bins.to_json(),
            "pool": self.pool,
            "segments": self.segments,
            "estimate": self.estimate,
            "unit_steps": self.unit_steps,
            "separator": self.separator,
            "normalize": self.normalization.kind,
            "sources": [dict(source) for source in self.sources],
            "plugin": _head_identity(self.head_name),
        }
        if self.start is not None:
            header |= {"stage": self.stage, "steps": self.steps, "backbones": rests, "from": self.start.named}
            header |= {"trained_on": self.trained_on, BEGUN_RANDOM: list(self.start.random_backbones)}
        write_tensors(path, tensors, header)

    @classmethod
    def load(cls, path: Path, *, accept_changed_code: bool = False) -> Predictor:
        """The predictor in `path`, on the CPU.

        Args:
            accept_changed_code: whether a head that is a plug-in may have another source than when it was trained.

        Raises:
            TrainingError: the file is damaged or of another version, or its head is a plug-in that has changed.
            PluginError: its head is a plug-in that does not import.
        """
        tensors, header = read_tensors(path, PREDICTOR)
        if header.get("format_version") != 1:
            raise TrainingError(f"{path} has format {header.get('format_version')}, this version reads format 1")
        with reading(path, TrainingError):
            return cls._of(path, tensors, header, accept_changed_code=accept_changed_code)

    @classmethod
    def _of(
        cls, path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, accept_changed_code: bool
    ) -> Predictor:
        shape = HeadShape.from_json(header["shape"])
        bins = None if header["bins"] is None else Bins.from_json(header["bins"])
        _refuse_other_outputs(shape, header["labels"], bins)
        if plugin := header.get("plugin"):
            _refuse_missing_head(path, plugin)
            if not accept_changed_code:
                now = _head_identity(header["head"])
                refuse_changed_plugins(f"{path} was trained with", [plugin], [] if now is None else [now])
        weights = _under(tensors, HEAD)
        start = None
        try:
            left_out = _left_out(header)
            if HEADS.plugin(header["head"]) is None:
                # Without memory first: the header alone must not decide how much of it is asked for.
                with torch.device("meta"):
                    _refuse_other_shapes(build_head(header["head"], shape, header["options"]), weights, left_out)
            head = build_head(header["head"], shape, header["options"])
            if header.get("backbones"):
                start = _start(path, header, head)
                start.apply(head, whole=False)
            head.load_state_dict({**{name: head.state_dict()[name] for name in left_out}, **weights})
            if isinstance(head, Combination):
                head.check()
        except RuntimeError as error:
            raise TrainingError(f"{path}: the weights do not fit head {header['head']!r}: {error}") from error
        statistics = {
            kind: {key: _statistic(tensors, key, kind, width) for key, width in shape.taps.items()}
            if header["normalize"] == "zscore"
            else {}
            for kind in ("mean", "scale")
        }
        return cls(
            head_name=header["head"],
            options=header["options"],
            shape=shape,
            labels=None if header["labels"] is None else tuple(header["labels"]),
            bins=bins,
            pool=header["pool"],
            segments=header.get("segments"),
            estimate=header.get("estimate", "argmax"),
            unit_steps=header.get("unit_steps", False),
            separator=header.get("separator") or None,
            normalization=Normalization(kind=header["normalize"], **statistics),
            sources=tuple(header["sources"]),
            head=head,
            start=start,
            stage=header.get("stage", ""),
            steps=header.get("steps", 0),
        )


def _left_out(header: Mapping[str, Any]) -> list[str]:
    """Names in the head of the tensors that a checkpoint leaves to the backbone."""
    entries = header.get("backbones", {}).values()
    return [f"{entry['module']}.{name}" for entry in entries for name in entry["left_out"]]


def _start(path: Path, header: Mapping[str, Any], head: nn.Module) -> Start:
    """The backbones that the head of a checkpoint holds the rest of. Raises TrainingError for other weights."""
    plan = plan_of(header["head"], header["options"])
    if plan is None:
        raise ValueError(f"head {header['head']!r} has no backbone, and the file tells of one")
    bases, named = {}, [str(header["options"].get(WEIGHTS, "")), *header.get("from", ())]
    rests = tuple(rest for rest in plan.rests if rest.backbone in header["backbones"])
    for rest in rests:
        entry = header["backbones"][rest.backbone]
        if entry["weights"]["kind"] == "none":
            bases[rest.module] = Base(state={}, weights=entry["weights"])
            continue  # the file holds all of it
        base = bases[rest.module] = base_of(rest.backbone, entry["weights"], named)
        own = set(head.get_submodule(rest.module).state_dict())
        found = base.digest([*(name for name in base.state if name not in own), *entry["left_out"]])
        if found != entry["sha256"]:
            raise TrainingError(
                f"{path}: the frozen part of its {rest.backbone} has sha256 {entry['sha256']}, and that of the weights "
                f"here is {found}; put the weights there that it was trained with"
            )
    return Start(rests=rests, bases=bases)


def _refuse_other_outputs(shape: HeadShape, labels: Any, bins: Bins | None) -> None:
    """Raises ValueError where names or bins are not as many as what the head gives."""
    counts = {"label": None if labels is None else len(labels), "target": None if bins is None else bins.num_bins}
    if any(count not in (None, shape.outputs.get(name)) for name, count in counts.items()):
        raise ValueError(f"its outputs are {dict(shape.outputs)}, but it has {counts['label']} labels and bins {bins}")
    sizes = [size for array in shape.arrays.values() for size in (*array.shape, array.num_steps)]
    if min(0, *shape.taps.values(), *shape.outputs.values(), *sizes, shape.num_steps) < 0:
        raise ValueError(f"its shape is {shape}")


def _refuse_other_shapes(head: nn.Module, weights: Mapping[str, Tensor], left_out: Container[str] = ()) -> None:
    """Raises RuntimeError, as torch does, unless the weights, less those left out, have the shapes of the head's."""
    found = {name: tuple(value.shape) for name, value in weights.items()}
    wanted = {name: tuple(value.shape) for name, value in head.state_dict().items() if name not in left_out}
    if found != wanted:
        differing = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        raise RuntimeError(f"{differing[0]} is {found.get(differing[0])}, expected {wanted.get(differing[0])}")


def _statistic(tensors: Mapping[str, Tensor], key: str, kind: str, width: int) -> Tensor:
    values = tensors[f"normalisation.{key}.{kind}"]
    if tuple(values.shape) != (width,):
        raise ValueError(f"normalisation.{key}.{kind} is {tuple(values.shape)}, expected ({width},)")
    return values


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def save_progress(path: Path, trainer: Trainer) -> None:
    """Writes where `trainer` stands after whole epochs: weights that change, the best, optimiser and schedule."""
    state = trainer.state
    tensors = {f"{HEAD}{name}": value for name, value in trainer.changing().items()}
    tensors |= {f"best.{name}": value for name, value in state.best_weights.items()}
    for index, entries in trainer.optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if value is not None:
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    header = {
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "best_loss": state.best_loss,
        "best_accuracy": state.best_accuracy,
        "last_loss": state.last_loss,
        "stopped_early": state.stopped_early,
        "learning_rates": [group["lr"] for group in trainer.optimizer.param_groups],
        "schedule": None if trainer.schedule is None else _plain_state(trainer.schedule.state_dict()),
    }
    write_tensors(path, tensors, header)


def saved_epoch(path: Path) -> int:
    """Epochs done when `save_progress` wrote `path`; 0 if it does not exist."""
    if not path.exists():
        return 0
    try:
        return int(read_header(path, PROGRESS)["epoch"])
    except TrainingError as error:
        raise TrainingError(f"{error}; remove it, and its training starts again at the first epoch") from error


def _plain_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a schedule's state; the rest is made again by its constructor."""
    return {name: value for name, value in state.items() if isinstance(value, int | float | list)}


def load_progress(path: Path, trainer: Trainer) -> None:
    """Puts `trainer` where `save_progress` left another of the same job; its epochs may have grown.

    Raises:
        TrainingError: the file is damaged, or its weights are not laid out as those of this version.
    """
    tensors, header = read_tensors(path, PROGRESS)
    with reading(path, TrainingError):
        _restore(path, trainer, tensors, header)


def _restore(path: Path, trainer: Trainer, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    best = _under(tensors, "best.")
    try:
        still = frozenset(trainer.head.state_dict()) - frozenset(trainer.changing())
        for weights in (_under(tensors, HEAD), *([best] if best else [])):
            _refuse_other_shapes(trainer.head, weights, still)
        trainer.use_weights(_under(tensors, HEAD))
    except RuntimeError as error:
        raise TrainingError(
            f"{path}: the weights do not fit head {trainer.job.config.head.name!r}, perhaps another version "
            f"wrote them; train the run again with --overwrite in place of --resume: {error}"
        ) from error
    optimizer_state: dict[int, dict[str, Tensor]] = {}
    for name, value in _under(tensors, "optimizer.").items():
        index, entry = name.split(".", 1)
        optimizer_state.setdefault(int(index), {})[entry] = value
    whole = trainer.optimizer.state_dict()
    for group, rate in zip(whole["param_groups"], header["learning_rates"], strict=True):
        group["lr"] = rate
    trainer.optimizer.load_state_dict({"state": optimizer_state, "param_groups": whole["param_groups"]})
    if trainer.schedule is not None:
        trainer.schedule.load_state_dict({**trainer.schedule.state_dict(), **header["schedule"]})
    device = trainer.job.device
    trainer.state = Progression(
        epoch=header["epoch"],
        best_epoch=header["best_epoch"],
        best_loss=header["best_loss"],
        best_accuracy=header.get("best_accuracy", -math.inf),
        last_loss=header["last_loss"],
        stopped_early=header["stopped_early"],
        finished=header["stopped_early"] or header["epoch"] >= trainer.job.config.optimizer.epochs,
        best_weights={name: value.to(device) for name, value in best.items()},
    )


def _head_identity(name: str) -> dict[str, Any] | None:
    """The identity of head `name`; None for those of this package."""
    plugin = HEADS.plugin(name)
    return None if plugin is None else plugin.identity()


def _refuse_missing_head(path: Path, plugin: Mapping[str, Any]) -> None:
    """Raises TrainingError if the plug-in that the head at `path` is cannot be found here."""
    try:
        HEADS.find(plugin["name"])
    except ValueError as error:
        raise TrainingError(
            f"{path} needs {named_plugin(plugin)}: install the package or run where its module lies. {error}"
        ) from error
