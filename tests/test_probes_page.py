"""Pages: whole, self-contained, and deaf to what labels and file names try to be."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import chromium
from PIL import Image
from planted import run_results
from probe_stores import clustered_store

from reelbank.heads.judging.by_class import by_class
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.probe import probe
from reelbank.heads.reports.html import data_block
from reelbank.heads.reports.run_page import write_run_report

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>'


class _Tags(HTMLParser):
    """Counts elements and collects what they would load."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.loads: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        links = [value or "" for name, value in attrs if name == "href"]
        assert tag == "a" or not links
        self.links += links
        self.loads += [value or "" for name, value in attrs if name in ("src", "srcset", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)


def _tags(page: Path) -> _Tags:
    tags = _Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    assert all(text.startswith("data:image/") for text in tags.loads)
    assert all(text.startswith(("#", "./")) for text in tags.links)  # files beside the page; no scheme
    return tags


def _probe_page(tmp_path: Path, label: str) -> Path:
    store = tmp_path / f"toy-{len(label)}.zarr"
    clustered_store(store, num_clips=24, first_label=label, weights="random")
    return probe(ProbeConfig(store=store, tsne=True, kmeans=3, knn=3, out=tmp_path / f"out-{len(label)}")).page


def test_hostile_labels_change_no_element_of_the_probe_page(tmp_path: Path) -> None:
    tame, hostile = _tags(_probe_page(tmp_path, "tame")), _tags(_probe_page(tmp_path, HOSTILE))
    assert tame.counts == hostile.counts
    assert hostile.loads


def test_data_block_cannot_end_its_element() -> None:
    block = data_block("x", {"label": HOSTILE + "\u2028<!--&"})
    content = re.fullmatch(r'<script type="application/json" id="x">(.*)</script>\n', block)
    assert content is not None
    assert not set("<>&\u2028") & set(content[1])
    assert json.loads(content[1]) == {"label": HOSTILE + "\u2028<!--&"}


def test_page_policy_lists_only_its_own_scripts(tmp_path: Path) -> None:
    text = _probe_page(tmp_path, "tame").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    script = policy[1].split("script-src")[1]
    assert script.count("sha256-") == 2 and "unsafe" not in script


def test_chromium_renders_the_map_and_runs_nothing_of_the_data(tmp_path: Path) -> None:
    browser = chromium()
    page = _probe_page(tmp_path, HOSTILE)
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=10000",
    ]
    picture = tmp_path / "page.png"
    shown = []
    for number, what in enumerate((["--dump-dom"], [f"--screenshot={picture}", "--window-size=390,1600"])):
        command = [browser, *flags, f"--user-data-dir={tmp_path / f'profile{number}'}", *what, page.resolve().as_uri()]
        shown.append(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)
    place = re.search(r'<div id="scatter"[^>]*>', shown[0])
    assert place is not None
    assert 'data-points="24"' in place[0], place[0]
    assert int(re.search(r'data-canvases="(\d+)"', place[0])[1]) >= 1  # type: ignore[index]
    assert "<title>owned</title>" not in shown[0]
    with Image.open(picture) as image:
        grey = np.asarray(image.convert("L"))
    assert (grey != np.bincount(grey.ravel()).argmax()).mean() > 0.1, "the page is all background"


