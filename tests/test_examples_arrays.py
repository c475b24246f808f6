"""Arrays of stores as heads read them: which steps, views and starts; held or read anew, the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from array_head import MAPS, MOVING, STACKS

from reelbank.heads.errors import TrainingError
from reelbank.heads.examples import batches as reading
from reelbank.heads.examples.array_features import arrays_of
from reelbank.heads.examples.arrays import Draw, long_enough, open_inputs
from reelbank.heads.examples.clips import ClipTable, load_table
from reelbank.heads.examples.steps import spread_frames
from reelbank.heads.features_config import FeaturesConfig
from reelbank.heads.models.plans import Group, HeadPlan, Input, Stage
from reelbank.store import Store
from reelbank.store.testing import write_store

CPU = torch.device("cpu")


def plan(*inputs: Input) -> HeadPlan:
    return HeadPlan(inputs=inputs, stages=(Stage(name="1", groups=(Group(name="all", tensors=("*",)),)),))


def clips(count: int) -> list[dict[str, Any]]:
    return [{"clip_id": f"clip {i}", "label": "ab"[i % 2]} for i in range(count)]


def marked(counts: list[int], *, view: int = 0, size: int = 2) -> list[np.ndarray]:
    """Maps whose values tell clip, view and step: 1000 clip + 100 view + step."""
    plane = np.ones((1, 1, size, size), np.float32)
    return [
        (1000 * i + 100 * view + np.arange(count, dtype=np.float32))[:, None, None, None] * plane
        for i, count in enumerate(counts)
    ]


def table_of(*stores: Store, of: HeadPlan) -> ClipTable:
    return long_enough(load_table(open_inputs(stores, of, ())), of)


def batches_of(table: ClipTable, of: HeadPlan, memory_gb: float = 1.0, **features: Any) -> reading.ArrayBatches:
    return arrays_of(table, of, FeaturesConfig(**features), memory_gb).batches(CPU, evaluation_clips=4)


def epoch(made: reading.ArrayBatches, order: list[int], size: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    return [arrays for _, (arrays, _) in made.batches(torch.tensor(order), size)]


# --- which steps


def test_frames_spread_over_a_clip_are_those_of_the_published_rule() -> None:
    for num_frames in range(5, 400):
        for count in (7, 16):
            one_based = [int(np.floor(1 + i * (num_frames - 1) / count)) for i in range(count)]
            found = spread_frames(num_frames, count) + 1
            assert np.abs(found - one_based).max() <= 1 and found[0] == 1 and found[-1] < num_frames
            differ = [i for i in range(count) if found[i] != one_based[i]]
            assert all(i * (num_frames - 1) % count == 0 for i in differ), "a whole number may be rounded either way"


def test_two_samplings_are_read_of_one_store_by_index(tmp_path: Path) -> None:
    lengths = [40, 23, 61]
    held = [sorted({*spread_frames(n, 7).tolist(), *spread_frames(n, 16).tolist()}) for n in lengths]
    maps = [np.array(frames, np.float32)[:, None, None, None] * np.ones((1, 1, 2, 2), np.float32) for frames in held]
    store = write_store(
        tmp_path / "s.zarr", {"maps": maps}, clips(3), frames=held, num_frames=lengths,
        sampling="uniform:7:open+uniform:16:open",
    )  # fmt: skip
    table = table_of(store, of=plan(MAPS))
    for count in (7, 16):
        (arrays,) = epoch(batches_of(table, plan(MAPS), steps=count), [2, 0, 1], 3)
        for place, clip in enumerate((2, 0, 1)):
            assert arrays["maps"][place, :, 0, 0, 0].tolist() == spread_frames(lengths[clip], count).tolist()
    (arrays,) = epoch(batches_of(table, plan(MAPS)), [0], 1)
    assert arrays["maps"][0, : len(held[0]), 0, 0, 0].tolist() == held[0], "without --steps all that is stored"


def test_frames_that_are_not_stored_are_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", {"maps": marked([8])}, clips(1), num_frames=[40], sampling="uniform:8")
    with pytest.raises(TrainingError, match=r"--steps 7 reads frame \d+ of clip 'clip 0', which .* does not hold"):
        batches_of(table_of(store, of=plan(MAPS)), plan(MAPS), steps=7)
    other = write_store(tmp_path / "r.zarr", {"maps": marked([8])}, clips(1), sampling="random:8")
    with pytest.raises(TrainingError, match="random:8, which need not begin at its first"):
        batches_of(table_of(other, of=plan(MAPS)), plan(MAPS), steps=7)


def test_targets_are_those_of_the_nearest_frame_of_two_the_later(tmp_path: Path) -> None:
    maps = write_store(tmp_path / "m.zarr", {"maps": marked([5])}, clips(1), frames=[[0, 2, 5, 7, 9]], backbone="a")
    moving = [np.array([10, 13, 18], np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)]
    targets = write_store(tmp_path / "t.zarr", {"moving": moving}, clips(1), frames=[[0, 3, 8]], backbone="b")
    both = plan(MAPS, MOVING)
    table = table_of(maps, targets, of=both)
    arrays = arrays_of(table, both, FeaturesConfig(), 1.0)
    (found,) = epoch(arrays.batches(CPU, evaluation_clips=1), [0], 1)
    assert found["moving"][0, :, 0, 0].tolist() == [10, 13, 13, 18, 18], "5 lies between 3 and 8: 3 is nearer"
    assert arrays.notes() == [
        "4 of 5 steps of what moves are the nearest that are stored, as there is none of that frame."
    ]
    even = write_store(tmp_path / "e.zarr", {"moving": moving}, clips(1), frames=[[0, 4, 10]], backbone="b")
    (found,) = epoch(batches_of(table_of(maps, even, of=both), both), [0], 1)
    assert found["moving"][0, :, 0, 0].tolist() == [10, 13, 13, 18, 18], "2 and 7 lie in the middle: the later one"


def test_clips_of_another_number_of_steps_are_padded_and_masked(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", {"maps": marked([3, 1, 5])}, clips(3))
    made = batches_of(table_of(store, of=plan(MAPS)), plan(MAPS))
    torch.manual_seed(0)
    ((_, (arrays, masks)),) = made.batches(torch.tensor([0, 1, 2]), 3)
    assert masks["maps"].sum(dim=1).tolist() == [3, 1, 5]
    assert not arrays["maps"][~masks["maps"]].any()
    assert arrays["maps"][2, :, 0, 0, 0].tolist() == [2000, 2001, 2002, 2003, 2004]


# --- stacks


def fields(counts: list[int]) -> list[np.ndarray]:
    return [
        np.stack([np.full((2, 3), 10 * t + c, np.uint8) for t in range(n) for c in range(2)]).reshape(n, 2, 2, 3)
        for n in counts
    ]


def test_stacks_begin_at_every_start_of_the_published_rule_and_are_evaluated_in_the_middle(tmp_path: Path) -> None:
    counts = [5, 6, 9, 14]
    store = write_store(tmp_path / "s.zarr", {"fields": fields(counts)}, clips(4))
    made = batches_of(table_of(store, of=plan(STACKS)), plan(STACKS))
    tap = made.taps["stacks"]
    for clip, count in enumerate(counts):
        starts = {
            int(tap.places(Draw(clips=np.array([clip]), views=np.zeros(1, int), starts=np.array([chance])))[0][0, 0])
            + 1
            for chance in np.linspace(0, 1, 500, endpoint=False)
        }
        assert starts == set(range(1, max(count - 5, 1) + 1)), "1 to N - 5, as the publication counts"
        middle = Draw(clips=np.array([clip]), views=np.zeros(1, int), starts=np.array([np.nan]))
        assert tap.places(middle)[0][0, 0] + 1 == max(int(np.ceil((count - 5) / 2)), 1)
    (arrays,) = epoch(made, [3], 1)
    first = tap.places(Draw(clips=np.array([3]), views=np.zeros(1, int), starts=_drawn_starts(1)))[0][0, 0]
    assert arrays["stacks"].shape == (1, 1, 10, 2, 3)
    raw = arrays["stacks"][0, 0, :, 0, 0] * 0.226 + 0.449
    assert (raw * 255).round().tolist() == [10 * (first + t) + c for t in range(5) for c in range(2)], "x1, y1, x2, ..."


def _drawn_starts(count: int, seed: int = 0) -> np.ndarray:
    torch.manual_seed(seed)
    torch.rand(count, dtype=torch.float64)
    return torch.rand(count, dtype=torch.float64).numpy()


def test_clips_shorter_than_a_stack_are_left_out_and_counted(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", {"fields": fields([5, 3, 4, 8])}, clips(4))
    table = table_of(store, of=plan(STACKS))
    assert table.clip_ids.tolist() == ["clip 0", "clip 3"]
    assert ("fewer than 5 steps of stacks", 2) in table.left_out
    short = write_store(tmp_path / "n.zarr", {"fields": fields([2])}, clips(1))
    with pytest.raises(TrainingError, match="no clip has enough steps: fewer than 5 steps"):
        table_of(short, of=plan(STACKS))


def test_several_starts_are_evaluated_by_the_mean_of_their_logits(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", {"fields": fields([14, 9])}, clips(2))
    of = plan(STACKS)
    made = arrays_of(table_of(store, of=of), of, FeaturesConfig(), 1.0).batches(CPU, evaluation_clips=2, segments=5)

    class Mean(torch.nn.Module):
        def forward(self, arrays: Any, masks: Any) -> Any:
            return {"label": arrays["stacks"].mean(dim=(1, 2, 3, 4)).unsqueeze(1)}

    logits = made.logits(Mean(), torch.tensor([1, 0]))["label"][:, 0]
    for place, count in enumerate((9, 14)):
        most = count - 5 - 1
        starts = [min(int((k + 0.5) / 5 * (most + 1)), most) for k in range(5)]
        means = [
            (np.mean([10 * (s + t) + c for t in range(5) for c in range(2)]) / 255 - 0.449) / 0.226 for s in starts
        ]
        assert logits[place].item() == pytest.approx(np.mean(means), rel=1e-4)


# --- views


def with_views(path: Path, counts: list[int], num_views: int, name: str = "maps", backbone: str = "a") -> Store:
    further = {f"view {k}": {name: marked(counts, view=k)} for k in range(1, num_views)}
    return write_store(path, {name: marked(counts)}, clips(len(counts)), views=further, backbone=backbone)


def test_each_epoch_draws_a_view_of_each_clip_the_same_of_every_store(tmp_path: Path) -> None:
    """Each of 40 views within 3 standard deviations of its share of 4,000 draws."""
    second = Input(name="other", about="other maps", taps=(("b", "other"),), values="map")
    both = plan(MAPS, second)
    stores = (
        with_views(tmp_path / "a.zarr", [1] * 20, 41),
        with_views(tmp_path / "b.zarr", [1] * 20, 41, name="other", backbone="b"),
    )
    made = batches_of(table_of(*stores, of=both), both, train_views="draw")
    drawn = []
    for seed in range(200):
        for arrays in epoch(made, list(range(20)), 7, seed):
            assert torch.equal(arrays["maps"], arrays["other"])
            drawn += ((arrays["maps"].flatten(1)[:, 0]) // 100).int().tolist()
    clip_and_view = np.array(drawn)
    assert len(clip_and_view) == 4000
    # 1000 clip + 100 view, views 1 to 40: told apart by the clip, which comes in order.
    numbers = clip_and_view - 10 * np.tile(np.arange(20), 200)
    counts = np.bincount(numbers, minlength=41)
    assert counts[0] == 0, "the evaluation view is not drawn"
    deviation = np.sqrt(4000 / 40 * (1 - 1 / 40))
    assert np.abs(counts[1:] - 100).max() <= 3 * deviation


def test_all_views_are_rows_and_evaluation_keeps_to_its_own(tmp_path: Path) -> None:
    from reelbank.heads.examples.copies import copies_of

    store = with_views(tmp_path / "a.zarr", [2, 2], 3)
    of = plan(MAPS)
    config = FeaturesConfig(train_views="all")
    table = table_of(store, of=of)
    arrays = arrays_of(table, of, config, 1.0)
    copies = copies_of(config, table.clip_ids, arrays.views, 0)
    assert copies is not None
    rows = copies.rows(np.array([0, 1])).tolist()
    (batch,) = epoch(arrays.batches(CPU, evaluation_clips=2, copies=copies), rows, 6)
    assert batch["maps"][:, 0, 0, 0, 0].tolist() == [0, 1000, 100, 1100, 200, 1200]


def test_stores_of_other_views_are_refused(tmp_path: Path) -> None:
    second = Input(name="other", about="other maps", taps=(("b", "other"),), values="map")
    both = plan(MAPS, second)
    a = with_views(tmp_path / "a.zarr", [1, 1], 3)
    b = with_views(tmp_path / "b.zarr", [1, 1], 2, name="other", backbone="b")
    with pytest.raises(
        TrainingError, match=r"reads the same view of every store, and they hold others: .*3 \(original"
    ):
        batches_of(table_of(a, b, of=both), both, train_views="draw")
    with pytest.raises(TrainingError, match=r"--view 2: .* holds views 0 to 1"):
        batches_of(table_of(a, b, of=both), both, view=2)
    plain = write_store(tmp_path / "p.zarr", {"maps": marked([1, 1])}, clips(2))
    with pytest.raises(TrainingError, match="--train-views draw trains on further stored views, and there are none"):
        batches_of(table_of(plain, of=plan(MAPS)), plan(MAPS), train_views="draw")


# --- which stores


def test_inputs_are_found_by_backbone_and_tap(tmp_path: Path) -> None:
    a = write_store(tmp_path / "a.zarr", {"maps": marked([1])}, clips(1), backbone="a")
    again = write_store(tmp_path / "b.zarr", {"maps": marked([1])}, clips(1), backbone="b")
    none = write_store(tmp_path / "c.zarr", {"cls": [np.zeros((1, 4), np.float32)]}, clips(1), backbone="c")
    with pytest.raises(TrainingError, match=r"reads maps \(\*/maps, frames\*/rgb\), and several stores have it"):
        open_inputs((a, again), plan(MAPS), ())
    with pytest.raises(TrainingError, match=r"none of the stores has it: .*c\.zarr is c with cls"):
        open_inputs((none,), plan(MAPS), ())
    with pytest.raises(TrainingError, match=r"reads nothing of .*c\.zarr \(c\)"):
        open_inputs((a, none), plan(MAPS), ())
    with pytest.raises(TrainingError, match="--tap nope: no store holds it"):
        open_inputs((a,), plan(MAPS), ("nope",))


# --- memory


@pytest.mark.parametrize("train_views", ["one", "draw"])
def test_batches_read_anew_are_those_that_are_held(tmp_path: Path, train_views: str) -> None:
    store = with_views(tmp_path / "a.zarr", [3, 1, 5, 2, 4, 3, 3] * 8, 3)
    of = plan(MAPS)
    table = table_of(store, of=of)
    whole = batches_of(table, of, train_views=train_views)
    # A batch of 3 takes 3 x 5 x 16 bytes, and as much where it is computed with; of this budget a block is two of
    # them, then one, then nothing is read ahead.
    order = torch.randperm(56).tolist()
    for budget in (6 * 240, 4 * 240, 2 * 240 + 1):
        part = batches_of(table, of, budget / 1e9, train_views=train_views)
        assert whole.held is not None and part.held is None
        for ours, theirs in zip(epoch(whole, order, 3), epoch(part, order, 3), strict=True):
            assert torch.equal(ours["maps"], theirs["maps"])


def test_blocks_stay_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no time more batches are in memory than the budget has room for."""
    store = write_store(tmp_path / "s.zarr", {"maps": marked([4] * 40)}, clips(40))
    of = plan(MAPS)
    batch = 5 * 4 * 16
    made = batches_of(table_of(store, of=of), of, 6 * batch / 1e9)
    alive: list[int] = []
    sizes = []
    plain = reading.ArrayBatches._block

    def counted(self: Any, draw: Draw, starts: Any, size: int) -> Any:
        alive.append(len(starts))
        return plain(self, draw, starts, size)

    monkeypatch.setattr(reading.ArrayBatches, "_block", counted)
    for number, _ in enumerate(made.batches(torch.arange(40), 5)):
        sizes.append(sum(alive) - number)
    assert max(alive) == 2, "half of the budget is a block"
    assert max(sizes) <= 4


def test_a_batch_larger_than_the_memory_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.zarr", {"maps": marked([4] * 8)}, clips(8))
    made = batches_of(table_of(store, of=plan(MAPS)), plan(MAPS), 100 / 1e9)
    with pytest.raises(
        TrainingError, match=r"a batch of 8 clips takes 512 bytes, and 512 bytes as .* more than the 100 bytes"
    ):
        epoch(made, list(range(8)), 8)


# --- pictures


def test_pictures_are_scaled_as_networks_read_them(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    store = write_store(tmp_path / "s.zarr", {"rgb": [pixels]}, clips(1), backbone="frames")
    (arrays,) = epoch(batches_of(table_of(store, of=plan(MAPS)), plan(MAPS)), [0], 1)
    expected = (pixels / 255 - np.array(reading.MEAN)) / np.array(reading.STD)
    np.testing.assert_allclose(arrays["maps"][0].numpy(), np.moveaxis(expected, -1, 1), rtol=1e-5, atol=1e-6)
