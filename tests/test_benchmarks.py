"""Every benchmark runs at its tiny scale, so that none rots; numbers of that scale mean nothing."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from reelbank.benchmarks import readme
from reelbank.benchmarks.measuring import RESULTS, Row, Stage, Timing, interleaved, main, meets, peer, write
from reelbank.extract import backbones
from reelbank.extract.run.featurize import WORKER_MODULES
from reelbank.manifests.rendered import synth_hmdb51
from reelbank.manifests.rendered.synth_gtea61 import render
from reelbank.store.processes import START_METHOD, import_ahead

FOLDER = Path(__file__).parent.parent / "benchmarks"
DEADLINE_SECONDS = 300
# The quickest: it is run as `make bench` runs every stage, the others in this process, which has the libraries.
BY_COMMAND = "store"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered clips and stores, shared by the scripts."""
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture
def _threads() -> Iterator[None]:
    """A script may leave another number of torch's threads behind."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.filterwarnings("default")  # of the peers
@pytest.mark.parametrize("stage", readme.ORDER)
def test_benchmark_runs_at_tiny_scale(stage: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--scale", "tiny", "--out", str(tmp_path), "--work", str(work)]
    if stage == BY_COMMAND:
        command = [sys.executable, str(FOLDER / "run.py"), stage, *options]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
        assert answer.returncode == 0, answer.stderr
    else:
        script = importlib.import_module(f"reelbank.benchmarks.{stage}")
        if stage == "memory":  # four processes that import everything: what they add to the peak means nothing here
            monkeypatch.setattr(script, "START", START_METHOD)
            import_ahead(WORKER_MODULES)
        monkeypatch.setattr(sys, "argv", [stage, *options])
        main(stage, script.measure, script.__doc__)
    (path,) = tmp_path.glob("*.json")
    result = json.loads(path.read_text())
    assert result["stage"] == stage
    assert result["machine"]["cores"] >= 1
    assert result["versions"]["torch"]
    assert result["rows"]
    for row in result["rows"]:
        assert set(row) == {field.name for field in fields(Row)}
        assert row["id"].startswith(f"{stage}.")
        assert row["ratio"] is not None or row["note"].startswith("skipped: "), row
    ids = [row["id"] for row in result["rows"]]
    assert len(set(ids)) == len(ids)
    assert len(readme.table(tmp_path).splitlines()) >= 2 + len(ids)


def test_scripts_and_stages_are_the_same_set() -> None:
    scripts = {path.stem for path in FOLDER.glob("*.py") if "measure(scale: str" in path.read_text()}
    assert scripts == set(readme.ORDER)


@pytest.mark.parametrize("stage", [stage for stage in readme.ORDER if stage != BY_COMMAND])
def test_script_of_a_stage_measures_that_stage(stage: str) -> None:
    tree = ast.parse((FOLDER / f"{stage}.py").read_text(encoding="utf-8"))
    assert ast.unparse(tree.body[-1]) == f"if __name__ == '__main__':\n    main('{stage}', measure, __doc__)"


def test_interleaved_takes_turns() -> None:
    order: list[str] = []
    times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert len(times["a"].seconds) == len(times["b"].seconds) == 3


@pytest.mark.parametrize(
    ("target", "ours", "theirs", "ratio", "met"),
    [("<= 0.75", 3.0, 4.0, 0.75, True), ("<= 0.75", 4.0, 4.0, 1.0, False), (">= 4", 1.0, 8.0, 8.0, True),
     (">= 4", 1.0, 2.0, 2.0, False)],
)  # fmt: skip
def test_ratio_points_the_way_of_its_target(target: str, ours: float, theirs: float, ratio: float, met: bool) -> None:
    stage = Stage()
    stage.compare("x.y", "what", Timing(seconds=(ours,)), "peer", Timing(seconds=(theirs,)), target)
    assert (stage.rows[0].ratio, stage.rows[0].met) == (ratio, met)
    assert meets(ratio, target) is met


def test_absent_peer_is_named() -> None:
    module, why = peer("a_peer_that_nobody_wrote")
    assert module is None
    assert "a_peer_that_nobody_wrote is not installed" in why


def test_tables_replace_only_what_stands_between_the_markers(tmp_path: Path) -> None:
    stage = Stage()
    stage.compare("decode.x", "all | frames", 1.0, "peer", 2.0, "<= 0.75")
    stage.skip("decode.y", "some frames", "other peer", "it is not installed", "<= 1")
    stage.compare(readme.HEADLINES[0], "few frames", 1.0, "peer", 4.0, "<= 0.75")
    about = {"cpu": "a CPU", "cores": 2, "memory_gib": 4.0}
    write("decode", stage, "normal", about, 1.0, tmp_path)
    page, front = tmp_path / "measured.md", tmp_path / "README.md"
    for path in (page, front):
        path.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    readme.regenerate(tmp_path, page, front)
    first = page.read_text()
    for text in (first, front.read_text()):
        assert text.startswith(f"before\n{readme.BEGIN}\n")
        assert text.endswith(f"{readme.END}\nafter\n")
        assert "old" not in text
        assert "| few frames | peer | 1 s | 4 s | 0.25 | <= 0.75 | met |" in text
    assert "| all \\| frames | peer | 1 s | 2 s | 0.5 | <= 0.75 | met |" in first
    assert "skipped: it is not installed" in first
    assert "all" not in front.read_text()
    readme.regenerate(tmp_path, page, front)
    assert page.read_text() == first


def test_headlines_are_rows_of_the_results_there_are() -> None:
    measured = {row["id"] for path in RESULTS.glob("*.json") for row in json.loads(path.read_text())["rows"]}
    assert [name for name in readme.HEADLINES if name not in measured] == []


def test_readme_without_markers_is_an_error(tmp_path: Path) -> None:
    text = tmp_path / "README.md"
    text.write_text("nothing here\n")
    with pytest.raises(ValueError, match="expected one <!-- benchmarks:begin -->"):
        readme.regenerate(tmp_path, text, text)


RENDERED: dict[str, tuple[Callable[[Path], object], int, int]] = {
    # eight actions, of which two are another one backwards
    "resnet34": (lambda root: render(root, clips=32, width_px=64, height_px=48), 6, 32),
    # three outlines, whatever the direction; GoogLeNet has no smaller pictures than these
    "googlenet": (lambda root: synth_hmdb51.render(root, subjects=3, clips_per_class=3), 3, 64),
}


@pytest.mark.parametrize("backbone", RENDERED)
def test_the_backbone_of_a_rendered_set_is_a_file_of_weights(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = importlib.import_module("reelbank.benchmarks.rendered_backbone")
    rendered, num_shown, side_px = RENDERED[backbone]
    rendered(tmp_path / "set")
    monkeypatch.setattr(script, "PHASES", ((side_px, 8, 1e-3, 1),))
    given = ["rendered_backbone.py", str(tmp_path / "set"), str(tmp_path / "made.pth"), "--backbone", backbone]
    monkeypatch.setattr(sys, "argv", given)
    _, shown = script.read(tmp_path / "set")
    assert sorted(set(shown.tolist())) == list(range(num_shown))
    script.main()
    built = backbones.build(backbone, weights=tmp_path / "made.pth", device="cpu")
    assert built.weights["kind"] == "file"
