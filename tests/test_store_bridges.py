"""A store, a manifest and a run as other libraries and notebooks see them."""

from __future__ import annotations

import html.parser
import importlib
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

import reelbank.manifests
from reelbank.heads.runs.run import RunResult
from reelbank.store import Store, StoreError
from reelbank.store.layout import COLUMNS, LEDGER
from reelbank.store.testing import write_store

LENGTHS = (3, 1, 5, 2, 4)
FAILED_ROW = 3
HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Clips of unlike lengths, one of them failed, one without label and target; a vector tap and a map."""
    random = np.random.default_rng(0)
    taps: dict[str, list[Any]] = {
        "cls": [random.random((n, 6)).astype(np.float16) for n in LENGTHS],
        "pixels": [random.integers(0, 255, (n, 2, 3, 3)).astype(np.uint8) for n in LENGTHS],
    }
    for arrays in taps.values():
        arrays[FAILED_ROW] = None
    rows = [
        {"clip_id": f"c{i}", "label": ("walk", "run", "", "run", HOSTILE)[i], "group": f"g{i % 2}", "camera": "front",
         "split": "train" if i < 3 else "test", "kcal": float("nan") if i == 2 else 10.0 * i,
         "reason": "of the manifest"}
        for i in range(len(LENGTHS))
    ]  # fmt: skip
    return write_store(tmp_path_factory.mktemp("bridges") / "s.zarr", taps, rows)


def test_to_pandas_has_a_row_per_clip_with_types(store: Store) -> None:
    table = store.to_pandas()
    assert table.clip_id.tolist() == [f"c{i}" for i in range(len(LENGTHS))]
    assert table.status.tolist() == ["done", "done", "done", "failed", "done"]
    assert table.loc[FAILED_ROW, "ledger_reason"] == "no features given"
    assert table.reason.tolist() == ["of the manifest"] * len(LENGTHS)
    assert table.label.isna().tolist() == [False, False, True, False, False]
    assert table.kcal.tolist()[:2] == [0.0, 10.0] and np.isnan(table.kcal[2])
    assert table.num_steps.tolist() == [0 if i == FAILED_ROW else n for i, n in enumerate(LENGTHS)]
    assert {*COLUMNS, "kcal", "camera"} <= set(table.columns)
    assert {name for name, kind in LEDGER.items() if not kind.axis} - {"reason"} <= set(table.columns)
    for name in ("status", "split", "label", "group"):
        assert isinstance(table[name].dtype, pd.CategoricalDtype), name
    for name in ("clip_id", "video", "camera", "ledger_reason", "content_hash"):
        assert isinstance(table[name].dtype, pd.StringDtype), name
    assert [str(table[name].dtype) for name in ("kcal", "num_steps", "in_manifest")] == ["float64", "int64", "bool"]
    assert table.groupby("split", observed=True).num_steps.sum().to_dict() == {"test": 4, "train": 9}


@pytest.mark.parametrize("tap", ["cls", "pixels"])
def test_to_xarray_pads_and_says_where(store: Store, tap: str) -> None:
    data = store.to_xarray(tap)
    assert data.features.dims == ("clip", "step", *store.taps[tap].axes)
    assert data.sizes["clip"] == 4 and data.sizes["step"] == max(LENGTHS)
    assert data.clip_id.values.tolist() == ["c0", "c1", "c2", "c4"]
    for i, row in enumerate(data.row.values.tolist()):
        steps = LENGTHS[row]
        np.testing.assert_array_equal(data.features[i, :steps], store.read(tap, row)[0])
        np.testing.assert_array_equal(data.step_seconds[i, :steps], store.step_seconds(row))
        assert not data.features[i, steps:].any() and np.isnan(data.step_seconds[i, steps:]).all()
        assert data.mask[i].values.tolist() == [True] * steps + [False] * (max(LENGTHS) - steps)
    assert data.features.dtype == store.taps[tap].dtype
    assert data.attrs["spec_digest"] == store.spec_digest
    assert data.where(data.split == "train", drop=True).clip_id.values.tolist() == ["c0", "c1", "c2"]
    assert store.to_xarray(tap, rows=[4]).kcal.values.tolist() == [40.0]
    with pytest.raises(StoreError, match="'c3' has no features"):
        store.to_xarray(tap, rows=[FAILED_ROW])


def test_an_absent_library_is_named_with_what_to_install(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for library, call in (("pandas", store.to_pandas), ("xarray", store.to_xarray)):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ImportError, match=rf"needs {library}, which is not .*pip install 'reelbank\[notebook\]'"):
            call()


def test_the_reader_loads_none_of_them() -> None:
    script = "import sys, reelbank.store.reader\nprint([n for n in ('pandas', 'xarray', 'torch') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("workers", [None, "spawn", "fork"])
def test_dataset_gives_the_clips_whatever_reads_them(store: Store, workers: str | None) -> None:
    data = store.dataset()
    data[0]  # opened here before workers start
    settings = {} if workers is None else {"num_workers": 2, "multiprocessing_context": workers}
    seen = []
    for batch in DataLoader(data, batch_size=2, collate_fn=data.collate, **settings):  # type: ignore[arg-type]
        for i, clip_id in enumerate(batch["clip_id"]):
            seen.append(clip_id)
            row = int(clip_id[1:])
            steps = int(batch["mask"][i].sum())
            assert steps == LENGTHS[row]
            expected = store.read("cls", row)[0].astype(np.float32)
            np.testing.assert_array_equal(batch["features"][i, :steps].numpy(), expected)
            assert not batch["features"][i, steps:].any()
            assert data.classes[batch["label"][i]] == store.column("label")[row] if row != 2 else True
        assert batch["features"].dtype == batch["target"].dtype == torch.float32
    assert seen == ["c0", "c1", "c2", "c4"]


def test_dataset_knows_its_splits_labels_and_targets(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train, test = store.dataset("pixels", split="train"), store.dataset(split="test")
    assert (len(train), len(test)) == (3, 1)
    assert train.classes == test.classes == (HOSTILE, "run", "walk")
    assert [int(item["label"]) for item in train] == [2, 1, -100]
    assert train[2]["target"].isnan() and test[0]["target"] == 40
    assert train[0]["features"].shape == (3, 2, 3, 3) and train[0]["features"].dtype == torch.uint8
    copy = pickle.loads(pickle.dumps(train))
    monkeypatch.chdir(tmp_path)
    assert copy[1]["clip_id"] == "c1"
    for wrong, said in (
        ({"split": "val"}, "no clip with features .* is in split 'val'; its splits are 'test', 'train'"),
        ({"tap": "clss"}, "tap 'clss'"),
        ({"view": 1}, "it has views 0 to 0"),
        ({"target": "joule"}, "has no target 'joule'; its targets are kcal"),
    ):
        with pytest.raises(StoreError, match=said):
            store.dataset(**wrong)  # type: ignore[arg-type]


def a_manifest(store: Store, folder: Path) -> Any:
    table = folder / "m.csv"
    lines = [f"c{i},v{i}.mp4,{HOSTILE.replace(chr(34), '')},{i}" for i in range(9)]
    table.write_text("\n".join(["clip_id,video,label,kcal", *lines]) + "\n")
    return reelbank.manifests.read(table)


def a_run(store: Store, folder: Path) -> Any:
    metric = {
        "value": 0.75,
        "low": 0.5,
        "high": 0.9,
        "interval": "bootstrap",
        "higher_is_better": True,
        "unit": "fraction",
    }
    undefined = {**metric, "value": None, "low": None, "high": None}
    entry = {
        "num_clips": 20, "num_groups": 4, "metrics": {"accuracy": metric, "macro_f1": undefined},
        "baselines": {"majority_class": {"accuracy": 0.25}},
    }  # fmt: skip
    results = {
        "verdict": f"Good. {HOSTILE}",
        "warning": "RANDOM WEIGHTS: x",
        "weights_are_random": True,
        "reported": "test",
        "splits": {"test": entry},
    }
    return RunResult(directory=folder / "run", results=results)


def a_store(store: Store, folder: Path) -> Any:
    return store


class Tags(html.parser.HTMLParser):
    """Tags, and attributes that load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen |= {tag, *(name for name, _ in attrs)}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("make", "said", "shown"),
    [
        (a_store, "cls (T x 6), pixels (T x 2 x 3 x 3); clips: 4 done, 1 failed>", "1: no features given"),
        (a_manifest, "9 clips (train 9), 1 classes, targets kcal (0 to 8)>", "and 4 more clips"),
        (a_run, "test accuracy 0.75, macro_f1 undefined, of RANDOM WEIGHTS>", "majority class 0.25"),
    ],
)
def test_what_a_notebook_shows_is_short_escaped_and_of_no_colour(
    store: Store, tmp_path: Path, make: Any, said: str, shown: str
) -> None:
    thing = make(store, tmp_path)
    assert repr(thing).endswith(said), repr(thing)
    assert "\n" not in repr(thing) and len(repr(thing)) < 300
    page = thing._repr_html_()
    assert shown in page and len(page) < 8000
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.seen <= {"div", "table", "tr", "th", "td", "b", "style"}
    assert "color:" not in page and "http" not in page and "url(" not in page  # the notebook's own, light or dark


def test_a_damaged_store_still_has_a_repr(store: Store, tmp_path: Path) -> None:
    damaged = Store(shutil.copytree(store.path, tmp_path / "s.zarr"))
    shutil.rmtree(damaged.path / "clips" / "status")
    assert repr(damaged).endswith("clips: damaged>")
    assert "damaged" in damaged._repr_html_()


def test_text_of_any_length_makes_a_small_card() -> None:
    cards = importlib.import_module("reelbank.manifests.notebooks")
    assert len(cards.card("Store", "x" * 10_000, {"taps": json.dumps(["y"] * 10_000)})) < 8_000
