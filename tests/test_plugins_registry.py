"""How a name becomes a row: of reelbank, of a package, of a module in the working folder; and what can be wrong."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from reelbank import cli
from reelbank.extract import backbones
from reelbank.extract.config import FeaturizeConfig
from reelbank.heads.config import TrainConfig
from reelbank.heads.judging.metrics import METRICS
from reelbank.heads.losses import LOSSES
from reelbank.heads.models import HEADS, HeadShape, build_head, parse_options
from reelbank.manifests.datasets import READERS, ManifestError, reader
from reelbank.manifests.plugins import PluginError, load_target, sha256_of, source_files
from reelbank.manifests.registry import file_name
from reelbank.store.testing import write_store

SHAPE = HeadShape(taps={"cls": 4}, outputs={"label": 3}, num_steps=1)
_numbers = itertools.count()

HEAD = """
from torch import nn
from reelbank.heads.models import HeadRow
class Net(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(4, count) for name, count in shape.outputs.items()})
    def forward(self, features, mask):
        return {name: layer(features["cls"][:, 0]) for name, layer in self.layers.items()}
def build(shape, options):
    "A layer."
    return Net(shape)
ROW = HeadRow(target=__name__ + ":build", summary="a layer", options={"width": 8, "on": True, "rate": 0.5, "kind": "a"})
"""


@pytest.fixture(autouse=True)
def _path_as_it_was() -> Iterator[None]:
    """A plug-in of the working folder leaves that folder on sys.path."""
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module into the working folder and gives its name, which no other test has."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        name = f"plugin_of_a_test_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts metadata of an installed package on the path: its name and the entry points of groups."""

    def install(name: str, **groups: str) -> None:
        folder = tmp_path / f"site-{name}"
        info = folder / f"{name.replace('-', '_')}-2.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
        lines = [f"[reelbank.{group}]\n{entries}\n" for group, entries in groups.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(folder))

    return install


def call(line: str) -> Result:
    return CliRunner().invoke(cli.main, line.split())


# -- from where a name comes -------------------------------------------------------------------------------


def test_module_of_the_working_folder_is_found_only_when_it_is_asked_for(module: Callable[[str], str]) -> None:
    name, folder = module(HEAD), str(Path.cwd())
    assert folder not in sys.path
    with pytest.raises(ValueError, match="choose one of"):
        HEADS.find("nobody:knows")
    assert folder not in sys.path, "what is not there leaves nothing behind"
    assert HEADS.row(f"{name}:ROW").options["width"] == 8
    assert sys.path[-1] == folder, "behind everything that is installed"
    assert HEADS.row(f"{name}:build").summary == "A layer"


def test_worker_processes_find_it_too(module: Callable[[str], str]) -> None:
    """A process of a server, as those of featurize and of sweeps are."""
    name = module("def double(value):\n    return 2 * value\n")
    code = (
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from reelbank.manifests.plugins import load_target\n"
        "from reelbank.store.processes import worker_context\n"
        "if __name__ == '__main__':\n"
        f"    double = load_target('{name}:double', 'double')\n"
        "    with ProcessPoolExecutor(1, mp_context=worker_context()) as pool:\n"
        "        print(pool.submit(double, 21).result())\n"
    )
    Path("main.py").write_text(code)
    # -P: without the folder of the script on the path, as for a console command.
    done = subprocess.run([sys.executable, "-P", "main.py"], capture_output=True, text=True, timeout=120)
    assert done.stdout == "42\n", done.stderr


