"""Runs a torch network as a backbone: weights, device, precision, normalisation, taps."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reelbank.extract.backbones import metal
from reelbank.extract.backbones.description import BackboneError, BackboneInfo, BuildOptions, Described, Tuning
from reelbank.extract.backbones.identity import rest_digest, tensors_digest
from reelbank.extract.backbones.passes import GraphedPass, Pass, cast_weights
from reelbank.extract.weights import calibration, checkpoints
from reelbank.extract.weights.files import (
    WEIGHTS_DIR_VARIABLE,
    WeightsError,
    WeightsFile,
    file_of_sum,
    given_file,
    pretrained_file,
    weights_dir,
)
from reelbank.extract.weights.runs import RunWeights, read_run, run_folder, runs_beside
from reelbank.store.devices import check_precision, resolve_device
from reelbank.store.options import MAX_SEED

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

OUTLINE_DEVICE = "meta"
"""The device of `reelbank.extract.backbones.outline`: shapes without numbers. `build` does not take it."""

Launched = Callable[[], dict[str, npt.NDArray[Any]]]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network as data: how to make it, which files fit it, and where its taps are.

    Attributes:
        text: names the network for the hash of random weights; another network needs another text.
        create: makes the network with its library's initialisation (also on the meta device).
        convert: renames and reshapes the tensors of every known key layout to those of the network.
        run: (network, normalised input, wanted taps) -> tensors of at least these taps. The input is
            (B, 3, H, W), or (B, 3, T, H, W) where a step reads T frames, or what `channels` makes of them.
        mean: of values in [0, 1], per RGB channel or one for all channels.
        std: as `mean`.
        channels: pixels of steps (B, *frames_shape) as the network's channels (B, C, ...); None: the last axis holds
            them.
        channels_last: memory format of the convolutions; faster for CNNs, of no use to ViTs.
    """

    text: str
    create: Callable[[], nn.Module]
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    run: Callable[[Any, Tensor, frozenset[str]], Mapping[str, Tensor]]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: Callable[[Tensor], Tensor] | None = None
    channels_last: bool = False


