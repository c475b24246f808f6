"""What `reelbank predict` is asked for. The command's options are made from these fields; no torch is loaded here."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from reelbank.store.accepted import ManyPaths, MaybePath, OnePath
from reelbank.store.options import check_options, option


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Which head says something of which clips. Every field is a flag of `reelbank predict`.

    Raises ValueError naming the flag whose value cannot be used.
    """

    run: OnePath = option(MISSING, "--run", "run directory of train-head", group="Run, clips, table")
    store: ManyPaths = option(
        (), "--store", "instead of videos: store to predict; as many as in training, in that order", multiple=True
    )
    video: ManyPaths = option((), "--video", "video, folder or table, as without a flag", multiple=True)
    weights: ManyPaths = option(
        (), "--weights", "with videos: weights file or run that a store of the run was made with", multiple=True
    )
    keep: MaybePath = option(
        None, "--keep", "with videos: folder in which their features stay; default: they are removed"
    )
    split: str | None = option(None, "--split", "only clips of this split; default: all")
    csv: MaybePath = option(
        None, "--csv", "table to write; default: of a store <run>/predictions-<store>.csv, of videos none"
    )
    accept_changed_code: bool = option(
        False, "--accept-changed-code", "apply a head from outside although its source has changed"
    )

    def __post_init__(self) -> None:
        check_options(self, ValueError)
        if bool(self.store) == bool(self.video):
            raise ValueError("give either videos or --store: what to predict")
        if self.store and (self.weights or self.keep):
            raise ValueError("--weights and --keep are for videos: a store has its features")
        if stores := [path for path in self.video if (path / "zarr.json").is_file()]:
            raise ValueError(f"{stores[0]} is a store: give it as --store {stores[0]}")
        if self.csv is not None and not self.csv.parent.is_dir():  # said before anything is extracted
            raise ValueError(f"--csv {self.csv}: there is no folder {self.csv.parent}; make it")

    @property
    def csv_path(self) -> Path | None:
        """The table that is written, if one is."""
        return self.csv or (self.run / f"predictions-{self.store[0].stem}.csv" if self.store else None)
