"""What a data set looks like before anything is learned from it: classes, targets, sizes of its clips.

All of it stands in the store's manifest columns and its ledger: no feature is read and no video opened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reelbank.heads.examples.clips import text_column
from reelbank.heads.examples.labelling import asked_target
from reelbank.heads.reports.drawing import split_order
from reelbank.store.layout import DONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reelbank.store.reader import Store

SIZES = {
    "duration_seconds": "duration (s)",
    "num_frames": "frames",
    "width_px": "width (px)",
    "height_px": "height (px)",
    "rate_fps": "frames per second",
}
"""Columns of the ledger that say how large a clip is, with their name on an axis."""

KCAL_RANGE = 100.0
"""Width of the ranges that energy expenditure is read in (light, moderate, ... activities)."""
MOST_RANGES = 60
LARGEST_MULTIPLE = 2.0**50  # integers beyond are soon no exact floats
SMALLEST_SPAN = 1e-290  # below, powers of ten lose digits


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """The clips of a store's manifest, N of them, done or not.

    Attributes:
        labels, splits, groups: (N,) str arrays; '' where there is none.
        target: (N,) float64, NaN where unknown; None where the store has no target.
        target_name: column of `target`; '' for none.
        sizes: {name of SIZES: (N,) float64}, NaN for clips without features, which nobody measured.
        status: clips by what happened to them: done, failed, missing.
    """

    labels: NDArray[np.str_]
    splits: NDArray[np.str_]
    groups: NDArray[np.str_]
    target: NDArray[np.float64] | None
    target_name: str
    sizes: Mapping[str, NDArray[np.float64]]
    status: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_target(self) -> bool:
        """Whether any clip has a number to predict."""
        return self.target is not None and bool(np.isfinite(self.target).any())

    def to_json(self) -> dict[str, Any]:
        """Every number that the pictures show, and a few more.

        `classes` counts clips per class and split; `target` and `sizes` hold summaries (n, mean, std, min, q1, median,
        q3, max; std with n in the denominator) per split, for the target also per class and split, and `ranges`.
        """
        found: dict[str, Any] = {
            "num_clips": len(self),
            "status": dict(self.status),
            "splits": {name: int((self.splits == name).sum()) for name in split_order(self.splits.tolist())},
            "classes": {
                label: self._by_split(self.labels == label) for label in sorted(set(self.labels.tolist()) - {""})
            },
            "num_unlabelled": int((self.labels == "").sum()),
            "num_groups": len(set(self.groups.tolist()) - {""}),
            "sizes": {
                name: self._summaries(values) for name, values in self.sizes.items() if np.isfinite(values).any()
            },
        }
        if self.target is not None and self.has_target:
            edges, counts = self.ranges()
            found["target"] = {
                "name": self.target_name,
                "splits": self._summaries(self.target),
                "classes": {
                    label: self._summaries(np.where(self.labels == label, self.target, np.nan))
                    for label in found["classes"]
                },
                "ranges": [
                    {"low": float(low), "high": float(high), "count": int(count)}
                    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
                ],
            }
        return found

    def ranges(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(R + 1,) edges and (R,) clips of the ranges of the target: 100 wide for kcal, else round numbers.

        A range holds its lower edge; the last holds both. kcal that would have more than `MOST_RANGES` are no kcal/h.
        """
        assert self.target is not None
        values = self.target[np.isfinite(self.target)]
        low, high = float(values.min()), float(values.max())
        is_kcal = self.target_name.startswith("kcal") and high - low <= KCAL_RANGE * MOST_RANGES
        edges = _edges(low, high, KCAL_RANGE if is_kcal else _round_width(high - low))
        return edges, np.histogram(values, bins=edges)[0].astype(np.int64)

    def _by_split(self, mask: NDArray[np.bool_]) -> dict[str, int]:
        present = self.splits[mask]
        return {name: int((present == name).sum()) for name in split_order(present.tolist())}

    def _summaries(self, values: NDArray[np.float64]) -> dict[str, dict[str, float]]:
        """By split and for `all`; a part without values is not there."""
        parts = {"all": values} | {name: values[self.splits == name] for name in split_order(self.splits.tolist())}
        return {name: summary(part) for name, part in parts.items() if np.isfinite(part).any()}


