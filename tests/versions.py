"""The line and the quick tests with other versions than those of constraints.txt, from the wheel, outside the clone.

`python tests/versions.py` (make versions): with this Python and the lowest versions that setup.cfg allows, torch
excepted, which stays the one of constraints.txt; and with every later Python there is and the newest versions. In the
first of these environments the sdist and a clone are installed too, one after another, and run. What is installed is
removed afterwards. A Python that is missing is named and passed over.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LATER = ("3.12", "3.13", "3.14")
NEEDED_BYTES = 15 << 30
"""Free in the temporary folder: a build of torch for GPUs takes half of it, and there are copies on the way."""

QUICK = (
    "backbones_flow", "examples_splits", "inputs_preprocess", "inputs_sampling", "judging_metrics", "losses",
    "manifests_links", "manifests_reading", "models", "probes_kmeans", "probes_page", "reports_figures",
    "run_backbones", "runs_run", "store_format", "store_exchange", "training_protocol", "training_updates",
    "video_damage", "video_frames",
)  # fmt: skip
TEST_LIBRARIES = ("pytest", "pytest-xdist", "hypothesis")
LINE = (
    "reelbank manifest synth . --clips 24",
    "featurize --model flow --model resnet18 --weights random --sampling uniform:4",
    "reelbank store verify flow.zarr",
    "train-head --store flow.zarr --epochs 5 --bins 20",
    "train-head --store resnet18.zarr --epochs 2 --bins 20 --sweep lr=1e-2,1e-3",
    "probe --store flow.zarr --tsne --kmeans 4",
    "probe --store resnet18.zarr --explore",
)
SHORT_LINE = (
    "featurize --help",
    "reelbank manifest synth . --clips 24",
    "featurize --model flow --sampling uniform:2",
    "train-head --store flow.zarr --epochs 2 --bins 20",
    "probe --store flow.zarr --kmeans 4",
)
"""Of each thing that is installed: a page, a picture and a store come of it."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One Python and the versions that it is tried with.

    Attributes:
        constraints: lines for pip; none: the newest of everything.
    """

    name: str
    python: str
    constraints: tuple[str, ...]


def lowest(text: str) -> list[str]:
    """`name==version` for each lower bound of setup.cfg that holds on this machine, torch's two excepted."""
    config = configparser.ConfigParser()
    config.read_string(text)
    bounds = []
    for line in config["options"]["install_requires"].splitlines():
        requirement, _, _ = line.partition(";")
        if (found := re.fullmatch(r"([A-Za-z0-9_.-]+)>=([\w.]+)", requirement.strip())) is None:
            if requirement.strip() and not requirement.strip().startswith("#"):
                raise ValueError(f"setup.cfg: {requirement.strip()!r} has no lower bound, or another one too")
        elif found[1] not in ("torch", "torchvision"):
            bounds.append(f"{found[1]}=={found[2]}")
    return bounds


def files_of_tree(root: Path) -> set[str]:
    """Names in a wheel of cli.py and of every file, code or data, below the folders of the packages of setup.cfg."""
    settings = configparser.ConfigParser()
    settings.read(root / "setup.cfg", encoding="utf-8")
    found = {"reelbank/cli.py"}
    for name in {package.split(".")[1] for package in settings["options"]["packages"].split()[1:]}:
        above = root / "tests" / "reelbank" if name == "testing" else root
        files = (path.relative_to(above) for path in (above / name).rglob("*") if path.is_file())
        found |= {f"reelbank/{path}" for path in files if "__pycache__" not in path.parts}
    return found


def pinned_torch(text: str) -> list[str]:
    """The lines of constraints.txt that pin torch and torchvision."""
    return [line for line in text.splitlines() if line.startswith(("torch==", "torchvision=="))]


