"""Damaged stores: nothing damaged is read without a word, and what can be mended is."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attacks import bit_flips
from attacks.power_cut import SPEC, grow, wrong_clips
from click.testing import CliRunner

from reelbank import cli
from reelbank.store import Store, StoreError, merge, repair, upgrade, verify
from reelbank.store.layout import ROOT_COPY
from reelbank.store.plain import PlainArray
from reelbank.store.shards import has_checksum
from reelbank.store.sums import read_summed, sum_in, with_sum, write_summed

FIXTURE = Path(__file__).parent / "fixtures/store_v1.tar.xz"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bit_flips.make(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / whole.name))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store that a version without checksums of the ledger wrote."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "store_v1"


def break_file(file: Path, place: int = -5) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def taps(path: Path) -> list[str]:
    return [problem.tap for problem in verify(path).problems]


def test_a_flipped_bit_is_noticed_and_mended() -> None:
    assert bit_flips.try_flips(5, seed=1).not_held == ()


def test_a_head_is_not_trained_on_a_flipped_bit() -> None:
    assert bit_flips.try_trainings(4, seed=1).not_held == ()


def test_document_carries_its_sum_where_zarr_leaves_it_alone(path: Path) -> None:
    document = json.loads((path / "clips/status/zarr.json").read_text())
    assert list(document["attributes"]) == ["crc32c"]
    assert sum_in(with_sum({"a": 1})) == sum_in(with_sum({"a": 1, "crc32c": "of before"})) != sum_in(with_sum({"a": 2}))
    assert read_summed(path / "clips/status/zarr.json")["attributes"] == {}
    write_summed(path / "x.json", {"a": [1.5, float("nan"), "é"]})
    break_file(path / "x.json", (path / "x.json").read_bytes().index(b"1.5"))
    with pytest.raises(StoreError, match=r"x\.json does not match its crc32c: the store is damaged"):
        read_summed(path / "x.json")


@pytest.mark.parametrize("read", [
    lambda store, row: store.read("pool", row),
    lambda store, row: store.gather("pool", [row], 0),
    lambda store, row: list(store.blocks("pool", row)),
])  # fmt: skip
def test_damaged_features_are_refused_however_they_are_read(path: Path, read: Callable[[Store, int], object]) -> None:
    store = Store(path)
    row = int(store.done_rows()[0])
    read(store, row)
    first = next(file for file in sorted((path / "features/pool/c").rglob("*")) if file.is_file())
    break_file(first, 1)
    with pytest.raises(
        StoreError, match=r"clip 'c0' of .*: the bytes of tap 'pool', view 0, do not match their crc32c"
    ):
        read(Store(path), row)
    read(Store(path, check=False), row)
    with pytest.raises(StoreError, match="do not match their crc32c"):
        merge(path.parent / "m.zarr", [path, Path(shutil.copytree(path, path.parent / "b.zarr"))])


@pytest.mark.parametrize("name", ["manifest/label", "clips/num_frames", "clips/frame_box", "mean/pool"])
def test_damaged_array_is_a_sentence_of_readers(path: Path, name: str) -> None:
    break_file(
        next(file for file in (path / name / "c/0", path / name / "c/0/0", path / name / "c/0/0/0") if file.is_file())
    )
    with pytest.raises(StoreError, match=rf"{name}: bytes do not match their crc32c: the store is damaged"):
        bit_flips.content(path)
    assert taps(path) == [name]


@pytest.mark.parametrize(
    "name", ["manifest/label/c/1", "clips/in_manifest/c/0", "clips/num_steps/c/0", "commits/00000000.json"]
)
def test_a_file_that_is_gone_is_noticed(path: Path, name: str) -> None:
    (path / name).unlink()
    assert any(name in f"{problem.tap}: {problem.what}" for problem in verify(path).problems)
    if name.startswith(("manifest", "clips/in_manifest")):
        with pytest.raises(StoreError, match="is not there: the store is damaged"):
            bit_flips.content(path)


REPAIRS = {
    "manifest/clip_id/c/0": ("4 ids of rows 0 to 3 are written from 00000000.json", 0),
    "clips/status/c/0": ("rows 0 to 3 are missing again", 4),
    "mean/pool/c/0/0/0": ("mean/pool: rows 0 to 3 are computed again", 0),
    "checksums/pool/c/0/0": ("checksums/pool: rows 0 to 3 are 'not known'", 4),
    "clips/attempts/c/0": ("clips/attempts: rows 0 to 3 are 'not known'", 0),
    "clips/step_seconds/c/0/0": ("clips/step_seconds: rows 0 to 3 are 'not known'", 4),
    "commits/00000000.json": ("batch, device and versions of the unit are lost", 0),
    "zarr.json": ("zarr.json is written from its copy", 0),
    ROOT_COPY: ("is written from zarr.json", 0),
    "features/pool/zarr.json": ("features/pool/zarr.json is made again", 0),
    "clips/step_seconds/zarr.json": ("clips/step_seconds/zarr.json is made again", 0),
    "commits/zarr.json": ("commits/zarr.json is made again", 0),
    "features/map/c/0/0/0/0/0": ("whose index is damaged, is removed", 4),
}  # fmt: skip


@pytest.mark.parametrize("name", REPAIRS)
def test_what_can_be_mended_is_and_the_rest_is_extracted_again(path: Path, name: str) -> None:
    said, again = REPAIRS[name]
    before = bit_flips.content(path)
    break_file(path / name)
    assert not verify(path).is_sound
    done = repair(path)
    assert done.is_sound, done.text()
    assert said in " ".join(done.mended)
    assert len(done.again) == again
    assert len(Store(path).done_rows()) == 8 - again
    grow(path, bit_flips.VIDEOS)
    assert [
        n for n in bit_flips.differences(bit_flips.content(path), before) if n not in bit_flips.NOT_GIVEN_BACK
    ] == []
    assert verify(path).is_sound


def test_damaged_column_is_left_until_its_manifest_is_at_hand(path: Path) -> None:
    break_file(path / "manifest/kcal/c/0")
    done = repair(path)
    assert not done.is_sound
    assert done.again == ()
    assert "run featurize with the store's manifest again, it writes these anew: manifest/kcal" in done.text()
    grow(path, bit_flips.VIDEOS)
    assert verify(path).is_sound
    assert wrong_clips(path, bit_flips.VIDEOS) == []


def test_damaged_definition_of_clips_makes_them_stale(path: Path) -> None:
    from reelbank.store.files import only_writer
    from reelbank.store.testing import make_manifest
    from reelbank.store.writer import StoreWriter

    break_file(path / "manifest/end_seconds/c/0")
    manifest = make_manifest(path.parent, [{"clip_id": name} for name in bit_flips.VIDEOS])
    with only_writer(path):
        writer = StoreWriter(path, SPEC)
        writer.sync_manifest(manifest)
    assert writer.healed == ["manifest/end_seconds is damaged in 4 rows: written from the manifest"]
    assert Store(path).clips.status[:4].tolist() == [0] * 4
    assert len(Store(path).done_rows()) == 4


def test_column_whose_array_is_gone_is_refused_and_comes_back(path: Path) -> None:
    shutil.rmtree(path / "manifest/kcal")
    with pytest.raises(StoreError, match=r"manifest/kcal is not there and nothing can stand for it: the store is dam"):
        Store(path).column("kcal")
    assert not repair(path).is_sound
    grow(path, bit_flips.VIDEOS)
    assert verify(path).is_sound
    assert wrong_clips(path, bit_flips.VIDEOS) == []


def test_root_and_copy_both_damaged_is_said(path: Path) -> None:
    break_file(path / "zarr.json", 30)
    break_file(path / ROOT_COPY, 30)
    with pytest.raises(StoreError, match="damaged"):
        repair(path)


def test_clips_of_an_id_that_is_lost_everywhere_get_new_rows(path: Path) -> None:
    for name in ("manifest/clip_id/c/0", "commits/00000000.json"):
        break_file(path / name, 12)
    done = repair(path)
    assert "4 are lost, their clips get new rows" in " ".join(done.mended)
    assert len(Store(path).done_rows()) == 4
    grow(path, bit_flips.VIDEOS)
    assert wrong_clips(path, bit_flips.VIDEOS) == []
    assert len(Store(path).done_rows()) == 8
    assert verify(path).is_sound


def test_old_store_says_what_is_not_covered_and_upgrade_covers_it(old: Path) -> None:
    before = bit_flips.content(old)
    found = verify(old)
    assert found.is_sound
    assert {"clips/status/zarr.json", "zarr.json", "thumbnails/rgb"} <= {*found.uncovered}
    assert "have no checksum, an earlier version wrote them; `reelbank store upgrade` adds it" in found.text()
    assert upgrade(old).covered == found.uncovered
    assert (verify(old).problems, verify(old).uncovered) == ((), ())
    after = bit_flips.content(old)
    assert bit_flips.differences({**after, "attributes": 0}, {**before, "attributes": 0}) == []
    assert after["attributes"] == {**before["attributes"], "summed": True}
    assert PlainArray(old / "clips/status").is_summed
    frame = Store(old)._thumbnails
    assert frame is not None and has_checksum(frame.encoded(0) or b"")
    assert upgrade(old).covered == ()
    assert not [p.name for p in old.parent.iterdir() if p.name.startswith(".")]


def test_damaged_store_is_not_upgraded(old: Path) -> None:
    break_file(old / "features/hof/c/0/0/0/0", 3)
    with pytest.raises(StoreError, match=r"has 1 problems and is left as it is, the first: clip"):
        upgrade(old)


def test_chunk_past_the_last_step_must_be_zero(path: Path) -> None:
    store = Store(path)
    assert all(store.has_clean_padding("pool", row) for row in store.done_rows().tolist())
    shard = path / "features/pool/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[127 * 5 * 2 + 1] = 1
    shard.write_bytes(data)
    assert [problem.what for problem in verify(path).problems] == ["what follows the last step is not zero"]


def test_commands_say_it_and_mend_it(path: Path) -> None:
    break_file(path / "mean/pool/c/0/0/0")
    run = CliRunner()
    bad = run.invoke(cli.main, ["store", "verify", str(path)])
    assert (bad.exit_code, "1 problem: " in bad.output) == (1, True)
    assert bad.output.splitlines()[-1].startswith("`reelbank store verify STORE --repair` mends")
    mended = run.invoke(cli.main, ["store", "verify", str(path), "--repair"])
    assert (mended.exit_code, mended.output.splitlines()[-1].startswith("sound: ")) == (0, True), mended.output
    none = run.invoke(cli.main, ["store", "upgrade", str(path)])
    assert none.output == f"{path}: every array and document has its checksum, nothing to do\n"


def test_repair_of_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        repair(tmp_path / "no.zarr")
    assert not (tmp_path / "no.zarr").exists()
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"holds no zarr\.json: it is not a store"):
        repair(tmp_path / "folder")


def test_values_beside_a_damaged_chunk_are_kept(path: Path) -> None:
    array = PlainArray(path / "manifest/kcal")
    values = array.read(0, 9)
    break_file(path / "manifest/kcal/c/1")
    sound, lost = PlainArray(path / "manifest/kcal").read_sound(0, 9)
    assert lost.tolist() == [False] * 4 + [True] * 4 + [False]
    np.testing.assert_array_equal(sound[~lost], values[~lost])
