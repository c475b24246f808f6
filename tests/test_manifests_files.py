"""A file or folder appears whole, or what was there stays."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelbank.manifests import files
from reelbank.manifests.files import NotAFile, appearing, filling, regular, scratch

ROOT = Path(__file__).resolve().parent.parent
READS = {"load", "load_file", "loadmat", "open", "read_bytes", "read_text", "safe_open", "whosmat"}
OWN = {"Image", "Path", "av", "np", "torch"}
ASKED_BEFORE = {
    "extract/backbones/network.py": "the weights that the parent wrote for its workers",
    "extract/inputs/annotation_formats.py": "annotations._read_file asks",
    "extract/video/opening.py": "asks itself, in a sentence of its own",
    "extract/weights/checkpoints.py": "weights.files hashes the file first",
    "manifests/datasets/matlab.py": "penn asks",
    "manifests/plugins.py": "source that Python has imported",
    "store/cores.py": "files of the kernel",
    "store/staging.py": "what is staged is judged by is_file",
}
"""{file: why what it reads is known to be a file}."""


def _reads(path: Path) -> Iterator[int]:
    """Lines that open a file for reading whose path did not go through `regular`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in READS:
            continue
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        is_module = owner is None or (isinstance(owner, ast.Name) and owner.id in OWN)
        what = (node.args[0] if node.args else None) if is_module else owner
        modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        modes += [k.value.value for k in node.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)]
        if any(mode[:1] in "wax" for mode in modes) or "regular(" in ast.unparse(what or node):
            continue
        if (name == "load" and (owner is None or not is_module)) or (
            name == "open" and not is_module and not _is_path(what)
        ):
            continue  # a method of something else
        yield node.lineno


def _is_path(node: ast.AST | None) -> bool:
    text = ast.unparse(node) if node is not None else ""
    return "/" in text or any(word in text for word in ("path", "file", "folder", "record"))


def test_what_is_read_is_asked_whether_it_is_a_file() -> None:
    found = {}
    for stage in ("extract", "heads", "manifests", "store"):
        for path in sorted((ROOT / stage).rglob("*.py")):
            if lines := list(_reads(path)):
                found[path.relative_to(ROOT).as_posix()] = lines
    assert {name: lines for name, lines in found.items() if name not in ASKED_BEFORE} == {}


@pytest.mark.parametrize("behind_link", [False, True])
def test_a_fifo_is_refused_before_it_is_opened(behind_link: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = tmp_path / "fifo"
    if behind_link:
        path = tmp_path / "link"
        path.symlink_to("fifo")
    with pytest.raises(NotAFile, match="a FIFO, not a file"):
        regular(path)
    with pytest.raises(NotAFile, match="a device, not a file"):
        regular(Path("/dev/zero"))
    assert regular(tmp_path / "absent") == tmp_path / "absent"
    assert regular(tmp_path) == tmp_path


def test_what_a_killed_process_left_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f".a.{files._HOST}-{gone.pid}.partial"
    lives = tmp_path / f".a.{files._HOST}-{os.getppid()}.partial"
    foreign = tmp_path / f".a.0badcafe-{gone.pid}.partial"
    other = tmp_path / f".ab.{files._HOST}-{gone.pid}.partial"
    for path in (left, lives, foreign, other):
        path.mkdir()
    with appearing(tmp_path / "a") as partial:
        partial.touch()
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a", lives, foreign, other])


def test_a_scratch_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from reelbank.manifests.files import scratch\n"
        "with scratch(Path(sys.argv[1]), 'work') as folder:\n"
        "    (folder / 'weights').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "weights").exists()
    with scratch(tmp_path, "work") as one, scratch(tmp_path, "work") as two:
        assert set(tmp_path.iterdir()) == {one, two}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_filled_at_once_and_keeps_what_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for content in ("old", "new"):
        with filling(out, stale=("stale",), last="last") as made:
            for name in ("last", "sub/a"):
                (made / name).parent.mkdir(exist_ok=True)
                (made / name).write_text(content)
            if content == "new":
                assert (out / "last").read_text() == (out / "sub/a").read_text() == "old"
        (out / "stale").touch()
        (out / "kept").touch()
    with pytest.raises(ZeroDivisionError), filling(out, stale=("stale",), last="last") as made:
        (made / "last").write_text("half")
        raise ZeroDivisionError
    found = {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*") if path.is_file()}
    assert found == {"last": "new", "sub/a": "new", "kept": "", "stale": ""}


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_takes_the_place_of_the_old_one_at_the_end(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    if before is not None:
        path.write_text(before)
    with appearing(path) as partial:
        partial.write_text("new")
        assert partial.parent == tmp_path
        assert (path.read_text() if path.exists() else None) == before
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("is_folder", [False, True])
def test_after_an_error_nothing_has_changed(stop: type[BaseException], is_folder: bool, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    if not is_folder:
        path.write_text("old")
    with pytest.raises(stop), appearing(path) as partial:
        if is_folder:
            (partial / "inner").mkdir(parents=True)
        else:
            partial.write_text("half")
        raise stop
    assert [found.name for found in tmp_path.iterdir()] == ([] if is_folder else ["thing"])
    assert is_folder or path.read_text() == "old"


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with appearing(tmp_path / "made") as partial:
        partial.mkdir()
        (partial / "a").write_text("x")
        assert not (tmp_path / "made").exists()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["made", "made/a"]
