"""What `make demo` says at its end; CI runs the whole of it."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path

import docs_pages
import pytest
from docs_pages import ROOT

from reelbank import cli

VERDICT = (
    "test accuracy 0.8 (95 % interval 0.7 to 0.9, 5 groups) beats the majority class baseline 0.1. "
    "test mae 80.1 kcal/h beats the constant median baseline 110.1 kcal/h. unknown mae 120.0 kcal/h is worse."
)


@pytest.mark.parametrize("unknown", [True, False])
@pytest.mark.parametrize("verdict", [VERDICT, VERDICT.replace(". t", ".|t").replace(". u", ".|u").split("|")])
def test_demo_ends_with_a_sentence_each_and_a_command_that_can_be_typed(
    verdict: str | list[str], unknown: bool, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_file_location("docs_demo", ROOT / "docs" / "demo.py")
    assert spec is not None and spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    folder = tmp_path / "two words"
    for name in ("runs/demo/figures/a.png", "lite-probe/b.png", "flow-probe/c.png", "videos/x y.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    splits = {"test": {}, **({"unknown": {}} if unknown else {})}
    (folder / "runs/demo/results.json").write_text(json.dumps({"verdict": verdict, "splits": splits}))
    said = demo.found(folder, folder / "videos")
    lines = [line.strip() for line in said["result"].splitlines()]
    assert [line.partition(" ")[0] for line in lines] == ["test", "test", "unknown", *["(test:"] * unknown]
    assert said["pictures"].startswith("3 in ")
    words = shlex.split(said["next"])
    assert words[1:] == ["predict", "--run", str(folder / "runs/demo"), str(folder / "videos/x y.mp4")]
    docs_pages.parse(cli.main, ["reelbank", *words[1:]])
