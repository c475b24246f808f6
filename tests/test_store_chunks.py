"""The own reader and writer of plain arrays against zarr-python, and what they must leave to it."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from reelbank.store import chunks, layout
from reelbank.store.errors import StoreError
from reelbank.store.layout import column_definition, create_array, definitions, plan_geometry
from reelbank.store.plain import PlainArray
from reelbank.store.spec import FeatureSpec, TapSpec

SPEC = FeatureSpec(
    backbone="x", taps=(TapSpec(name="v", shape=(3,), dtype="float16", axes=("feature",)),), weights={"kind": "random"},
    sampling="all", views=("original", "flip"),
)  # fmt: skip
COLUMNS = {f"manifest/{numeric}": column_definition(4, numeric=numeric) for numeric in (False, True)}
PLAIN = {
    **{name: one for name, one in definitions(SPEC, plan_geometry(SPEC, None, 0)).items() if one.shards is None},
    **COLUMNS,
}
TEXTS = np.array(["", "a", "ß", "日本\n", "x" * 300, "a\0b", "🎬"], dtype=object)


def _values(dtype: np.dtype[Any], shape: tuple[int, ...], seed: int) -> NDArray[Any]:
    """Any values of a kind, its extremes among them."""
    generator = np.random.default_rng(seed)
    if dtype.kind == "T":
        return generator.choice(TEXTS, shape).astype(dtype)
    raw: NDArray[Any] = generator.integers(0, 256, (*shape, dtype.itemsize), np.uint8)
    return raw.view(dtype)[..., 0] if dtype.kind != "b" else raw[..., 0] % 2 == 0


def _bytes(values: NDArray[Any]) -> Any:
    """What is compared: NaN is not equal to itself."""
    return values.tolist() if values.dtype.kind == "T" else values.tobytes()


@pytest.mark.parametrize("name", PLAIN)
def test_every_plain_array_reads_as_zarr_reads_it(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    create_array(tmp_path, name, PLAIN[name], num_clips=11)
    document = json.loads((folder / "zarr.json").read_text())
    document["chunk_grid"]["configuration"]["chunk_shape"][0] = 4
    tail = document["shape"][1:]
    document["shape"][1:] = [size + (3 if document["dimension_names"][1:] == ["step"] else 0) for size in tail]
    del document["attributes"]["crc32c"]
    (folder / "zarr.json").write_text(json.dumps(document))
    array = PlainArray(folder, writable=True)
    values = _values(array.dtype, (4, *document["shape"][1:]), 1)
    array.write(4, values)  # the unit of rows 0 to 3 and that of 8 to 10 are fill
    array.write(9, values[:2])

    assert chunks.plan(array.document) is not None
    peer: Any = zarr.open_array(folder, mode="r")
    whole, reader = np.asarray(peer[:]), PlainArray(folder)
    for start, stop in product(range(12), range(14)):
        found, expected = reader.read(start, stop), whole[start:stop]
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert _bytes(found) == _bytes(expected)
    np.testing.assert_array_equal(array.fill, peer.fill_value)


WRITES = ((5, 0), (2, 3), (0, 11), (4, 4), (8, 3), (0, 4), (3, 6), (7, 1), (10, 1), (11, 0))
"""(first row, rows) of 11 in chunks of 4: whole ones, parts, across, the last one that the end cuts, none."""


def _assert_written_alike(tmp_path: Path, document: dict[str, Any], seed: int) -> None:
    """Writes the same to two empty arrays, by us and by zarr-python, and compares every file after each."""
    for name in ("ours", "zarrs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "zarr.json").write_text(json.dumps(document))
    ours, theirs = PlainArray(tmp_path / "ours", writable=True), PlainArray(tmp_path / "zarrs", writable=True)
    assert ours._plan is not None
    theirs._plan = None
    for number, (start, rows) in enumerate(WRITES):
        values = _values(ours.dtype, (rows, *ours.shape[1:]), seed + number)
        if (start, rows) == (0, 4):
            values = np.full_like(values, ours.fill)  # a chunk of nothing but fill is there, too
        for array in (ours, theirs):
            array.write(start, values)
        assert _files(tmp_path / "ours") == _files(tmp_path / "zarrs"), (start, rows)
    assert len(_files(tmp_path / "ours")) > 3


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", PLAIN)
def test_every_plain_array_is_written_as_zarr_writes_it(name: str, tmp_path: Path) -> None:
    document = layout.array_document(PLAIN[name], 11)
    document["chunk_grid"]["configuration"]["chunk_shape"][0] = 4
    if document["dimension_names"][1:] == ["step"]:
        document["shape"][1] += 3  # grown: a second chunk, of which the array has three columns
    _assert_written_alike(tmp_path, document, 1)


CHAINS = [(), ("zstd",), ("crc32c",), ("zstd", "crc32c")]


@pytest.mark.parametrize(
    ("kind", "codec", "level"),
    [
        *((kind, codec, 0) for kind in (*chunks.NUMBERS, "str") for codec in CHAINS),
        *((kind, ("zstd", "crc32c"), level) for kind in ("float64", "str") for level in (-3, 7)),
    ],
)
def test_every_kind_and_chain_of_codecs_is_written_as_zarr_writes_it(
    kind: str, codec: tuple[str, ...], level: int, tmp_path: Path
) -> None:
    kinds = {"zstd": zarr.codecs.ZstdCodec(level=level, checksum=level == 7), "crc32c": zarr.codecs.Crc32cCodec()}
    made: dict[str, Any] = {"dtype": str if kind == "str" else kind, "compressors": [kinds[one] for one in codec]}
    zarr.create_array(tmp_path / "a", shape=(11, 3), chunks=(4, 2), fill_value="ß" if kind == "str" else 1, **made)
    _assert_written_alike(tmp_path, json.loads((tmp_path / "a/zarr.json").read_text()), 3)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("float32", np.array([1.1, np.nan, 1e300])),
        ("uint8", np.array([1, 300, -1])),
        ("int64", np.array([1, 2, 3], dtype=">i2")),
        ("str", np.array(["a", "bcd", ""])),
        ("str", np.array(["a", "日本", ""], dtype=object)),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_values_of_another_kind_are_converted_as_zarr_converts_them(
    kind: str, given: NDArray[Any], tmp_path: Path
) -> None:
    found = []
    for own in (True, False):
        zarr.create_array(tmp_path / str(own), shape=(5,), chunks=(2,), dtype=str if kind == "str" else kind)
        array = PlainArray(tmp_path / str(own), writable=True)
        array._plan = array._plan if own else None
        array.write(1, given)
        found.append(_files(tmp_path / str(own)))
    assert found[0] == found[1]


def test_nothing_is_written_where_a_chunk_that_keeps_rows_is_damaged(tmp_path: Path) -> None:
    create_array(tmp_path, "a", PLAIN["clips/duration_seconds"], num_clips=1500)
    array = PlainArray(tmp_path / "a", writable=True)
    array.write(0, np.ones(1500))
    last = array.chunk_path(2)
    last.write_bytes(last.read_bytes()[:-1])
    before = _files(tmp_path)
    with pytest.raises(StoreError, match="a: bytes do not match their crc32c"):
        array.write(0, np.zeros(1200))
    assert _files(tmp_path) == before
    array.write(0, np.zeros(1500))  # which keeps none of its rows
    assert not PlainArray(tmp_path / "a").read(0, 1500).any()


@pytest.mark.parametrize(("start", "shape"), [(0, (12, 2)), (11, (1, 2)), (0, (3,)), (0, (3, 1)), (-1, (1, 2))])
def test_rows_that_do_not_fit_are_refused(start: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    create_array(tmp_path, "a", PLAIN["checksums/v"], num_clips=11)
    with pytest.raises(StoreError, match="expected rows of an array of"):
        PlainArray(tmp_path / "a", writable=True).write(start, np.zeros(shape, np.uint32))
    assert list(_files(tmp_path)) == ["a/zarr.json"]


def test_an_array_opened_for_reading_is_not_written(tmp_path: Path) -> None:
    create_array(tmp_path, "a", PLAIN["checksums/v"], num_clips=11)
    with pytest.raises(StoreError, match="read-only"):
        PlainArray(tmp_path / "a").write(0, np.zeros((11, 2), np.uint32))
    assert list(_files(tmp_path)) == ["a/zarr.json"]


@pytest.mark.parametrize("dtype", chunks.NUMBERS)
@pytest.mark.parametrize("codec", CHAINS)
def test_every_kind_of_number_and_chain_of_codecs(dtype: str, codec: tuple[str, ...], tmp_path: Path) -> None:
    kinds = {"zstd": zarr.codecs.ZstdCodec(), "crc32c": zarr.codecs.Crc32cCodec()}
    folder = tmp_path / "a"
    peer: Any = zarr.create_array(
        folder, shape=(7, 5), chunks=(3, 2), dtype=dtype, compressors=tuple(kinds[c] for c in codec), fill_value=1
    )
    peer[2:6] = values = _values(np.dtype(dtype), (4, 5), 3)
    plan = chunks.plan(json.loads((folder / "zarr.json").read_text()))
    assert plan is not None
    found = plan.read(folder, 0, 7)
    assert found.tobytes() == np.asarray(peer[:]).tobytes()
    assert found[2:6].tobytes() == values.tobytes()
    assert (found[:2] == 1).all()


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf, 2.5])
def test_fill_values_that_json_has_no_number_for(fill: float, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", shape=(3,), chunks=(2,), dtype="float32", fill_value=fill)
    array = PlainArray(tmp_path / "a")
    np.testing.assert_array_equal(array.read(0, 3), np.full(3, fill, np.float32))


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": zarr.codecs.GzipCodec()},
        {"compressors": (zarr.codecs.Crc32cCodec(), zarr.codecs.ZstdCodec())},
        {"filters": zarr.codecs.TransposeCodec(order=(1, 0))},
        {"serializer": zarr.codecs.BytesCodec(endian="big")},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"chunk_key_encoding": {"name": "default", "separator": "."}},
        {"shards": (4, 4)},
        {"dtype": "complex64"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_this_project_does_not_write_is_left_to_zarr(options: dict[str, Any], tmp_path: Path) -> None:
    made: dict[str, Any] = {"dtype": "int32", **options}
    array: Any = zarr.create_array(tmp_path / "a", shape=(4, 4), chunks=(2, 2), **made)
    array[:] = values = np.arange(16).reshape(4, 4)
    held = PlainArray(tmp_path / "a", writable=True)
    assert chunks.plan(held.document) is None
    np.testing.assert_array_equal(held.read(1, 4), values[1:])
    held.write(2, -values[:2])
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], [*values[:2], *-values[:2]])


@pytest.mark.parametrize(
    "given", [None, {}, {"level": 0}, {"level": 23, "checksum": False}, {"level": 0, "checksum": 1}]
)
def test_a_configuration_of_zstd_that_is_not_known_is_left_to_zarr(given: Any) -> None:
    document = layout.array_document(PLAIN["clips/status"], 3)
    assert chunks.plan(document) is not None
    place = [codec["name"] for codec in document["codecs"]].index("zstd")
    document["codecs"][place]["configuration"] = given
    assert chunks.plan(document) is None


@pytest.mark.parametrize("name", ["clips/duration_seconds", "clips/reason", "clips/step_seconds"])
def test_a_damaged_chunk_is_a_sentence_and_its_neighbours_are_sound(name: str, tmp_path: Path) -> None:
    create_array(tmp_path, name, PLAIN[name], num_clips=1000)
    array = PlainArray(tmp_path / name, writable=True)
    array.write(0, values := _values(array.dtype, (1000, *array.shape[1:]), 5))
    path = array.chunk_path(1)
    whole = path.read_bytes()
    for position in sorted({0, 1, 4, 5, len(whole) // 2, len(whole) - 4, len(whole) - 1}):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(StoreError, match=f"{name}: bytes do not match their crc32c"):
            PlainArray(tmp_path / name).read(0, 1000)
        found, lost = PlainArray(tmp_path / name).read_sound(0, 1000)
        unit = array.unit_clips
        assert lost.tolist() == [unit <= row < 2 * unit for row in range(1000)]
        assert _bytes(found[:unit]) == _bytes(values[:unit])
    for cut in (b"", whole[:3], whole[:-1]):
        path.write_bytes(cut)
        with pytest.raises(StoreError, match="do not match"):
            array.read(0, 1000)


@pytest.mark.parametrize("data", [b"", b"\0", b"garbage", b"\x28\xb5\x2f\xfd\xff" + b"\xff" * 9], ids=repr)
@pytest.mark.parametrize("kind", ["float64", "str"])
def test_a_chunk_without_a_sum_that_the_codecs_refuse_is_a_sentence(data: bytes, kind: str, tmp_path: Path) -> None:
    compressor = zarr.codecs.ZstdCodec()
    array: Any = zarr.create_array(tmp_path / "a", shape=(4,), chunks=(2,), dtype=kind, compressors=compressor)
    array[:] = np.ones(4) if kind == "float64" else np.array(list("abcd"))
    (tmp_path / "a/c/0").write_bytes(data)
    with pytest.raises(StoreError, match=r"a cannot be read|bytes do not match"):
        PlainArray(tmp_path / "a").read(0, 4)


@pytest.mark.parametrize("dtype", ["float64", "str"])
def test_a_chunk_of_another_length_is_not_taken(dtype: str, tmp_path: Path) -> None:
    made: dict[str, Any] = {"dtype": dtype, "compressors": zarr.codecs.ZstdCodec()}
    for name, size in (("a", 2), ("b", 3)):
        array: Any = zarr.create_array(tmp_path / name, shape=(6,), chunks=(size,), **made)
        array[:] = np.arange(6) if dtype == "float64" else np.array(list("abcdef"))
    (tmp_path / "a/c/0").write_bytes((tmp_path / "b/c/0").read_bytes())
    with pytest.raises(StoreError, match="a cannot be read"):
        PlainArray(tmp_path / "a").read(0, 6)


def test_a_store_is_opened_without_zarr(tmp_path: Path) -> None:
    """What it is for: opening a store of many units took seconds."""
    import subprocess
    import sys

    from reelbank.store.testing import write_store

    clips = [{"clip_id": f"c{i}", "kcal": 1.0} for i in range(3)]
    write_store(tmp_path / "x.zarr", {"v": [np.ones((2, 4), np.float32)] * 3}, clips, sampling="all")
    code = (
        "import sys; from reelbank.store.reader import Store; s = Store(sys.argv[1]); s.clips, s.column('kcal');"
        "import zarr; zarr.open_array = None; Store(sys.argv[1]).read('v', 2); print(s.column('kcal').sum())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.zarr")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3.0"]
