"""What `featurize` is asked for. The command's options are made from these fields; no torch is loaded here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path

from reelbank.extract.inputs import annotation_columns, views
from reelbank.extract.inputs.frame_choice import PAST_END
from reelbank.extract.inputs.sampling import Sampling, parse
from reelbank.extract.weights.files import WEIGHTS_VARIABLE
from reelbank.manifests.registry import file_name
from reelbank.store.accepted import Many, MaybePath, MaybeText
from reelbank.store.devices import check_device_name
from reelbank.store.options import MAX_CPUS, MAX_SEED, check_options, option

RESIZES = ("exact", "fast", "pil")
PRECISIONS = ("bf16", "fp16", "fp32")
DECODES = ("cpu", "cuda")
DAMAGED = ("fail", "keep")
FORWARDS = ("auto", "parent", "worker")
DEFAULT_SAMPLING = "uniform:16"


@dataclass(frozen=True, kw_only=True)
class FeaturizeConfig:
    """Which clips, which backbones, and how. Every field is a flag of `featurize`.

    The *spec* (model, weights, taps, sampling, past-end, resize, precision, seed, map) changes the numbers and is
    hashed into the store; the rest changes only speed and which clips are done in this run.

    Raises ValueError naming the flag whose value cannot be used.
    """

    model: Many[str] = option(
        MISSING,
        "--model",
        "backbone, see `reelbank backbones`, or module:function of your own; several share one decode",
        multiple=True,
        group="Clips, backbones, stores",
    )
    manifest: MaybePath = option(
        None, "--manifest", "table of clips; default: $REELBANK_MANIFEST, else manifest.csv, else the CSV of manifests/"
    )
    root: MaybePath = option(
        None, "--root", "folder that video paths are relative to and may not leave; default: the manifest's folder"
    )
    split: Many[str] = option((), "--split", "split(s) to do in this run; default: all", multiple=True)
    clip: Many[str] = option((), "--clip", "clip id(s) to do in this run; default: all", multiple=True)
    tap: Many[str] = option(
        (),
        "--tap",
        "output(s) to store, of every model that has it; MODEL=TAP adds one of that model; default: the model's own",
        multiple=True,
    )
    out: MaybeText = option(
        None, "--out", "store to write, with {model} when there are several; default: <model>.zarr in this folder"
    )
    weights: MaybeText = option(
        None,
        "--weights",
        "'pretrained', 'random', a weights file or the folder of a run that trained the backbone; default: "
        "$REELBANK_WEIGHTS, else 'pretrained'",
    )
    sampling: Many[str] = option(
        (DEFAULT_SAMPLING,),
        "--sampling",
        "which frames: all, consecutive:N[:centre|random|zero], every:K, first:N, fps:F, position:P[,P...], random:N, "
        "uniform:N[:open]; RULE+RULE takes the frames of both; MODEL=RULE sets it for one model",
        multiple=True,
        group="Frames and views",
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
        "exact",
        "--resize",
        "exact: as torchvision v2 resizes uint8 tensors, bit for bit; pil: as PIL does, bit for bit, as the official "
        "transforms of DINOv2 and CLIP use (exact is up to 2 levels off on up to 1.5 % of values); fast: scaled by the "
        "decoder",
        choices=RESIZES,
        group="Pixels and numbers",
    )
    precision: str = option("fp32", "--precision", "number format of the forward pass", choices=PRECISIONS)
    square_pixels: bool = option(
        False, "--square-pixels", "enlarge videos whose pixels are not square to the shape that players show"
    )
    decode: str = option(
        "cpu", "--decode", "where videos are decoded; cuda: by torchcodec on the GPU, which gives other pixels",
        choices=DECODES,
    )  # fmt: skip
    seed: int = option(0, "--seed", "of random frame starts and of random weights", least=0, most=MAX_SEED)
    device: str = option(
        "auto",
        "--device",
        "auto (a GPU of CUDA if there is one), cpu, cuda, cuda:N, or mps (Apple)",
        group="Machine and speed",
    )
    forward: str = option(
        "auto",
        "--forward",
        "where models run: in each worker, or in one process that workers feed; auto: worker on a CPU, parent on a GPU",
        choices=FORWARDS,
    )
    workers: int | None = option(
        None, "--workers", "worker processes; default: one per core that may be used", least=1, most=MAX_CPUS
    )
    batch: int | None = option(
        None,
        "--batch",
        "steps of one forward pass; default: 16 on a CPU, on a GPU what its memory holds",
        least=1,
        most=1_000_000,
    )
    deadline_seconds: float = option(
        120.0,
        "--deadline",
        "seconds without a new packet or frame after which a clip is given up as hung",
        above=0,
        group="Broken and failed clips",
    )
    max_pixels: int = option(
        2**26, "--max-pixels", "pixels of one frame above which a clip is refused", least=1, most=2**29
    )
    damaged: str = option(
        "fail",
        "--damaged",
        "clips that want frames which the decoder reports as damaged: fail them, or keep them with those steps marked",
        choices=DAMAGED,
    )
    retry_failed: bool = option(False, "--retry-failed", "do clips again that failed in an earlier run")
    rehash: bool = option(False, "--rehash", "compare every video's bytes (sha256), not only its size and time")
    target_columns: Many[str] = option(
        (),
        "--target-columns",
        "numeric target columns of the manifest; default: kcal, else target*",
        multiple=True,
        group="Columns of tables",
    )
    mapping: Many[str] = option(
        (),
        "--map",
        "OURS=THEIRS: what annotation tables (.csv) call a column: frame=frame_no, nose_x=NoseX, or *_x=*.x for all "
        "points",
        multiple=True,
    )
    allow_group_overlap: bool = option(
        False, "--allow-group-overlap", "accept a group on both sides of a split; printed in every report"
    )

    def __post_init__(self) -> None:
        check_options(self, ValueError)
        if not self.model:
            raise ValueError("--model names no backbone; see `reelbank backbones`")
        if len(set(self.model)) != len(self.model):
            raise ValueError(f"--model names a backbone twice: {', '.join(self.model)}")
        check_device_name(self.device)
        if self.out is not None and "://" in self.out:
            raise ValueError(f"--out {self.out!r} is a URL; stores are written to folders")
        if len(self.model) > 1 and self.out is not None and "{model}" not in self.out:
            raise ValueError(f"--out {self.out!r} names one store for {len(self.model)} models; put {{model}} in it")
        _ = self.view_names, self.annotation_columns
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
    def annotation_columns(self) -> dict[str, str]:
        """{our name: theirs} of the columns of annotation tables."""
        return annotation_columns.parse(self.mapping)

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
