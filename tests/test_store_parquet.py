"""The Parquet table of an export: a row per clip, as programs that show embeddings read it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from probe_stores import clustered_store

import reelbank.store
from reelbank import cli
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.probe import probe
from reelbank.store import Store, StoreError
from reelbank.store.exchange.options import ExportConfig, ImportConfig
from reelbank.store.testing import write_store

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return clustered_store(tmp_path_factory.mktemp("parquet") / "toy.zarr", num_clips=24)


@pytest.fixture(scope="module")
def looked(store: Store) -> Path:
    return probe(ProbeConfig(store=store.path, tsne=True, kmeans=2, out=store.path.parent / "probe")).out


def _table(path: Path) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    found: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    return found


def _export(store: Store, out: Path, **options: Any) -> Any:
    return reelbank.store.export(store.path, out, ExportConfig(format="parquet", **options))


def test_table_has_a_row_per_clip_with_its_mean_picture_and_place_in_the_map(
    store: Store, looked: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    result = _export(store, tmp_path / "t.parquet", probe=looked)
    table = _table(tmp_path / "t.parquet")
    assert (result.num_clips, result.notes, result.left_out) == (24, (), {})
    for name in ("clip_id", "label", "group", "split", "kcal", "video"):
        assert table[name] == store.column(name).tolist(), name
    assert np.array_equal(np.array(table["vector"], dtype=np.float32), store.mean("pool"))
    schema = pq.read_schema(tmp_path / "t.parquet")
    assert schema.field("vector").type == pa.list_(pa.float32(), 16)
    assert json.loads(schema.metadata[b"reelbank"])["spec_digest"] == store.spec_digest
    lines = [line.split(",") for line in (looked / "coordinates.csv").read_text().splitlines()]
    for name in ("x", "y", "cluster"):
        assert table[name] == [float(line[lines[0].index(name)]) for line in lines[1:]]
    with Image.open(io.BytesIO(table["thumbnail"][5]["bytes"])) as picture:
        assert (picture.format, picture.size) == ("JPEG", (96, 72))
        assert abs(int(np.asarray(picture).mean()) - int(store.thumbnail(5).mean())) < 3


def test_pandas_reads_it_with_vectors_of_one_size(store: Store, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    _export(store, tmp_path / "t.parquet")
    frame = pandas.read_parquet(tmp_path / "t.parquet")
    assert np.stack(frame["vector"].tolist()).shape == (24, 16)
    assert "x" not in frame


def test_clips_without_a_mean_are_left_out_and_said(tmp_path: Path) -> None:
    arrays = [np.ones((2, 3), dtype=np.float16), None, np.ones((1, 3), dtype=np.float16)]
    clips = [{"clip_id": name, "kcal": kcal} for name, kcal in (("a", 1.0), ("bad", 2.0), ("c", float("nan")))]
    store = write_store(tmp_path / "s.zarr", {"pool": arrays}, clips)
    result = _export(store, tmp_path / "t.parquet")
    table = _table(tmp_path / "t.parquet")
    assert (table["clip_id"], table["kcal"], table["thumbnail"]) == (["a", "c"], [1.0, None], [None, None])
    assert result.left_out == {"without features": 1} and "left out: 1 x without features" in result.text()


def test_a_clip_that_the_probe_has_not_seen_has_no_place_and_it_is_said(looked: Path, tmp_path: Path) -> None:
    more = clustered_store(tmp_path / "more.zarr", num_clips=30)
    result = _export(more, tmp_path / "t.parquet", probe=looked)
    assert _table(tmp_path / "t.parquet")["x"][24:] == [None] * 6
    assert result.notes == ("6 of 30 clips are not in the probe: their x and y are null",)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"probe": Path("empty")}, r"--probe empty holds no coordinates\.csv"),
    ({"probe": Path("steps")}, r"--probe steps maps steps, .* probe with --level clip"),
    ({"probe": Path("flat")}, r"--probe flat made no map; run probe with --tsne or --umap"),
    ({"probe": Path("other")}, r"--probe other is of a store with other features"),
    ({"tap": ("map",)}, r"tap 'map' is no vector, so it has no mean; vector taps: pool"),
    ({"tap": ("map", "pool")}, r"--format parquet has one vector per clip and so one tap"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_gives_no_table_is_said_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    maps = [np.random.default_rng(i).normal(size=(2, 4, 3, 3)).astype(np.float16) for i in range(12)]
    clips = [{"clip_id": f"clip_{i}", "label": f"{i % 2}", "group": f"g{i}"} for i in range(12)]
    features = {"pool": [one.mean(axis=(2, 3)) for one in maps], "map": maps}
    store = write_store(tmp_path / "s.zarr", features, clips)
    Path("empty").mkdir()
    for name, more in (("steps", {"level": "step", "kmeans": 2}), ("flat", {"knn": 1}), ("other", {"kmeans": 2})):
        if options.get("probe") == Path(name):
            probe(ProbeConfig(store=store.path, out=Path(name), **more))  # type: ignore[arg-type]
    if options.get("probe") == Path("other"):
        text = Path("other/results.json").read_text()
        Path("other/results.json").write_text(text.replace(store.spec_digest, "0" * 16))
    with pytest.raises(StoreError, match=message):
        _export(store, tmp_path / "t.parquet", **options)
    assert not (tmp_path / "t.parquet").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "npy", "probe": Path("p")}, "--probe is for --format parquet, not npy"),
        ({"format": "parquet", "dtype": "int8"}, "--dtype int8 is for arrays of steps"),
        ({"format": "parquet", "layout": "array"}, "--layout array is for --format hdf5, not parquet"),
    ],
)
def test_options_of_other_formats_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        ExportConfig(**options)


def test_missing_pyarrow_names_the_extra(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(StoreError, match=r"pip install reelbank\[parquet\]"):
        _export(store, tmp_path / "t.parquet")


def test_command_writes_it_and_an_import_says_why_it_takes_none(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    done = CliRunner().invoke(cli.main, ["store", "export", str(store.path), str(out), "--format", "parquet"])
    assert done.exit_code == 0, done.output
    with pytest.raises(StoreError, match="is a Parquet table: it has a vector per clip and no steps"):
        reelbank.store.import_store(out, tmp_path / "back.zarr", ImportConfig())
