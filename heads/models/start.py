"""What a head that holds the rest of its backbone begins with: the backbone's weights, and what earlier stages trained.

A checkpoint of such a head holds what was trained; the tensors that still are the backbone's are left out of it and
are known by the sha256 of their bytes (of random weights, whose last bits differ between machines, by that of their
recipe). Whoever loads it takes them from the same weights and compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reelbank.extract import backbones
from reelbank.extract.backbones.identity import rest_digest
from reelbank.heads.errors import TrainingError
from reelbank.heads.models import HEADS, HeadShape, plan_of
from reelbank.heads.models.plans import HeadPlan, Rest
from reelbank.heads.stored import read_header, read_tensors
from reelbank.store.devices import cpu_threads
from reelbank.store.spec import are_random

CHECKPOINT = "best.safetensors"
HEAD = "head."
BEGUN_RANDOM = "begun_random"
"""Of a checkpoint's header: backbones that its run began with and that nobody had trained."""
WEIGHTS = "weights"
"""The option of a head that says which weights its backbone has where no store says it."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """A backbone's network as it was before anything of it was trained here.

    Attributes:
        state: its tensors by name.
        weights: where they come from, as a store's spec says it.
        found_at: the file or the run that they were read from; '' where their record says it.
    """

    state: Mapping[str, Tensor]
    weights: Mapping[str, Any]
    found_at: str = ""

    def digest(self, names: Iterable[str]) -> str:
        """What the tensors called `names` are known by."""
        return rest_digest({name: self.state[name] for name in names}, self.weights)


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a head begins with.

    Attributes:
        bases: {module: the network whose rest it is}.
        trained: {name in the head: tensor} of earlier runs.
        runs: (run, its head, its stage) of them.
        gives: {backbone: module}, see `HeadPlan`.
        begun_random: backbones of `runs` that began, they or runs before them, with weights that were never trained.
    """

    rests: tuple[Rest, ...] = ()
    bases: Mapping[str, Base] = field(default_factory=dict)
    trained: Mapping[str, Tensor] = field(default_factory=dict)
    runs: tuple[tuple[Path, str, str], ...] = ()
    gives: Mapping[str, str] = field(default_factory=dict)
    begun_random: tuple[str, ...] = ()

    @property
    def named(self) -> list[str]:
        """Runs and files of weights that it was made of, where they lay: a checkpoint needs them again."""
        files = [base.found_at for base in self.bases.values() if base.found_at]
        return [*(str(run) for run, *_ in self.runs), *dict.fromkeys(files)]

    def apply(self, head: nn.Module, *, whole: bool = True) -> None:
        """Puts the backbones' tensors and then those of earlier runs into `head`.

        Args:
            whole: whether all of the backbones must have come from there; False: the rest is loaded after this.

        Raises TrainingError for tensors of a run that the head does not have, or in another shape, and for tensors of a
        backbone that nothing gives.
        """
        with torch.no_grad():
            for rest in self.rests:
                for name, tensor in _own(head, rest.module).items():
                    base = self.bases[rest.module].state.get(name)
                    if base is not None and base.shape == tensor.shape:
                        tensor.copy_(base)
                    elif whole and f"{rest.module}.{name}" not in self.trained:
                        raise TrainingError(
                            f"the head's {rest.backbone} has a tensor {name!r} {tuple(tensor.shape)} that its weights "
                            "do not have: they are of another network"
                        )
            state = head.state_dict()
            for name, value in self.trained.items():
                if name not in state or state[name].shape != value.shape:
                    found = "is not in it" if name not in state else f"has the shape {tuple(state[name].shape)} there"
                    where = ", ".join(str(run) for run, *_ in self.runs)
                    raise TrainingError(
                        f"--init-from {where}: its tensor {name!r} {tuple(value.shape)} {found}; the run trained what "
                        "this head reads from a store, or has other classes or options: use the same"
                    )
                state[name].copy_(value)

    def left_out(self, head: nn.Module) -> dict[str, list[str]]:
        """{module: names in the backbone} of the tensors of `head` that are the backbone's, to the bit."""
        found: dict[str, list[str]] = {}
        for rest in self.rests:
            base = self.bases[rest.module].state
            found[rest.module] = [
                name for name, tensor in _own(head, rest.module).items()
                if name in base and base[name].shape == tensor.shape and torch.equal(base[name], tensor.cpu())
            ]  # fmt: skip
        return found

    def header(self, head: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors to keep by their names in the head, what a checkpoint says of those left out)."""
        left_out = self.left_out(head)
        dropped = {f"{module}.{name}" for module, names in left_out.items() for name in names}
        kept = {name: tensor for name, tensor in head.state_dict().items() if name not in dropped}
        said = {
            backbone: {
                "module": module,
                "prefix": f"{HEAD}{module}.",
                "weights": {"kind": "none"},
                "left_out": [],
                "sha256": rest_digest({}, {"kind": "none"}),
            }
            for backbone, module in self.gives.items()
        }
        for rest in self.rests:
            base = self.bases[rest.module]
            own = set(_own(head, rest.module))
            absent = [name for name in base.state if name not in own] + left_out[rest.module]
            said[rest.backbone] = {
                "module": rest.module,
                "prefix": f"{HEAD}{rest.module}.",
                "weights": dict(base.weights) if absent else {"kind": "none"},
                "left_out": left_out[rest.module],
                "sha256": base.digest(absent),
            }
        return kept, said

    @property
    def random_backbones(self) -> tuple[str, ...]:
        """Backbones whose weights were never trained before, here or in the first of the runs that it starts from."""
        own = [rest.backbone for rest in self.rests if are_random(self.bases[rest.module].weights)]
        return tuple(dict.fromkeys([*own, *self.begun_random]))


def start_of(
    plan: HeadPlan,
    shape: HeadShape,
    records: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any],
    runs: Sequence[Path],
    *,
    head_name: str,
    modules: Container[str],
    named: Sequence[Path] = (),
) -> Start:
    """What a head of `plan` begins with.

    Args:
        records: {input: `weights` of the spec of its store}.
        options: of the head; its `weights` says which they are where a store holds frames: pretrained, random, a file
            or a run.
        runs: of earlier stages.
        modules: names of the head's modules.
        named: files or runs whose weights the stores may have, beside those of `options` and `runs`.
        head_name: of the head; a run of it gives the whole, a run of one of `plan.parts` gives that part.

    Raises:
        TrainingError: a run that is none, of another head, or whose backbone is not the one that the stores have.
        WeightsError, BackboneError: weights that are not here.
    """
    options = {**HEADS.row(head_name).options, **options}
    option = str(options.get(WEIGHTS, "pretrained"))
    files = {run: read_tensors(run / CHECKPOINT) for run in runs}
    begun = {
        name: entry["weights"] for _, header in files.values() for name, entry in header.get("backbones", {}).items()
    }  # fmt: skip
    bases = {}
    for rest in plan.rests:
        if shape.arrays[rest.input].backbone == rest.backbone:
            bases[rest.module] = base_of(rest.backbone, records[rest.input], (option, *map(str, (*runs, *named))))
        elif rest.backbone in begun:
            bases[rest.module] = _begun(rest.backbone, begun[rest.backbone], (option,))
        else:
            bases[rest.module] = _built(rest.backbone, option, 0)
    trained: dict[str, Tensor] = {}
    said = []
    for run, (tensors, header) in files.items():
        name = str(header.get("head"))
        places = [""] if name == head_name else [part for part, head in plan.parts.items() if head == name]
        if not places:
            wanted = ", ".join(sorted({head_name, *plan.parts.values()}))
            raise TrainingError(f"--init-from {run}: its head is {name!r}; this one starts from runs of {wanted}")
        prefix = f"{places[0]}." if places[0] else ""
        made_by_it = tuple(f"{module}." for module, base in bases.items() if base.found_at == str(run.absolute()))
        _refuse_other_base(run, header, prefix, plan, bases)
        _refuse_other_network(run, header, plan, options)
        aside = _aside(header)
        for name_there, value in tensors.items():
            own = name_there.removeprefix(HEAD)
            part = own.partition(".")[0]
            if (prefix + own).startswith(made_by_it):
                continue  # the base is the run's network already, of which the head may hold no more than the end
            if own != name_there and (f"{prefix}{part}" in modules or part not in aside):
                trained[prefix + own] = value
        said.append((run, name, str(header.get("stage", ""))))
    return Start(
        rests=plan.rests,
        bases=bases,
        trained=trained,
        runs=tuple(said),
        gives=plan.gives,
        begun_random=tuple(sorted({name for _, header in files.values() for name in header.get(BEGUN_RANDOM, ())})),
    )


def begun_with(run: Path, fold: int | None, reported: Sequence[str]) -> Path:
    """Where the checkpoint of `run` lies that a training of `fold` begins with, which reports the clips `reported`.

    Of a run with folds the fold that trained on none of them, whatever its number: with another seed they are others.

    Raises TrainingError where there is none, or the run has folds and this training has not.
    """
    there = sorted(path.parent for path in run.glob(f"fold-*/{CHECKPOINT}"))
    if not there:
        refuse_trained(run, reported)
        return run
    if fold is None:
        raise TrainingError(
            f"--init-from {run}: it has {len(there)} folds, and this training none: train both with one --folds, or "
            f"name a fold, as {there[0]}"
        )
    found = next((one for one in there if not _trained_of(one, reported)), None)
    if found is None:
        raise TrainingError(
            f"--init-from {run}: fold {fold} reports {len(reported)} clips, and each of the run's {len(there)} folds "
            "trained on some of them; give a run of the same --folds and groups"
        )
    return found


def fingerprints(clip_ids: Sequence[str]) -> str:
    """The clips, each as 12 digits of the sha256 of its id, joined by blanks."""
    return " ".join(sorted(hashlib.sha256(clip.encode()).hexdigest()[:12] for clip in clip_ids))


def refuse_trained(run: Path, reported: Sequence[str]) -> None:
    """Raises TrainingError if clips that are to be reported trained `run`: no later stage could be judged on them."""
    if seen := _trained_of(run, reported):
        raise TrainingError(
            f"--init-from {run}: {len(seen)} of {len(reported)} clips that are reported here trained it (the first: "
            f"{seen[0]!r}); train it on the same parts, or with the same --folds"
        )


def _trained_of(run: Path, clips: Sequence[str]) -> list[str]:
    """Those of `clips` that trained `run`."""
    trained = set(str(read_header(run / CHECKPOINT).get("trained_on", "")).split())
    return [clip for clip in clips if fingerprints([clip]) in trained]


def _refuse_other_base(
    run: Path, header: Mapping[str, Any], prefix: str, plan: HeadPlan, bases: Mapping[str, Base]
) -> None:
    """Raises TrainingError unless the run's backbone is the one that the stores' features are of."""
    for name, entry in header.get("backbones", {}).items():
        module = prefix + entry["module"]
        rest = next((rest for rest in plan.rests if rest.module == module and rest.backbone == name), None)
        if rest is None or entry["weights"].get("kind") == "none":
            continue
        if bases[module].found_at == str(run.absolute()):
            continue  # they are of the run itself
        ours, theirs = bases[module].weights.get("sha256"), entry["weights"].get("sha256")
        if ours != theirs:
            raise TrainingError(
                f"--init-from {run}: the frozen part of its {name} has weights of sha256 {theirs}, and the features "
                f"that are given now are of weights {ours}; featurize with the run's weights, or start from another run"
            )


def _refuse_other_network(run: Path, header: Mapping[str, Any], plan: HeadPlan, options: Mapping[str, Any]) -> None:
    """Raises TrainingError where the run's network is another one, though its tensors fit."""
    theirs = {**HEADS.row(header["head"]).options, **header.get("options", {})}
    for name in plan.kept_options:
        if name in theirs and theirs[name] != options[name]:
            raise TrainingError(
                f"--init-from {run}: it was trained with {name}={theirs[name]}, and this stage has {name}="
                f"{options[name]}; give the same with --head-option {name}={theirs[name]}, or start from another run"
            )


