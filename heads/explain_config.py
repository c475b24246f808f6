"""What `reelbank explain` is asked for. The command's options are made from these fields; no torch is loaded here."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from reelbank.manifests.registry import file_name
from reelbank.store.accepted import Many, ManyPaths, MaybePath, OnePath
from reelbank.store.options import check_options, option


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Which heads are looked at, on which clips. Every field is a flag of `reelbank explain`.

    Raises ValueError naming the flag whose value cannot be used.
    """

    run: OnePath = option(MISSING, "--run", "run directory of train-head", group="Heads and clips")
    clip: Many[str] = option((), "--clip", "clip_id to show", multiple=True)
    beside: ManyPaths = option((), "--beside", "another run to show below it", multiple=True)
    gradcam: bool = option(
        False, "--gradcam", "of any head on maps, frames or fields: where the evidence for a class lies, by gradients"
    )
    classes: Many[str] = option(
        (), "--class", "class of --gradcam; default: the one that a run predicts", multiple=True
    )
    input: str | None = option(
        None, "--input", "input that --gradcam is drawn over; default: pictures, else the head's first"
    )
    store: ManyPaths = option(
        (),
        "--store",
        "store that the runs read, as many as in training, in that order; default: those of the training",
        multiple=True,
        group="What is read and written",
    )
    frames: MaybePath = option(
        None, "--frames", "store of backbone frames with the pictures; default: the run's own frames, else thumbnails"
    )
    out: MaybePath = option(None, "--out", "PNG to write; default: <run>/attention-<clip>.png, or gradcam-")
    maps: MaybePath = option(None, "--maps", ".npz to write as well, with every map as it is")
    accept_changed_code: bool = option(
        False, "--accept-changed-code", "use a head from outside although its source has changed"
    )

    def __post_init__(self) -> None:
        check_options(self, ValueError)
        if not self.clip:
            raise ValueError("give --clip ID, once or more: the clips to show")
        for flag, value in (("--class", self.classes), ("--input", self.input)):
            if value and not self.gradcam:
                raise ValueError(f"{flag} belongs to --gradcam: give it, too")
        for flag, path, suffix in (("--out", self.out, ".png"), ("--maps", self.maps, ".npz")):
            if path is None:
                continue
            if path.suffix not in ("", suffix):
                raise ValueError(f"{flag} {path}: a {suffix} file is written; name it {path.with_suffix(suffix)}")
            if not path.parent.is_dir():
                raise ValueError(f"{flag} {path}: there is no folder {path.parent}; make it")

    @property
    def picture(self) -> Path:
        """The PNG that is written."""
        first, more = file_name(self.clip[0]), len(self.clip) - 1
        kind = "gradcam" if self.gradcam else "attention"
        return self.out or self.run / f"{kind}-{first}{f'-and-{more}-more' if more else ''}.png"
