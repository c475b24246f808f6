"""Which worker gets which clip next: the clips of one file go to one worker, in an order that reads it once.

What a worker has learnt of a file (its hash, its scan, where the decoder stands) is good for the next clip of it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from reelbank.extract.run.messages import ClipJob

LEAST_SHARED = {False: 2, True: 64}
"""{whether frames cost all before them: clips of a file that must be left for a second worker to help with it}.

Where they do, it decodes the file twice, once to count it, before it has its first clip."""


@dataclass(eq=False)
class _Group:
    """Clips of one file that one worker has, or will have.

    Attributes:
        jobs: in order.
        is_sequential: whether frames cost all before them; None where no clip of it was decoded yet.
    """

    jobs: deque[ClipJob]
    is_sequential: bool | None = None

    @property
    def can_be_shared(self) -> bool:
        return self.is_sequential is not None and len(self.jobs) >= LEAST_SHARED[self.is_sequential]


class Dispatch:
    """The clips that no worker has yet; files in the order of the manifest."""

    def __init__(self, jobs: Iterable[ClipJob]) -> None:
        """Groups the clips by what they read."""
        by_file: dict[Hashable, list[ClipJob]] = {}
        for job in jobs:
            # Clips whose files the manifest does not name have nothing in common.
            files = tuple(sorted(job.paths.items()))
            by_file.setdefault(files if any(job.paths.values()) else job.index, []).append(job)
        self._waiting = deque(_Group(deque(one_after_another(clips))) for clips in by_file.values())
        self._groups = {job.index: group for group in self._waiting for job in group.jobs}
        self._of: dict[Hashable, _Group] = {}
        self._num_left = len(self._groups)

    def __len__(self) -> int:
        """Clips that no worker has."""
        return self._num_left

    def next_for(self, worker: Hashable) -> ClipJob | None:
        """The clip that a worker should have next; None where all that is left is better done by others."""
        group = self._of.get(worker)
        if group is None or not group.jobs:
            group = self._waiting.popleft() if self._waiting else self._share()
            if group is None:
                return None
            self._of[worker] = group
        self._num_left -= 1
        return group.jobs.popleft()

    def learn(self, index: int, is_sequential: bool) -> None:
        """Takes what a worker found out about the file of a clip."""
        self._groups[index].is_sequential = is_sequential

    def take_back(self, worker: Hashable, jobs: Sequence[ClipJob]) -> None:
        """Has the clips of a worker that is gone done by others, those that it had begun first."""
        self._num_left += len(jobs)
        groups = [self._of.pop(worker)] if worker in self._of else []
        for job in reversed(jobs):
            group = self._groups[job.index]
            group.jobs.appendleft(job)
            groups.append(group)
        with_workers = set(self._of.values())
        for group in dict.fromkeys(groups):
            if group.jobs and group not in with_workers and group not in self._waiting:
                self._waiting.appendleft(group)

    def _share(self) -> _Group | None:
        """The later half of the clips that the busiest worker has not begun."""
        groups = [group for group in self._of.values() if group.can_be_shared]
        if not groups:
            return None
        longest = max(groups, key=lambda group: len(group.jobs))
        half = len(longest.jobs) // 2
        later = [longest.jobs.pop() for _ in range(half)][::-1]
        shared = _Group(deque(later), longest.is_sequential)
        self._groups |= {job.index: shared for job in later}
        return shared


def one_after_another(clips: Iterable[ClipJob]) -> list[ClipJob]:
    """Clips of one file in as few rows as their overlaps allow, each of them one pass over the file."""
    rows: list[list[ClipJob]] = []
    ends: list[tuple[float, int]] = []  # a heap of when rows end, and their numbers
    for job in sorted(clips, key=lambda job: (job.clip.start_seconds or 0.0, job.index)):
        if ends and ends[0][0] <= (job.clip.start_seconds or 0.0):
            _, row = heapq.heappop(ends)
        else:
            row = len(rows)
            rows.append([])
        rows[row].append(job)
        end = job.clip.end_seconds
        heapq.heappush(ends, (float("inf") if end is None else end, row))
    return [job for row in rows for job in row]
