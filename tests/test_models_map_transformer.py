"""The map transformer: its size, that padding changes nothing, that it tells orders apart, that priors steer it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from reelbank.heads import train_head
from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.models import HeadShape, build_head, plan_of
from reelbank.heads.models.listing import describe_head
from reelbank.heads.models.map_transformer import embedding_at
from reelbank.heads.models.plans import ArrayShape
from reelbank.heads.runs.checkpoints import Predictor
from reelbank.store.testing import write_store

NAME = "map-transformer"
LENGTHS = (5, 1, 3, 2)
SMALL: Mapping[str, Any] = {"width": 16}
ALL: Mapping[str, Any] = {**SMALL, "motion": True, "flow": True, "patches": True}
OUTPUTS = {"label": 4, "target": 9}
SHAPES: Mapping[str, tuple[int, ...]] = {"maps": (6, 4, 4), "motion": (28, 28), "flow": (20,), "patches": (10,)}


def shape_of(shapes: Mapping[str, tuple[int, ...]] = SHAPES, *, steps: int = 5, classes: int = 4) -> HeadShape:
    arrays = {
        name: ArrayShape(backbone="a", tap=name, shape=shape, dtype="float16", num_steps=steps)
        for name, shape in shapes.items()
    }
    return HeadShape(taps={}, outputs=OUTPUTS | {"label": classes}, num_steps=steps, arrays=arrays)


def built(options: Mapping[str, Any] = ALL, shape: HeadShape | None = None, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_head(NAME, shape or shape_of(), options).double().eval()


def batch(shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Clips of every length, padded with zeros; motion maps are 0 or more."""
    torch.manual_seed(1)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    arrays = {}
    for name, shape in shapes.items():
        values = torch.randn(len(LENGTHS), max(LENGTHS), *shape, dtype=torch.float64)
        values = values.abs() if name == "motion" else values
        arrays[name] = values * mask.view(*mask.shape, *[1] * len(shape))
    return arrays, dict.fromkeys(arrays, mask)


@pytest.mark.parametrize("options", [SMALL, ALL, {**ALL, "differences": False}, {**ALL, "order": False}], ids=str)
def test_a_clip_alone_and_what_stands_in_its_padding_give_the_row_of_a_batch(options: Mapping[str, Any]) -> None:
    head, (arrays, masks) = built(options), batch()
    together = head(arrays, masks)
    assert {name: tuple(z.shape) for name, z in together.items()} == {"label": (4, 4), "target": (4, 9)}
    for i, length in enumerate(LENGTHS):
        alone = head({name: x[i : i + 1, :length] for name, x in arrays.items()}, {n: m[i : i + 1, :length]
                     for n, m in masks.items()})  # fmt: skip
        for name, logits in alone.items():
            torch.testing.assert_close(logits[0], together[name][i])
    dirty = {n: torch.where(masks[n].view(*masks[n].shape, *[1] * (x.ndim - 2)), x, 7.0) for n, x in arrays.items()}
    for name, logits in head(dirty, masks).items():
        torch.testing.assert_close(logits, together[name])


def test_a_clip_without_valid_steps_is_a_number() -> None:
    head, (arrays, masks) = built(), batch()
    assert all(z.isfinite().all() for z in head(arrays, {n: m & False for n, m in masks.items()}).values())


@pytest.mark.parametrize("maps", [(6, 4, 4), (9, 6)], ids=["map", "tokens"])
def test_every_parameter_gets_a_gradient(maps: tuple[int, ...]) -> None:
    shapes = {**SHAPES, "maps": maps}
    head, (arrays, masks) = built(shape=shape_of(shapes)), batch(shapes)
    found = head(arrays, masks)
    torch.stack([z.square().sum() for z in found.values()]).sum().backward()
    without = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 1e-12]
    # Of 16 learnt times clips of 1, 2, 3 and 5 steps read all: no part is idle.
    assert without == []


def test_it_has_fewer_than_three_million_numbers_on_every_tap() -> None:
    whole = {"motion": True, "flow": True, "patches": True}
    others = {"motion": (28, 28), "flow": (200,), "patches": (384,)}
    taps = {(256, 14, 14): 1_252_753, (512, 7, 7): None, (2048, 7, 7): None, (1024, 7, 7): None, (256, 1536): None}
    for maps, exact in taps.items():
        with torch.device("meta"):
            head = build_head(NAME, shape_of({"maps": maps, **others}, steps=16, classes=61), whole)
        count = sum(p.numel() for name, p in head.named_parameters() if not name.startswith("classifiers.target"))
        assert count < 3_000_000
        assert exact is None or count == exact


