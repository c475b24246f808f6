"""What README and docs show is true: commands and options are there, and what can run here runs."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import docs_pages
import numpy as np
import pytest
from click.testing import CliRunner
from docs_pages import PROGRAMS, ROOT, Block, Page
from remembered import write_store

from reelbank import cli, extract, heads, manifests
from reelbank.heads.reports import drawing
from reelbank.manifests.rendered import synth
from reelbank.store.testing import make_manifest

pytestmark = pytest.mark.usefixtures("pictures_not_rendered")
RENDERED = drawing._png
PAGES = {str(path.relative_to(ROOT)): path for path in docs_pages.paths()}
SCRIPTS = {
    ".": "a shell's own",
    "cd": "a shell's own",
    "docker": "an image",
    "embedding-atlas": "another program",
    "git": "a clone",
    "make": "a target",
    "pip": "an install",
    "python": "a script",
    "sudo": "an install",
    "tensorboard": "another program",
    "wsl": "an install",
}
"""Other words that a command line may begin with."""

PUBLIC_CALLS = (
    (extract, "featurize"),
    *((heads, name) for name in ("explain", "find", "probe", "run_recipe", "sweep", "train_head")),
)
"""What the commands call with a config, after the config has checked itself."""

OPTIONS = ROOT / "tests" / "fixtures" / "options"
"""What stands for the files that shown lines name by --config."""

SMALLER: dict[str, tuple[tuple[str, str, str], ...]] = {
    "featurize": (
        ("--device", "--device", "cpu"),
        ("", "--sampling", "uniform:1"),
        ("", "--workers", "1"),
        ("", "--batch", "4"),
    ),
    "manifest synth": (("--clips", "--clips", "48"),),
    "probe": (("--kmeans", "--kmeans", "4"),),
    "train-head": (
        # Not beside the default head, which has no epochs and would become another one.
        *((beside, "--epochs", "2") for beside in ("--loss", "--recipe", "--sweep", "--repeats", "--augment", "--lr")),
        ("--repeats", "--repeats", "1"),
        ("--folds", "--folds", "2"),
        ("--sweep", "--executor", "stacked"),  # processes would each import torch
        ("--sweep", "--no-report", ""),  # the line before it in the tutorial draws one
    ),
}
"""Options that make a shown line short: (only beside this option, option, value or "" for a flag)."""


def pages() -> Iterator[Page]:
    for path in PAGES.values():
        yield docs_pages.read(path)


def blocks(language: str) -> Iterator[tuple[Page, Block]]:
    for page in pages():
        for block in page.blocks:
            if block.language == language:
                yield page, block


# -- every shown line can be typed ---------------------------------------------------------------------------


class _AcceptedError(BaseException):
    """Raised in place of the work, when a config has been made."""


def accept(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a line to its command up to the public call. Raises ValueError where the line is refused before that."""
    if "--config" in words:  # the file of a run before, or of the reader
        words = [*words]
        words[words.index("--config") + 1] = str(OPTIONS / f"{words[words[0] == 'reelbank']}.toml")
    docs_pages.parse(cli.main, words)
    if not {"explain", "featurize", "find", "probe", "train-head"}.intersection(words[:2]):
        return

    def stop(*args: Any, **options: Any) -> None:
        raise _AcceptedError

    for module, name in PUBLIC_CALLS:
        monkeypatch.setattr(module, name, stop, raising=False)
    try:
        result = CliRunner().invoke(cli.main, words[1:] if words[0] == "reelbank" else words)
    except _AcceptedError:
        return
    raise ValueError(f"{' '.join(words)!r}: {result.output}")


