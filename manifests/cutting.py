"""A train/test cut for sets that come without one."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

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
