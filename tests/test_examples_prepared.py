"""What is prepared for a training: normalisation, weights of classes, parts that are refused, clips that are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from part_stores import Change, part_store

from reelbank.heads import TrainConfig, TrainingError, train_head
from reelbank.heads.examples.prepared import prepare
from reelbank.heads.training.job import make_job
from reelbank.heads.training.trainer import total_loss

FREE: dict[str, Any] = {"report": False, "bins": 30, "batch": 8}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return part_store(tmp_path_factory.mktemp("protocol") / "toy.zarr")


def test_balanced_class_weights_reach_the_action_loss_and_it_alone(store: Path) -> None:
    losses = {}
    for weights in ("balanced", "none"):
        for target in ("kcal", "none"):
            options = {**FREE, "class_weights": weights, "target": target}
            prepared = prepare(TrainConfig.of(store=(store,), **options))
            job = make_job(prepared, prepared.partitions[0])
            rows = torch.from_numpy(job.train)
            generator = torch.Generator().manual_seed(0)
            logits = {
                name: torch.randn(len(rows), size, generator=generator) for name, size in prepared.shape.outputs.items()
            }
            losses[weights, target] = total_loss(prepared.config.objective, job.labels, logits, rows, complete=True)
            if weights == "balanced":
                assert job.labels.class_weights is not None
                assert job.labels.class_weights.tolist() == pytest.approx([16 / (2 * 12), 16 / (2 * 4)])
                plain = torch.nn.functional.cross_entropy(
                    logits["label"], job.labels.classes[rows], weight=job.labels.class_weights
                )
                if target == "none":
                    torch.testing.assert_close(losses[weights, target], plain)
    differences = [losses["balanced", target] - losses["none", target] for target in ("kcal", "none")]
    assert differences[0].abs() > 1e-3
    torch.testing.assert_close(differences[0], differences[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["l2", "none", "zscore"])
def test_normalisation_is_what_its_name_says(kind: str, store: Path) -> None:
    prepared = prepare(TrainConfig.of(store=(store,), normalize=kind, **FREE))
    job = make_job(prepared, prepared.partitions[0])
    raw = torch.from_numpy(prepared.features.means["cls"]).float()
    every = prepare(TrainConfig.of(store=(store,), head="attentive", **FREE)).features.arrays["cls"].double()
    steps = every[job.train]
    expected = {
        "l2": (every / every.norm(dim=2, keepdim=True)).mean(dim=1),  # per row (SYSTEMS.md 1.3), not of the mean
        "none": raw,
        "zscore": (raw - steps.mean(dim=(0, 1))) / steps.std(dim=(0, 1), correction=0),
    }[kind]
    torch.testing.assert_close(job.resident.vectors(), expected.float(), atol=1e-4, rtol=1e-4)


def _set(split: str, number: int | None = None, **values: Any) -> Change:
    def change(clips: list[dict[str, Any]]) -> None:
        for clip in [clip for clip in clips if clip["split"] == split][:number]:
            clip.update(values)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("test", label="other"), "none of the 8 clips of split 'test' has a class that training knows .*'other'"),
        (_set("val", label="other"), "none of the 8 clips of the validation part has a class that training knows"),
        (_set("val", kcal=float("nan")), "none of the 8 validation clips has a target 'kcal': nothing can choose"),
        (_set("train", 1, kcal=float("nan")), "'kcal' is empty or not finite in 1 of 16 training clips"),
        (_set("train", 2, kcal=-5.0), "2 of 16 training clips lie outside 0:1000 .*--range LOW:HIGH"),
    ],
    ids=["no-known-class-test", "no-known-class-val", "nan-val", "nan-train", "outside"],
)
def test_parts_that_cannot_be_used_are_refused(change: Change, message: str, tmp_path: Path) -> None:
    path = part_store(tmp_path / "bad.zarr", change)
    with pytest.raises(TrainingError, match=message):
        train_head(TrainConfig.of(store=(path,), run=tmp_path / "run", **FREE))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (_set("test", 3, kcal=1500.0), "3 clips of 'test' have a target outside 0 to 1000"),
        (_set("test", 3, kcal=float("nan")), "3 clips of 'test' have no target"),
        (_set("unknown", 2, label="class 0"), "2 clips of 'unknown' have a class that training knows"),
    ],
    ids=["outside", "nan", "known"],
)
def test_single_clips_that_cannot_be_judged_are_said(change: Change, note: str, tmp_path: Path) -> None:
    path = part_store(tmp_path / "odd.zarr", change)
    made = train_head(TrainConfig.of(store=(path,), run=tmp_path / "run", epochs=1, **FREE))
    assert any(note in one for one in made.results["notes"])
