"""The commands as a person runs them: end to end on rendered clips, wrong use, JSON, help."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reelbank import cli
from reelbank.extract.backbones import BACKBONES
from reelbank.extract.config import FeaturizeConfig
from reelbank.heads.config import TrainConfig
from reelbank.heads.models import HEADS
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.search_config import FindConfig
from reelbank.heads.recipes import RECIPES, announcement
from reelbank.manifests import events
from reelbank.manifests.datasets import READERS
from reelbank.manifests.rendered import RENDERED
from reelbank.store import console
from reelbank.store.options import options as options_of_config

pytestmark = pytest.mark.usefixtures("pictures_not_rendered")

RUN = "runs/flow-dis-mlp-jsd-1"
HEAVY = ("av", "cv2", "matplotlib", "sklearn", "timm", "torch", "torchvision", "zarr")
COMMANDS = (
    "", "analyses", "backbones", "completion", "doctor", "explain", "featurize", "find", "heads", "losses", "manifest",
    *(f"manifest {name}" for name in RENDERED),
    *(f"manifest {name}" for name in READERS), "metrics", "predict", "probe", "recipes", "store", "store diff",
    "store export", "store import", "store info", "store merge", "store retry", "store upgrade",
    "store verify",    "train-head",
)  # fmt: skip


def call(line: str, *more: str) -> Result:
    """`reelbank LINE` in this process; `more` are arguments that hold spaces."""
    return CliRunner().invoke(cli.main, [*line.split(), *more])


def succeed(line: str) -> Result:
    result = call(line)
    assert result.exit_code == cli.OK, result.output
    return result


@pytest.fixture(scope="module")
def folder(synth_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest, a store and a run, made by the commands with their default names."""
    made = tmp_path_factory.mktemp("cli") / "set"
    shutil.copytree(synth_set, made, copy_function=shutil.copy2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.delenv("REELBANK_MANIFEST", raising=False)
        succeed("featurize --model flow:dis --sampling uniform:2 --workers 1")
        succeed("train-head --store flow-dis.zarr --loss jsd --epochs 2")
    Path(made, "text.txt").write_text("no weights\n")
    Path(made, "notes").mkdir()
    Path(made, "notes/mine.txt").write_text("mine\n")
    shutil.copytree(made / "flow-dis.zarr", tmp_path_factory.mktemp("other") / "spare.zarr")
    return made


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory is that folder; tests leave it as it was."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("REELBANK_MANIFEST", raising=False)
    monkeypatch.delenv("REELBANK_WEIGHTS", raising=False)
    before = sorted(path.name for path in folder.iterdir())
    yield folder
    assert sorted(path.name for path in folder.iterdir()) == before


# -- the line from manifest to pictures --------------------------------------------------------------------


def test_featurize_again_does_nothing_twice(here: Path) -> None:
    result = succeed("featurize --model flow:dis --sampling uniform:2 --workers 1 --json")
    store = json.loads(result.stdout)["stores"][0]
    assert (store["num_extracted"], store["num_done_before"]) == (0, 24)


def test_train_head_leaves_run_with_report(here: Path) -> None:
    assert {"config.json", "results.json", "report.html"} <= {path.name for path in (here / RUN).iterdir()}


def test_probe_without_store_option_takes_the_only_one(here: Path, tmp_path: Path) -> None:
    result = succeed(f"probe --kmeans 8 --out {tmp_path}")
    assert "8 clusters" in result.stdout
    assert (tmp_path / "index.html").is_file()
    assert list(tmp_path.glob("*.png"))


def test_probe_too_many_clusters_names_rows_and_step_level(here: Path, tmp_path: Path) -> None:
    result = call(f"probe --kmeans 40 --out {tmp_path}")
    assert result.exit_code == cli.WRONG_USE
    assert "24 rows" in result.stderr
    assert "--level step" in result.stderr
    succeed(f"probe --kmeans 40 --level step --out {tmp_path}")


def test_manifest_commands_write_what_featurize_reads(here: Path, tmp_path: Path) -> None:
    succeed(f"manifest csv manifest.csv --map video=video --root {here} --out {tmp_path / 'mapped.csv'}")
    (tmp_path / "videos/left").mkdir(parents=True)
    shutil.copy2(here / "videos/clip_00001.mp4", tmp_path / "videos/left/a.mp4")
    succeed(f"manifest folder {tmp_path / 'videos'} --out {tmp_path / 'folder.csv'}")
    for name, count in (("mapped.csv", 24), ("folder.csv", 1)):
        result = succeed(f"doctor --manifest {tmp_path / name}")
        assert f"{count} clip" in result.stdout


def test_failed_clip_gives_status_1_and_retry_finds_the_repaired_file(here: Path, tmp_path: Path) -> None:
    table, video = tmp_path / "manifest.csv", tmp_path / "b.mp4"
    shutil.copy2(here / "videos/clip_00001.mp4", tmp_path / "a.mp4")
    video.write_text("no video\n")
    table.write_text("clip_id,video,split,label\na,a.mp4,train,x\nb,b.mp4,train,y\n")
    store = tmp_path / "s.zarr"
    result = call(f"featurize --manifest {table} --model flow:dis --sampling uniform:2 --workers 1 --out {store}")
    assert result.exit_code == cli.SOME_FAILED, result.output
    assert "clip 'b'" in result.stdout
    assert "1 failed" in succeed(f"store info {store}").stdout
    shutil.copy2(here / "videos/clip_00002.mp4", video)
    succeed(f"store retry {store} --manifest {table} --workers 1")
    retried = json.loads(succeed(f"store retry {store} --manifest {table} --json").stdout)
    assert retried["stores"] == []


def test_verify_damaged_store_gives_status_1_and_names_clip_and_tap(here: Path, tmp_path: Path) -> None:
    store = tmp_path / "damaged.zarr"
    shutil.copytree(here / "flow-dis.zarr", store)
    shard = next(path for path in (store / "features/hof/c").rglob("*") if path.is_file())
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    result = call(f"store verify {store}")
    assert result.exit_code == cli.SOME_FAILED
    assert re.search(r"clip 'clip_\d+', tap 'hof'", result.stdout)
    mended = succeed(f"store verify {store} --repair")
    assert "1 clip is missing now, run featurize or `reelbank store retry`: 'clip_" in mended.stdout
    succeed(f"store retry {store} --manifest {here / 'manifest.csv'} --workers 1")
    succeed(f"store verify {store}")
    assert "no clip has failed or is damaged" in succeed(f"store retry {store}").stdout


# -- JSON --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("backbones", {"dinov2", "flow", "frames"}),
        ("doctor --manifest manifest.csv", {"cores", "manifest"}),
        ("heads", {"linear", "mlp"}),
        ("heads flow-net --outputs 12 --listing", {"layers", "forward_backward_mb"}),
        (f"predict --run {RUN} --store flow-dis.zarr --out {{out}}/p.csv", {"num_clips", "csv"}),
        ("probe --kmeans 8 --out {out}/probe", {"analyses", "verdict"}),
        ("store info flow-dis.zarr", {"counts", "spec"}),
        ("store retry flow-dis.zarr", {"stores"}),
        ("store verify flow-dis.zarr", {"counts", "problems"}),
        ("store verify flow-dis.zarr --repair", {"found", "left", "mended"}),
        ("store upgrade flow-dis.zarr", {"covered", "path"}),
        ("train-head --store flow-dis.zarr --epochs 1 --no-report --run {out}/run", {"splits", "verdict"}),
    ],
)
def test_json_is_all_of_stdout(line: str, keys: set[str], here: Path, tmp_path: Path) -> None:
    result = succeed(f"{line.format(out=tmp_path)} --json")
    assert keys <= set(json.loads(result.stdout))


