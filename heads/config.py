"""What a training job is asked for. The command's options are made from these fields; no torch is loaded here."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from reelbank.heads import augmentation
from reelbank.heads.errors import TrainingError
from reelbank.heads.losses import LOSSES
from reelbank.heads.models import HEADS, parse_options
from reelbank.store.errors import StoreError
from reelbank.store.indexing import SegmentRule, parse_segments
from reelbank.store.options import option

PLUGIN = "PLUG-IN"
"""What stands in the help for the name of an installed package's row, or `module:attribute`."""
OPTIMIZER_NAMES = ("adam", "adamw", "radam", "rmsprop", "sgd")
SCHEDULE_NAMES = ("multistep", "none", "plateau", "step")
EXECUTOR_NAMES = ("auto", "processes", "stacked")
ESTIMATES = ("argmax", "expectation", "median")
SWEEP_METRICS = ("auto", "val_accuracy", "val_loss", "val_mae")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A head, the stores it is trained on, and how. Every field is a flag of `train-head`.

    Raises TrainingError (a ValueError) naming the flag whose value cannot be used.
    """

    store: tuple[Path, ...] = option(
        MISSING, "--store", "store to train on; several are joined by clip_id", multiple=True
    )
    tap: tuple[str, ...] = option((), "--tap", "tap(s) to read; default: the first tap of each store", multiple=True)
    join: str = option(
        "error",
        "--join",
        "clips missing in one of several stores: refuse, or use only those in all",
        choices=("error", "inner"),
    )
    head: str = option(
        "mlp",
        "--head",
        "head to train; a plug-in is a package's, or module:function",
        choices=sorted(HEADS),
        more=PLUGIN,
    )
    head_option: tuple[str, ...] = option(
        (), "--head-option", "NAME=VALUE: an option of the head that has no flag (`reelbank heads`)", multiple=True
    )
    loss: str = option(
        "ce",
        "--loss",
        "loss on the target's bins; without a target, on the classes",
        choices=sorted(LOSSES),
        more=PLUGIN,
    )
    class_loss: str = option(
        "auto",
        "--class-loss",
        "loss on the classes; auto: ce beside a target, else --loss",
        choices=("auto", *sorted(LOSSES)),
        more=PLUGIN,
    )
    metric: tuple[str, ...] = option(
        (), "--metric", "one more metric to report: a plug-in of a package, or module:attribute", multiple=True
    )
    label: str = option("label", "--label", "text column with the class; 'none' trains on the target alone")
    target: str | None = option(
        None,
        "--target",
        "numeric column to predict; default: the store's first target column if it has one; 'none': classes only",
    )
    run: Path | None = option(
        None, "--run", "run directory; default: runs/<store>-<head>-<loss>-<n>, the first n that is free"
    )
    overwrite: bool = option(False, "--overwrite", "replace the run in --run")
    resume: bool = option(False, "--resume", "continue the run in --run from its last checkpoint")
    folds: int = option(0, "--folds", "K: cross-validation over groups with K test parts; 0: the store's own splits")
    select_on: str = option(
        "validation",
        "--select-on",
        "which clips choose the best epoch; 'reported-set' is what some papers do and is said in the report",
        choices=("reported-set", "validation"),
    )
    keep: str = option(
        "best",
        "--keep",
        "weights kept after an early stop: the best epoch's or the last's",
        choices=("best", "last"),
    )
    pool: str = option("mean", "--pool", "what heads without steps get of a clip's steps", choices=("mean", "mean+std"))
    segments: str | None = option(
        None,
        "--segments",
        "read the stored steps as overlapping segments, by index: segments:16:starts=guard (90 steps give 160) or "
        "segments:16:stride=8; heads without steps get the mean over them; none, the default: every step once",
    )
    view: int = option(0, "--view", "stored view to read; 0 is the evaluation view")
    train_views: str = option(
        "one",
        "--train-views",
        "all: every stored view of a training clip is a training row, beside --view; others keep to --view",
        choices=("all", "one"),
    )
    augment: tuple[str, ...] = option(
        (),
        "--augment",
        "METHOD[=AMOUNT]: one more copy of each training clip; dropout (0.1), noise (0.1), scaling (0.1), shift (2)",
        multiple=True,
    )
    train_clips: int = option(0, "--train-clips", "train on at most this many clips, drawn class by class; 0: all")
    balance: str = option(
        "none",
        "--balance",
        "draw the clips of an epoch with replacement, so that classes or groups are as frequent as each other",
        choices=("class", "group", "none"),
    )
    normalize: str = option(
        "zscore",
        "--normalize",
        "zscore by training rows | l2: each step over its length, before any mean | none",
        choices=("l2", "none", "zscore"),
    )
    aggregation: str = option(
        "adaptive",
        "--aggregation",
        "end of conv-aggregation: mean over steps, or flatten (fixed number of steps)",
        choices=("adaptive", "flatten"),
    )
    trunk: str = option(
        "separate",
        "--trunk",
        "hidden layers of mlp and conv-aggregation: one pair per output, or shared",
        choices=("separate", "shared"),
    )
    bins: int = option(1000, "--bins", "number of bins of the target")
    range: tuple[float, float] | None = option(
        None,
        "--range",
        "LOW:HIGH of the bins in target units; default: 0:1000 for kcal, else the training range",
    )
    sigma: float = option(5.0, "--sigma", "width of the softened target in bins (standard deviation)")
    target_labels: str = option(
        "soft", "--target-labels", "soft: Gaussian over bins, hard: one bin", choices=("hard", "soft")
    )
    reduction: str = option("sum", "--reduction", "of the target's loss over its bins", choices=("mean", "sum"))
    estimate: str = option(
        "argmax",
        "--estimate",
        "the value that a predicted distribution over bins stands for: its highest bin, its mean or its median",
        choices=ESTIMATES,
    )
    class_weights: str = option(
        "none",
        "--class-weights",
        "weights of the class loss; balanced: N / (K * clips of the class)",
        choices=("balanced", "none"),
    )
    label_smoothing: float = option(
        0.0, "--label-smoothing", "share of the class label spread over all classes, 0 to 1"
    )
    optimizer: str = option("adam", "--optimizer", "optimiser", choices=OPTIMIZER_NAMES)
    lr: float = option(1e-3, "--lr", "learning rate")
    weight_decay: float = option(1e-5, "--weight-decay", "L2 added to the gradient (adamw: decoupled)")
    betas: tuple[float, float] = option((0.9, 0.999), "--betas", "B1:B2 of adam, adamw, radam")
    eps: float = option(1e-8, "--eps", "epsilon of adam, adamw, radam, rmsprop")
    momentum: float = option(0.9, "--momentum", "of sgd and rmsprop")
    alpha: float = option(0.99, "--alpha", "smoothing of rmsprop")
    schedule: str = option("none", "--schedule", "learning-rate schedule, one step per epoch", choices=SCHEDULE_NAMES)
    step_epochs: int = option(20, "--step-epochs", "step: epochs between reductions")
    milestones: tuple[int, ...] = option(
        (), "--milestone", "multistep: last epoch(s) before a reduction", multiple=True
    )
    factor: float = option(0.5, "--factor", "step, multistep, plateau: what the rate is multiplied by")
    patience_epochs: int = option(
        10, "--patience", "plateau: epochs without a better validation loss before a reduction"
    )
    epochs: int = option(100, "--epochs", "most epochs")
    early_stop_epochs: int = option(
        20, "--early-stop", "stop after this many epochs without a better validation loss; 0: never"
    )
    batch: int = option(32, "--batch", "clips per step")
    seed: int = option(0, "--seed", "of the initial weights, the order of clips, splits and intervals")
    shuffle_labels: bool = option(
        False, "--shuffle-labels", "control experiment: labels and targets of the training part are permuted"
    )
    device: str = option("auto", "--device", "auto | cpu | cuda[:N]")
    threads: int = option(1, "--threads", "CPU threads of a step; 1 is fastest for small batches and bit-reproducible")
    checkpoint_seconds: float = option(10.0, "--checkpoint-seconds", "least time between two checkpoints for --resume")
    report: bool = option(True, "--report", "write report.html and figures at the end")

    recipe: str | None = option(
        None, "--recipe", "train the rows of a named experiment (`reelbank recipes`) and write its report into --run"
    )
    quick: bool = option(
        False, "--quick", "recipe: a twentieth of the epochs on at most 64 training clips, said in the report"
    )
    markdown: bool = option(False, "--markdown", "recipe: also write its table as table.md")
    latex: bool = option(False, "--latex", "recipe: also write its table as table.tex")

    sweep: tuple[str, ...] = option(
        (), "--sweep", "FIELD=A,B,C: train one member per value; several make a grid of all combinations", multiple=True
    )
    repeats: int = option(1, "--repeats", "trainings per combination, with seeds SEED, SEED+1, ...")
    stepwise: bool = option(
        False, "--stepwise", "tune the --sweep fields one at a time, in the order given, and keep the winner of each"
    )
    sweep_by: str = option(
        "auto",
        "--sweep-by",
        "what chooses the winner, always on the validation clips; auto: val_loss, or where a swept field changes the "
        "loss itself, val_mae with a target and val_accuracy without",
        choices=SWEEP_METRICS,
    )
    executor: str = option(
        "auto",
        "--executor",
        "processes: one-thread processes, bit-equal to training alone; stacked: all members in one step; "
        "auto: stacked on a GPU, else processes",
        choices=EXECUTOR_NAMES,
    )
    workers: int = option(0, "--workers", "processes of a sweep; 0: one per core")

    def __post_init__(self) -> None:
        if not self.store:
            raise TrainingError("--store names no store; give at least one")
        for item in fields(self):
            choices, value = item.metadata["choices"], getattr(self, item.name)
            if choices and value not in choices and not item.metadata["more"]:
                raise TrainingError(f"{item.metadata['flag']} {value!r} is not one of {', '.join(sorted(choices))}")
        self._check_tables()
        for name in ("bins", "epochs", "batch", "step_epochs", "threads", "repeats"):
            self._at_least(name, 2 if name == "bins" else 1)
        for name in (
            "view",
            "folds",
            "early_stop_epochs",
            "patience_epochs",
            "weight_decay",
            "momentum",
            "seed",
            "workers",
            "train_clips",
            "checkpoint_seconds",
        ):
            self._at_least(name, 0)
        if self.milestones and min(self.milestones) < 1:
            raise TrainingError(f"--milestone {min(self.milestones)} must be 1 or more: the epochs are counted from 1")
        for name in ("lr", "eps", "sigma", "factor", "alpha"):
            if not 0 < getattr(self, name) < float("inf"):
                raise TrainingError(f"{self._flag(name)} {getattr(self, name)} must be above 0")
        self._check_combinations()

    def _check_tables(self) -> None:
        for table, names in ((HEADS, ("head",)), (LOSSES, ("loss", "class_loss"))):
            for name in names:
                try:
                    _ = None if getattr(self, name) == "auto" else table.row(getattr(self, name))
                except TrainingError as error:
                    raise TrainingError(f"{self._flag(name)}: {error}") from None
        self.head_options()

    def _check_combinations(self) -> None:
        if self.folds == 1:
            raise TrainingError("--folds 1 leaves nothing to train on; use 2 or more, or 0 for the store's own splits")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise TrainingError(f"--range {self.range[0]}:{self.range[1]}: LOW must be below HIGH")
        if not 0 <= self.label_smoothing < 1:
            raise TrainingError(f"--label-smoothing {self.label_smoothing} must be in [0, 1)")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise TrainingError(f"--betas {self.betas[0]}:{self.betas[1]} must both be in [0, 1)")
        if self.schedule == "multistep" and not self.milestones:
            raise TrainingError("--schedule multistep needs at least one --milestone (an epoch)")
        if self.factor >= 1 and self.schedule != "none":
            raise TrainingError(f"--factor {self.factor} must be below 1: the schedule multiplies the rate by it")
        if self.label == "none" and self.target == "none":
            raise TrainingError("--label none with --target none leaves nothing to predict; give one of them")
        if self.resume and self.overwrite:
            raise TrainingError("--resume continues a run and --overwrite replaces it; give one of them")
        if (self.resume or self.overwrite) and self.run is None:
            raise TrainingError("--resume and --overwrite need --run DIR: the run they speak of")
        if self.pool != "mean" and HEADS.row(self.head).needs_steps:
            raise TrainingError(f"--pool {self.pool} has no meaning for head {self.head!r}, which reads every step")

        self.segment_rule()
        augmentation.parse(self.augment)
        if self.augment and not HEADS.row(self.head).needs_steps and self.pool != "mean":
            raise TrainingError(
                f"--augment with head {self.head!r} makes its copies before the mean over time; it needs --pool mean"
            )
        if self.recipe is None:
            for name in ("quick", "markdown", "latex"):
                if getattr(self, name):
                    raise TrainingError(f"--{name} belongs to --recipe NAME; `reelbank recipes` lists them")
        elif self.sweep:
            raise TrainingError("--recipe says itself what is trained; leave --sweep out, or leave --recipe out")
        if self.stepwise and not self.sweep:
            raise TrainingError("--stepwise tunes the fields of --sweep FIELD=A,B,C; give at least one")

    def head_options(self) -> dict[str, Any]:
        """The head's own options that are given: its flags, then --head-option. Raises TrainingError."""
        flags = {f.name for f in fields(self)}
        own = {name: getattr(self, name) for name in HEADS.row(self.head).options if name in flags}
        return own | parse_options(self.head, self.head_option, flags)

    def segment_rule(self) -> SegmentRule | None:
        """The rule of `segments`, None where every step is read once. Raises TrainingError for one it cannot read."""
        if self.segments in (None, "none"):
            return None
        try:
            return parse_segments(str(self.segments))
        except StoreError as error:
            raise TrainingError(f"--segments {error}") from None

    @property
    def is_sweep(self) -> bool:
        """Whether this asks for several trainings (`reelbank.heads.sweep`) instead of one."""
        return self.recipe is None and (bool(self.sweep) or self.repeats > 1)

    def _flag(self, name: str) -> str:
        flag: str = next(f.metadata["flag"] for f in fields(self) if f.name == name)
        return flag

    def _at_least(self, name: str, least: int) -> None:
        if not getattr(self, name) >= least:
            raise TrainingError(f"{self._flag(name)} {getattr(self, name)} must be {least} or more")

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types: paths as text, tuples as lists."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TrainConfig:
        """The configuration that `to_json` wrote. Raises TrainingError for unknown fields."""
        known = {f.name: f for f in fields(cls)}
        if unknown := sorted(set(data) - set(known)):
            raise TrainingError(f"the configuration has fields this version does not know: {', '.join(unknown)}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        values["store"] = tuple(Path(path) for path in values["store"])
        if values.get("run") is not None:
            values["run"] = Path(values["run"])
        return cls(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