def test_entry_point_is_found_by_its_name_and_listed_with_its_package(
    module: Callable[[str], str], package: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = module(HEAD)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    package("some-heads", heads=f"layer = {name}:ROW")
    assert HEADS.row("layer").summary == "a layer"
    assert "layer" in HEADS.names()
    assert "layer" not in HEADS, "as a mapping the table holds what is written here"
    result = call("heads --json")
    assert json.loads(result.stdout)["layer"]["origin"] == f"{name}:ROW of some-heads 2.5"
    config = TrainConfig.of(store=(Path("s"),), head="layer", head_option=("width=3",))
    assert config.head.options == {"width": 3}


def test_family_of_backbones_comes_before_a_module_of_that_name(module: Callable[[str], str]) -> None:
    module("")
    Path("flow.py").write_text("def mine(family, variant): ...\n")
    with pytest.raises(ValueError, match=r"flow has flow, .* \(there is a module flow too, but families come"):
        backbones.describe("flow:mine")
    assert backbones.describe("flow:dis").name == "flow:dis"


def test_name_of_neither_lists_both_ways() -> None:
    both = r"choose one of .*; as module:function: no module .* can be imported, nor lies in this folder"
    with pytest.raises(ValueError, match=f"backbone 'dinov4:vitb14' is not known; {both}"):
        backbones.describe("dinov4:vitb14")
    with pytest.raises(ManifestError, match=f"no reader 'nowhere:read'; {both}"):
        reader("nowhere:read")
    with pytest.raises(ValueError, match=r"takes a module's name, not its file: mine:build"):
        HEADS.find("mine.py:build")


def test_name_of_ours_is_refused_from_a_package_naming_both(package: Callable[..., None]) -> None:
    package("greedy", heads="mlp = greedy_heads:ROW", losses="ce = greedy_losses:ce")
    both = r"head 'mlp' is one of reelbank's own and also registered as greedy_heads:ROW of greedy 2\.5; rename"
    with pytest.raises(PluginError, match=both):
        TrainConfig.of(store=(Path("s"),), head="mlp")
    assert TrainConfig.of(store=(Path("s"),), head="linear", loss="kld", class_loss="kld").head.name == "linear"
    listed = call("heads")
    assert listed.exit_code == cli.OK
    assert "mlp                cannot be used: head 'mlp' is one of reelbank's own" in listed.stdout


def test_name_of_two_packages_is_refused_naming_both(package: Callable[..., None]) -> None:
    package("one", metrics="odd = one_metrics:ODD")
    package("two", metrics="odd = two_metrics:ODD")
    with pytest.raises(PluginError, match=r"one_metrics:ODD of one 2\.5 and two_metrics:ODD of two 2\.5; remove one"):
        METRICS.find("odd")


@pytest.mark.parametrize("command", ["backbones", "heads", "losses", "metrics", "manifest --help"])
def test_broken_package_is_named_where_it_is_listed_and_breaks_nothing_else(
    command: str, package: Callable[..., None]
) -> None:
    groups = ("backbones", "heads", "losses", "metrics", "datasets")
    package("broken", **dict.fromkeys(groups, "rotten = no_such_module_anywhere:thing"))
    result = call(command)
    assert result.exit_code == cli.OK, result.output
    assert "rotten" in result.stdout
    assert "cannot be used" in result.stdout
    assert TrainConfig.of(store=(Path("s"),)).head.name == "auto"
    assert backbones.describe("frames").name == "frames"
    result = call("manifest rotten somewhere --seed 3")
    assert result.exit_code == cli.WRONG_USE
    assert "reader 'rotten' (no_such_module_anywhere:thing of broken 2.5): module no_such_module" in result.stderr


# -- what is wrong with a plug-in --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "attribute", "message"),
    [
        ("import nothing_of_that_name\n", "build", r"module {name} does not import: ModuleNotFoundError: No module"),
        ("1 / 0\n", "build", r"module {name} does not import: ZeroDivisionError: division by zero"),
        ("def built(shape, options): ...\n", "build", r"module {name} \(.*\.py\) has no 'build'; it defines built"),
        (
            "from reelbank.heads.models import HeadRow\nROW = HeadRow(target='x:y')\n",
            "ROW",
            r"module {name} does not import: TypeError: .* missing 1 required keyword-only argument: 'summary'",
        ),
        ("ROW = {'target': 'x:y'}\n", "ROW", r"ROW is a dict, expected a HeadRow of reelbank.heads.models or a"),
        ("def build(shape, options): return 3\n", "build", r"{name}:build gave a int, expected a torch.nn.Module"),
        ("def build(shape, options): return shape.width\n", "build", r"{name}:build.*AttributeError: .*'width'"),
        (
            HEAD.replace("nn.Linear(4, count)", "nn.Linear(4, count + 1)"),
            "build",
            r"forward gave the outputs \{{'label': \(2, 4\)\}} for 2 clips, expected \{{'label': \(2, 3\)\}}",
        ),
        (HEAD.replace("return {name: layer", "return [layer").replace("items()}\ndef", "items()]\ndef"), "build",
         r"forward gave a list, expected \{{output: logits\}}"),
    ],
)  # fmt: skip
def test_broken_head_is_a_sentence_with_module_and_field(
    text: str, attribute: str, message: str, module: Callable[[str], str]
) -> None:
    name = module(text)
    with pytest.raises(PluginError, match=rf"^head '{name}:{attribute}'.*" + message.format(name=name)):
        build_head(f"{name}:{attribute}", SHAPE)