def test_report_on_stdout_has_no_progress(here: Path) -> None:
    assert "verify:" not in succeed("store verify flow-dis.zarr").stdout


# -- wrong use ---------------------------------------------------------------------------------------------

FEATURIZE = "featurize --model flow:dis --out {out}/x.zarr"
TRAIN = "train-head --store flow-dis.zarr --run {out}/run"
PROBE = "probe --kmeans 3 --out {out}/probe"
WRONG: list[tuple[str, str]] = [
    ("featurize", "Missing option '--model'"),
    ("heads --listing", "--listing describe one head: name it"),
    (f"{FEATURIZE} --batch 1000000", "--batch 1000000: the input alone of flow:dis takes"),
    ("featurize --model nope", f"backbone 'nope' is not known; choose one of {', '.join(sorted(BACKBONES))}, or give"),
    ("featurize --model flow:nope", "backbone 'flow:nope' is not known; flow has flow, flow:dis"),
    ("featurize --model flow:dis --model flow:dis", "--model names a backbone twice"),
    ("featurize --model flow:dis --model frames --out one.zarr", "put {model} in it"),
    (f"{FEATURIZE} --tap cls4", "has no tap 'cls4'; choose from flow, flow-8bit, hof"),
    (f"{FEATURIZE} --split nope", "the manifest has the splits test, train, unknown, val"),
    (f"{FEATURIZE} --clip nope", "--clip 'nope'"),
    (f"{FEATURIZE} --workers 0", "--workers 0"),
    (f"{FEATURIZE} --workers many", "'many' is not a valid integer"),
    (f"{FEATURIZE} --batch 0", "--batch 0"),
    (f"{FEATURIZE} --deadline 0", "--deadline 0"),
    (f"{FEATURIZE} --deadline nan", "--deadline nan"),
    (f"{FEATURIZE} --max-pixels -1", "--max-pixels -1"),
    (f"{FEATURIZE} --precision fp8", "is not one of 'bf16', 'fp16', 'fp32'"),
    (f"{FEATURIZE} --sampling nonsense", "sampling 'nonsense' is not one of the forms"),
    (f"{FEATURIZE} --sampling uniform:0", "sampling 'uniform:0'"),
    (f"{FEATURIZE} --sampling fps:nan", "sampling 'fps:nan'"),
    (f"{FEATURIZE} --sampling position:2", "sampling 'position:2'"),
    (f"{FEATURIZE} --sampling dinov2=all", "is for model 'dinov2'"),
    (f"{FEATURIZE} --manifest nope.csv", "no manifest at nope.csv"),
    (f"{FEATURIZE} --manifest videos", ".csv, .jsonl"),
    (f"{FEATURIZE} --root nope", "root nope is not a folder"),
    (f"{FEATURIZE} --target-columns label", "the columns that can be targets are kcal"),
    ("featurize --model flow:dis --out nope/x.zarr", "make it first: nope"),
    ("featurize --model flow:dis --out manifest.csv", "the store is a file"),
    ("featurize --model flow:dis --out videos", "is not a reelbank store"),
    ("featurize --model flow:dis --sampling uniform:3", "sampling: stored 'uniform:2', asked 'uniform:3'"),
    ("featurize --model resnet18 --weights nope.pth --out {out}/x.zarr", "--weights nope.pth: no such file"),
    ("featurize --model resnet18 --weights notes/mine.txt --out {out}/x.zarr", "not a readable weights file"),
    (f"{FEATURIZE} --device tpu", "--device 'tpu' is not one of auto, cpu"),
    (f"{PROBE} --device tpu", "--device 'tpu' is not one of auto, cpu"),
    ("train-head", "Missing option '--store'"),
    ("train-head --store nope.zarr", "no store at nope.zarr; featurize makes one"),
    ("train-head --store manifest.csv", "it is not a store"),
    ("train-head --store flow-dis.zarr --run notes --overwrite", "holds no run"),
    ("train-head --store flow-dis.zarr --run notes", "notes exists"),
    ("train-head --store flow-dis.zarr --resume", "need --run DIR"),
    (f"{TRAIN} --resume", "holds no run"),
    (f"{TRAIN} --tap cls4", "--tap cls4: no store holds it; there are hof"),
    (f"{TRAIN} --target nope", "no such target column; it has kcal"),
    (f"{TRAIN} --label nope", "no manifest column 'nope'"),
    (f"{TRAIN} --head nope", f"no head 'nope'; choose one of {', '.join(sorted(HEADS))}, or give"),
    (f"{TRAIN} --folds 1", "--folds 1"),
    (f"{TRAIN} --folds 50", "50 folds need at least 50 groups"),
    (f"{TRAIN} --epochs 0", "--epochs 0"),
    (f"{TRAIN} --lr nan", "--lr nan"),
    (f"{TRAIN} --batch 0", "--batch 0"),
    (f"{TRAIN} --betas 1", "is not of the form A:B"),
    (f"{TRAIN} --range 10:1", "LOW must be below HIGH"),
    (f"{TRAIN} --device tpu", "'tpu' is not one of auto, cpu"),
    (f"{TRAIN} --recipe= --epochs 1", "--recipe '': no such recipe; there are calories/beyond"),
    (f"{TRAIN} --recipe table-3.2", "did you mean calories/table-3.2?"),
    (f"{TRAIN} --recipe calories/table-3.1 --loss ce --epochs 100", "decides --loss, --epochs itself"),
    ("recipes table-3.2", "did you mean calories/table-3.2?"),
    ("probe --kmeans 0", "--kmeans 0 must be 1 or more"),
    ("probe --knn -1", "--knn -1 must be 1 or more"),
    ("probe --tsne --perplexity nan", "--perplexity nan must be above 0"),
    ("probe --kmeans 3 --out notes", "holds files that no probe wrote (mine.txt)"),
    ("probe --kmeans 3 --out manifest.csv", "is a file; give a folder"),
    (f"{PROBE} --store nope.zarr", "no store at nope.zarr"),
    (f"{PROBE} --tap cls4", "no tap 'cls4' in this store; it holds hof"),
    (f"{PROBE} --label nope", "no manifest column 'nope'"),
    (f"{PROBE} --target nope", "no such target column; it has kcal"),
    (f"{PROBE} --view 2", "view 2"),
    ("predict --run nope --store flow-dis.zarr", "is not a finished run"),
    (f"predict --run {RUN} --store nope.zarr", "no store at nope.zarr"),
    (f"predict --run {RUN} --store flow-dis.zarr --split nope", "there are test, train, unknown, val"),
    (f"predict --run {RUN} --store flow-dis.zarr --out videos", "Is a directory: videos"),
    ("store info nope", "no store at nope"),
    ("store verify videos", "it is not a store"),
    ("store verify videos --repair", "it is not a store"),
    ("store upgrade videos", "it is not a store"),
    ("store retry nope.zarr", "no store at nope.zarr"),
    ("store retry flow-dis.zarr --workers 0", "0 is not in the range 1<=x<=1024"),
    ("doctor --manifest nope.csv", "no manifest at nope.csv"),
    ("manifest csv manifest.csv --map video --out {out}/m.csv", "'video' is not of the form OURS=THEIRS"),
    ("manifest csv manifest.csv --map video=nope --out {out}/m.csv", "the mapping asks for column 'nope'"),
    ("manifest csv nope.csv --out {out}/m.csv", "no manifest at nope.csv"),
    ("manifest csv manifest.csv", "is there already"),
    ("manifest folder nope --out {out}/m.csv", "nope is not a folder"),
    ("manifest folder notes --out {out}/m.csv", "holds no <class>/<video>"),
    ("manifest hmdb51 videos --out {out}/m.csv", "name their folder with --splits DIR"),
    ("manifest ucf101 videos --fold 4", "4 is not in the range 1<=x<=3"),
    ("manifest synth {out} --clips 0", "0 is not in the range 1<=x<=100000"),
    ("manifest synth .", "is there already"),
    ("nope", "No such command 'nope'"),
]