def explore(store: Store, *, label: str = "label", target: str | None = None) -> Exploration:
    """Reads the manifest columns and the ledger of a store.

    Args:
        label: text column with the class.
        target: numeric column; None: the store's first target; 'none': no target.

    Raises:
        ValueError: an unknown column, or a store without clips.
    """
    ledger = store.clips
    rows = np.flatnonzero(ledger.in_manifest == 1)
    if not len(rows):
        raise ValueError(f"{store.path.name} holds no clip of a manifest; run featurize on it first")
    done = ledger.status[rows] == DONE
    sizes = {}
    for name in SIZES:
        values = getattr(ledger, name)[rows].astype(np.float64)
        sizes[name] = np.where(done & (values > 0), values, np.nan)
    target_name = asked_target(target, store.target_names) or ""
    counts = ledger.counts()
    return Exploration(
        labels=text_column(store, label)[rows],
        splits=text_column(store, "split")[rows],
        groups=text_column(store, "group")[rows],
        target=store.column(target_name)[rows].astype(np.float64) if target_name else None,
        target_name=target_name,
        sizes=sizes,
        status={name: counts[name] for name in ("done", "failed", "missing")},
    )


def summary(values: NDArray[np.float64]) -> dict[str, float]:
    """n, mean, std (n in the denominator), min, q1, median, q3, max of the finite values."""
    values = values[np.isfinite(values)]
    low, q1, median, q3, high = (float(value) for value in np.quantile(values, (0, 0.25, 0.5, 0.75, 1)))
    return {
        "n": len(values),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": low,
        "q1": q1,
        "median": median,
        "q3": q3,
        "max": high,
    }


def sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """What a person wants to know first, from `Exploration.to_json`."""
    splits = ", ".join(f"{name or '(none)'} {count}" for name, count in found["splits"].items())
    text = f"{found['num_clips']} clips ({splits})"
    totals = {label: sum(counts.values()) for label, counts in found["classes"].items()}
    if totals:
        most, least = max(totals, key=lambda name: totals[name]), min(totals, key=lambda name: totals[name])
        text += f", {len(totals)} {'class' if len(totals) == 1 else 'classes'}"
        if totals[least] < totals[most]:
            text += f": {least} has the fewest ({totals[least]}), {most} the most ({totals[most]})"
    yield f"{text}."
    parts = []
    if "target" in found:
        values = found["target"]["splits"]["all"]
        parts.append(
            f"{found['target']['name']} {values['min']:.4g} to {values['max']:.4g}, median {values['median']:.4g}"
        )
    if "duration_seconds" in found["sizes"]:
        values = found["sizes"]["duration_seconds"]["all"]
        parts.append(
            f"duration {values['min']:.3g} to {values['max']:.3g} s, median {values['median']:.3g} s "
            f"({values['n']} clips with features)"
        )
    if parts:
        text = "; ".join(parts)
        yield f"{text[0].upper() if text.startswith('duration') else text[0]}{text[1:]}."


def _edges(low: float, high: float, width: float) -> NDArray[np.float64]:
    """Multiples of `width` around the values from `low` to `high`; eighths of the span where float64 has none there."""
    if math.isfinite(width) and max(abs(low), abs(high)) / width < LARGEST_MULTIPLE:
        first = math.floor(low / width)
        return np.arange(first, max(math.ceil(high / width), first + 1) + 1).astype(np.float64) * width
    edges = np.unique(np.linspace(low / 2, high / 2, 9) * 2)  # halves: the span may be no float
    return edges if len(edges) > 1 else np.array([low, math.nextafter(low, math.inf)])


def _round_width(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that about four to eight of them make the span; of no use where it is inf."""
    if span <= 0:
        return 1.0
    if not SMALLEST_SPAN < span < math.inf:
        return span
    magnitude = 10.0 ** math.floor(math.log10(span / 8))
    return next(magnitude * factor for factor in (1, 2, 5, 10) if magnitude * factor >= span / 8 * (1 - 1e-9))
