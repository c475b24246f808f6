"""Text from files reaches the terminal as text: it steers nothing, and no sign of it stops a command."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from attacks.mutants import ESCAPES, STEERING
from click.testing import CliRunner

from reelbank import cli
from reelbank.manifests.events import Event
from reelbank.manifests.terminal import printable
from reelbank.store import console

MARKUP = "[red]x[/red][link=file:///etc/passwd]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("clip 'a', 3 s\n\tüß 動画 🙂", "clip 'a', 3 s\n\tüß 動画 🙂"),
        ("\x1b[31m\x07\r\x00\x7f\x9b", r"\x1b[31m\x07\x0d\x00\x7f\x9b"),
        ("a\u202e4pm.exe\u2066\u200f", r"a\u202e4pm.exe\u2066\u200f"),
        ("caf\udce9.mp4", r"caf\xe9.mp4"),
        ("\ud800", r"\ud800"),
        (MARKUP, MARKUP),
    ],
)
def test_printable_keeps_text_and_shows_what_steers(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert not STEERING.search(printable(text))


def test_printable_knows_what_an_encoding_lacks() -> None:
    assert printable("é 動", "ascii") == r"\xe9 \u52d5"
    assert printable("é 動", "latin-1") == r"é \u52d5"


def test_every_way_of_printing_shows_escapes(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"clip_id,video\nb,\u202e{MARKUP}.mp4\n")
    lines: list[tuple[list[str], int]] = [
        (["manifest", "csv", str(tmp_path / "m.csv"), "--map", f"video={ESCAPES}"], 2),  # an error of the library
        (["manifest", "csv", str(tmp_path / "m.csv"), ESCAPES.replace("\0", "")], 2),  # an error of click
        (["doctor", "--manifest", str(tmp_path / f"{ESCAPES}.csv")], 2),
    ]
    for line, status in lines:
        result = CliRunner().invoke(cli.main, line)
        assert (result.exit_code, STEERING.search(result.output)) == (status, None)
        assert r"\x1b" in result.output


@pytest.mark.parametrize(("is_terminal", "term"), [(True, "xterm"), (False, "xterm"), (True, "dumb")])
def test_progress_shows_text_of_files_as_it_is(is_terminal: bool, term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(console, "PLAIN_LINE_SECONDS", 0.0)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "200")
    with cli.progress_bar("featurize") as show:
        show(Event(stage="extract", done=1, total=2, message=f"clip {MARKUP}", note=f"{MARKUP} \x1b]0;title\x07\u202e"))
    shown = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert shown.count(MARKUP) >= 2
    assert r"\x1b]0;title\x07\u202e" in shown
    assert "\x1b]0;title" not in shown


def test_sentence_for_a_machine_that_has_no_memory() -> None:
    call: Callable[[], None] = lambda: (_ for _ in ()).throw(MemoryError)  # noqa: E731
    with pytest.raises(Exception, match="not enough memory"), cli.plain_errors():
        call()


def test_json_keeps_the_text_and_steers_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.emit({"label": ESCAPES}, True, str)
    shown = capsys.readouterr().out
    assert json.loads(shown)["label"] == ESCAPES
    assert not STEERING.search(shown)


@pytest.mark.parametrize("width", [80, 100])
def test_time_left_stays_on_a_narrow_line(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    message = "3.1 clips/s, 59 steps/s, mostly preprocess, 1234 failed, and more that is told of this run " * 2
    with console.progress_bar("train-head") as show:
        show(Event(stage="extract", done=12_345, total=123_456, message=message))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    line = next(line for line in re.split(r"[\r\n]", shown) if "12345/123456" in line)
    assert re.search(r"-:--:--|\d:\d\d:\d\d", line)
    assert "3.1 clips/s" in line and len(line) <= width