@pytest.mark.parametrize(("line", "message"), WRONG, ids=[line for line, _ in WRONG])
def test_wrong_use_is_status_2_and_one_sentence(line: str, message: str, here: Path, tmp_path: Path) -> None:
    result = call(line.replace("{out}", str(tmp_path)))
    assert result.exit_code == cli.WRONG_USE, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert not result.stdout


MANIFESTS: list[tuple[str, bytes, str]] = [
    ("duplicate", b"clip_id,video\na,v.mp4\na,w.mp4\n", "line 3: clip_id 'a' is also on line 2"),
    ("empty", b"", "is empty"),
    ("header", b"clip_id,video\n", "no clips"),
    ("short-line", b"clip_id,video,split\na,v.mp4\n", "line 2: 2 cells, but the header names 3 columns"),
    ("binary", b"\xff\xfe\x00\x01", "not UTF-8"),
    ("interval", b"clip_id,video,start_seconds,end_seconds\na,v.mp4,3,1\n", "end_seconds=1.0 is before"),
    ("url", b"clip_id,video\na,http://host/a.mp4\n", "is a URL"),
    ("leak", b"clip_id,video,split,group\na,v.mp4,train,g\nb,w.mp4,test,g\n", "on both sides of train/test"),
]


@pytest.mark.parametrize(("name", "table", "message"), MANIFESTS, ids=[row[0] for row in MANIFESTS])
def test_bad_manifest_is_status_2_with_file_and_line(name: str, table: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.csv"
    path.write_bytes(table)
    result = call(f"featurize --model flow:dis --manifest {path} --out {tmp_path / 'x.zarr'}")
    assert result.exit_code == cli.WRONG_USE
    assert f"{name}.csv" in result.stderr
    assert message in result.stderr
    assert not (tmp_path / "x.zarr").exists()


def test_manifest_of_a_spreadsheet_is_read(here: Path, tmp_path: Path) -> None:
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbfclip_id,video,split,label\r\na,a.mp4,train,x\r\n")
    assert "1 clips; train 1" in succeed(f"doctor --manifest {tmp_path / 'bom.csv'}").stdout


def test_predict_with_store_of_another_spec_names_the_differing_field(here: Path, tmp_path: Path) -> None:
    store = tmp_path / "other.zarr"
    succeed(f"featurize --model flow:dis --sampling uniform:3 --clip clip_00001 --workers 1 --out {store}")
    result = call(f"predict --run {RUN} --store {store}")
    assert result.exit_code == cli.WRONG_USE
    assert "sampling: the run 'uniform:2', the store 'uniform:3'" in result.stderr


def test_several_stores_are_listed(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.zarr", "b.zarr"):
        shutil.copytree(here / "flow-dis.zarr", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    result = call("probe --kmeans 2")
    assert result.exit_code == cli.WRONG_USE
    assert "a.zarr, b.zarr" in result.stderr


def test_missing_weights_say_which_file_goes_where(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reelbank.extract.weights import files

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(files, "download", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    result = call(f"featurize --model dinov2 --out {tmp_path / 'x.zarr'}")
    assert result.exit_code == cli.WRONG_USE
    assert "dinov2_vits14_pretrain.pth" in result.stderr
    assert str(tmp_path) in result.stderr
    assert "--weights random" in result.stderr


def test_module_is_a_command_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reelbank.cli", "heads"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "linear" in done.stdout


def test_stop_by_keyboard_is_one_sentence(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reelbank.extract.run import featurize

    def interrupt(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(featurize, "featurize", interrupt)
    result = call(f"featurize --model flow:dis --out {tmp_path / 'x.zarr'}")
    assert result.exit_code == console.STOPPED
    assert "the same command goes on" in result.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_lists_every_row_with_what_it_varies(name: str) -> None:
    shown = succeed(f"recipes {name}").stdout
    assert max(map(len, shown.splitlines())) <= 100
    shown = re.sub(r"\n +", " ", shown)  # what was folded
    lines = shown.splitlines()
    chosen = RECIPES[name]
    for row in chosen.rows:
        line = next(line for line in lines if line.startswith(f"{row.name} "))
        assert all(f"{option}={value}" in line for option, value in row.options.items())
    shown = " ".join(shown.split())
    for step in chosen.steps:
        assert all(f"[{step.field}={value}]" in shown for value in step.values)
    assert all(f"{option}={value}" in shown for option, value in chosen.options.items())
    assert set(json.loads(succeed(f"recipes {name} --json").stdout)) >= {"name", "rows", "steps", "options"}


def test_recipe_says_what_it_will_train() -> None:
    assert announcement("calories/table-3.1") == (
        "calories/table-3.1: 6 rows, at most 2700 epochs in all; --quick tries it with a twentieth of them"
    )
    assert "x 3 repeats, at most 8100 epochs" in announcement("calories/table-3.1", repeats=3)
    assert "12 rows, at most 2400 epochs" in announcement("calories/table-3.4-stepwise", is_quick=True)
    assert "first store only" in announcement("calories/table-3.1", num_stores=2)
    assert "first store only" not in announcement("calories/beyond", num_stores=2)


def test_pace_counts_neither_what_was_there_nor_says_what_it_does_not_know() -> None:
    pace = events.Pace()
    assert pace.left(0, 20, 100.0) == ""
    assert pace.left(8, 20, 100.1) == ""  # a resumed job: eight were done
    assert pace.left(10, 20, 160.1) == "about 5 min left"  # two in a minute, ten to go
    assert pace.left(10, 20, 220.1) == "about 4 min left"  # a minute went by, no part was done
    assert pace.left(10, 20, 500.0) == ""  # longer than it should have been
    assert pace.left(19, 20, 430.1) == "about 30 s left"
    assert pace.left(20, 20, 460.0) == ""
    assert pace.left(1, 1000, 470.0) == ""  # another part of the job
    assert pace.left(2, 1000, 490.0) == "about 6 h left"


def test_manifest_csv_unknown_makes_the_split(tmp_path: Path) -> None:
    lines = [f"{p}-{c}.mp4,{p},{c},{100 * i + 10}" for i, c in enumerate("abc") for p in "uvwxy"]
    (tmp_path / "calories.csv").write_text("\n".join(["file,subject,activity,kcal", *lines]) + "\n")
    (tmp_path / "u-a.mp4").touch()
    options = "--map video=file --map group=subject --map label=activity --unknown c"
    result = succeed(f"manifest csv {tmp_path}/calories.csv {options} --out {tmp_path}/m.csv")
    assert "(train 8, test 2, unused 4, unknown 1)" in result.stdout, result.stdout
    assert "4 clips of unknown classes are 'unused'" in result.stderr


def test_reader_that_hangs_up_leaves_exit_status_0_and_no_message(here: Path) -> None:
    script = (
        "import sys; from reelbank.cli import main; sys.argv = ['reelbank', 'store', 'info', 'flow-dis.zarr']; main()"
    )
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    assert run.stderr.read() == b""
    run.stderr.close()
    assert run.wait(timeout=60) == cli.OK


# -- help --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", COMMANDS)
def test_help_of_every_command_says_what_it_does(line: str) -> None:
    result = succeed(f"{line} --help")
    assert "Usage: " in result.stdout


@pytest.mark.parametrize("group", ["manifest", "store"])
def test_list_of_commands_cuts_no_summary(group: str) -> None:
    assert "..." not in succeed(f"{group} --help").stdout.partition("Commands:")[2]


def test_commands_of_this_file_are_all_there_are() -> None:
    assert set(COMMANDS) == {"", *_names(cli.main, "")}


def _names(group: Any, prefix: str) -> Iterator[str]:
    for name, command in group.commands.items():
        yield f"{prefix}{name}"
        yield from _names(command, f"{prefix}{name} ") if hasattr(command, "commands") else ()


def test_help_of_every_command_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom reelbank.cli import main\n"
        f"for line in {COMMANDS!r}:\n"
        "    main([*line.split(), '--help'], standalone_mode=False)\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize(
    ("command", "config"),
    [("featurize", FeaturizeConfig), ("find", FindConfig), ("probe", ProbeConfig), ("train-head", TrainConfig)],
)
def test_every_field_of_a_config_is_an_option_with_help(command: str, config: type) -> None:
    given = {option.name: option for option in cli.main.commands[command].params}
    for name, one in options_of_config(config).items():
        assert getattr(given[name], "help", ""), f"{command} {one.flag} has no help"
