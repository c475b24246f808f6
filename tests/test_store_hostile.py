"""Stores, runs and exports of strangers: `attacks.hostile` tries hundreds, here are some, and the checks themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attacks import hostile
from attacks.hostile_inputs import TABLE

from reelbank.heads.stored import EPOCH, RESULTS
from reelbank.store import StoreError
from reelbank.store.files import json_object, reading, refuse_links
from reelbank.store.kinds import REAL, check_kinds
from reelbank.store.sizes import check_steps


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with hostile.sound_folder() as folder:
        yield folder


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
    ("manifests", "runs backwards", "doctor"),
]


@pytest.mark.parametrize(("kind", "name", "command"), SOME)
def test_hostile_input_ends_in_a_sentence(kind: str, name: str, command: str, root: Path) -> None:
    _, found, ends = hostile.attempt(root / "sound", root / "m", TABLE[kind][name][0], (command,), hostile.SOUND)
    assert found == []
    assert len(ends) == 1


@pytest.mark.parametrize("pattern", ["s.zarr/zarr.json", "run/*.safetensors", "npy/**/*", "groups.h5"])
def test_mutants_end_in_a_sentence(pattern: str, root: Path) -> None:
    assert hostile.try_mutants(root, pattern, count=2, seed=5).not_held == ()


def _written_outside() -> None:
    (Path.cwd().parent / "outside").write_text("x")


def _run() -> None:
    os.system("true")


def _calls() -> None:
    import socket

    with socket.socket() as one:
        one.settimeout(0.1)
        one.connect(("127.0.0.1", 9))


def _says_nothing() -> None:
    raise ValueError("it is wrong")


def _steers() -> None:
    import click

    click.echo("\x1b[2J")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda: {}["x"], "KeyError"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "signal 9"),
        (_written_outside, "written: "),
        (_run, "os.system"),
        (_calls, "socket.connect"),
        (_says_nothing, "names none of"),
        (_steers, "reaches the terminal"),
    ],
)  # fmt: skip
def test_attack_notices_what_does_harm(harm: Any, said: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "COMMANDS", {"harm": harm})
    _, found, _ = hostile.attempt(root / "sound", root / "m", lambda folder: None, ("harm",), hostile.SOUND)
    (root / "outside").unlink(missing_ok=True)
    assert any(said in text for text in found), found


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
