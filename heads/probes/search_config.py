"""What `reelbank find` is asked for. The command's options are made from these fields; no torch is loaded here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reelbank.store.accepted import ManyPaths, MaybePath
from reelbank.store.options import check_options, option


@dataclass(frozen=True, kw_only=True)
class FindConfig:
    """Whose neighbours are looked for, and among which rows. Every field is a flag of `reelbank find`.

    Raises ValueError naming the flag whose value cannot be used.
    """

    store: MaybePath = option(
        None, "--store", "store to search; default: the only *.zarr of this folder", group="What is asked for"
    )
    clip: str | None = option(None, "--clip", "clip_id whose neighbours are looked for")
    image: MaybePath = option(None, "--image", "instead of --clip: a picture, whose features are made as the store's")
    video: MaybePath = option(None, "--video", "instead of --clip: a video, whose features are made as the store's")
    tap: str | None = option(None, "--tap", "tap to read; default: the store's first")
    count: int = option(12, "--count", "neighbours to show", least=1, most=1000, group="What is compared and shown")
    level: str = option(
        "clip",
        "--level",
        "what is compared: clips (the means of their steps), or steps: of each clip the step most like one asked for",
        ("clip", "step"),
    )
    normalize: str = option(
        "zscore",
        "--normalize",
        "zscore by training rows | l2: each step over its length, before any mean | none",
        ("l2", "none", "zscore"),
    )
    other_groups: bool = option(
        False, "--other-groups", "leave out clips of the query's own group, which are marked otherwise"
    )
    label: str = option("label", "--label", "text column with the class")
    weights: ManyPaths = option(
        (), "--weights", "with a file: the weights file or run that the store was made with", multiple=True
    )
    out: MaybePath = option(None, "--out", "folder of the page; default: <store>-find")

    def __post_init__(self) -> None:
        check_options(self, ValueError)
        given = [flag for flag in ("clip", "image", "video") if getattr(self, flag) is not None]
        if len(given) != 1:
            raise ValueError(
                "give one of --clip ID, --image FILE and --video FILE: what neighbours are looked for"
                + (f"; here are {' and '.join(f'--{flag}' for flag in given)}" if given else "")
            )
        if self.weights and self.file is None:
            raise ValueError("--weights belongs to --image and --video: features of a clip are in the store")
        if self.other_groups and self.file is not None:
            raise ValueError("--other-groups belongs to --clip: a file is of no group")

    @property
    def file(self) -> Path | None:
        """The picture or video that was asked for; None for a clip of the store."""
        return self.image or self.video