@pytest.mark.parametrize("name", PAGES)
def test_every_shown_line_is_taken_by_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in docs_pages.read(PAGES[name]).blocks:
        if "plug-in" in block.needs:  # names that only its package has
            continue
        for words, _ in block.commands() if block.language == "bash" else ():
            if (line := docs_pages.without_container(words))[0] in PROGRAMS:
                accept(line, monkeypatch)
            else:
                assert words[0] in SCRIPTS, f"{block.place}: {' '.join(words)}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("featurize --model flow --samplings all", "No such option"),
        ("featurize --sampling all", "Missing option"),
        ("featurize --model flow --sampling uniform:many", "uniform"),
        ("train-head --store a.zarr --los jsd", "No such option"),
        ("train-head --store a.zarr --loss nope", "no loss 'nope'; choose one of"),
        ("train-head --store a.zarr --recipe calories/nope", "no such recipe"),
        ("reelbank train-head --store a.zarr --augment noise=much", "augment"),
        ("probe --kmeans 0", "must be 1 or more"),
        ("reelbank store inspect a.zarr", "no such command"),
        ("reelbank store merge", "Missing argument"),
        ("reelbank stores", "no such command"),
        ("docker run --rm --gpus all reelbank-gpu featurize --devise cuda", "No such option"),
        ("docker run --rm reelbank nothing", "no such command"),
    ],
)
def test_wrong_line_would_be_found(line: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        accept(docs_pages.without_container(line.split()), monkeypatch)


def test_targets_and_scripts_that_are_shown_are_there() -> None:
    targets = re.findall(r"^([a-z-]+)(?: [a-z-]+)*:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    shown = [words for _, block in blocks("bash") for words, _ in block.commands()]
    shown += [code.split() for page in pages() for _, code in page.code]
    for words in shown:
        if words[0] == "make" and len(words) > 1:
            assert words[1] in targets, " ".join(words)
        if words[0] == "python" and len(words) > 1 and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), " ".join(words)


@pytest.mark.parametrize("name", PAGES)
def test_options_in_running_text_are_there(name: str) -> None:
    assert docs_pages.problems_in_text(docs_pages.read(PAGES[name]), cli.main) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("`train-head --fold 5`", "--fold: train-head does not have it"),
        ("`reelbank train-head --sampling all`", "--sampling: train-head does not have it"),
        ("`reelbank store inspect`", "there is no command 'inspect'"),
        ("| a cell with `--kmean 5` |", "--kmean: no command has it"),
        ("`reelbank store info\n--jason`", "--jason: info does not have it"),
    ],
)
def test_wrong_option_in_running_text_would_be_found(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(f"Before.\n\n{text}\n")
    (found,) = docs_pages.problems_in_text(docs_pages.read(tmp_path / "page.md"), cli.main)
    assert found.startswith("page.md:3: ")
    assert problem in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- needs: luck -->\n```bash\nprobe\n```", "page.md:1: 'luck' is not what a block needs"),
        ("```sh\nprobe\n```", "page.md:1: 'sh' is not the language of a block"),
        ("```\nprobe\n```", "page.md:1: '' is not the language of a block"),
        ("<!-- needs: data -->\nText.\n\n```bash\nprobe\n```", "must stand right before a block"),
        ("<!-- starts with: magic -->\n", "page.md:1: 'magic' is not what a page starts with"),
    ],
)
def test_wrong_mark_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        docs_pages.read(tmp_path / "page.md")


def test_every_command_is_shown_by_a_page() -> None:
    shown = {docs_pages.resolve(cli.main, words)[0]
             for _, block in blocks("bash") for words, _ in block.commands() if words[0] in PROGRAMS}  # fmt: skip
    for page in pages():
        for _, code in page.code:
            if code.split()[0] == "reelbank" and not code.endswith("NAME"):
                try:
                    shown.add(docs_pages.resolve(cli.main, code.split())[0])
                except ValueError:  # a group, or `reelbank` alone
                    continue
    assert [name for name, command in docs_pages.commands_of(cli.main) if command not in shown] == []


# -- what can run here runs ----------------------------------------------------------------------------------


def rendered_set(folder: Path, synth_set: Path) -> None:
    """Enough subjects that the clips of `train` alone can be cut into training and validation."""
    synth.render(folder, clips=48, seed=3)


