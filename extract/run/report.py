"""What a run of `featurize` did."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelbank.extract.run.commit import Committer
from reelbank.extract.run.messages import ModelJob, Tally
from reelbank.extract.run.todo import Todo
from reelbank.store.description import failure_lines, random_weights_warning, readable
from reelbank.store.layout import DONE

REMARKS = {
    "step_damaged": "{n} with damaged steps, which are marked (clips/step_damaged)",
    "decode_errors": "{n} where the decoder reports errors (clips/decode_errors)",
    "time_source": "{n} of files whose times are repaired, or counted at a constant rate (clips/time_source)",
    "first_frame_seconds": "{n} of files whose picture begins later than the file, from whose start intervals count"
    " (clips/first_frame_seconds)",
    "repeated_steps": "{n} whose last steps repeat the one before: each step reads several frames, and the clip has"
    " no later ones (clips/repeated_steps)",
    "num_frame_sizes": "{n} whose pictures change their size; clips/frame_box is what holds picture in every step"
    " (clips/num_frame_sizes)",
    "pixel_aspect": "{n} of videos whose pixels are not square, read as they are stored; --square-pixels reads them as"
    " players show them (clips/pixel_aspect)",
    "transfer": "{n} of HDR videos (PQ or HLG), read without tone mapping: paler than players show them"
    " (clips/transfer)",
    "end_known": "{n} of files that do not say where they end: were one cut between two pictures, nothing would tell",
}
"""What is said of done clips, by the array of the ledger that holds it."""


def pace(tally: Tally | None, done: int, seconds: float, failed: int) -> str:
    """Rate, failures and the stage that takes most of the time, in a few words.

    Args:
        done: clips; `failed` of them.
        seconds: since the run began.
    """
    if tally is None or done == 0:
        return "starting workers"
    parts = [f"{done / seconds:.2g} clips/s", f"{tally.steps_forwarded / seconds:.0f} steps/s"]
    parts.append(f"mostly {max(stage_seconds(tally).items(), key=lambda item: item[1])[0]}")
    return ", ".join(parts + ([f"{failed} failed"] if failed else []))


def stage_seconds(tally: Tally) -> dict[str, float]:
    """Seconds that workers spent in each stage."""
    return {
        "decode": tally.decode_seconds,
        "preprocess": tally.prepare_seconds,
        "forward": tally.forward_seconds,
        "write": tally.write_seconds,
    }


@dataclass(frozen=True, kw_only=True)
class StoreReport:
    """One store after the run.

    Attributes:
        num_extracted: clips that got features in this run.
        num_recovered: clips that an interrupted run had finished.
        num_done_before: clips that had features already.
        failures: {clip id: reason} of this run.
        failed_before: {clip id: reason} of clips that failed earlier and whose file has not changed.
        remarks: {key of REMARKS: done clips of this run}.
        weights_are_random: the features say nothing about the published backbone.
    """

    model: str
    store: Path
    num_extracted: int
    num_recovered: int
    num_done_before: int
    failures: dict[str, str]
    failed_before: dict[str, str]
    remarks: dict[str, int]
    num_bytes: int
    weights_are_random: bool

    @classmethod
    def of(cls, job: ModelJob, committer: Committer, todo: Todo) -> StoreReport:
        """The report of one committed store."""
        ids = committer.writer.clip_ids()
        fresh = [reason for row, reason in committer.reasons.items() if row not in todo.recovered]
        return cls(
            model=job.model,
            store=job.store,
            num_extracted=sum(reason is None for reason in fresh),
            num_recovered=sum(o.status == DONE for o in todo.recovered.values()),
            num_done_before=todo.num_done,
            failures={ids[row]: reason for row, reason in sorted(committer.reasons.items()) if reason is not None},
            failed_before={ids[row]: reason for row, reason in todo.failed_before.items()},
            remarks=dict(committer.remarks),
            num_bytes=sum(p.stat().st_size for p in (job.store / "features").rglob("*") if p.is_file()),
            weights_are_random=job.spec.weights_are_random,
        )

    @property
    def line(self) -> str:
        """What happened to the store, in one line."""
        parts = [f"{self.num_extracted} clip{'s' * (self.num_extracted != 1)} extracted"]
        for count, words in (
            (self.num_recovered, "recovered from an interrupted run"),
            (self.num_done_before, "done before"),
            (len(self.failures) + len(self.failed_before), "failed"),
        ):
            if count:
                parts.append(f"{count} {words}")
        return f"{self.store}: {', '.join(parts)}; {readable(self.num_bytes)} of {self.model} features"


@dataclass(frozen=True, kw_only=True)
class FeaturizeReport:
    """The whole run.

    Attributes:
        num_forwarding: processes that run the models: the workers, or the parent alone.
        extract_seconds: from the first worker's start to the last commit.
        worker_seconds: seconds of all workers together, start-up included.
    """

    stores: tuple[StoreReport, ...]
    notes: tuple[str, ...]
    num_clips: int
    num_workers: int
    num_forwarding: int
    wall_seconds: float
    extract_seconds: float
    worker_seconds: float
    tally: Tally

    @property
    def has_failures(self) -> bool:
        """Whether any asked clip has no features."""
        return any(s.failures or s.failed_before for s in self.stores)

    @property
    def stage_shares(self) -> dict[str, float]:
        """Share of the workers' time per stage; `wait` is start-up and having nothing to do."""
        seconds = stage_seconds(self.tally)
        total = max(self.worker_seconds, sum(seconds.values()), 1e-9)
        return {name: s / total for name, s in {**seconds, "wait": max(0.0, total - sum(seconds.values()))}.items()}

    @property
    def limiting_stage(self) -> str:
        """The stage that took most of the workers' time."""
        return max(self.stage_shares, key=self.stage_shares.__getitem__)

    @property
    def bare_model_share(self) -> float:
        """Rate reached as a share of what the same processes would reach if they did nothing but forward."""
        return self.tally.forward_seconds / max(self.num_forwarding * self.extract_seconds, 1e-9)

    def failures_by_reason(self) -> dict[str, int]:
        """{reason: clips}, over all stores, most frequent first."""
        counts: Counter[str] = Counter()
        for store in self.stores:
            counts.update({**store.failed_before, **store.failures}.values())
        return dict(counts.most_common())

    def text(self) -> str:
        """The report for a person: a line per store, the failures, and where the time went."""
        lines = []
        for store in self.stores:
            lines.append(store.line)
            lines += [f"  {text.format(n=n)}" for name, text in REMARKS.items() if (n := store.remarks.get(name))]
            shown = {**store.failed_before, **store.failures}
            lines += [f"  failed: {line}" for line in failure_lines(shown, f"{store.store} --json")]
            if store.failed_before:
                lines.append(
                    f"  {len(store.failed_before)} failed in an earlier run: reelbank store retry {store.store}"
                )
            if store.weights_are_random:
                lines.append(f"  {random_weights_warning([store.model])}")
        if self.tally.steps_forwarded:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in self.stage_shares.items())
            lines.append(
                f"{self.wall_seconds:.1f} s with {self.num_workers} worker{'s' * (self.num_workers != 1)}: "
                f"{self.tally.frames_decoded / self.extract_seconds:.0f} frames/s decoded, "
                f"{self.tally.steps_forwarded / self.extract_seconds:.0f} steps/s forwarded "
                f"({self.bare_model_share:.0%} of the bare models' rate); worker time: {shares}"
            )
        return "\n".join([*self.notes, *lines])

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types."""
        seconds = max(self.extract_seconds, 1e-9)
        return {
            **asdict(self),
            "stores": [{**asdict(s), "store": str(s.store)} for s in self.stores],
            "frames_decoded_per_second": self.tally.frames_decoded / seconds,
            "steps_forwarded_per_second": self.tally.steps_forwarded / seconds,
            "stage_shares": self.stage_shares,
            "limiting_stage": self.limiting_stage,
            "bare_model_share": self.bare_model_share,
            "failures_by_reason": self.failures_by_reason(),
        }