@dataclass(frozen=True, kw_only=True)
class Network(Described):
    """A frozen torch network in eval mode on its device."""

    architecture: Architecture
    module: nn.Module
    weights: dict[str, Any]
    device: str
    precision: str = "fp32"
    tuning: Tuning = field(default_factory=Tuning)
    _mean: Tensor = field(init=False, repr=False)
    _std: Tensor = field(init=False, repr=False)
    _run: Pass = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, values in (("_mean", self.architecture.mean), ("_std", self.architecture.std)):
            object.__setattr__(self, name, torch.tensor(values, device=self.device))
        graphs = self.tuning.graphs and self.device.startswith("cuda")
        object.__setattr__(self, "_run", GraphedPass(self._stored) if graphs else self._stored)

    @property
    def channels_last(self) -> bool:
        """Whether tensors lie in memory as the architecture likes them best, which Metal does not get right."""
        return self.architecture.channels_last and self.device != metal.METAL

    def normalise(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """uint8 (B, H, W, 3) to the network's float32 input (B, 3, H, W) on its device.

        Where a step reads T frames, (B, T, H, W, 3) to (B, 3, T, H, W); other steps as `Architecture.channels` says.
        """
        return self._normalised(self._on_device(frames))

    def forward(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
        """Features of frames (B, H, W, 3), clips (B, T, H, W, 3) or other steps, uint8; see `Backbone.forward`."""
        return self.launch(frames, taps)()

    def launch(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> Launched:
        """Begins what `forward` does. The call of what is returned waits for it and gives the features.

        A GPU works meanwhile; `frames` (in page-locked memory, for the copy to be asynchronous) stay as they are.
        """
        wanted = self.wanted_taps(frames, taps)
        values = self._run(self._on_device(frames), wanted)
        if not self.device.startswith("cuda"):
            return lambda: {tap: self.checked(tap, values[tap].cpu().numpy(), len(frames)) for tap in wanted}
        on_host = {tap: torch.empty(values[tap].shape, dtype=values[tap].dtype, pin_memory=True) for tap in wanted}
        for tap, memory in on_host.items():
            memory.copy_(values[tap], non_blocking=True)
        with torch.cuda.device(self.device):
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()

        def features() -> dict[str, npt.NDArray[Any]]:
            done.synchronize()
            return {tap: self.checked(tap, memory.numpy(), len(frames)) for tap, memory in on_host.items()}

        return features

    def tensors(self, frames: npt.NDArray[np.uint8], taps: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The same features on the device, in the precision of the forward pass instead of the stored dtype."""
        wanted = self.wanted_taps(frames, taps)
        values = self._values(self._on_device(frames), wanted)
        return {tap: values[tap] for tap in wanted}

    def _on_device(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        # Not waited for by CUDA alone: what Metal has not copied yet would be overwritten by the next batch.
        is_cuda = self.device.startswith("cuda")
        return torch.from_numpy(np.ascontiguousarray(frames)).to(self.device, non_blocking=is_cuda)

    def _normalised(self, pixels: Tensor) -> Tensor:
        # Memory with the channels last, seen as channels first.
        channels = self.architecture.channels
        planes = pixels.movedim(-1, 1) if channels is None else channels(pixels)
        shape = (-1, *(1,) * (planes.ndim - 2))
        batch = planes.float().div_(255).sub_(self._mean.view(shape)).div_(self._std.view(shape))
        return batch if self.channels_last else batch.contiguous()

    def _values(self, pixels: Tensor, taps: tuple[str, ...]) -> Mapping[str, Tensor]:
        with torch.inference_mode(), self._arithmetic():
            return self.architecture.run(self.module, self._normalised(pixels), frozenset(taps))

    def _stored(self, pixels: Tensor, taps: tuple[str, ...]) -> Mapping[str, Tensor]:
        """The taps as they are stored, on the device."""
        values = self._values(pixels, taps)
        return {tap: values[tap].to(getattr(torch, self.taps[tap].dtype)).contiguous() for tap in taps}

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        kind = torch.device(self.device).type
        with contextlib.ExitStack() as stack:
            if kind == "cuda":
                stack.enter_context(exact_arithmetic())
            if self.precision != "fp32":
                stack.enter_context(torch.autocast(kind, dtype=_AUTOCAST[self.precision]))
            yield


@contextlib.contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Of a GPU: same batch, same bits, so no autotuned kernels; and fp32 means fp32, which TF32 is not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        # `enabled` is False unless it is given.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def build_network(info: BackboneInfo, architecture: Architecture, options: BuildOptions) -> Network:
    """The network with the weights that `options` ask for. Raises as `reelbank.extract.backbones.build`."""
    if options.device == OUTLINE_DEVICE:
        return _outline(info, architecture)
    device = resolve_device(options.device)
    check_precision(device, options.precision)
    if is_metal := device == metal.METAL:
        metal.refuse_clips(info)
    module, origin = _weighted(info, architecture, options)
    module = module.eval().requires_grad_(False)
    on_cpu = Network(info=info, architecture=architecture, module=module, weights=origin, device="cpu")
    # A state file is what the same device was tried with.
    tried = is_metal and options.state_file is None
    expected = metal.reference(on_cpu) if tried else {}
    rounded = metal.features(replace(on_cpu, precision="bf16")) if tried and options.precision == "bf16" else {}
    module = module.to(device)
    if architecture.channels_last and not is_metal:
        anything: Any = module  # the stubs of Module.to lack memory_format
        module = anything.to(memory_format=torch.channels_last)
    if options.tuning.cast_weights and options.precision != "fp32":
        cast_weights(module, _AUTOCAST[options.precision])
    network = Network(
        info=info,
        architecture=architecture,
        module=module,
        weights=origin,
        device=device,
        precision=options.precision,
        tuning=options.tuning,
    )
    if tried:
        metal.check(network, options.precision, expected, rounded)
    return network


def _outline(info: BackboneInfo, architecture: Architecture) -> Network:
    with torch.device(OUTLINE_DEVICE):
        module = architecture.create().eval().requires_grad_(False)
    origin = {"kind": "none"}
    return Network(info=info, architecture=architecture, module=module, weights=origin, device=OUTLINE_DEVICE)


def _weighted(
    info: BackboneInfo, architecture: Architecture, options: BuildOptions
) -> tuple[nn.Module, dict[str, Any]]:
    """The network on the CPU with the weights that are asked for, and where those come from."""
    if options.state_file is not None:
        return _from_state_file(info, architecture, options.state_file)
    if options.weights == "random":
        return _random(info, architecture, options.seed), calibration.random_weights(architecture.text, options.seed)
    if options.weights == "pretrained":
        file = pretrained_file(info.name, info.sources)
    elif (folder := run_folder(options.weights)) is not None:
        return _from_run(info, architecture, read_run(folder, info.name))
    else:
        file = given_file(options.weights)
    return _from_weights_file(architecture, file), _origin(file)


def _random(info: BackboneInfo, architecture: Architecture, seed: int) -> nn.Module:
    """On the CPU whatever the device: the recipe should give the same numbers on all of them."""
    module = calibration.initialise(architecture.create, seed).eval().requires_grad_(False)
    network = Network(info=info, architecture=architecture, module=module, weights={}, device="cpu")
    calibration.calibrate(module, network.normalise(_lifelike(info, seed)))
    return module


def _lifelike(info: BackboneInfo, seed: int) -> npt.NDArray[np.uint8]:
    """Seeded steps (n, *frames_shape) by which random weights are calibrated."""
    if (num_frames := len(info.step_frames)) == 1:
        return calibration.cloud_images(seed, *info.image_size)
    clips = calibration.cloud_clips(seed, num_frames, *info.image_size)  # (n, T, H, W, 3)
    if info.source == "video" and info.preprocess.color == "gray":
        return clips[..., 0]
    # Two of the colours stand for x and y.
    return np.moveaxis(clips[..., :2], -1, 2) if info.source == "flow" else clips


def _from_weights_file(architecture: Architecture, file: WeightsFile) -> nn.Module:
    state = architecture.convert(checkpoints.read_state(file))
    return _filled(architecture, state, file.path)


def _from_run(
    info: BackboneInfo, architecture: Architecture, run: RunWeights, known: Mapping[str, RunWeights] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a training run: what it trained, the rest from the weights that it began with.

    Args:
        known: {digest of the network: run} of runs that it may have begun with; None: those beside it are searched.

    Raises:
        WeightsError: those are not here, or are others than they were.
    """
    with torch.device("meta"):
        names = architecture.create().state_dict().keys()
    # What the network has no place for, such as the run's own classifier, is what files of weights have, too.
    trained = run.tensors()
    trained = trained if trained.keys() <= names else architecture.convert(trained)
    left_out = names - trained.keys()
    began = _began(info, architecture, run, known) if left_out and run.base["kind"] != "none" else {}
    rest = {name: began[name] for name in left_out & began.keys()}
    base = run.base
    if base["kind"] == "random":  # as it is made here
        base = calibration.random_weights(architecture.text, base.get("seed", 0))
    if (found := rest_digest(rest, base)) != run.sha256:
        raise WeightsError(
            f"{run.path}: the {len(rest)} tensors of {info.name} that it does not hold, of {run.began_with}, are "
            f"others here than in the run (sha256 {found} here, {run.sha256} there)"
        )
    module = _filled(architecture, {**rest, **trained}, run.path)
    digest = tensors_digest(module.state_dict())
    return module, {"kind": "run", "source": run.name, "sha256": digest, "base": run.origin}


def _began(
    info: BackboneInfo, architecture: Architecture, run: RunWeights, known: Mapping[str, RunWeights] | None
) -> Mapping[str, Tensor]:
    """The tensors of the network that a run began with. Raises WeightsError where they are not here."""
    kind, sha256 = run.base["kind"], str(run.base.get("sha256"))
    if kind == "random" and 0 <= (seed := run.base.get("seed", 0)) <= MAX_SEED:
        return _random(info, architecture, seed).state_dict()
    if kind == "pretrained":
        return _from_weights_file(architecture, pretrained_file(info.name, info.sources)).state_dict()
    if kind == "file":
        if (path := file_of_sum(sha256)) is not None:
            return _from_weights_file(architecture, WeightsFile(path=path, sha256=sha256)).state_dict()
        raise WeightsError(
            f"{run.path}: the run began with {run.began_with}, which is not in {weights_dir()}; put it there, or name "
            f"the folder that holds it as ${WEIGHTS_DIR_VARIABLE}"
        )
    if kind == "run":
        known = _networks_beside(info, architecture, run, sha256) if known is None else known
        if sha256 in known:
            return _from_run(info, architecture, known[sha256], known)[0].state_dict()
        raise WeightsError(
            f"{run.path}: the run began with {run.began_with}, which does not lie beside it; put that run there"
        )
    raise WeightsError(f"{run.path}: the run began with {run.began_with}, which cannot be made again")


def _networks_beside(
    info: BackboneInfo, architecture: Architecture, run: RunWeights, sha256: str
) -> dict[str, RunWeights]:
    """{digest of its network: run} of those beside `run`, each made once, until the one of `sha256` is there.

    Runs that began with another come after it, so that no two wait for each other.
    """
    known: dict[str, RunWeights] = {}
    waiting = list(runs_beside(run, info.name))
    while ready := [one for one in waiting if one.base["kind"] != "run" or str(one.base.get("sha256")) in known]:
        waiting = [one for one in waiting if one not in ready]
        for one in ready:
            with contextlib.suppress(WeightsError):
                digest = _from_run(info, architecture, one, known)[1]["sha256"]
                known[digest] = one
                if digest == sha256:
                    return known
    return known


def _filled(architecture: Architecture, state: Mapping[str, Tensor], path: Path) -> nn.Module:
    """The network with the tensors of a file, made without initialising what the file holds."""
    with torch.device("meta"):
        module = architecture.create()
    module.load_state_dict(checkpoints.fit_state(module, state, file=path), assign=True)
    empty = [layer for layer in module.modules() if any(b.is_meta for b in layer.buffers(recurse=False))]
    if not empty:
        return module
    # Tables that no file holds, such as rotary positions. timm's layers can make theirs anew; of others a second
    # network is made, from which they are taken.
    remakers = [getattr(layer, "init_non_persistent_buffers", None) for layer in empty]
    made = None
    if None in remakers:
        with torch.random.fork_rng(devices=[]):
            made = dict(architecture.create().named_buffers())
    for path_of_layer, layer in module.named_modules():
        for name, buffer in layer.named_buffers(recurse=False):
            if buffer.is_meta:
                full_name = f"{path_of_layer}.{name}" if path_of_layer else name
                value = made[full_name] if made is not None else torch.empty_like(buffer, device="cpu")
                layer.register_buffer(name, value, persistent=False)
    if made is None:
        for remake in remakers:
            remake()  # type: ignore[misc]
    return module


def _origin(file: WeightsFile) -> dict[str, Any]:
    """The `weights` entry of a store; no folder of this machine, so that equal weights give equal specs."""
    if file.source is None:
        return {"kind": "file", "source": file.path.name, "sha256": file.sha256}
    source = file.source
    return {"kind": "pretrained", "source": source.url, "sha256": file.sha256, "licence": source.licence}


def _from_state_file(info: BackboneInfo, architecture: Architecture, path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of `save_state` and the origin of its weights."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("backbone") != info.name:
        raise BackboneError(f"{path} holds the state of backbone {metadata.get('backbone')!r}, not {info.name!r}")
    return _filled(architecture, load_file(path), path), json.loads(metadata["weights"])
