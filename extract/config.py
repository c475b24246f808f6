"""What `featurize` is asked for. The command's options are made from these fields; no torch is loaded here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path

from reelbank.extract.inputs import views
from reelbank.extract.inputs.sampling import PAST_END, Sampling, parse
from reelbank.extract.weights.files import WEIGHTS_VARIABLE
from reelbank.manifests.registry import file_name
from reelbank.store.devices import check_device_name
from reelbank.store.options import option

RESIZES = ("exact", "fast")
PRECISIONS = ("bf16", "fp16", "fp32")
MAX_WORKERS = 1024
DECODES = ("cpu", "cuda")
DAMAGED = ("fail", "keep")
FORWARDS = ("auto", "parent", "worker")
DEFAULT_SAMPLING = "uniform:16"


@dataclass(frozen=True, kw_only=True)
class FeaturizeConfig:
    """Which clips, which backbones, and how. Every field is a flag of `featurize`.

    The *spec* (model, weights, taps, sampling, past-end, resize, precision, seed) changes the numbers and is
    hashed into the store; the rest changes only speed and which clips are done in this run.

    Raises ValueError naming the flag whose value cannot be used.
    """

    model: tuple[str, ...] = option(
        MISSING,
        "--model",
        "backbone, see `reelbank backbones`, or module:function of your own; several share one decode",
        multiple=True,
    )
    manifest: Path | None = option(
        None, "--manifest", "table of clips; default: $REELBANK_MANIFEST, else manifest.csv, else the CSV of manifests/"
    )
    root: Path | None = option(
        None, "--root", "folder that video paths are relative to and may not leave; default: the manifest's folder"
    )
    split: tuple[str, ...] = option((), "--split", "split(s) to do in this run; default: all", multiple=True)
    clip: tuple[str, ...] = option((), "--clip", "clip id(s) to do in this run; default: all", multiple=True)
    tap: tuple[str, ...] = option(
        (),
        "--tap",
        "output(s) to store, of every model that has it; MODEL=TAP adds one of that model; default: the model's own",
        multiple=True,
    )
    out: str | None = option(
        None, "--out", "store to write, with {model} when there are several; default: <model>.zarr in this folder"
    )
    weights: str | None = option(
        None, "--weights", "'pretrained', 'random' or a weights file; default: $REELBANK_WEIGHTS, else 'pretrained'"
    )
    sampling: tuple[str, ...] = option(
        (DEFAULT_SAMPLING,),
        "--sampling",
        "which frames: all, consecutive:N[:centre|random|zero], every:K, fps:F, position:P[,P...], random:N, "
        "uniform:N[:open]; MODEL=RULE sets it for one model",
        multiple=True,
    )
    views: str = option(
        "original",
        "--views",
        "copies of each clip to store beside it: augment (flip, rotation, jitter), corners[:N] (of 40 crops x flips), "
        "or names, jitter with other ranges as jitter-0.4-0.4-0.4-0.2; drawn from clip id and --seed",
    )
    view_split: str = option("train", "--view-split", "split whose clips get the views; 'all' for every split")
    past_end: str = option(
        "repeat", "--past-end", "clips with fewer frames than steps: repeat frames, pad, or fail", choices=PAST_END
    )
    resize: str = option(
        "exact", "--resize", "exact: as PIL and torchvision; fast: scaled by the decoder", choices=RESIZES
    )
    precision: str = option("fp32", "--precision", "number format of the forward pass", choices=PRECISIONS)
    square_pixels: bool = option(
        False, "--square-pixels", "enlarge videos whose pixels are not square to the shape that players show"
    )
    decode: str = option(
        "cpu", "--decode", "where videos are decoded; cuda: by torchcodec on the GPU, which gives other pixels",
        choices=DECODES,
    )  # fmt: skip
    seed: int = option(0, "--seed", "of random frame starts and of random weights")
    device: str = option("auto", "--device", "auto (a GPU of CUDA if there is one), cpu, cuda, cuda:N, or mps (Apple)")
    forward: str = option(
        "auto",
        "--forward",
        "where models run: in each worker, or in one process that workers feed; auto: worker on a CPU, parent on a GPU",
        choices=FORWARDS,
    )
    workers: int | None = option(None, "--workers", "worker processes; default: one per core that may be used")
    batch: int | None = option(
        None, "--batch", "steps of one forward pass; default: 16 on a CPU, on a GPU what its memory holds"
    )
    deadline_seconds: float = option(
        120.0, "--deadline", "seconds without a new packet or frame after which a clip is given up as hung"
    )
    max_pixels: int = option(2**26, "--max-pixels", "pixels of one frame above which a clip is refused")
    damaged: str = option(
        "fail",
        "--damaged",
        "clips that want frames which the decoder reports as damaged: fail them, or keep them with those steps marked",
        choices=DAMAGED,
    )
    retry_failed: bool = option(False, "--retry-failed", "do clips again that failed in an earlier run")
    rehash: bool = option(False, "--rehash", "compare every video's bytes (sha256), not only its size and time")
    target_columns: tuple[str, ...] = option(
        (), "--target-columns", "numeric target columns of the manifest; default: kcal, else target*", multiple=True
    )
    allow_group_overlap: bool = option(
        False, "--allow-group-overlap", "accept a group on both sides of a split; printed in every report"
    )

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("--model names no backbone; see `reelbank backbones`")
        if len(set(self.model)) != len(self.model):
            raise ValueError(f"--model names a backbone twice: {', '.join(self.model)}")
        for name, value in (("--workers", self.workers), ("--batch", self.batch)):
            if value is not None and value < 1:
                raise ValueError(f"{name} {value}: at least 1 is needed")
        for flag, given, choices in (
            ("--past-end", self.past_end, PAST_END),
            ("--resize", self.resize, RESIZES),
            ("--precision", self.precision, PRECISIONS),
            ("--forward", self.forward, FORWARDS),
            ("--damaged", self.damaged, DAMAGED),
            ("--decode", self.decode, DECODES),
        ):
            if given not in choices:
                raise ValueError(f"{flag} {given!r} is not one of {', '.join(choices)}")
        check_device_name(self.device)
        if not self.deadline_seconds > 0:
            raise ValueError(f"--deadline {self.deadline_seconds}: seconds above 0 are needed")
        if self.max_pixels < 1:
            raise ValueError(f"--max-pixels {self.max_pixels}: at least 1 is needed")
        if self.out is not None and "://" in self.out:
            raise ValueError(f"--out {self.out!r} is a URL; stores are written to folders")
        if self.workers is not None and self.workers > MAX_WORKERS:
            raise ValueError(f"--workers {self.workers}: at most {MAX_WORKERS:,}")
        if len(self.model) > 1 and self.out is not None and "{model}" not in self.out:
            raise ValueError(f"--out {self.out!r} names one store for {len(self.model)} models; put {{model}} in it")
        _ = self.view_names
        for model in self.model:
            self.sampling_of(model)
        for flag, values in (("--sampling", self.sampling), ("--tap", self.tap)):
            for text in values:
                name = text.partition("=")[0]
                if "=" in text and name not in self.model:
                    raise ValueError(f"{flag} {text!r} is for model {name!r}, asked are {', '.join(self.model)}")

    @property
    def weights_asked(self) -> str:
        """The value of --weights with its default."""
        return self.weights or os.environ.get(WEIGHTS_VARIABLE) or "pretrained"

    @property
    def view_names(self) -> tuple[str, ...]:
        """The views to store, the evaluation view first."""
        return views.parse(self.views)

    def sampling_of(self, model: str) -> Sampling:
        """The sampling rule of one model: its own `MODEL=RULE`, else the plain rule given last."""
        general = [rule for rule in self.sampling if "=" not in rule]
        own = [rule.partition("=")[2] for rule in self.sampling if rule.startswith(f"{model}=")]
        return parse((own or general or [DEFAULT_SAMPLING])[-1])

    def taps_of(self, model: str, taps: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
        """Taps to store of one model, in the order asked for; empty where it has its own.

        With several models a plain name is for those that have it, and a model's `MODEL=TAP` come after.

        Args:
            model: one of `self.model`.
            taps: {model: names of the taps it has}.

        Raises:
            ValueError: a plain name that none of the models has; what they have is listed.
        """
        own = [tap.partition("=")[2] for tap in self.tap if tap.startswith(f"{model}=")]
        plain = [tap for tap in self.tap if "=" not in tap]
        if len(self.model) == 1:
            return tuple(dict.fromkeys((*plain, *own)))
        if unknown := [tap for tap in plain if not any(tap in taps[name] for name in self.model)]:
            listed = "; ".join(f"{name} has {', '.join(sorted(taps[name]))}" for name in self.model)
            raise ValueError(f"--tap {', '.join(unknown)}: no model has it; {listed}")
        return tuple(dict.fromkeys((*(tap for tap in plain if tap in taps[model]), *own)))

    def store_path(self, model: str) -> Path:
        """Where the features of `model` are written."""
        return Path((self.out or "{model}.zarr").replace("{model}", file_name(model)))
