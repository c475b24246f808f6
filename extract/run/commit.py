"""Commits of one store while a run goes on: a unit is written as soon as its clips are staged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from reelbank.extract import backbones
from reelbank.extract.errors import DiskFullError
from reelbank.extract.run import todo as planning
from reelbank.extract.run.content import stat_of
from reelbank.extract.run.messages import ClipJob, ModelJob
from reelbank.extract.run.todo import Todo
from reelbank.extract.video.scan import HDR_TRANSFERS, SEEN_ASPECT
from reelbank.extract.video.timeline import LATE_SECONDS
from reelbank.manifests.files import not_written
from reelbank.store.devices import device_facts
from reelbank.store.layout import DONE
from reelbank.store.staging import Outcome, stage_failure
from reelbank.store.writer import StoreWriter, clip_identity


class Committer:
    """Writes the units of one store as soon as every clip that a run wants of them is staged."""

    def __init__(self, writer: StoreWriter, job: ModelJob, todo: Todo) -> None:
        """Takes over what an interrupted run had staged. `reasons` is {row: why it failed, None if it is done}."""
        self.writer, self._job = writer, job
        self.reasons: dict[int, str | None] = {row: _reason(o) for row, o in todo.recovered.items()}
        self._run: dict[str, Any] = {
            "batch": job.batch, "device": job.device, "versions": planning.versions(job.spec.decoder),
            **device_facts(job.device),
        }  # fmt: skip
        self.remarks: Counter[str] = Counter()
        self._ready: dict[int, list[Outcome]] = {}
        self._expected: dict[int, int] = {}
        for row in (*todo.rows, *todo.recovered):
            unit = writer.geometry.unit_of(row)
            self._expected[unit] = self._expected.get(unit, 0) + 1
        for outcome in todo.recovered.values():
            self.remarks.update(self._remarks(outcome))
            self._ready.setdefault(writer.geometry.unit_of(outcome.row), []).append(outcome)

    @property
    def model(self) -> str:
        """Name of the backbone."""
        return self._job.model

    def batch_was_halved(self, batch: int) -> None:
        """Memory ran out: units that are committed from now on may hold steps of a pass of `batch`."""
        self._run["least_batch"] = min(batch, self._run.get("least_batch", batch))

    def add(self, outcome: Outcome) -> None:
        """Takes a staged outcome."""
        self.reasons[outcome.row] = _reason(outcome)
        self.remarks.update(self._remarks(outcome))
        self._ready.setdefault(self.writer.geometry.unit_of(outcome.row), []).append(outcome)

    def full_units(self) -> list[int]:
        """Units that wait for no other clip of this run."""
        return [unit for unit, ready in self._ready.items() if len(ready) == self._expected[unit]]

    def staged_units(self) -> list[int]:
        """Units that have anything to write."""
        return list(self._ready)

    def take(self, unit: int) -> list[Outcome]:
        """What is staged of one unit; it is not offered again."""
        self._expected[unit] -= len(self._ready[unit])
        return self._ready.pop(unit)

    def commit(self, unit: int, outcomes: list[Outcome]) -> None:
        """Writes one unit. Raises DiskFullError; the staged files are then still there."""
        try:
            self.writer.commit(unit, outcomes, self._run)
        except OSError as error:
            if full := not_written(error, self.writer.path):
                raise DiskFullError(full.errno, str(full)) from error
            raise

    def fail(self, job: ClipJob, model: int, reason: str) -> None:
        """Stages the failure of a clip that its worker could not report itself."""
        row = dict(job.rows)[model]
        identity = clip_identity(job.clip, self._job.spec.digest, "")
        stat = stat_of(job.paths[backbones.describe(self._job.model).source])
        self.add(stage_failure(self._job.store, row, identity, {"reason": reason}, stat))

    def _remarks(self, outcome: Outcome) -> list[str]:
        """Which arrays of the ledger say something of a done clip that a person should know."""
        ledger: Mapping[str, Any] = outcome.ledger if outcome.status == DONE else {}
        damaged: list[int] = ledger.get("step_damaged", [])
        is_skewed = abs(ledger.get("pixel_aspect", 1.0) - 1) > SEEN_ASPECT
        found = {
            "decode_errors": ledger.get("decode_errors", 0) > 0,
            "end_known": not ledger.get("end_known", 1),
            "step_damaged": any(damaged),
            "first_frame_seconds": ledger.get("first_frame_seconds", 0.0) >= LATE_SECONDS,
            "time_source": ledger.get("time_source") in ("repaired", "counted"),
            "repeated_steps": ledger.get("repeated_steps", 0) > 0,
            "num_frame_sizes": ledger.get("num_frame_sizes", 0) > 1,
            "pixel_aspect": is_skewed and not self._job.spec.square_pixels,
            "transfer": ledger.get("transfer") in HDR_TRANSFERS.values(),
        }
        return [name for name, is_said in found.items() if is_said]


def _reason(outcome: Outcome) -> str | None:
    """Why a clip failed, None for one that is done: all that the report needs of it."""
    return None if outcome.status == DONE else str(outcome.ledger["reason"])
