"""Every metric on cases small enough to work out by hand, and its direction."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reelbank.heads.examples.targets import Bins
from reelbank.heads.judging.by_class import macro_f1
from reelbank.heads.judging.metrics import (
    METRICS,
    ClassScores,
    Metric,
    TargetScores,
    average_ranks,
    correlation,
    evaluate,
    mean_where_defined,
    names_of,
    per_clip_values,
    point_estimate,
    spc_values,
)
from reelbank.manifests.plugins import PluginError

KCAL = Bins(target="kcal", num_bins=1000, low=0.0, high=1000.0, sigma_bins=5.0)


def _classes(probabilities: object, truth: list[int]) -> ClassScores:
    return ClassScores(probabilities=np.array(probabilities, dtype=float), truth=np.array(truth))


def _targets(probabilities: object, truth: list[float], bins: Bins, estimate: str = "argmax") -> TargetScores:
    values = np.array(truth, dtype=float)
    return TargetScores(
        probabilities=np.array(probabilities, dtype=float),
        bin_values=bins.values(),
        truth=values,
        labels=bins.distributions(values),
        estimate=estimate,
    )


def test_directions_and_units_are_those_of_the_specification() -> None:
    directions = {name: metric.higher_is_better for name, metric in METRICS.items()}
    assert (
        directions.items()
        >= {
            "accuracy": True,
            "top5_accuracy": True,
            "macro_f1": True,
            "weighted_f1": True,
            "mae": False,
            "mae_bins": False,
            "spc_values": True,
            "spc_bins": True,
            "nll": False,
            "nll_mean": False,
        }.items()
    )
    units = {name: metric.unit for name, metric in METRICS.items()}
    fractions = {*names_of("label", ["weighted_f1"]), *names_of("labels")}
    assert {name for name, unit in units.items() if unit == "fraction"} == fractions
    assert (units["mae"], units["mae_bins"], units["nll"], units["nll_mean"]) == ("target", "bins", "nats", "nats")
    assert units["spc_values"] == units["spc_bins"] == "correlation"
    always = {*names_of("label"), *names_of("labels"), *names_of("target")}
    assert set(METRICS) == always | {"cross_entropy", "ce_on_softmax", "weighted_f1"}
    assert names_of("label", ["cross_entropy"]) == (*names_of("label"), "cross_entropy")
    assert all((metric.per_clip is None) != (metric.whole is None) for metric in METRICS.values())


def test_the_first_of_equal_classes_is_predicted() -> None:
    scores = _classes([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.1, 0.2, 0.7]], [0, 1, 0])
    assert scores.predicted.tolist() == [0, 1, 2]
    assert evaluate("accuracy", scores) == pytest.approx(2 / 3)


def test_a_class_that_training_never_saw_is_always_wrong() -> None:
    scores = _classes(np.eye(7)[[0, 1, 2]], [0, -1, -1])
    assert evaluate("accuracy", scores) == evaluate("top5_accuracy", scores) == pytest.approx(1 / 3)


def test_five_classes_are_in_the_top_five_and_the_sixth_is_not() -> None:
    row = [0.30, 0.25, 0.20, 0.12, 0.08, 0.05]
    assert [evaluate("top5_accuracy", _classes([row], [k])) for k in range(6)] == [1, 1, 1, 1, 1, 0]
    equal = [[1 / 6] * 6] * 6  # of equals the first ones count
    assert evaluate("top5_accuracy", _classes(equal, [0, 1, 2, 3, 4, 5])) == pytest.approx(5 / 6)
    assert evaluate("top5_accuracy", _classes(np.full((2, 3), 1 / 3), [2, -1])) == 0.5
    many = _classes(np.full((60, 60), 1 / 60), list(range(60)))  # so many that only a stable order has the first five
    assert evaluate("top5_accuracy", many) == pytest.approx(5 / 60)


def test_macro_f1_is_the_mean_over_classes_in_truth_or_prediction() -> None:
    # class 0: TP 1, FP 0, FN 1 -> 2/3; class 1: TP 1, FP 1, FN 0 -> 2/3; class 2: TP 0, FP 0, FN 1 -> 0; 3: nowhere
    assert macro_f1(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 3])) == pytest.approx(
        np.mean([2 / 3, 2 / 3, 0.0, 0.0]),
    )
    assert macro_f1(np.array([5, 5]), np.array([5, 5])) == 1.0
    assert macro_f1(np.array([-1, 0]), np.array([0, 0])) == pytest.approx((0 + 2 / 3) / 2)
    assert macro_f1(np.array([2, 2]), np.array([0, 0])) == 0.0
    assert math.isnan(macro_f1(np.array([], dtype=int), np.array([], dtype=int)))
    assert macro_f1(np.array([1]), np.array([1])) == 1.0
    assert macro_f1(np.array([3, -1, -1, -1, -1]), np.array([0] * 5)) == 0.0


def test_point_estimates_of_one_distribution_differ_as_defined() -> None:
    values = np.array([0.0, 10.0, 20.0, 30.0])
    q = np.array([[0.4, 0.15, 0.25, 0.2], [0.25, 0.25, 0.25, 0.25], [0.1, 0.1, 0.4, 0.4], [0.0, 0.5, 0.5, 0.0]])
    assert point_estimate(q, values, "argmax").tolist() == [0.0, 0.0, 20.0, 10.0]
    assert point_estimate(q, values, "expectation").tolist() == pytest.approx([12.5, 15.0, 21.0, 15.0])
    # the first bin at which half of the mass is reached: an exact half is reached
    assert point_estimate(q, values, "median").tolist() == [10.0, 10.0, 20.0, 10.0]
    # half of the mass there is, where rounding left it a little below 1
    assert point_estimate(np.array([[0.4, 0.1, 0.3]]), values[:3], "median").tolist() == [0.0]


def test_scores_use_the_estimate_that_is_asked_for() -> None:
    bins = Bins(target="x", num_bins=4, low=0.0, high=30.0, sigma_bins=1.0)
    q = [[0.4, 0.15, 0.25, 0.2]]
    errors = {kind: evaluate("mae", _targets(q, [4.0], bins, kind)) for kind in ("argmax", "expectation", "median")}
    assert errors == pytest.approx({"argmax": 4.0, "expectation": 8.5, "median": 6.0})
    plain = TargetScores(
        probabilities=np.array(q),
        bin_values=bins.values(),
        truth=np.array([4.0]),
        labels=bins.distributions(np.array([4.0])),
    )
    assert plain.estimate == "argmax"


def test_absolute_error_is_in_target_units_and_bin_error_in_bins() -> None:
    bins = Bins(target="x", num_bins=5, low=100.0, high=300.0, sigma_bins=0.5)
    scores = _targets(np.eye(5)[[0, 4, 2]], [130.0, 130.0, 199.0], bins)
    assert evaluate("mae", scores) == pytest.approx((30 + 170 + 1) / 3)
    # labels peak in bins 1, 1, 2
    assert evaluate("mae_bins", scores) == pytest.approx((1 + 3 + 0) / 3)


def test_ranks_share_their_mean_where_values_are_equal() -> None:
    assert average_ranks(np.array([10.0, 30.0, 10.0, 20.0])).tolist() == [1.5, 4.0, 1.5, 3.0]
    assert average_ranks(np.array([[3.0, 2.0, 1.0], [5.0, 5.0, 5.0]])).tolist() == [[3, 2, 1], [2, 2, 2]]


def test_spearman_over_clips_by_hand() -> None:
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    assert spc_values(truth, np.array([10.0, 20.0, 30.0, 99.0])) == pytest.approx(1.0)
    assert spc_values(truth, np.array([9.0, 7.0, 5.0, 3.0])) == pytest.approx(-1.0)
    # ranks 1 2 4 3: 1 - 6 (1 + 1) / (4 (16 - 1))
    assert spc_values(truth, np.array([1.0, 2.0, 9.0, 8.0])) == pytest.approx(1 - 12 / 60)
    assert spc_values(truth[:2], np.array([1.0, 2.0])) == pytest.approx(1.0)
    assert math.isnan(spc_values(truth[:1], truth[:1]))
    assert math.isnan(spc_values(np.full(3, 2.0), truth[:3]))


def test_correlation_by_hand_and_undefined_for_a_constant() -> None:
    a, b = np.array([[1.0, 2.0, 6.0], [1.0, 1.0, 1.0]]), np.array([[2.0, 1.0, 3.0], [2.0, 1.0, 3.0]])
    found = correlation(a, b)
    # a - 3: -2 -1 3; b - 2: 0 -1 1; 4 / sqrt(14 * 2)
    assert found[0] == pytest.approx(4 / math.sqrt(28))
    assert math.isnan(found[1])
    assert math.isnan(correlation(np.array([1.0]), np.array([2.0])))


def test_metrics_skip_clips_where_they_are_undefined() -> None:
    assert mean_where_defined(np.array([1.0, np.nan, 3.0])) == 2.0
    assert math.isnan(mean_where_defined(np.array([np.nan])))
    assert math.isnan(mean_where_defined(np.array([])))
    bins = Bins(target="x", num_bins=3, low=0.0, high=2.0, sigma_bins=1.0)
    scores = _targets([[0.2, 0.5, 0.3], [1 / 3] * 3], [1.0, 1.0], bins)
    # labels of 1: rank 1.5, 3, 1.5; prediction ranks 1, 3, 2
    assert evaluate("spc_bins", scores) == pytest.approx(1.5 / math.sqrt(2 * 1.5))


def _shifted(kcal: float) -> TargetScores:
    return TargetScores(
        probabilities=KCAL.distributions(np.array([400.0 + kcal])),
        bin_values=KCAL.values(),
        truth=np.array([400.0]),
        labels=KCAL.distributions(np.array([400.0])),
    )


@pytest.mark.parametrize(
    ("shift", "nll", "spc"),
    [(0, 3.999532, 1.0), (5, 4.512, 0.9921), (10, 6.033, 0.9832), (25, 16.53, 0.9502), (50, 35.50, 0.8762)],
)
def test_golden_numbers_of_a_shifted_prediction(shift: float, nll: float, spc: float) -> None:
    """SYSTEMS.md 7."""
    scores = _shifted(shift)
    assert evaluate("nll", scores) == pytest.approx(nll, rel=2e-4)
    assert evaluate("spc_bins", scores) == pytest.approx(spc, abs=6e-5)
    assert evaluate("mae", scores) == pytest.approx(shift, abs=0.5)  # the nearest bin is up to half a bin away
    assert evaluate("mae_bins", scores) == pytest.approx(shift)


def test_golden_nll_of_a_uniform_prediction_and_of_a_sure_mistake() -> None:
    uniform = TargetScores(
        probabilities=np.full((1, 1000), 1e-3),
        bin_values=KCAL.values(),
        truth=np.array([400.0]),
        labels=KCAL.distributions(np.array([400.0])),
    )
    assert evaluate("nll", uniform) == pytest.approx(7.907255, abs=1e-6)
    sure = Bins(target="x", num_bins=2, low=0.0, high=1.0, sigma_bins=1.0, labels="hard")
    # two bins, both certain and wrong: each costs -log(1e-15)
    assert evaluate("nll", _targets([[1.0, 0.0]], [1.0], sure)) == pytest.approx(2 * -math.log(1e-15), rel=1e-2)
    assert evaluate("nll", _targets([[0.0, 1.0]], [1.0], sure)) == pytest.approx(0.0, abs=1e-12)


def test_scores_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\).*expected \(N, K\) and \(N,\)"):
        ClassScores(probabilities=np.zeros(3), truth=np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match=r"expected \(N, K\) and \(N,\)"):
        ClassScores(probabilities=np.zeros((3, 2)), truth=np.zeros((3, 1), dtype=int))
    with pytest.raises(ValueError, match=r"\(2,\).*expected \(N, K\) and \(N,\)"):
        TargetScores(probabilities=np.zeros((1, 3)), bin_values=np.zeros(3), truth=np.zeros(2), labels=np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(1, 3\): expected the same \(N, K\)"):
        TargetScores(probabilities=np.zeros((1, 3)), bin_values=np.zeros(3), truth=np.zeros(1), labels=np.zeros((1, 2)))


def test_nll_mean_is_the_nll_over_the_number_of_bins() -> None:
    bins = Bins(target="kcal", num_bins=4, low=0.0, high=30.0, sigma_bins=1.0)
    scores = _targets([[0.1, 0.2, 0.3, 0.4]], [10.0], bins)
    assert evaluate("nll_mean", scores) == pytest.approx(evaluate("nll", scores) / 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"output": "clip", "per_clip": len}, "self.output = 'clip' is not one of label, labels, target"),
        ({"output": "label"}, "exactly one of per_clip and whole"),
        ({"output": "label", "per_clip": len, "whole": max}, "exactly one of per_clip and whole"),
    ],
)
def test_a_metric_judges_one_output_in_one_way(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Metric(higher_is_better=True, unit="", **fields)


def test_metrics_from_outside_are_applied_and_their_mistakes_name_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = "Metric(output='target', higher_is_better=True, unit='', {})"
    kinds = {
        "WHOLE": "whole=lambda truth, predicted: (truth - 2 * predicted).sum()",
        "CLIP": "per_clip=lambda scores: 3 * scores.truth.astype('float32')",
        "PAIR": "per_clip=lambda scores: scores.truth[:1]",
        "NUMBER": "per_clip=lambda scores: 1.0",
        "BROKEN": "per_clip=lambda scores: {}['x']",
        "BROKEN_WHOLE": "whole=lambda truth, predicted: {}['x']",
    }
    lines = [f"{name} = {row.format(code)}" for name, code in kinds.items()]
    text = "\n".join(["from reelbank.heads.judging.metrics import Metric", *lines])
    (tmp_path / "outside_metrics.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    bins = Bins(target="kcal", num_bins=3, low=0.0, high=20.0, sigma_bins=1.0)
    scores = _targets([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [4.0, 6.0], bins)
    assert evaluate("outside_metrics:WHOLE", scores) == 10.0 - 2 * scores.predicted.sum()
    assert evaluate("outside_metrics:CLIP", scores) == 3 * 5.0
    assert per_clip_values("outside_metrics:CLIP", scores).dtype == np.float64  # type: ignore[union-attr]
    for name, message in {
        "PAIR": r"outside_metrics:PAIR.*per_clip gave \(1,\) for 2 clips, expected \(2,\)",
        "NUMBER": r"per_clip gave float for 2 clips, expected \(2,\)",
        "BROKEN": r"outside_metrics:BROKEN.*per_clip\(scores\) failed: KeyError",
        "BROKEN_WHOLE": r"whole\(truth, predicted\) failed: KeyError",
    }.items():
        with pytest.raises(PluginError, match=message):
            evaluate(f"outside_metrics:{name}", scores)


# --- losses of classes


def test_cross_entropy_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(7), 40)
    truth = rng.integers(0, 7, 40)
    found = evaluate("cross_entropy", ClassScores(probabilities=probabilities, truth=truth))
    assert found == pytest.approx(log_loss(truth, probabilities, labels=range(7)), abs=1e-12)


def test_classes_that_training_never_saw_have_no_cross_entropy() -> None:
    scores = _classes([[0.5, 0.5], [0.9, 0.1]], [0, -1])
    for name, value in (("cross_entropy", math.log(2)), ("ce_on_softmax", math.log(2))):
        values = per_clip_values(name, scores)
        assert values is not None
        assert values[0] == pytest.approx(value)
        assert math.isnan(values[1])
        assert evaluate(name, scores) == pytest.approx(value)


@pytest.mark.parametrize(
    ("accuracy", "loss"), [(1.0, 1.6187), (0.0, 2.6187), (0.98779, 1.6309), (0.80291, 1.8158), (0.97354, 1.6452)]
)
def test_cross_entropy_on_softmax_of_sure_predictions_is_their_error_rate_above_its_least(
    accuracy: float, loss: float
) -> None:
    """SYSTEMS.md 5.2: ln(e + 11) - 1 of 12 classes, and the reported losses predicted from accuracy."""
    right, wrong = np.eye(12)[0], np.eye(12)[1]
    least = [evaluate("ce_on_softmax", _classes([row], [0])) for row in (right, wrong)]
    assert least[0] == pytest.approx(math.log(math.e + 11) - 1)
    assert accuracy * least[0] + (1 - accuracy) * least[1] == pytest.approx(loss, abs=5e-5)