def _aside(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Modules of a run's head that its training alone used."""
    plan = plan_of(header["head"], header["options"])
    return () if plan is None else plan.aside


def base_of(backbone: str, record: Mapping[str, Any], candidates: Sequence[str] = ()) -> Base:
    """The network of `backbone` with the weights that a store's `record` describes.

    Args:
        candidates: files or runs that may be the one that the record tells by its sha256.

    Raises TrainingError, WeightsError or BackboneError where they are not here, or are others.
    """
    kind = record.get("kind")
    if kind in ("pretrained", "random"):
        found = _built(backbone, str(kind), int(record.get("seed", 0)))
        if found.weights.get("sha256") != record.get("sha256"):
            raise TrainingError(
                f"the store's {backbone} has {kind} weights of sha256 {record.get('sha256')}, and those here have "
                f"{found.weights.get('sha256')}; featurize again with these, or put the others in their place"
            )
        return found
    sha256, seen = record.get("sha256"), []
    places = [Path(one) for one in candidates if one not in ("pretrained", "random")]
    if kind == "file":  # known by its sum before anything of it is loaded: any store may name any file
        if (file := backbones.file_of_sum(str(sha256), places)) is not None:
            return replace(_built(backbone, str(file), 0), found_at=str(file.absolute()))
        seen = [f"{place}: {backbones.sha256_of(place)}" for place in places if place.is_file()]
    for run in (place for place in places if kind == "run" and place.exists()):
        try:
            found = _built(backbone, str(run), 0)
        except ValueError:  # a run of another backbone
            continue
        if found.weights.get("sha256") == sha256:
            return replace(found, found_at=str(run.absolute()))
        seen.append(f"{run}: {found.weights.get('sha256')}")
    given = f"; given were {'; '.join(seen)}" if seen else ""
    raise TrainingError(
        f"the features are of {backbone} with weights of a {kind}, sha256 {sha256}, which is not where "
        f"it was: name the file with --head-option weights=FILE, of a recipe --backbone-weights FILE, or the run with "
        f"--init-from RUN{given}"
    )


def _begun(backbone: str, weights: Mapping[str, Any], candidates: Sequence[str]) -> Base:
    """The network that a run began with; none where the run holds all of it."""
    if weights["kind"] == "none":
        return Base(state={}, weights=weights)
    return base_of(backbone, weights, candidates)


def _built(backbone: str, weights: str, seed: int) -> Base:
    return _build(backbone, weights, seed, _state_of(Path(weights)))


def _state_of(path: Path) -> tuple[int, ...]:
    """Changes where the file, or the checkpoint of the run, is another; () where there is none."""
    try:
        found = (path / CHECKPOINT if path.is_dir() else path).stat()
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ino


@lru_cache(maxsize=4)
def _build(backbone: str, weights: str, seed: int, state: tuple[int, ...]) -> Base:
    """Kept, since every fold and row asks for it; `state` is that of its file."""
    try:
        with cpu_threads(1):  # the last bits of calibrated weights depend on it
            built = backbones.build(backbone, weights=weights, seed=seed, device="cpu")
    except ValueError as error:
        if weights in ("pretrained", "random"):
            error.add_note(f"Of a head it is --head-option {WEIGHTS}=FILE or --head-option {WEIGHTS}=random.")
        raise
    assert built.module is not None
    return Base(
        state={name: value.contiguous() for name, value in built.module.state_dict().items()}, weights=built.weights
    )


def _own(head: nn.Module, module: str) -> dict[str, Tensor]:
    """The tensors of a part of a head by their names in the backbone."""
    own: dict[str, Tensor] = head.get_submodule(module).state_dict()
    return own
