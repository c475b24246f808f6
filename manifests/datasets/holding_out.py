"""Parts of a set that are held out of training: a share of the clips of every class, or of whole groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from reelbank.manifests.drawing import drawn_by_class, drawn_order, quotas
from reelbank.manifests.manifest import Clip, Manifest, ManifestError

WAYS = ("clip", "group")


def check_share(share: float | None, flag: str) -> None:
    """Raises ManifestError for a share that is not above 0 and below 1; None is none."""
    if share is not None and not 0 < share < 1:
        raise ManifestError(f"{flag} {share} must be above 0 and below 1: it is the part that is held out")


def held_out_count(share: float, total: int) -> int:
    """ceil(share * total), with the share as it is written: 0.07 of 100 is 7, which floats make 7.000000000000001."""
    return math.ceil(Fraction(repr(float(share))) * total)


def with_held_out(
    manifest: Manifest, share: float, *, part: str, by: str = "clip", seed: int = 0, flag: str = "--val-share"
) -> Manifest:
    """The manifest with a part of its training clips in split `part`, and a note on what came out.

    Args:
        manifest: its clips of split `train` are cut; all others stay.
        share: above 0, below 1.
        part: the new split, `val` or `test`.
        by: `clip` or `group`; clips without a group then stay in training.
        seed: of the cut.
        flag: the option that asked, for messages.

    Raises:
        ManifestError: no clip is training, or none can be held out without leaving its class none to train on.
    """
    at = [i for i, clip in enumerate(manifest.clips) if clip.split == "train"]
    clips = [manifest.clips[i] for i in at]
    labels = [clip.label for clip in clips]
    if by == "clip":
        held = hold_out_clips(labels, [clip.clip_id for clip in clips], share, seed=seed, flag=flag)
    else:
        held = hold_out_groups(labels, [clip.group for clip in clips], share, seed=seed, flag=flag)
    moved = {i for i, is_held in zip(at, held, strict=True) if is_held}
    cut = tuple(replace(clip, split=part) if i in moved else clip for i, clip in enumerate(manifest.clips))
    of = f"{len(clips)} clips of {len(set(labels))} classes"
    note = f"{part}: {len(moved)} of {of} ({flag} {share:g} by {by}, seed {seed})"
    if missed := sorted(set(labels) - {clip.label for i, clip in enumerate(cut) if i in moved}):
        note += f"; none of {', '.join(missed)}"
    if by == "group":
        note += f"; {held_out_count(share, len(clips))} were asked for, whole groups give {len(moved)}"
    elif any(clip.group for clip in clips):
        note += f"; {seen_text(cut, part)} (`featurize` takes that with --allow-group-overlap)"
    return replace(manifest, clips=cut, notes=(*manifest.notes, note))


def seen_text(clips: Sequence[Clip], part: str) -> str:
    """How many clips of a split have a training clip of their own group, also of their own class, for a note."""
    trained = [clip for clip in clips if clip.split == "train" and clip.group]
    evaluated = [clip for clip in clips if clip.split == part]
    groups, pairs = {clip.group for clip in trained}, {(clip.group, clip.label) for clip in trained}
    seen = sum(clip.group in groups for clip in evaluated)
    alike = sum((clip.group, clip.label) in pairs for clip in evaluated)
    percent, percent_alike = (100 * count / max(len(evaluated), 1) for count in (seen, alike))
    said = f"{seen} of {len(evaluated)} {part} clips ({percent:.1f} %) have a training clip of the same source"
    return said if seen == alike else f"{said}, {alike} ({percent_alike:.1f} %) one of the same source and class"


def hold_out_clips(
    labels: Sequence[str], ids: Sequence[str], share: float, *, seed: int, flag: str = "--val-share"
) -> list[bool]:
    """Whether each clip is held out: `ceil(share * n)` in all, of every class its share by largest remainder.

    Within a class clips are taken in the order of a hash of seed and id, so that the order of the rows means nothing.

    Raises:
        ManifestError: so many cannot be held out with every class keeping a training clip.
    """
    return drawn_by_class(ids, labels, _quotas(labels, share, seed=seed, flag=flag), seed)


def hold_out_groups(
    labels: Sequence[str], groups: Sequence[str], share: float, *, seed: int, flag: str = "--val-share"
) -> list[bool]:
    """Whether each clip is held out: whole groups, so that every class comes near its quota of `hold_out_clips`.

    In the order of a hash of seed and name: first groups of several classes, while none of these gets more than its
    quota; then of each class the groups of it alone whose sum is nearest to what is lacking. Where that is not the
    quota, groups are added, given back or exchanged one by one while it brings the counts nearer: the sum of
    |held - quota| of all classes, plus that of the whole. Clips without a group are never held out, and every class
    keeps a training clip.

    Raises:
        ManifestError: no group can be held out.
    """
    of_class = _quotas(labels, share, seed=seed, flag=flag)
    there = sorted({name for name in groups if name})
    names = [there[place] for place in drawn_order(there, seed)]
    classes = sorted(of_class)
    counts = np.zeros((len(names), len(classes)), dtype=np.int64)  # (groups, classes)
    row, column = ({name: i for i, name in enumerate(found)} for found in (names, classes))
    for label, group in zip(labels, groups, strict=True):
        if group:
            counts[row[group], column[label]] += 1
    totals = Counter(labels)
    wanted = np.array([of_class[label] for label in classes])
    most = np.array([totals[label] - 1 for label in classes])
    held = np.zeros(len(names), dtype=bool)
    have = np.zeros(len(classes), dtype=np.int64)
    is_single = (counts > 0).sum(axis=1) == 1
    for number in np.flatnonzero(~is_single).tolist():
        if (have + counts[number] <= wanted).all():
            held[number] = True
            have += counts[number]
    for number in range(len(classes)):
        own = np.flatnonzero(is_single & (counts[:, number] > 0)).tolist()
        sizes = {group: int(counts[group, number]) for group in own}
        chosen = _nearest_sum(sizes, int(wanted[number] - have[number]), int(most[number] - have[number]))
        held[chosen] = True
        have[number] += sum(sizes[group] for group in chosen)
    while (move := _best_move(counts, held, have, wanted, most)) is not None:
        for number in move:
            have += counts[number] * (-1 if held[number] else 1)
            held[number] = ~held[number]
    if not held.any():
        raise ManifestError(
            f"{flag} {share:g} by group: none of {len(names)} groups can be held out with every class keeping a "
            "training clip; hold out by clip, or take a set with more groups"
        )
    taken = {name for name, is_held in zip(names, held, strict=True) if is_held}
    return [group in taken for group in groups]


def _nearest_sum(sizes: Mapping[int, int], wanted: int, most: int) -> list[int]:
    """Those whose sizes add up nearest to `wanted`, to no more than `most`; the first in order where several do."""
    reached: dict[int, list[int]] = {0: []}
    for name, size in sizes.items():
        for total, names in list(reached.items()):
            if total + size <= min(most, 2 * wanted):  # what is further off than nothing is never nearest
                reached.setdefault(total + size, [*names, name])
    return reached[min(reached, key=lambda total: (abs(total - wanted), total))]


def _best_move(
    counts: NDArray[np.int64],
    held: NDArray[np.bool_],
    have: NDArray[np.int64],
    wanted: NDArray[np.int64],
    most: NDArray[np.int64],
) -> list[int] | None:
    """The groups to move to the other side, one or one of each, that bring the counts nearest; None: they are."""
    best, found = _distance(have[None] - wanted)[0], None
    inside, outside = np.flatnonzero(held), np.flatnonzero(~held)
    for leaving in (None, *inside.tolist()):
        base = have if leaving is None else have - counts[leaving]
        for entering, after in ((None, base[None]), (outside, base + counts[outside])):
            if not len(after):
                continue
            far = np.where((after <= most).all(axis=1), _distance(after - wanted), np.inf)
            number = int(far.argmin())
            if far[number] < best:
                best = far[number]
                found = [] if leaving is None else [leaving]
                found += [] if entering is None else [int(entering[number])]
    return found


def _distance(off: NDArray[np.int64]) -> NDArray[np.float64]:
    """(groups, classes) -> (groups,)."""
    distance: NDArray[np.float64] = (np.abs(off).sum(axis=1) + np.abs(off.sum(axis=1))).astype(np.float64)
    return distance


def _quotas(labels: Sequence[str], share: float, *, seed: int, flag: str) -> dict[str, int]:
    """Clips of each class that are held out, `ceil(share * n)` together; see `quotas`."""
    check_share(share, flag)
    totals = Counter(labels)
    if not totals:
        raise ManifestError(f"{flag} {share:g}: no clip is in split 'train', so none can be held out of it")
    found = quotas(totals, held_out_count(share, len(labels)), seed)
    if found is None:
        raise ManifestError(
            f"{flag} {share:g} of {len(labels)} clips of {len(totals)} classes: every class has to keep a training "
            f"clip, and then {len(labels) - len(totals)} can be held out; ask for less, or leave small classes out"
        )
    return found
