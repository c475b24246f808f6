"""What can be wrong with a video, or stop a run. Each is also a built-in error, so callers need not know the class."""

from __future__ import annotations

from pathlib import Path

from reelbank.manifests.files import NotWritten


class DecodeError(ValueError):
    """A video, frame folder or image that does not give the frames asked for.

    Attributes:
        path: the file.
        reason: what was found and, where there is something, what to do.
        frame_index: emission index of the first wanted frame that is missing, or None.
    """

    def __init__(self, path: str | Path, reason: str, frame_index: int | None = None) -> None:
        # All three stay in `args`: the error is pickled on its way out of a worker process.
        super().__init__(str(path), reason, frame_index)
        self.path = str(path)
        self.reason = reason
        self.frame_index = frame_index

    def __str__(self) -> str:
        where = "" if self.frame_index is None else f", frame {self.frame_index}"
        return f"{self.path}{where}: {self.reason}"


class PlanMismatch(DecodeError):
    """The decoder does not emit the frames that the container lists: scan again with `count=True`."""


class ExtractionError(RuntimeError):
    """The run cannot go on; what was finished is kept and a re-run continues."""


class DiskFullError(NotWritten):
    """No space is left for the store; what was finished is kept and a re-run continues."""