def class_folders(folder: Path, synth_set: Path) -> None:
    """`videos/<class>/<file>` and `calories.csv`, two of whose activities are called as the calorie study has them."""
    with (synth_set / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = dict(zip(sorted({row["label"] for row in rows}), ("rowing", "boxing"), strict=False))
    with (folder / "calories.csv").open("w", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(("file", "subject", "activity", "kcal"))
        for row in rows:
            activity = names.get(row["label"], row["label"])
            target = folder / "videos" / activity / Path(row["video"]).name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(synth_set / row["video"], target)
            table.writerow((target.relative_to(folder / "videos"), row["group"], activity, row["kcal"]))


def stores(folder: Path, synth_set: Path) -> None:
    """Stores as featurize would leave them, of made-up features, and features of another program."""
    random = np.random.default_rng(0)
    labels = [("walk", "run", "jump", "sit")[i % 4] for i in range(48)]
    clips = [
        {
            "clip_id": f"clip_{i:02d}", "video": f"videos/clip_{i:02d}.mp4", "label": label, "group": f"s{i // 4}",
            "split": ("train", "train", "train", "val", "test")[i // 4 % 5], "kcal": 100.0 + 50 * (i % 4),
        }
        for i, label in enumerate(labels)
    ]  # fmt: skip
    centres = {label: random.normal(size=12) for label in labels}
    arrays = [(centres[label] + random.normal(size=(6, 12))).astype(np.float16) for label in labels]

    def write(name: str, tap: str, rows: slice, shift: float = 0.0) -> None:
        features = {tap: [array + np.float16(shift) for array in arrays[rows]]}
        write_store(folder / name, features, clips[rows], backbone=name.split("-")[0].split(".")[0], fixed_steps=6)

    write("dinov2.zarr", "cls4", slice(None))
    write("dinov2-fast.zarr", "cls4", slice(None), shift=0.25)
    write("clip.zarr", "embed", slice(None))
    write("part-1.zarr", "cls4", slice(0, 24))
    write("part-2.zarr", "cls4", slice(24, 48))
    (folder / "s3d").mkdir()
    for clip, array in zip(clips, arrays, strict=True):
        np.save(folder / "s3d" / f"{clip['clip_id']}.npy", array)
    manifests.write(make_manifest(folder, clips), folder / "manifest.csv")


PREPARE: dict[str, Callable[[Path, Path], None]] = {
    "an empty folder": lambda folder, synth_set: None,
    "class folders": class_folders,
    "rendered set": rendered_set,
    "stores": stores,
}


def smaller(words: list[str]) -> list[str]:
    """The arguments of `reelbank`, with the options of SMALLER behind them; the last of two values counts."""
    line = words[1:] if words[0] == "reelbank" else list(words)
    name = " ".join(line[:2]) if line[0] in ("manifest", "store") else line[0]
    if "--recipe" in line:
        return line
    added = [(option, value) for beside, option, value in SMALLER.get(name, ()) if not beside or beside in line]
    return [*line, *(word for pair in added for word in pair if word)]


def run_page(page: Page, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the blocks of a page that need nothing, in the current folder; how many there were."""
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for block in page.blocks:
        if block.needs or block.file or block.language == "text":
            continue
        count += 1
        if block.language == "python":
            exec(compile("\n".join(block.lines), block.place, "exec"), names)
            continue
        for words, status in block.commands():
            if words[0] == "cd":
                monkeypatch.chdir(words[1])
                continue
            assert words[0] in PROGRAMS, f"{block.place}: {words[0]} is not run here; mark what the block needs"
            result = CliRunner().invoke(cli.main, smaller(words))
            shown = f"{block.place}: {' '.join(words)}\n{result.output}"
            assert result.exit_code == status, f"{shown}\n{result.exception!r}"
    return count


RUNNABLE = [
    name
    for name, path in PAGES.items()
    if any(not (block.needs or block.file) and block.language != "text" for block in docs_pages.read(path).blocks)
]


@pytest.mark.parametrize("name", RUNNABLE)
def test_shown_blocks_run(name: str, synth_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = docs_pages.read(PAGES[name])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REELBANK_MANIFEST", raising=False)
    monkeypatch.setenv("REELBANK_WEIGHTS", "random")
    PREPARE[page.starts](tmp_path, synth_set)
    if name.endswith(".ipynb"):  # it shows its pictures, whose files are looked at
        monkeypatch.setattr(drawing, "_png", RENDERED)
    shown = notebook_display(monkeypatch)
    assert run_page(page, monkeypatch) >= 1
    assert (shown != []) == name.endswith(".ipynb")


def notebook_display(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for the display of a notebook, which is not installed; the kinds of files that it is given."""
    shown: list[str] = []
    module = ModuleType("IPython.display")

    def file(filename: str) -> str:
        assert Path(filename).stat().st_size > 1000
        return Path(filename).suffix

    for name, value in (("HTML", file), ("Image", file), ("display", shown.append)):
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "IPython.display", module)  # alone: matplotlib asks an IPython for its version
    return shown


def test_notebook_is_of_format_4_with_nothing_run() -> None:
    notebook = json.loads((ROOT / "docs" / "colab.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["metadata"]["accelerator"] == "GPU"
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        keys = {"cell_type", "id", "metadata", "source"}
        assert set(cell) == (keys if cell["cell_type"] == "markdown" else keys | {"execution_count", "outputs"})
        assert (cell.get("outputs", []), cell.get("execution_count")) == ([], None)
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        assert "://" not in "".join(cell["source"])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"metadata": {"tags": ["luck"]}, "source": ["!probe"]}, "page.ipynb:1: 'luck' is not what a cell needs"),
        ({"metadata": {}, "source": ["x = 1\n", "!probe"]}, "page.ipynb:1: commands and Python in one cell"),
    ],
)
def test_wrong_cell_is_an_error(cell: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "page.ipynb").write_text(json.dumps({"cells": [{"cell_type": "code", **cell}]}))
    with pytest.raises(ValueError, match=re.escape(message)):
        docs_pages.read(tmp_path / "page.ipynb")


def test_most_pages_with_commands_run_some() -> None:
    """A mark on every block would make the test above say nothing."""
    assert {
        "README.md",
        "docs/colab.ipynb",
        "docs/tutorial.md",
        "docs/how-to/exchange.md",
        "docs/how-to/own-videos.md",
    } <= set(RUNNABLE)
    ran = [block for name in RUNNABLE for block in docs_pages.read(PAGES[name]).blocks if not block.needs]
    marked = [block for page in pages() for block in page.blocks if block.needs]
    assert len(ran) > len(marked)


def test_block_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("page.md").write_text("```bash\nreelbank heads\nreelbank store info nope.zarr\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:1: reelbank store info nope.zarr\n.*no store at nope.zarr"):
        run_page(docs_pages.read(tmp_path / "page.md"), monkeypatch)


def test_preparations_are_those_that_a_page_can_ask_for() -> None:
    assert set(PREPARE) == set(docs_pages.STARTS)
    assert os.environ.get("REELBANK_WEIGHTS") != "random"
