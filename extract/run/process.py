"""What a worker process does for itself when it starts."""

from __future__ import annotations

import multiprocessing
import os


def die_with_parent() -> None:
    """A parent that was killed cannot stop its workers, and a new run must not meet them."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def limit_threads() -> None:
    """One thread per worker: workers share the cores, and one thread gives the same bits on any machine."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