def python_of(version: str) -> str | None:
    """The interpreter of a version: `python3.12`, or one that pyenv holds; None where there is none that starts."""
    home = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    held = sorted(Path(home).glob(f"versions/{version}.*/bin/python{version}"))
    for candidate in (f"python{version}", *map(str, held)):
        try:
            subprocess.run([candidate, "-c", "import venv"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    return None


def attempts() -> Iterator[Attempt]:
    """The lowest versions with this Python, the newest with every later one."""
    bounds = lowest((ROOT / "setup.cfg").read_text(encoding="utf-8"))
    pins = pinned_torch((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    yield Attempt(name="lowest versions", python=sys.executable, constraints=(*bounds, *pins))
    for version in LATER:
        if (python := python_of(version)) is None:
            print(f"Python {version}: not here, not tried", flush=True)
        else:
            yield Attempt(name=f"newest versions, Python {version}", python=python, constraints=())


def run(attempt: Attempt, wheel: Path, folder: Path, others: Sequence[Path] = ()) -> None:
    """Installs the wheel, runs the line and the quick tests, then the short line from each of `others` in its place.

    Raises CalledProcessError for the first that fails.
    """
    venv, work = folder / "venv", folder / "work"
    subprocess.run([attempt.python, "-m", "venv", str(venv)], check=True)
    limits = folder / "constraints.txt"
    limits.write_text("\n".join(attempt.constraints) + "\n", encoding="utf-8")
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(limits), str(wheel), *TEST_LIBRARIES], check=True, cwd=folder)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = os.pathsep.join([str(venv / "bin"), environment["PATH"]])

    def typed(lines: Sequence[str], place: Path) -> None:
        place.mkdir()
        for line in lines:
            subprocess.run([venv / "bin" / line.split()[0], *line.split()[1:]], check=True, cwd=place, env=environment)

    typed(LINE, work)
    tests = [str(ROOT / "tests" / f"test_{name}.py") for name in QUICK]
    command = [str(venv / "bin/python"), "-m", "pytest", "-q", "-n", "2", "-W", "default", "-p", "no:cacheprovider"]
    subprocess.run([*command, "--rootdir", str(ROOT), *tests], check=True, cwd=work, env=environment)
    for other in others:
        print(f"--- {attempt.name}, {other.name}", flush=True)
        subprocess.run([*pip, "--force-reinstall", "--no-deps", str(other)], check=True, cwd=folder)
        check_installed(venv / "bin/python", other.name, folder)
        typed(SHORT_LINE, folder / f"work-{other.name}")


def check_installed(python: Path, name: str, folder: Path) -> None:
    """Raises CalledProcessError where a package or a data file of the tree is not installed, or something else is."""
    code = (
        "import importlib.metadata as m; files = [str(f) for f in m.files('reelbank')]; "
        "print(*sorted(f for f in files if f.startswith('reelbank/') and not f.endswith('.pyc')), sep='\\n')"
    )
    command = [str(python), "-c", code]
    found = subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True).stdout.split()
    if odd := files_of_tree(ROOT) ^ set(found):
        print(f"{name}: not as the tree is: {sorted(odd)}", flush=True)
        raise subprocess.CalledProcessError(1, [name, *sorted(odd)])


def main() -> int:
    """Exit status: 0 where every attempt that could be made went well."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="reelbank-versions-") as name:
        made = Path(name)
        source = made / "clone"  # a build in the clone would leave files in it
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "demo", "__pycache__"))
        # The wheel of `build` is made of the sdist, and so holds what the sdist holds.
        subprocess.run(
            [sys.executable, "-m", "build", "--outdir", str(made), str(source)], check=True, capture_output=True
        )
        (wheel,), (sdist,) = made.glob("*.whl"), made.glob("*.tar.gz")
        for number, attempt in enumerate(attempts()):
            if (free := shutil.disk_usage(made).free) < NEEDED_BYTES:
                print(f"--- {attempt.name}: not tried, {free >> 30} GiB are free in {made.parent}", flush=True)
                continue
            print(f"--- {attempt.name}", flush=True)
            started, folder = time.monotonic(), made / str(number)
            folder.mkdir()
            try:
                run(attempt, wheel, folder, () if number else (sdist, source))
            except subprocess.CalledProcessError as error:
                print(f"failed: {' '.join(map(str, error.cmd))[:300]}", flush=True)
                failed.append(attempt.name)
            shutil.rmtree(folder, ignore_errors=True)
            print(f"    {time.monotonic() - started:.0f} s", flush=True)
    if failed:
        print(f"failed with {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