def test_its_description_counts_it_on_the_maps_that_it_reads_first() -> None:
    facts = describe_head(NAME, ["motion=true", "flow=true", "patches=true"], outputs=61)
    assert facts["parameters"]["total"] == facts["stages"][0]["trained"] == 1_252_753
    assert [one["name"] for one in facts["inputs"]] == ["maps", "motion", "flow", "patches"]


# --- order


def ordered(count: int, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Clips of 3 to 5 steps that show one pattern before or after another, at a drawn place each: class 0 or 1."""
    rng = torch.Generator().manual_seed(seed)
    maps = 0.3 * torch.randn(count, 5, 6, 4, 4, generator=rng)
    lengths = torch.randint(3, 6, (count,), generator=rng)
    labels = torch.arange(count) % 2
    for i, (length, label) in enumerate(zip(lengths.tolist(), labels.tolist(), strict=True)):
        early, late = sorted(torch.randperm(length, generator=rng)[:2].tolist())
        for step, pattern in ((early, label), (late, 1 - label)):
            y, x = torch.randint(4, (2,), generator=rng).tolist()
            maps[i, step, 3 * pattern : 3 * pattern + 3, y, x] += 3.0
    mask = torch.arange(5) < lengths[:, None]
    return {"maps": maps * mask[:, :, None, None, None]}, {"maps": mask}, labels


def test_it_learns_the_order_of_two_patterns_which_their_mean_does_not_show() -> None:
    """Taking and putting down: what is seen is the same, on test clips and with the same training."""
    torch.manual_seed(0)
    shape = shape_of({"maps": (6, 4, 4)}, classes=2)
    arrays, masks, labels = ordered(256, seed=1)
    test_arrays, test_masks, test_labels = ordered(256, seed=2)

    def accuracy(head: Any) -> float:
        optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.05)
        for _ in range(12):
            for rows in torch.randperm(256).split(64):
                part = {n: x[rows] for n, x in arrays.items()}, {n: m[rows] for n, m in masks.items()}
                optimizer.zero_grad()
                cross_entropy(head(*part)["label"], labels[rows]).backward()
                optimizer.step()
        head.eval()
        return float((head(test_arrays, test_masks)["label"].argmax(1) == test_labels).float().mean())

    class MeanOverTime(nn.Module):
        """The same head on one step, the mean of all, which shows both patterns in no order."""

        def __init__(self) -> None:
            super().__init__()
            self.head = build_head(NAME, shape, {"width": 32})

        def forward(self, arrays: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Any:
            mask = masks["maps"]
            mean = arrays["maps"].sum(1, keepdim=True) / mask.sum(1).view(-1, 1, 1, 1, 1)
            return self.head({"maps": mean}, {"maps": mask[:, :1]})

    assert accuracy(build_head(NAME, shape, {"width": 32})) > 0.9
    assert 0.35 < accuracy(MeanOverTime()) < 0.65


def test_swapped_steps_are_another_clip_also_without_differences() -> None:
    """Time embeddings alone tell orders apart, and equal times give equal embeddings whatever the number of steps."""
    arrays, masks = batch()
    swapped = {name: x.flip(1) for name, x in arrays.items()}
    for differences in (True, False):
        head = built({**ALL, "differences": differences})
        there, back = (head(given, masks)["label"][0] for given in (arrays, swapped))
        assert (there - back).abs().max() > 1e-4
        with torch.no_grad():
            head.times.zero_()
        there, back = (head(given, masks)["label"][0] for given in (arrays, swapped))
        assert differences == bool((there - back).abs().max() > 1e-4)
    times = embedding_at(torch.linspace(0, 1, 16, dtype=torch.float64)[None], built().times)
    torch.testing.assert_close(times[0], built().times)


def test_without_order_a_clip_is_a_set_of_frames() -> None:
    head, (arrays, masks) = built({**ALL, "order": False}), batch()
    whole, masks = {name: x[:1] for name, x in arrays.items()}, {name: x[:1] for name, x in masks.items()}
    swapped = {name: x[:, [2, 4, 1, 0, 3]] for name, x in whole.items()}
    torch.testing.assert_close(head(whole, masks)["label"], head(swapped, masks)["label"])


# --- prior


def test_a_prior_draws_attention_and_a_weight_of_zero_is_none() -> None:
    head: Any = built({**SMALL, "motion": True})
    arrays, masks = batch()
    still = {**arrays, "motion": torch.zeros_like(arrays["motion"])}
    moving = {**still, "motion": still["motion"].clone()}
    moving["motion"][:, :, 7:14, 21:28] = 1  # cell (1, 3) of 4 x 4
    before, after = (head.seen_places(given, masks) for given in (still, moving))
    torch.testing.assert_close(after.sum(-1), torch.ones_like(after[..., 0]))
    cell = 1 * 4 + 3
    odds = [a[..., cell] / (1 - a[..., cell]) for a in (before, after)]
    ratio = (odds[1] / odds[0])[masks["maps"]]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1.05 / 0.05))
    unknown = {**masks, "motion": masks["motion"] & False}
    torch.testing.assert_close(head.seen_places(moving, unknown), before)
    with torch.no_grad():
        head.places.prior.zero_()
    torch.testing.assert_close(head.seen_places(moving, masks), before)


def test_flow_of_steps_that_have_none_does_not_matter() -> None:
    head, (arrays, masks) = built({**SMALL, "flow": True}), batch()
    other = {**arrays, "flow": arrays["flow"] + 3}
    none = {**masks, "flow": masks["flow"] & False}
    torch.testing.assert_close(head(arrays, none), head(other, none))
    assert (head(arrays, masks)["label"] - head(other, masks)["label"]).abs().max() > 1e-4


# --- what is refused, and a whole training


@pytest.mark.parametrize(
    ("shapes", "options", "said"),
    [
        ({"maps": (8,)}, SMALL, r"reads maps \(C, H, W\) or tokens \(P, C\), and a/maps has \(8,\)"),
        (
            {"maps": (7, 6), "motion": (28, 28)},
            {**SMALL, "motion": True},
            "a motion map lies on a square, and maps have 7 tokens",
        ),
        ({"maps": (6, 4, 4)}, {"width": 18}, "width=18: expected a multiple of 4"),
        ({"maps": (6, 4, 4)}, {"layers": 0}, "layers=0: expected 1 or more"),
    ],
)
def test_what_cannot_be_built_is_refused(shapes: Any, options: Mapping[str, Any], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        plan_of(NAME, options)
        built(options, shape_of(shapes))


def test_inputs_of_other_steps_are_refused() -> None:
    shape = shape_of()
    arrays = {**shape.arrays, "flow": ArrayShape(backbone="w", tap="hof", shape=(20,), dtype="float16", num_steps=9)}
    with pytest.raises(TrainingError, match="flow step by step beside the maps, and it has 9 steps where they have 5"):
        built(ALL, HeadShape(taps={}, outputs=OUTPUTS, num_steps=5, arrays=arrays))
    given, masks = batch()
    with pytest.raises(TrainingError, match=r"motion step by step .* has 4 steps where they have 5"):
        built()({**given, "motion": given["motion"][:, :4]}, {**masks, "motion": masks["motion"][:, :4]})


def test_it_is_trained_from_stores_and_applied(tmp_path: Path) -> None:
    clips = [{"clip_id": f"c{i}", "label": "ab"[i % 2], "split": "train" if i < 16 else "val"} for i in range(24)]
    maps, _, _ = ordered(24, seed=3)
    rng = np.random.default_rng(0)
    stores = {
        "resnet34": {"layer3": [one.numpy() for one in maps["maps"]]},
        "motion-map": {"grid28": [rng.random((5, 28, 28), np.float32) for _ in clips]},
        "warp-flow": {"hof": [rng.normal(size=(5, 200)).astype(np.float32) for _ in clips]},
    }
    for name, features in stores.items():
        write_store(tmp_path / f"{name}.zarr", features, clips, backbone=name)
    config = TrainConfig.of(
        store=tuple(tmp_path / f"{name}.zarr" for name in stores), head=NAME, epochs=2, target="none", report=False,
        head_option=("motion=true", "flow=true", "width=16"), run=tmp_path / "run",
    )  # fmt: skip
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.batch) == ("adamw", 3e-4, 32)
    run = train_head(config).directory
    assert Predictor.load(run / "best.safetensors").stage == "1"
