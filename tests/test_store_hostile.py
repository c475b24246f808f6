"""Stores, runs and exports of strangers: `attacks.hostile` tries hundreds, here are some, and the checks themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attacks import same_path

from reelbank.heads.stored import EPOCH, RESULTS
from reelbank.store import StoreError
from reelbank.store.files import json_object, reading, refuse_links
from reelbank.store.kinds import REAL, check_kinds
from reelbank.store.sizes import check_steps

SOME = [
    ("stores", "num_clips 1000000000000", "info"),
    ("stores", "column outside", "info"),
    ("stores", "10^12 steps", "export npy"),
    ("stores", "root nested without end", "verify"),
    ("stores", "unknown codec", "export npy"),
    ("stores", "backbone steers", "info"),
    ("stores", "shard index wraps around", "verify"),
    ("stores", "features are a link out", "append"),
    ("runs", "checkpoint header of 18446744073709551615", "predict"),
    ("runs", "10^12 outputs", "predict"),
    ("runs", "config.json is a list", "resume longer"),
    ("runs", "log is a link out", "resume longer"),
    ("files to import", "export taps outside", "import npy"),
    ("files to import", "npy is a zip", "import foreign"),
    ("files to import", "export without status", "import safetensors"),
    ("manifests", "runs backwards", "doctor"),
]


PATTERNS = ["s.zarr/zarr.json", "run/*.safetensors"]


def test_hostile_inputs_end_in_a_sentence_and_the_attack_notices_harm() -> None:
    from hostile_run import HARMS

    run = subprocess.run(
        [sys.executable, Path(__file__).parent / "hostile_run.py"],
        input=json.dumps({"some": SOME, "patterns": PATTERNS}), capture_output=True, text=True, timeout=300,
        env=same_path() | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    for _, name, _ in SOME:
        wrong, ends = found.pop(name)
        assert (wrong, len(ends)) == ([], 1), name
    for pattern in PATTERNS:
        assert found.pop(pattern)[0] == [], pattern
    assert {said: any(said in text for text in wrong) for said, (wrong, _) in found.items()} == dict.fromkeys(
        HARMS, True
    )


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        ({}, {"a": int}, "it has no 'a'"),
        ({"a": True}, {"a": int}, r"a is 'True' \(bool\)"),
        ({"a": [1, "x"]}, {"a": [int]}, r"a\[1\] is 'x' \(str\)"),
        ({"a": {"b": None}}, {"a": {"*": str}}, r"a\.b is 'None'"),
        ({"a": 1}, {"a": (str, None)}, "a is '1'"),
        ({"a": float("inf")}, {"a": float}, "a is 'inf'"),
        ([], {"a?": int}, r"it is '\[\]' \(list\)"),
        ({"fold": 0}, dict(EPOCH), "it has no 'epoch'"),
        ({"run": "a"}, dict(RESULTS), "it has no 'warning'"),
    ],
)
def test_kinds_name_the_value_that_is_another(data: Any, kind: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_kinds(data, kind, "")


def test_kinds_take_what_fits() -> None:
    check_kinds({"a": 1, "b": [0.5, 2], "c": None}, {"a": int, "b": [float], "c": (str, None), "d?": str}, "")
    check_kinds({"a": float("nan"), "other": {}}, {"a": REAL, "*": object}, "")


@pytest.mark.parametrize("text", ["[1]", "null", '{"a": "\\ud800"}', "{", '{"a": ' * 10**5, b"\xff", "9" * 5000])
def test_json_that_is_no_object_is_damaged(text: str | bytes) -> None:
    with pytest.raises(StoreError, match=r"x\.json is damaged: "), reading(Path("x.json")):
        json_object(text)


def test_sentences_of_the_library_keep_their_class_and_get_the_path() -> None:
    with pytest.raises(StoreError, match="no tap") as caught, reading(Path("x.json"), RuntimeError):  # type: ignore[arg-type]
        raise StoreError("no tap")
    assert caught.value.__notes__ == ["read from x.json"]


def test_links_in_a_folder_are_refused_but_those_in_staging(tmp_path: Path) -> None:
    (tmp_path / "s/staging").mkdir(parents=True)
    (tmp_path / "s/staging/stray").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "s")
    refuse_links(tmp_path / "link")
    (tmp_path / "s/features").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="s/features is a link"):
        refuse_links(tmp_path / "s")


def test_ledger_cannot_give_more_steps_than_there_are() -> None:
    shape, one = (3, 1, 8, 4), [1, 1, 1]
    import numpy as np

    check_steps(Path("s"), "cls", shape, np.array([0, 8, 3]), np.array(one))
    for steps, views in (([0, 9, 0], one), ([-1, 0, 0], one), (one, [1, 2, 1])):
        with pytest.raises(StoreError, match=r"clips/num_(steps|views) goes from"):
            check_steps(Path("s"), "cls", shape, np.array(steps), np.array(views))
