"""Which epoch a training keeps and when it stops, from losses made by hand; which clips its losses are of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from planted import BINS, clips, partition, prepared

from reelbank.heads import TrainingError
from reelbank.heads.losses import loss_function
from reelbank.heads.runs.checkpoints import load_progress, save_progress, saved_epoch
from reelbank.heads.training.job import Job, make_job
from reelbank.heads.training.objective import loss_terms, total_loss, total_loss_with_gradient, validation_numbers
from reelbank.heads.training.trainer import EpochRecord, Progression, Trainer, probabilities, seeded
from reelbank.store.devices import cpu_threads

NAN = float("nan")
LABELS = ["a", "b", "a", "b", "a", "b", "a", "b"]


def _job(labels: Sequence[str] = LABELS, values: Sequence[float] | None = None, **options: Any) -> Job:
    """Clips 0-3 train, 4-6 validate, 7 tests; the features are zeros."""
    part = partition([0, 1, 2, 3], [4, 5, 6], [7])
    case = prepared(
        clips(labels, values=values),
        classes=("a", "b"),
        bins=None if values is None else BINS,
        partitions=(part,),
        **{"head": "linear", "epochs": 10, **options},
    )
    return make_job(case, part)


def _run(val_losses: Sequence[float], **options: Any) -> tuple[Trainer, list[EpochRecord]]:
    """A trainer that was told these validation losses; its weights in epoch n are all n."""
    trainer, records = Trainer(_job(**options)), []
    for epoch, loss in enumerate(val_losses, start=1):
        with torch.no_grad():
            for value in trainer.head.parameters():
                value.fill_(float(epoch))
        records.append(trainer.record(0.1, [9.0, loss, 0.5, 7.0]))
    return trainer, records


def _weights(trainer: Trainer) -> set[float]:
    return {value for parameter in trainer.head.parameters() for value in parameter.flatten().tolist()}


def test_best_epoch_has_the_lowest_validation_loss_and_is_the_first_of_equals() -> None:
    trainer, records = _run([3.0, 2.0, 2.0, 1.0, 1.0, 5.0])
    assert [record.best for record in records] == [True, True, False, True, False, False]
    assert (trainer.state.best_epoch, trainer.state.best_loss, trainer.state.last_loss) == (4, 1.0, 5.0)
    assert trainer.state.epoch == 6
    assert [record.epoch for record in records] == [1, 2, 3, 4, 5, 6]
    assert not trainer.state.finished


@pytest.mark.parametrize(("keep", "kept"), [("best", {2.0}), ("last", {4.0})])
def test_kept_weights_are_those_of_the_epoch_asked_for(keep: str, kept: set[float]) -> None:
    trainer, _ = _run([3.0, 1.0, 2.0, 1.5], keep=keep)
    trainer.use_kept_weights()
    assert _weights(trainer) == kept


def test_record_carries_the_numbers_it_was_given() -> None:
    trainer = Trainer(_job())
    record = trainer.record(0.125, [4.0, 3.0, 0.75, 12.0])
    assert record == EpochRecord(
        epoch=1, learning_rate=0.125, train_loss=4.0, val_loss=3.0, val_accuracy=0.75, val_mae=12.0, best=True
    )
    assert math.isnan(trainer.record(0.1, [4.0, 3.0, NAN, NAN]).val_mae)
    assert Progression() == Progression(
        epoch=0, best_epoch=0, best_loss=math.inf, last_loss=math.inf, stopped_early=False, finished=False
    )


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_early_stop_counts_epochs_without_a_better_loss(patience: int) -> None:
    losses = [5.0, 4.0, 4.5, 4.4, 4.3, 4.2, 4.1]
    for told in range(1, 2 + patience):
        trainer, _ = _run(losses[:told], early_stop_epochs=patience)
        assert not trainer.state.finished, told
    trainer, _ = _run(losses[: 2 + patience], early_stop_epochs=patience)
    assert trainer.state.stopped_early
    assert trainer.state.finished
    assert (trainer.state.best_epoch, trainer.state.epoch) == (2, 2 + patience)


def test_a_better_loss_starts_the_count_again_and_an_equal_one_does_not() -> None:
    assert not _run([5.0, 6.0, 4.0, 6.0], early_stop_epochs=2)[0].state.stopped_early
    assert _run([5.0, 6.0, 5.0], early_stop_epochs=2)[0].state.stopped_early


def test_without_early_stop_training_ends_at_its_last_epoch() -> None:
    trainer, _ = _run([1.0] + [2.0] * 8, early_stop_epochs=0)
    assert not trainer.state.finished
    trainer.record(0.1, [9.0, 2.0, NAN, NAN])
    assert trainer.state.finished
    assert not trainer.state.stopped_early
    both, _ = _run([1.0, 2.0], epochs=2, early_stop_epochs=1)
    assert both.state.stopped_early
    assert both.state.finished


@pytest.mark.parametrize("numbers", [[NAN, 1.0], [math.inf, 1.0], [1.0, NAN], [1.0, math.inf]])
def test_a_loss_that_is_not_finite_is_an_error_and_never_the_best(numbers: list[float]) -> None:
    trainer, _ = _run([3.0])
    with pytest.raises(TrainingError, match=r"epoch 2: training loss .* a smaller --lr \(now 0.001\)"):
        trainer.record(0.1, [*numbers, NAN, NAN])
    assert (trainer.state.epoch, trainer.state.best_epoch, trainer.state.best_loss) == (1, 1, 3.0)


def test_schedule_watches_the_validation_loss() -> None:
    trainer = Trainer(_job(schedule="plateau", patience_epochs=0, factor=0.5, lr=0.8))
    rates = []
    for train_loss, val_loss in ((9.0, 3.0), (10.0, 2.0), (8.0, 2.5), (7.0, 1.0)):
        trainer.record(0.1, [train_loss, val_loss, NAN, NAN])
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == [0.8, 0.8, 0.4, 0.4]


def test_training_goes_on_until_it_is_finished_and_tells_every_epoch() -> None:
    seen: list[EpochRecord] = []
    trainer = Trainer(_job(epochs=3))
    trainer.train(seen.append)
    assert [record.epoch for record in seen] == [1, 2, 3]
    trainer.train(seen.append)  # nothing is left to do
    assert len(seen) == 3
    assert {record.learning_rate for record in seen} == {0.001}


def test_an_epoch_draws_every_training_clip_once_in_an_order_of_its_own() -> None:
    trainer = Trainer(_job())
    orders = []
    for epoch in (1, 2, 1):
        torch.manual_seed(trainer.seed_of(epoch))
        orders.append(trainer.draw_order().tolist())
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert orders[0] == orders[2]
    assert trainer.seed_of(1) != trainer.seed_of(2)
    assert trainer.seed_of(1) != Trainer(_job(seed=1)).seed_of(1)


def test_balanced_draws_take_training_clips_alone_and_classes_as_often() -> None:
    trainer = Trainer(_job(["a", "a", "a", "b", "c", "c", "c", "c"], balance="class"))
    drawn = torch.cat([trainer.draw_order() for _ in range(300)])
    counts = np.bincount(drawn.numpy(), minlength=8) / 1200
    assert counts[:3] == pytest.approx([1 / 6] * 3, abs=0.05)
    assert counts[3] == pytest.approx(0.5, abs=0.06)
    assert counts[4:].sum() == 0


# --- what the numbers of an epoch are of


def _logits(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.tensor(rows)


def test_validation_numbers_are_those_of_the_clips_asked_for() -> None:
    job = _job(values=[1.0, 2.0, 3.0, 4.0, 5.0, 9.0, NAN, 7.0])
    index = torch.tensor([4, 5, 6])
    target = torch.zeros(3, 11)
    target[[0, 1, 2], [2, 8, 0]] = 5.0
    logits = {"label": _logits([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]]), "target": target}
    loss, accuracy, error = validation_numbers(job, logits, index)
    assert accuracy.item() == pytest.approx(1 / 3)  # a b a against a a b
    assert error.item() == pytest.approx((3 + 1) / 2)  # the clip without a target is left out
    labels, q = job.labels, logits["target"].log_softmax(dim=1)
    assert labels.distributions is not None
    classes = torch.nn.functional.cross_entropy(logits["label"], torch.tensor([0, 1, 0]))
    targets = -(labels.distributions[index[:2]] * q[:2]).sum(dim=1).mean()
    assert loss.item() == pytest.approx((classes + targets).item(), rel=1e-5)


def test_validation_numbers_of_one_output_leave_the_other_undefined() -> None:
    logits = {"label": _logits([[2.0, 0.0]])}
    _, accuracy, error = validation_numbers(_job(), logits, torch.tensor([4]))
    assert accuracy.item() == 1.0
    assert math.isnan(error.item())


def test_clips_without_a_label_have_no_part_in_the_validation_loss() -> None:
    job = _job([*LABELS[:5], "", "new", "b"])
    index = torch.tensor([4, 5, 6])
    logits = {"label": _logits([[2.0, 0.0], [9.0, 0.0], [0.0, 9.0]])}
    loss = total_loss(job.config.objective, job.labels, logits, index, complete=False)
    assert loss.item() == pytest.approx(loss_function("ce")(logits["label"][:1], torch.tensor([[1.0, 0.0]])).item())
    (term,) = loss_terms(job.config.objective, job.labels, logits, index, complete=False)
    assert term.weights is not None
    assert term.weights.tolist() == [1.0, 0.0, 0.0]
    (training,) = loss_terms(job.config.objective, job.labels, {"label": logits["label"][:2]}, index[:1], complete=True)
    assert training.weights is None


def test_balanced_class_weights_are_of_the_training_part() -> None:
    job = _job(["a", "a", "a", "b", "b", "b", "b", "b"], class_weights="balanced")
    (term,) = loss_terms(
        job.config.objective, job.labels, {"label": torch.zeros(2, 2)}, torch.tensor([0, 3]), complete=True
    )
    assert term.weights is not None
    assert term.weights.tolist() == pytest.approx([4 / 6, 4 / 2])
    (judged,) = loss_terms(
        job.config.objective, job.labels, {"label": torch.zeros(1, 2)}, torch.tensor([4]), complete=False
    )
    assert judged.weights is not None
    assert judged.weights.tolist() == pytest.approx([2.0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [("label", "ce", "sum"), ("target", "ce", "sum")]),
        ({"loss": "kld", "reduction": "mean"}, [("label", "ce", "sum"), ("target", "kld", "mean")]),
        ({"loss": "kld", "class_loss": "jsd"}, [("label", "jsd", "sum"), ("target", "kld", "sum")]),
    ],
)
def test_loss_of_both_outputs_is_one_term_each(options: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    job = _job(values=[float(i) for i in range(8)], **options)
    logits = {"label": torch.zeros(2, 2), "target": torch.zeros(2, 11)}
    terms = loss_terms(job.config.objective, job.labels, logits, torch.tensor([0, 1]), complete=True)
    assert [(term.output, term.loss, term.reduction) for term in terms] == expected
    alone = _job(loss="jsd")
    (term,) = loss_terms(
        alone.config.objective, alone.labels, {"label": torch.zeros(1, 2)}, torch.tensor([0]), complete=True
    )
    assert term.loss == "jsd"


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_total_loss_is_the_sum_of_both_outputs_and_its_gradient_that_of_autograd(reduction: str) -> None:
    job = _job(values=[float(i) for i in range(8)], reduction=reduction, loss="kld")
    torch.manual_seed(0)
    logits = {"label": torch.randn(3, 2, requires_grad=True), "target": torch.randn(3, 11, requires_grad=True)}
    index = torch.tensor([3, 0, 2])
    loss = total_loss(job.config.objective, job.labels, logits, index, complete=True)
    assert job.labels.distributions is not None
    p = job.labels.distributions[index]
    classes = torch.nn.functional.cross_entropy(logits["label"], torch.tensor([1, 0, 0]))
    divergence = (p * (p.log() - logits["target"].log_softmax(dim=1))).sum(dim=1).mean()
    expected = classes + divergence / (11 if reduction == "mean" else 1)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    plain = {name: values.detach() for name, values in logits.items()}
    again, gradients = total_loss_with_gradient(job.config.objective, job.labels, plain, index)
    assert again.item() == pytest.approx(loss.item(), rel=1e-6)
    assert list(gradients) == ["label", "target"]
    for name, values in logits.items():
        assert values.grad is not None
        torch.testing.assert_close(gradients[name], values.grad)


def test_copies_of_a_clip_have_the_labels_of_that_clip() -> None:
    """Row r is a copy of clip r % N: the labels of copies are no others."""
    job = _job(values=[float(i) for i in range(8)])
    labels = replace(job.labels, num_clips=8)
    logits = {"label": torch.zeros(3, 2), "target": torch.zeros(3, 11)}
    found = loss_terms(job.config.objective, labels, logits, torch.tensor([1, 9, 18]), complete=True)
    plain = loss_terms(job.config.objective, job.labels, logits, torch.tensor([1, 1, 2]), complete=True)
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one.p, other.p)


# --- one epoch


def _with_features(job: Job) -> Job:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 1, 4)).astype(np.float32))
    return replace(job, resident=replace(job.resident, arrays={"cls": values}))


@pytest.mark.parametrize("head", ["linear", "attentive"])
def test_an_epoch_is_plain_descent_on_the_training_clips(head: str) -> None:
    """Five clips in batches of two: the loss is the mean over clips, each batch one step from its own gradient."""
    job = _job(head=head, optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=0.5, batch=2)
    trainer = Trainer(replace(_with_features(job), train=np.array([0, 1, 2, 3, 7])))
    plain = deepcopy(trainer.head).train()
    with seeded(trainer.seed_of(1), torch.device("cpu")):
        order = trainer.draw_order()
    truth, losses = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1]), []
    for part in order.split(2):
        logits = plain(*trainer.job.resident.inputs(plain, part))["label"]
        loss = torch.nn.functional.cross_entropy(logits, truth[part], reduction="sum")
        plain.zero_grad()
        (loss / len(part)).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        with torch.no_grad():
            for value in plain.parameters():
                value -= 0.5 * value.grad  # type: ignore[operator]
    record = trainer.run_epoch()
    assert record.train_loss == pytest.approx(sum(losses) / 5, rel=1e-5)
    for ours, theirs in zip(trainer.head.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach())
    val = torch.tensor([4, 5, 6])
    judged = plain.eval()(*trainer.job.resident.inputs(plain, val))["label"]
    assert record.val_loss == pytest.approx(torch.nn.functional.cross_entropy(judged, truth[val]).item(), rel=1e-5)
    assert record.val_accuracy == pytest.approx((judged.argmax(dim=1) == truth[val]).float().mean().item())


def test_dropout_is_on_while_training_and_off_while_judging() -> None:
    modes: list[tuple[bool, int]] = []
    trainer = Trainer(_with_features(_job(head="attentive", batch=2)))
    trainer.head.register_forward_pre_hook(lambda head, given: modes.append((head.training, len(given[1]))))
    for _ in range(2):
        trainer.run_epoch()
    assert modes == [(True, 2), (True, 2), (False, 3)] * 2
    trainer.head.train()
    found = probabilities(trainer.head, trainer.job.resident, np.array([7, 4]))
    assert modes[-1] == (False, 2)
    assert found["label"].sum(axis=1).tolist() == pytest.approx([1.0, 1.0])
    none = probabilities(trainer.head, trainer.job.resident, np.array([], dtype=np.int64))
    assert all(len(values) == 0 for values in none.values())


# --- what a training starts from


def test_first_weights_and_draws_depend_on_seed_and_fold_alone() -> None:
    def of(fold: int | None, **options: Any) -> tuple[Trainer, list[float]]:
        job = replace(_job(head="mlp", **options), fold=fold)
        torch.rand(5)  # the caller's random state must not matter
        trainer = Trainer(job)
        return trainer, torch.cat([value.flatten() for value in trainer.head.parameters()]).tolist()

    trainers = [of(None), of(0), of(1), of(None, seed=1)]
    assert of(None)[1] == trainers[0][1]
    assert len({tuple(weights) for _, weights in trainers}) == 4
    assert len({trainer.seed_of(epoch) for trainer, _ in trainers for epoch in (1, 2, 3)}) == 12


def test_head_that_looks_at_vectors_first_sees_those_of_training_clips_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    job = _job(head="additive")
    monkeypatch.setattr(type(Trainer(job).head), "fit", lambda head, vectors: seen.append(vectors))
    rows = torch.arange(8.0)[:, None, None].expand(8, 1, 4)
    Trainer(replace(job, resident=replace(job.resident, arrays={"cls": rows})))
    assert seen[-1][:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_threads_and_random_state_are_given_back() -> None:
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with pytest.raises(RuntimeError, match="inside"), cpu_threads(before + 1):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before
    with seeded(3, torch.device("cpu")):
        first = torch.rand(2)
    with seeded(3, torch.device("cpu")):
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.random.get_rng_state(), state)


# --- where a training stands


def test_progress_is_read_back_as_it_was_written(tmp_path: Any) -> None:
    trainer, _ = _run([3.0, 1.0, 2.0, 4.0], early_stop_epochs=2)
    path = tmp_path / "last.safetensors"
    assert saved_epoch(path) == 0
    save_progress(path, trainer)
    assert saved_epoch(path) == 4
    job = _job(early_stop_epochs=2)
    again = Trainer(job)
    load_progress(path, again)
    state = again.state
    assert (state.epoch, state.best_epoch, state.best_loss, state.last_loss) == (4, 2, 1.0, 4.0)
    assert state.stopped_early
    assert state.finished
    assert _weights(again) == {4.0}
    again.use_kept_weights()
    assert _weights(again) == {2.0}


@pytest.mark.parametrize(("epochs", "finished"), [(3, True), (4, False)])
def test_more_epochs_may_be_asked_for_than_were_done(epochs: int, finished: bool, tmp_path: Any) -> None:
    trainer, _ = _run([3.0, 2.0, 1.0], epochs=3)
    save_progress(tmp_path / "last.safetensors", trainer)
    job = _job(epochs=epochs)
    again = Trainer(job)
    load_progress(tmp_path / "last.safetensors", again)
    assert (again.state.finished, again.state.stopped_early) == (finished, False)
