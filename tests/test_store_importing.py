"""Arrays per video as the field's tools write them: which steps are a clip's, which axis is time, `.npz` and `.pt`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import reelbank.store
from reelbank.store import Store, StoreError
from reelbank.store.exchange.importing import ImportResult
from reelbank.store.exchange.options import ExportConfig, ImportConfig

STEPS, CHANNELS = 31, 6
MS = np.arange(STEPS) * 40.0
"""Times of the steps of a video of 1.2 s, as video_features writes them."""


def features(steps: int = STEPS, channels: int = CHANNELS) -> NDArray[np.float32]:
    """(steps, channels), the number of its step in each."""
    return np.repeat(np.arange(steps, dtype=np.float32)[:, None], channels, axis=1)


def manifest(path: Path, rows: str) -> Path:
    path.write_text(f"clip_id,video,split,label,start_seconds,end_seconds\n{rows}\n")
    return path


def written(folder: Path, kind: str, arrays: dict[str, NDArray[Any]], times: NDArray[Any] | None) -> Path:
    """A folder of arrays, with their times where the kind has a place for them."""
    folder.mkdir()
    for name, array in arrays.items():
        if kind == "npz":
            np.savez(
                folder / f"{name}.npz", features=array, fps=25.0, **({} if times is None else {"timestamps_ms": times})
            )
        elif kind == "pt":
            held = {"features": torch.from_numpy(array.copy()), "fps": 25.0}
            torch.save(
                held | ({} if times is None else {"timestamps_ms": torch.from_numpy(times)}), folder / f"{name}.pt"
            )
        else:
            np.save(folder / f"{name}{'_rgb' if kind == 'video_features' else ''}.npy", array)
            if times is not None:
                np.save(folder / f"{name}_timestamps_ms.npy", times)
    return folder


def imported(src: Path, out: Path, **options: Any) -> tuple[ImportResult, Store]:
    result = reelbank.store.import_store(src, out, ImportConfig(dtype="float32", **options))
    return result, Store(out)


def first_channel(store: Store, row: int) -> list[float]:
    (tap,) = store.taps
    return [float(value) for value in store.read(tap, row)[0][:, 0]]


INTERVALS = (
    ("0,0.3", range(8)), ("0.3,", range(8, 31)), (",0.28", range(7)), ("0.28,0.4", range(7, 10)), ("0,99", range(31)),
)  # fmt: skip


@pytest.mark.parametrize("kind", ["npy", "npz", "pt", "video_features"])
def test_clip_takes_the_steps_of_its_interval(tmp_path: Path, kind: str) -> None:
    """A clip of 0 to 0.3 s was given all 1.2 s of its video."""
    rows = "\n".join(f"c{i},videos/v.mp4,train,x,{interval}" for i, (interval, _) in enumerate(INTERVALS))
    src = written(tmp_path / "src", kind, {"v": features()}, MS)
    result, store = imported(src, tmp_path / "s.zarr", manifest=manifest(tmp_path / "m.csv", rows))
    assert (result.num_done, result.num_unused) == (len(INTERVALS), 0)
    for row, (_, steps) in enumerate(INTERVALS):
        assert first_channel(store, row) == list(steps)
        np.testing.assert_allclose(store.step_seconds(row), [0.04 * step for step in steps])
    assert reelbank.store.verify(store.path).problems == ()


@pytest.mark.parametrize("kind", ["npy", "npz", "pt"])
def test_interval_without_times_is_refused_with_the_ways_out(tmp_path: Path, kind: str) -> None:
    src = written(tmp_path / "src", kind, {"v": features()}, None)
    table = manifest(tmp_path / "m.csv", "v,videos/v.mp4,train,x,0,0.3")
    with pytest.raises(
        StoreError,
        match=r"'v' is 0 s to 0.3 s of its video, and src has no times.*v_timestamps_ms\.npy.*--array-of clip",
    ):
        imported(src, tmp_path / "s.zarr", manifest=table)
    assert not (tmp_path / "s.zarr").exists()
    result, store = imported(src, tmp_path / "s.zarr", manifest=table, array_of="clip")
    assert len(first_channel(store, 0)) == STEPS
    assert not any("called by clip id" in note for note in result.notes)


def test_what_cannot_be_cut_fails_its_clip_with_a_reason(tmp_path: Path) -> None:
    src = written(tmp_path / "src", "npz", {"a": features()}, MS)
    for name, times in (("b", None), ("c", MS[:-1]), ("d", MS[::-1].copy())):
        np.savez(src / f"{name}.npz", features=features(), **({} if times is None else {"timestamps_ms": times}))
    rows = [f"{name},videos/{name}.mp4,train,x,0,0.3" for name in "abcd"] + ["e,videos/a.mp4,train,x,9,10"]
    result, store = imported(src, tmp_path / "s.zarr", manifest=manifest(tmp_path / "m.csv", "\n".join(rows)))
    reasons = store.clips.reason.tolist()
    assert result.num_done == 1
    assert reasons[1].startswith("nothing says when the steps of the array are: clip 'b' is 0 s to 0.3 s")
    assert reasons[2:] == [
        "times of other steps: 30 times for 31 steps of 'c'",
        "times that do not ascend: those of the steps of 'd'",
        "no step in the interval: 9 s to 10 s of 'a', they are at 0 to 1.2 s",
    ]


def test_array_called_by_clip_is_the_clip_and_said(tmp_path: Path) -> None:
    """Its times may count from the clip's start or from the video's."""
    src = written(tmp_path / "src", "npz", {"x": features()}, MS)
    np.savez(src / "y.npz", features=features(), timestamps_ms=MS + 5000)
    table = manifest(tmp_path / "m.csv", "x,videos/v.mp4,train,x,5,6.24\ny,videos/v.mp4,train,x,5,6.24")
    result, store = imported(src, tmp_path / "s.zarr", manifest=table)
    assert result.notes == (
        "2 arrays are called by clip id: each is taken whole as its clip; if they are of videos, pass --array-of video",
    )
    for row in (0, 1):
        assert len(first_channel(store, row)) == STEPS
        np.testing.assert_allclose(store.step_seconds(row), MS / 1000 + 5)
    result, store = imported(src, tmp_path / "t.zarr", manifest=table, array_of="video")
    assert result.failures == {"no step in the interval": 1}


def test_manifest_beside_an_export_cuts_where_it_differs(tmp_path: Path) -> None:
    src = written(tmp_path / "src", "npz", {"v": features(), "w": features()}, MS)
    whole = manifest(tmp_path / "m.csv", "v,videos/v.mp4,train,x,0,1\nw,videos/w.mp4,train,x,,")
    imported(src, tmp_path / "s.zarr", manifest=whole)
    reelbank.store.export(tmp_path / "s.zarr", tmp_path / "s.h5", ExportConfig())
    narrow = manifest(tmp_path / "n.csv", "v,videos/v.mp4,train,x,0,1\nw,videos/w.mp4,train,x,0.2,0.4")
    _, store = imported(tmp_path / "s.h5", tmp_path / "t.zarr", manifest=narrow)
    assert first_channel(store, 0) == list(range(25))
    assert first_channel(store, 1) == list(range(5, 10))


SHAPES = (
    ("steps vary", {"a": (31, 6), "b": (40, 6)}, False, ""),
    ("channels first", {"a": (6, 31), "b": (6, 40), "c": (6, 9)}, True, "(D, T) with 6 channels (all 3 agree"),
    ("one, long", {"a": (31, 6)}, False, "taken as 31 steps of 6 channels; if they are (D, T), pass --axes DT"),
    ("one, wide", {"a": (6, 31)}, False, ""),
)  # fmt: skip


@pytest.mark.parametrize(("shapes", "turned", "note"), [row[1:] for row in SHAPES], ids=[row[0] for row in SHAPES])
def test_transposed_arrays_are_told_by_what_all_agree_on(
    tmp_path: Path, shapes: dict[str, tuple[int, int]], turned: bool, note: str
) -> None:
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for kind in ("npy", "npz", "pt"):
        src = written(tmp_path / kind, kind, arrays, None)
        result, store = imported(src, tmp_path / f"{kind}.zarr")
        for row, array in enumerate(arrays.values()):
            np.testing.assert_array_equal(store.read("features", row)[0], array.T if turned else array)
        assert [note in said for said in result.notes] == ([True] if note else [])
    if len(arrays) == 1:
        _, store = imported(tmp_path / "npy", tmp_path / "said.zarr", axes="DT")
        np.testing.assert_array_equal(store.read("features", 0)[0], arrays["a"].T)


def test_times_tell_the_axis_of_one_array(tmp_path: Path) -> None:
    src = written(tmp_path / "src", "npz", {"v": np.ascontiguousarray(features().T)}, MS)
    table = manifest(tmp_path / "m.csv", "c,videos/v.mp4,train,x,0.2,0.4")
    result, store = imported(src, tmp_path / "s.zarr", manifest=table)
    assert first_channel(store, 0) == list(range(5, 10))
    assert "as many times as the second axis is long" in result.notes[0]


def test_shapes_that_do_not_tell_the_axis_are_asked_for(tmp_path: Path) -> None:
    src = written(tmp_path / "src", "npy", {"a": features(32, 9), "b": features(32, 9), "c": features(32, 5)}, None)
    with pytest.raises(StoreError, match=r"2 x 32 x 9, 1 x 32 x 5.*say which they are with --axes DT or --axes TD"):
        imported(src, tmp_path / "s.zarr")
    result, _ = imported(src, tmp_path / "td.zarr", axes="TD")
    assert result.failures == {"steps of another shape": 1}
    result, store = imported(src, tmp_path / "dt.zarr", axes="DT")
    assert (result.num_done, store.clips.num_steps.tolist()) == (3, [9, 9, 5])


def test_two_streams_are_two_taps(tmp_path: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    for name in ("a", "b_1"):
        np.save(src / f"{name}_rgb.npy", features())
        np.save(src / f"{name}_flow.npy", features() + 100)
    result, store = imported(src, tmp_path / "s.zarr")
    assert (result.num_done, sorted(store.taps)) == (2, ["flow", "rgb"])
    assert store.column("clip_id").tolist() == ["a", "b_1"]
    np.testing.assert_array_equal(store.read("flow", 0)[0], features() + 100)


def test_torch_files_of_every_kind(tmp_path: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    values = torch.from_numpy(features())
    torch.save(values, src / "tensor.pt")
    torch.save(values.bfloat16(), src / "half.pth")
    torch.save(values, src / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"x": values.requires_grad_()}, src / "grad.pt")
    torch.save({"features": values.detach(), "path": Path("x")}, src / "objects.pt")
    (src / "torn.pt").write_bytes((src / "tensor.pt").read_bytes()[:300])
    torch.save({"name": "x"}, src / "empty.pt")
    torch.save(values.detach().to_sparse(), src / "sparse.pt")
    _, store = imported(src, tmp_path / "s.zarr")
    said = dict(zip(store.column("clip_id").tolist(), store.clips.reason.tolist(), strict=True))
    assert [name for name, reason in said.items() if not reason] == ["grad", "half", "legacy", "tensor"]
    for row in store.done_rows().tolist():
        assert first_channel(store, row) == list(range(STEPS))
    assert "objects.pt holds more than tensors, and objects of a stranger's file could run code" in said["objects"]
    assert "torn.pt cannot be read" in said["torn"]
    assert "empty.pt holds no array of features" in said["empty"]
    assert "sparse" in said["sparse"]


def test_archives_of_several_arrays_are_asked_for(tmp_path: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    np.savez(src / "v.npz", rgb=features(), flow=features() + 1, timestamps=MS, names=np.array(["a"]))
    with pytest.raises(StoreError, match="say which hold features with --tap: flow, rgb"):
        imported(src, tmp_path / "s.zarr")
    result, store = imported(src, tmp_path / "s.zarr", tap=("rgb", "flow"))
    assert sorted(store.taps) == ["flow", "rgb"]
    assert math.isnan(store.step_seconds(0)[0])
    assert result.notes[0] == ("'timestamps' is not read, it says no unit; call it timestamps_ms or timestamps_seconds")
    np.savez(tmp_path / "all.npz", a=features(), b=features(40))
    torch.save({"a": torch.from_numpy(features())}, tmp_path / "all.pt")
    for name, count in (("all.npz", 2), ("all.pt", 1)):
        result, _ = imported(tmp_path / name, tmp_path / f"{name}.zarr")
        assert result.num_done == count


def test_archive_that_asks_for_objects_or_is_torn_fails_its_clip(tmp_path: Path) -> None:
    src = written(tmp_path / "src", "npz", {"a": features()}, MS)
    np.savez(src / "b.npz", features=np.array([{"x": 1}], dtype=object))
    data = (src / "a.npz").read_bytes()
    (src / "c.npz").write_bytes(data[: len(data) // 2])
    (src / "d.npz").write_bytes(data[:200] + bytes(60) + data[260:])
    result, store = imported(src, tmp_path / "s.zarr")
    assert result.num_done == 1
    reasons = store.clips.reason.tolist()
    assert "b.npz holds no array of features" in reasons[1]
    assert "c.npz cannot be read" in reasons[2]
    assert "d.npz cannot be read" in reasons[3]
    (src / "a.npy").write_bytes(b"")
    with pytest.raises(StoreError, match="are both features of 'a'; leave one"):
        imported(src, tmp_path / "t.zarr")
