"""What holds the folders apart: import arrows, the packaging of the root, sizes and names of files."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("extract", "heads", "manifests", "store")
ARROWS = {
    "extract": ("manifests", "store"),
    "heads": (
        *("extract.backbones", "store"),
        *(
            "manifests.drawing",
            "manifests.events",
            "manifests.lazy",
            "manifests.notebooks",
            "manifests.plugins",
            "manifests.registry",
        ),
    ),
    "manifests": (),
    "store": ("manifests",),
}
"""What a stage may import beside itself."""
ROOMS = {
    "extract": ("errors", "video", "weights", "inputs", "backbones", "config", "run", "estimating", "doctor"),
    "heads": (
        *(
            "errors",
            "stored",
            "extraction",
            "predict_config",
            "explain_config",
            "reports",
            "augmentation",
            "losses",
            "features_config",
            "models",
            "optimizers",
            "objective_config",
            "run_config",
            "split_rules",
            "config",
            "defaults",
            "examples",
        ),
        *("training", "judging", "fitting", "runs", "probes", "sweeps", "recipes", "request"),
    ),
    "manifests": (
        *("drawing", "events", "files", "lazy", "notebooks", "plugins", "registry", "terminal"),
        *("manifest", "table", "numbers", "overlaps", "validation", "finding", "delimited", "reading", "datasets"),
        *("rendered",),
    ),
    "store": (
        *(
            "errors",
            "kinds",
            "agreement",
            "files",
            "tensor_files",
            "cores",
            "devices",
            "examples",
            "completion",
            "config_files",
            "console",
            "accepted",
            "options",
            "reader_options",
            "processes",
        ),
        *(
            "corner_crops",
            "sums",
            "durable",
            "indexing",
            "spec",
            "sizes",
            "geometry",
            "arrays",
            "chunks",
            "plain",
            "layout",
        ),
        *("shards", "growing", "ledger", "bridges", "staging", "building", "sharded", "reader", "writer"),
        *("comparing", "description", "exchange", "merging", "testing", "verification", "repairing", "upgrading"),
    ),
}
"""The rooms (folders and single files) of each stage: one may import those before it."""
TOP_LEVEL = ("README.md", "cli.py", "extract", "heads", "manifests", "setup.cfg", "store", "tests")
MAX_LINES = {"cli.py": 660}
"""Limits of single files: the root may hold no second module that the commands' options could move to."""
DEFAULT_MAX_LINES = 400
THEMES = ("gpu", "architecture", "benchmarks", "cli", "docs", "plugins", "public")
"""What test files are named after where they test no single room."""
NAMES_THAT_SAY_NOTHING = {"base", "common", "helper", "helpers", "misc", "util", "utils"}


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name below reelbank) of every import of a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name.removeprefix("reelbank.")) for name in names if name.startswith("reelbank."))


def modules() -> dict[str, Path]:
    """{dotted name below reelbank: file} of the stages."""
    found = {}
    for path in sources(*STAGES):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _is_within(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}.")


def wrong_arrows(imports: Mapping[str, Iterable[str]]) -> list[str]:
    """The imports {module: modules} that go from a room to one that may not be known there, one line each."""
    wrong = []
    for module, targets in imports.items():
        stage, _, rest = module.partition(".")
        room = rest.partition(".")[0]
        for target in targets:
            other, _, rest = target.partition(".")
            if other != stage:
                allowed = any(_is_within(target, folder) for folder in ARROWS[stage])
            elif not room or rest.partition(".")[0] == room:
                allowed = True
            else:
                rooms = ROOMS[stage]
                allowed = bool(rest) and rooms.index(rest.partition(".")[0]) < rooms.index(room)
            if not allowed:
                wrong.append(f"{module} may not import {target}")
    return wrong