BACKBONE = """
import functools
import numpy as np
from dataclasses import dataclass
from reelbank.extract.backbones import BackboneInfo, Definition, Described, Preprocess, TapSpec
SIZE = Preprocess(short_side_px=32, interpolation="bilinear", crop_px=32)
def define(family, variant):
    "Mean colour."
    tap = TapSpec(name="mean", dtype="float32", axes=("channel",), shape=(3,))
    info = BackboneInfo(name=family, taps={"mean": tap}, default_taps=("mean",), preprocess=SIZE)
    return Definition(info=info, make=functools.partial(_make, info))
def _make(info, options):
    return Mean(info=info)
@dataclass(frozen=True, kw_only=True)
class Mean(Described):
    module: None = None
    device: str = "cpu"
    weights = {"kind": "none"}
    def forward(self, frames, taps=None):
        return {"mean": frames.mean(axis=(1, 2), dtype=np.float32)}
"""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("return Definition(", "return dict("), r"its function gave a dict, expected a Definition"),
        (("info=info, make", "info=tap, make"), r"Definition.info is a TapSpec, expected a BackboneInfo"),
        (("    device: str = \"cpu\"\n", ""), r"a Mean, lacks device"),
        (("preprocess=SIZE", ""), r"TypeError: .* missing 1 required keyword-only argument: 'preprocess'"),
        (("frames.mean(axis=(1, 2)", "frames.mean(axis=(1,)"), r"tap 'mean': feature.shape = \(1, 32, 3\) float32"),
        (("{\"mean\": frames", "{\"median\": frames"), r"tap 'mean' was asked for, forward gave median"),
        (("def forward", "def forwards"), r"a Mean, lacks forward"),
    ],
)  # fmt: skip
def test_broken_backbone_is_a_sentence_before_a_store_is_made(
    wrong: tuple[str, str], message: str, module: Callable[[str], str], synth_set: Path
) -> None:
    name = module(BACKBONE.replace(*wrong))
    result = call(
        f"featurize --manifest {synth_set}/manifest.csv --model {name}:define --sampling uniform:1 --workers 1"
    )
    assert result.exit_code == cli.WRONG_USE
    assert name in result.stderr
    assert re.search(message, result.stderr), result.stderr
    assert not list(Path.cwd().glob("*.zarr"))


def test_shape_that_changes_while_running_ends_the_run_naming_module_and_tap(
    module: Callable[[str], str], synth_set: Path
) -> None:
    """What the try-out on an empty step does not show: here a step that is not black has another shape."""
    wrong = "frames.mean(axis=(1, 2), dtype=np.float32)[:, : 3 - bool(frames.any())]"
    name = module(BACKBONE.replace("frames.mean(axis=(1, 2), dtype=np.float32)", wrong))
    result = call(
        f"featurize --manifest {synth_set}/manifest.csv --model {name}:define --sampling uniform:1 --workers 1"
    )
    assert result.exit_code == cli.WRONG_USE
    assert "Traceback" not in result.output
    assert f"backbone '{name}:define': tap 'mean': feature.shape = (16, 2) float32, declared (16, 3)" in result.output


