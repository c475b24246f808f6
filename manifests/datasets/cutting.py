"""Cuts for sets that come without one: train and test, and classes that training never sees."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

TEST_SHARE = 0.2


def cut_by_group(labels: Sequence[str], groups: Sequence[str], *, seed: int) -> list[str]:
    """`train` or `test` for each clip: whole groups, about 20 % of the clips of every class are test.

    Groups are taken in the order of a hash of seed and name, so that new clips move few others. A group becomes
    test where no class of it would get more test clips than its share; a group larger than that is train.

    Args:
        labels: class of each clip.
        groups: what may not be on both sides, for each clip.
        seed: of the order.
    """
    quota = {label: round(TEST_SHARE * count) for label, count in Counter(labels).items()}
    by_group: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        by_group[group][label] += 1
    test = set()
    for group in sorted(by_group, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()):
        if all(count <= quota[label] for label, count in by_group[group].items()):
            test.add(group)
            for label, count in by_group[group].items():
                quota[label] -= count
    return ["test" if group in test else "train" for group in groups]


def cut_unknown(
    labels: Sequence[str], groups: Sequence[str], *, unknown: Collection[str], seed: int, share_groups: bool = False
) -> list[str]:
    """`train`, `test`, `unknown` or `unused` for each clip: training never sees the classes `unknown`.

    The other classes are cut as by `cut_by_group`. With few large groups that leaves no test clip: then the smallest
    group is test whose classes all stay in training.

    Args:
        labels: class of each clip.
        groups: what may not be on both sides of training, for each clip.
        unknown: the classes that training never sees.
        seed: of the cut.
        share_groups: clips of unknown classes are `unknown` even where their group trains; else those are `unused`.

    Returns:
        One word per clip; without a `test` where no group can be given up.
    """
    known = [i for i, label in enumerate(labels) if label not in unknown]
    known_labels, known_groups = [labels[i] for i in known], [groups[i] for i in known]
    cut = cut_by_group(known_labels, known_groups, seed=seed)
    if "test" not in cut:
        given_up = _smallest_spare(known_labels, known_groups)
        cut = ["test" if group == given_up else "train" for group in known_groups]
    splits = dict(zip(known, cut, strict=True))
    trained = {groups[i] for i, split in splits.items() if split == "train"}
    return [
        splits.get(i, "unknown" if share_groups or group not in trained else "unused") for i, group in enumerate(groups)
    ]


def _smallest_spare(labels: Sequence[str], groups: Sequence[str]) -> str | None:
    """The group with the fewest clips without which every class still has some; None if there is none."""
    total = Counter(labels)
    by_group: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        by_group[group][label] += 1
    spare = [name for name, own in by_group.items() if all(count < total[label] for label, count in own.items())]
    return min(spare, key=lambda name: (by_group[name].total(), name), default=None)
