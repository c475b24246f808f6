"""A training run: one directory that says what was trained, on what, and how good it is beside trivial guesses.

`train_head(config)` makes it, `reelbank.heads.reports.run_page.write_run_report(run_dir)` draws it. The files:

`config.json`  (written first)
    format_version 1 · config: every field of its parts · stores: [{path, backbone, weights, weights_are_random,
    spec, spec_digest, taps: [names used], keys: {name that the head sees: tap}, readings: {such a name: {rule,
    beside}} where a tap is not read as stored}] · weights_are_random (any store) · warning ("" or the sentence that
    every report must show) · labels: [class names, sorted] or null · bins: null or {target, unit, num_bins, low, high,
    sigma_bins, labels} · num_parameters · counts (as in results.json) · notes [sentences] ·
    plugins: [{kind, name, target, distribution, version, sha256, files}] of the code from outside

`metrics.jsonl`  (one JSON object per epoch, flushed; a resumed run continues it)
    fold (int, null without --folds) · epoch (from 1) · learning_rate · train_loss · val_loss (null without
    validation rows) · val_accuracy, val_mae (null where the head has no such output) · seconds · best (bool: so far)
    of a head that reads arrays also train_accuracy (of its batches as they were trained on) · losses {labels, further
    losses: as they count in train_loss} where there are several · learning_rates {group: rate} where there are several
    with --schedule cyclic also batch_learning_rates [rate of each batch]

`best.safetensors`, `last.safetensors`  (with --folds K: `fold-0/`, ... `fold-<K-1>/` hold one pair each)
    best: the predictor. Tensors `head.*`, `normalisation.<tap>.mean|scale` and, in the header under `reelbank`, JSON:
    head, its options and sizes, labels, bins, pool, normalize, view, store specs. last: what --resume needs. Of a head
    that holds the rest of its backbone neither has the tensors that are still the backbone's: best tells their names,
    the backbone's weights and the sha256 (`backbones`), the stage, and the clips that trained it or chose its epoch

`predictions.csv`  (one row per evaluated clip; with --folds each clip once, by the model that never saw its group)
    clip_id, split ("val" | "test" | "unknown"; with --judge-train also "train"), fold ("" without folds), group, label,
    predicted, probability, correct ("1" | "0" | ""), true_probability (that of the clip's own label, "" for one that
    training never saw); where two classes are opposites by their names within_pair ("1" | "0" | ""): whether the clip's
    class is more probable than its opposite, see `reelbank.heads.judging.opposites`; with several labels per clip
    (--loss bce) all that are predicted, no probability, correct where they are just the right ones, and `probability of
    <label>` for each; with a target also target and predicted_target (empty where unknown), both in target units

`predictions-best-epoch.csv`  (with --keep last only)
    the same columns, predicted with the weights of the best epoch, which this run does not keep

`confusion.json`  (absent without a class output)
    {split: {labels: [names of rows and columns], counts: [[true x predicted]]}}

`mistakes.html`  (beside `report.html`, where clips have one class each)
    of each true class the clips that are most certainly wrong

`tensorboard/`  (with --tensorboard)
    events of every epoch, hyperparameters and final metrics, see `reelbank.heads.runs.tensorboard`; reelbank reads
    none of it

`results.json`  (written last: a run without it is not finished)
    format_version · run (name) · weights_are_random · warning · shuffled_labels (bool)
    selection: {select_on, criterion, sentence}
    reported: "test" | "val"   (the split the verdict speaks of; with --folds "test" is the pooled out-of-fold rows)
    counts: {clips, train, val, test, unknown, classes, groups (null: no group column), left_out: [{reason, count}]}
            (with --folds train and val are those of fold 0)
    splits: {split: {num_clips, num_groups (null: no clip has a group),
                     metrics:   {name: {value, low, high, interval, drawn, higher_is_better, unit}},
                                value null = undefined; interval: "bootstrap", "Wilson" or why there is none; drawn: of
                                how many groups, of clips where num_groups is null
                     baselines: {baseline: {metric: value}}}}
        class metrics:  accuracy, top5_accuracy (of more than 5 classes), macro_f1, weighted_f1 (fractions), and
                        beside `metrics` class_report: [{label, clips, predicted (as often as it is said),
                        precision, recall, f1}] and most_confused: [{true, predicted, clips, share (of the true
                        class's clips)}], the five pairs with most clips; with several labels per clip
                        macro_ap, micro_f1_at_half, macro_f1_at_half, and beside `metrics` per_class: [{label,
                        clips, share, average_precision, random_order}]
        target metrics: mae (target unit), mae_bins (bins), spc_values, spc_bins, nll (nats; nll_mean: over bins)
        baselines: majority_class, uniform_random_class; training_prevalence, random_order; constant_median,
                   class_mean_oracle, uniform_random_bin, random_training_label, label_marginal
    group_overlap: {split: {clips, shared, share}}: of the judged clips those of a group that was trained on (null: no
            clip has a group)
    folds: [] or [{fold, best_epoch, epochs_run, stopped_early, overfit, train, val, test, metrics: {name: value}}]
    at_best_epoch: null or, with --keep last, {splits, folds: [{fold, metrics}]} as above, of the best epoch's weights
    training: {seconds, epochs_run, best_epoch, stopped_early, num_parameters, overfit}  (of fold 0 with --folds;
              a fitted head counts every number that it keeps)
    choices: [{fold, output, chosen, clips, losses: {candidate: mean loss out of fold}}] of a fitted head, else []
    notes: [sentences] · verdict (sentences) · target_name, target_unit (null without target)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.examples.cache import FeatureCache
from reelbank.heads.examples.prepared import prepare
from reelbank.heads.fitting.fitter import Fitter
from reelbank.heads.judging.evaluation import summary_text
from reelbank.heads.runs.directory import resumable, start_run, write_finished
from reelbank.heads.runs.recording import Recording
from reelbank.heads.runs.results import finished
from reelbank.heads.training.job import make_job
from reelbank.heads.training.memory import fitting
from reelbank.heads.training.trainer import Trainer
from reelbank.manifests.events import Progress
from reelbank.manifests.notebooks import card, grid, with_bar
from reelbank.store.devices import cpu_threads
from reelbank.store.processes import leave_if_importing


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A finished run.

    Attributes:
        directory: where its files lie.
        results: the content of results.json.
    """

    directory: Path
    results: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """What a person should take away, in sentences."""
        return str(self.results["verdict"])

    @property
    def warning(self) -> str:
        """The sentence that must stand wherever a number of this run is shown; empty for trained backbones."""
        return str(self.results["warning"])

    @property
    def has_failures(self) -> bool:
        """Never: a run that cannot be trained raises. Sweeps and recipes have it, too."""
        return False

    def metric(self, name: str, split: str | None = None) -> float | None:
        """Metric `name` of `split` (default: the reported one); None if undefined."""
        entry = self.results["splits"][split or self.results["reported"]]["metrics"]
        if name not in entry:
            raise TrainingError(f"this run has no metric {name!r} there; it has {', '.join(sorted(entry))}")
        value: float | None = entry[name]["value"]
        return value

    def __repr__(self) -> str:
        values = ", ".join(f"{name} {_number(one['value'])}" for name, one in self._reported["metrics"].items())
        aside = ", of RANDOM WEIGHTS" if self.results["weights_are_random"] else ""
        return f"<Run {self.directory}: {self.results['reported']} {values}{aside}>"

    def _repr_html_(self) -> str:
        entry, reported = self._reported, self.results["reported"]
        facts = {"verdict": self.verdict, "warning": self.warning, "report": str(self.directory / "report.html")}
        rows = []
        for name, one in entry["metrics"].items():
            interval = "" if one["low"] is None else f"{_number(one['low'])} to {_number(one['high'])}"
            guesses = [
                f"{guess.replace('_', ' ')} {_number(values[name])}"
                for guess, values in entry["baselines"].items()
                if name in (values or {})
            ]
            rows.append([name, _number(one["value"]), one["unit"], interval, ", ".join(guesses)])
        head = (f"{reported}, {entry['num_clips']} clips", "value", "unit", "95 % interval", "trivial guesses")
        return card("Run", str(self.directory), {name: text for name, text in facts.items() if text}) + grid(head, rows)

    @property
    def _reported(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.results["splits"][self.results["reported"]]
        return found

    def text(self) -> str:
        """The run for a terminal: warnings, numbers beside their baselines, notes, and where the files are."""
        return summary_text(self.directory, self.results)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}"