def test_broken_loss_metric_and_reader_are_sentences(module: Callable[[str], str], tmp_path: Path) -> None:
    name = module(
        "from reelbank.heads.judging.metrics import Metric\n"
        "def mean(logits, p): return (logits - p).square().mean()\n"
        "def read(root): return [root]\n"
        "PAIR = Metric(output='target', higher_is_better=True, unit='', per_clip=lambda scores: scores.truth[:2])\n"
    )
    rng = np.random.default_rng(0)
    clips = [
        {"clip_id": f"c{i}", "label": "ab"[i % 2], "split": ("train", "train", "val", "test")[i % 4], "kcal": 10.0 * i}
        for i in range(24)
    ]
    write_store(tmp_path / "s.zarr", {"cls": [rng.normal(size=(2, 4)).astype("float16") for _ in clips]}, clips)
    train = f"train-head --store {tmp_path}/s.zarr --epochs 1 --bins 20 --no-report --run {tmp_path}/run"
    for asked, message in {
        f"{train} --loss {name}:mean": f"{name}:mean gave torch.Size([]) for logits (2, 2), expected one number per",
        f"{train} --metric {name}:PAIR": f"metric '{name}:PAIR': per_clip gave (2,) for 6 clips, expected (6,)",
        f"{train} --metric {name}:mean": f"metric '{name}:mean': mean is a function, expected a Metric of",
        f"manifest {name}:read {tmp_path}": f"{name}:read gave a list, expected a Manifest",
    }.items():
        result = call(asked)
        assert result.exit_code == cli.WRONG_USE, result.output
        assert message in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wide=3", r"--head-option wide: head '.*' has no such option; it has kind, on, rate, width"),
        ("width=x", r"--head-option width: head '.*' wants a whole number, not 'x'"),
        ("rate=x", r"--head-option rate: head '.*' wants a number, not 'x'"),
        ("on=maybe", r"--head-option on: head '.*' wants true or false, not 'maybe'"),
        ("width", r"--head-option 'width' is not of the form NAME=VALUE"),
    ],
)
def test_wrong_head_option_names_head_and_option(text: str, message: str, module: Callable[[str], str]) -> None:
    name = f"{module(HEAD)}:ROW"
    assert parse_options(name, ("width=3", "on=false", "rate=1", "kind=b"), ()) == {
        "width": 3, "on": False, "rate": 1.0, "kind": "b",
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        TrainConfig.of(store=(Path("s"),), head=name, head_option=(text,))
    with pytest.raises(ValueError, match=r"--head-option trunk: head 'mlp' has it as --trunk"):
        TrainConfig.of(store=(Path("s"),), head="mlp", head_option=("trunk=shared",))


# -- what is kept of a plug-in -----------------------------------------------------------------------------


def test_hash_covers_what_a_module_imports_from_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first_of_three.py").write_text("import json\ndef f():\n    from second_of_three import x\n")
    (tmp_path / "second_of_three.py").write_text("x = 1\n")
    (tmp_path / "third_of_three.py").write_text("import first_of_three\n")
    folder = tmp_path / "package_of_four"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "one.py").write_text("from . import two\nfrom .three import y\n")
    (folder / "two.py").write_text("import second_of_three\n")
    (folder / "three.py").write_text("y = 2\n")
    (folder / "four.py").write_text("from package_of_four import one\n")
    load_target("package_of_four.one:two", "it")  # puts the folder on the path
    assert sorted(source_files("first_of_three")) == ["first_of_three.py", "second_of_three.py"]
    found = source_files("package_of_four.one")
    inside = [f"package_of_four/{name}.py" for name in ("__init__", "one", "three", "two")]
    assert sorted(found) == [*inside, "second_of_three.py"]
    before = sha256_of(found)
    (tmp_path / "third_of_three.py").write_text("changed = 1\n")
    assert sha256_of(source_files("package_of_four.one")) == before
    (folder / "three.py").write_text("y = 3\n")
    assert sha256_of(source_files("package_of_four.one")) != before
    with pytest.raises(PluginError, match="module sys has no source file"):
        source_files("sys")


def test_names_of_files_hold_no_colon_or_slash() -> None:
    assert file_name("my_module:define") == "my_module-define"
    config = FeaturizeConfig(model=("a.b:define",), out="out/{model}.zarr")
    assert config.store_path("a.b:define") == Path("out/a.b-define.zarr")


@pytest.mark.parametrize("table", [HEADS, LOSSES, METRICS, READERS, backbones.BACKBONES], ids=lambda table: table.kind)
def test_every_table_has_the_same_pattern(table: Any) -> None:
    assert table.group in {f"reelbank.{name}" for name in ("backbones", "heads", "losses", "metrics", "datasets")}
    for name, row in table.items():
        assert row.summary, name
        assert table.find(name).plugin is None
    assert set(table.to_json()) >= set(table)