def _run_dir(folder: Path, *, label: str = "b", warning: str = "") -> Path:
    """A finished run as `reelbank.heads.runs.run` describes it."""
    folder.mkdir()
    metric = {"value": 0.625, "low": 0.5, "high": 0.75, "drawn": 4, "higher_is_better": True, "unit": "fraction"}
    mae = {"value": 90.5, "low": 80.0, "high": 100.0, "drawn": 4, "higher_is_better": False, "unit": "target"}
    undefined = metric | {"value": None, "low": None, "high": None}
    part = {
        "num_clips": 8,
        "num_groups": 4,
        "metrics": {"accuracy": metric, "mae": mae, "spc_values": undefined},
        "baselines": {"majority_class": {"accuracy": 0.25}, "constant_median": {"mae": 155.5}},
    }
    counts = {"clips": 40, "train": 24, "val": 8, "test": 8, "unknown": 0, "classes": 2, "groups": 9}
    results = {
        "format_version": 1,
        "run": "flow-mlp-ce-1",
        "weights_are_random": bool(warning),
        "warning": warning,
        "shuffled_labels": False,
        "selection": {"select_on": "validation", "criterion": "val_loss", "sentence": "Selected on validation."},
        "reported": "test",
        "counts": counts | {"left_out": [{"reason": "decode", "count": 2}]},
        "splits": {"test": part},
        "folds": [
            {"fold": k, "best_epoch": 4, "epochs_run": 9, "stopped_early": True, "train": 24, "val": 8, "test": 8}
            | {"metrics": {"accuracy": 0.6 + k / 100}}
            for k in range(2)
        ],
        "training": {"seconds": 3.5, "epochs_run": 9, "best_epoch": 4, "stopped_early": True},
        "notes": [f"note about {label}"],
        "verdict": "Accuracy 0.625 on test, above the majority class.",
        "target_name": "kcal",
        "target_unit": "kcal/h",
    }
    store = {"path": "somewhere/flow.zarr", "backbone": "flow", "taps": ["hof"], "weights_are_random": bool(warning)}
    asked = {"head": "mlp", "loss": "ce", "label": "label", "epochs": 9}
    config = {
        "format_version": 1, "config": asked, "warning": "", "notes": [], "data_digest": "", "stores": [store],
        "num_parameters": 99,
    }  # fmt: skip
    epochs = [
        {"fold": fold, "epoch": e, "train_loss": 1 / e, "val_loss": 1.2 / e, "val_accuracy": 0.5, "val_mae": None}
        | {"learning_rate": 1e-3, "seconds": 0.1, "best": e <= 4}
        for fold in (0, 1)
        for e in range(1, 10)
    ]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "results.json").write_text(json.dumps(run_results(**results)))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in epochs))
    (folder / "confusion.json").write_text(json.dumps({"test": {"labels": ["a", label], "counts": [[3, 1], [2, 2]]}}))
    lines = ["clip_id,split,fold,group,label,predicted,probability,correct,target,predicted_target"]
    lines += [f"c{i},test,,g,a,a,0.5,1,{100 + i},{120 + i}" for i in range(8)]
    (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_run_report_shows_every_part_of_the_run(tmp_path: Path) -> None:
    run = _run_dir(tmp_path / "run", warning="random weights: not a pretrained network")
    page = write_run_report(run, figures_kind="svg")
    text = page.read_text()
    assert page == run / "report.html"
    assert text.index("random weights: not a pretrained network") < text.index("<main>")
    for part in (
        "Accuracy 0.625 on test, above the majority class.",
        "0.625 [0.5, 0.75; 4 groups]",
        "90.5 [80, 100; 4 groups]",
        "mean absolute error, kcal/h",
        "155.5",
        "Selected on validation.",
        "2 clips are left out: decode.",
        "flow.zarr (flow)",
        "predictions.csv",
        "Folds",
    ):
        assert part in text, part
    names = {path.name for path in (run / "figures").iterdir()}
    stems = ("learning-curves", "confusion-test", "confusion-test-shares", "predicted-vs-true")
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}
    assert text.count("data:image/png;base64,") == 4


@pytest.mark.parametrize("num_classes", [15, 16])
def test_precision_and_recall_of_many_classes_open_on_a_click(num_classes: int, tmp_path: Path) -> None:
    run = _run_dir(tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    counts = np.diag(np.full(num_classes, 4)) + np.eye(num_classes, k=1, dtype=np.int64)
    counts[3, 9] = 7
    names = [f"class_{k:02d}" for k in range(num_classes)]
    results["splits"]["test"] |= by_class(names, counts)
    (run / "results.json").write_text(json.dumps(results))
    text = write_run_report(run).read_text().partition('id="by-class"')[2].partition("</section>")[0]
    assert "Split test: most often taken for another class: class_03 as class_09, 7 clips (58 % of class_03); " in text
    folded = text.partition("<details>")[2]
    assert bool(folded) == (num_classes == 16)
    row = re.search(r"class_09</th>(.*?)</tr>", folded or text, re.DOTALL)
    assert row is not None
    # 5 clips of which 4 are right; 4 + 1 + 7 are said to be it.
    assert re.findall(r">([0-9.]+)</td>", row[1]) == ["5", "12", "0.3333", "0.8", "0.4706"]


def test_hostile_labels_change_no_element_of_the_run_report(tmp_path: Path) -> None:
    tame = _tags(write_run_report(_run_dir(tmp_path / "tame")))
    hostile = _tags(write_run_report(_run_dir(tmp_path / "hostile", label=HOSTILE)))
    assert tame.counts == hostile.counts


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = _run_dir(tmp_path / "run")
    (run / "results.json").unlink()
    with pytest.raises(ValueError, match=r"no results\.json: not a finished run"):
        write_run_report(run)


def test_a_note_of_run_config_and_counts_stands_on_the_page_once(tmp_path: Path) -> None:
    run = _run_dir(tmp_path / "run")
    said = ["2 clips are left out: decode.", "The manifest has no groups."]
    for name in ("config.json", "results.json"):
        data = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps({**data, "notes": [*said, *said]}))
    page = write_run_report(run).read_text().split("<pre")[0]
    assert [page.count(note) for note in said] == [1, 1]


def test_a_split_of_no_groups_says_so(tmp_path: Path) -> None:
    run = _run_dir(tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    for entry in results["splits"].values():
        entry["num_groups"] = None
    (run / "results.json").write_text(json.dumps(results))
    assert "8 clips, no groups" in write_run_report(run).read_text()