def circle(imports: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules that import each other in a ring, in that order; empty where there is no ring."""
    path: list[str] = []
    done: set[str] = set()

    def walk(module: str) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module not in done:
            path.append(module)
            for target in sorted(imports.get(module, ())):
                if ring := walk(target):
                    return ring
            done.add(path.pop())
        return []

    return next((ring for module in sorted(imports) if (ring := walk(module))), [])


def test_imports_follow_the_arrows_and_make_no_circle() -> None:
    known = modules()
    imports: dict[str, set[str]] = {}
    for module, path in known.items():
        found = {name if name in known else name.rpartition(".")[0] for _, name in imported(path)}
        # An `__init__` that hands on names of its own folder is no room of its own.
        inside = path.name == "__init__.py"
        imports[module] = {name for name in found if name != module and not (inside and _is_within(name, module))}
    rooms = {stage: {name.split(".")[1] for name in known if name.startswith(f"{stage}.")} for stage in STAGES}
    assert {stage: sorted(names) for stage, names in rooms.items()} == {s: sorted(names) for s, names in ROOMS.items()}
    assert wrong_arrows(imports) == []
    assert circle(imports) == []


def test_the_arrow_test_sees_what_is_wrong() -> None:
    seen = wrong_arrows(
        {
            "heads.runs.run": {"heads.training.trainer", "heads.sweeps.sweep", "extract.backbones.flow", "store"},
            "heads.models": {"extract.video.decode"},
            "store.reader": {"heads.config", "manifests.manifest"},
        }
    )
    assert seen == [
        "heads.runs.run may not import heads.sweeps.sweep",
        "heads.models may not import extract.video.decode",
        "store.reader may not import heads.config",
    ]
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_arrow_test_sees_imports_of_every_form(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    lines = (
        "import reelbank.store",
        "def f():",
        "    from reelbank import heads",
        "    from reelbank.extract import scan",
    )
    file.write_text("\n".join(lines))
    assert [name for _, name in imported(file)] == ["store", "heads", "extract.scan"]


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("reelbank.heads", ("av", "torch", "zarr")),
        ("reelbank.extract", ("av", "torch", "zarr")),
        ("reelbank.manifests", ("av", "torch", "zarr")),
        ("reelbank.store", ("av", "torch")),
    ],
)
def test_import_of_a_stage_loads_no(module: str, forbidden: tuple[str, ...]) -> None:
    assert _loaded(f"import {module}", forbidden) == []


def test_every_module_of_heads_loads_no_av() -> None:
    modules = [".".join(("reelbank", *path.relative_to(ROOT).with_suffix("").parts)) for path in sources("heads")]
    names = [name.removesuffix(".__init__") for name in modules]
    assert _loaded(f"import {', '.join(names)}", ("av",)) == []


def _loaded(statement: str, names: tuple[str, ...]) -> list[str]:
    script = f"import sys\n{statement}\nprint(*[name for name in {names!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return run.stdout.split()


def test_packages_of_setup_cfg_are_the_folders_with_an_init() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = settings["options"]["packages"].split()
    found = {"reelbank"}
    for stage in STAGES:
        for init in (ROOT / stage).rglob("__init__.py"):
            found.add(".".join(("reelbank", *init.parent.relative_to(ROOT).parts)))
    for init in (ROOT / "tests/reelbank").rglob("__init__.py"):
        found.add(".".join(init.parent.relative_to(ROOT / "tests").parts))
    assert sorted(listed) == sorted(found)


def test_root_holds_only_cli_and_no_init() -> None:
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["cli.py"]


def test_fixed_top_level_is_there() -> None:
    assert [name for name in TOP_LEVEL if not (ROOT / name).exists()] == []


def test_files_stay_small() -> None:
    long = {}
    for path in [ROOT / "cli.py", *sources(*STAGES, "benchmarks", "docs")]:
        name, count = str(path.relative_to(ROOT)), len(path.read_text(encoding="utf-8").splitlines())
        if count > MAX_LINES.get(name, DEFAULT_MAX_LINES):
            long[name] = count
    assert long == {}


def test_file_names_say_what_is_inside() -> None:
    names = [path for path in sources(*STAGES, "benchmarks", "docs") if path.stem in NAMES_THAT_SAY_NOTHING]
    assert names == []


TABLES = {"PROBES": "heads/probes/__init__.py"}
"""Where a table lies that is not in `__init__` of its room."""


def _names(table: str, folder: str, stem: str) -> bool:
    """Whether a row names a file of `folder`: by its module, or imported as a whole."""
    room = f"reelbank.{folder.strip('/').replace('/', '.')}"
    imported = rf"^from {re.escape(room)} import [\w, ]*\b{stem}\b"
    return f"{room}.{stem}:" in table or re.search(imported, table, re.MULTILINE) is not None


def without_room(names: Iterable[str]) -> list[str]:
    """The test files whose first word is neither a room nor one of `THEMES`."""
    known = {"manifests", "store", *ROOMS["extract"], *ROOMS["heads"], *THEMES}
    return [name for name in names if name.removeprefix("test_").partition("_")[0] not in known]


def test_test_files_are_named_after_the_room_that_they_test() -> None:
    assert without_room(sorted(path.stem for path in (ROOT / "tests").glob("test_*.py"))) == []
    assert without_room(["test_decode_frames", "test_models", "test_run_resume"]) == ["test_decode_frames"]


def test_every_file_lies_where_the_architecture_says() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    said = {}
    for line in text.splitlines():
        if found := re.fullmatch(rf"\| `((?:{'|'.join(STAGES)})/[a-z0-9_/]*)` \| .* \| (.*) \|", line):
            folder, files = found[1], found[2]
            rows: set[str] = set()
            if table := re.match(r"one per row of `(\w+)`", files):
                module = (ROOT / TABLES.get(table[1], f"{folder}__init__.py")).read_text(encoding="utf-8")
                assert re.search(rf"^{table[1]}\b", module, re.MULTILINE), f"{table[1]} is no table of {folder}"
                rows = {path.stem for path in (ROOT / folder).glob("*.py") if _names(module, folder, path.stem)}
            said[folder] = sorted(rows | set(re.findall(r"`([a-z_0-9]+)`", files)))
    folders: dict[str, list[str]] = {}
    for path in sources(*STAGES):
        names = folders.setdefault(f"{path.parent.relative_to(ROOT).as_posix()}/", [])
        if path.stem != "__init__":
            names.append(path.stem)
    assert said == {folder: sorted(names) for folder, names in folders.items()}


def test_the_picture_names_every_room_that_has_files() -> None:
    picture = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("```text")[2].partition("```")[0]
    drawn = set(re.findall(r"\w+", picture))
    rooms = {
        path.parent.name for path in sources("extract", "heads") if path.parent.parent.name in ("extract", "heads")
    }
    assert rooms - drawn == set()