@with_bar("train-head")
def train_head(config: TrainConfig, progress: Progress | None = None) -> RunResult:
    """Trains a head as `config` says and writes a run directory.

    Args:
        config: what to train; `--resume` continues a stopped run to the same numbers.
        progress: called with an Event after every epoch and stage.

    Raises:
        TrainingError: whatever does not fit, before anything is written where that is possible; a loss that is no
            longer finite; memory that does not suffice for a step.
        StoreError: a path that is no store.
    """
    leave_if_importing()
    return train_with(config, FeatureCache(), progress)


def train_with(config: TrainConfig, cache: FeatureCache, progress: Progress | None = None) -> RunResult:
    """`train_head` with features that other trainings share."""
    with cpu_threads(config.run.threads):
        prepared = prepare(config, progress, cache)
        directory = start_run(prepared)
        started = time.perf_counter()
        with resumable(directory):
            trained = []
            with Recording(directory, prepared, progress) as recording:
                for partition in prepared.partitions:
                    with fitting(prepared.device, config.optimizer.batch):
                        trainer = (
                            Fitter(prepared, partition, progress)
                            if prepared.config.head.is_fitted
                            else Trainer(make_job(prepared, partition))
                        )
                        trained.append(recording.train(partition, trainer))
            found = finished(directory.name, prepared, trained, time.perf_counter() - started)
            write_finished(directory, prepared, found, progress)
            return RunResult(directory=directory, results=found.results)
