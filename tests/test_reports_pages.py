"""Every kind of page: in a browser of any width, with names that try to be markup, light, dark and printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from probe_stores import clustered_store
from recipe_stores import calorie_store, run_calories, shorten

from reelbank.heads import SweepConfig, TrainConfig, sweep, train_head
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.probe import probe
from reelbank.heads.reports import drawing

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
LONG = "a_class_name_without_any_place_to_break_it_" * 3
KINDS = ("train-head", "folds", "sweep", "probe", "recipe", "gallery")
SMALL = {"device": "cpu", "epochs": 2, "bins": 8, "target": "kcal", "seed": 0}


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI=true, and no chromium is installed: pages cannot be shown to render")
        pytest.skip("needs chromium")
    return found


def browse(page: Path, profile: Path, *what: str) -> str:
    """What headless Chromium prints of a page that is opened from disk."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--virtual-time-budget=8000"]
    command = [_chromium(), *flags, f"--user-data-dir={profile}", *what, page.resolve().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def in_frames(pages: Mapping[str, str], script: str, folder: Path, widths: Sequence[int] = (1280,)) -> Any:
    """What `script`, a function of a frame, gives for each page at each width: {page: [JSON]}; in one browser."""
    frames = "".join(
        f'<iframe title="{name}" width="{width}" height="900" srcdoc="{escape(text)}"></iframe>\n'
        for name, text in pages.items()
        for width in widths
    )
    measure = f"""
    const look = {script};
    addEventListener("load", () => setTimeout(() => {{
      const found = {{}};
      for (const frame of document.querySelectorAll("iframe")) {{
        (found[frame.title] ??= []).push(look(frame.contentWindow));
      }}
      document.body.replaceChildren(JSON.stringify(found));
      document.title = "done";
    }}, 3000));"""
    page = folder / "frames.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8>{frames}<script>{measure}</script>", encoding="utf-8")
    shown = browse(page, folder / "profile", "--dump-dom")
    found = re.search(r"<body>(\{.*?\})</body>", shown, re.DOTALL)
    assert found is not None, shown[-2000:]
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


class _Elements(HTMLParser):
    """Counts elements and keeps the tables' and pictures' attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.of: dict[str, list[dict[str, str | None]]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.of.setdefault(tag, []).append(dict(attrs))


def make_pages(folder: Path, label: str, patch: pytest.MonkeyPatch) -> dict[str, Path]:
    """One page of each kind, of clips of which one class is called `label`."""
    folder.mkdir()
    store = folder / "toy store.zarr"
    clustered_store(store, num_clips=60, num_classes=6, first_label=label, separation=0.5, weights="random")
    given: dict[str, Any] = {"store": (store,), **SMALL}
    pages = {"train-head": folder / "run" / "report.html", "folds": folder / "folds" / "report.html"}
    train_head(TrainConfig.of(**given, run=folder / "run"))
    train_head(TrainConfig.of(**given, run=folder / "folds", folds=2))
    found = sweep(
        SweepConfig.of(**given, run=folder / "sweep", sweep=("lr=1e-2,1e-3", "batch=8,16"), executor="stacked")
    )
    pages["sweep"] = found.directory / "report.html"
    pages["probe"] = probe(ProbeConfig(store=store, tsne=True, kmeans=3, knn=3, explore=True, out=folder / "pro")).page

    def named(clips: list[dict[str, Any]]) -> None:
        for clip in clips:
            clip["label"] = clip["label"].replace("class 0", label)

    calories = calorie_store(folder / "calories.zarr", change=named)
    shorten(patch, pictures=True)
    for kind, name in (("recipe", "table-3.1"), ("gallery", "figure-3.50")):
        pages[kind] = run_calories(calories, folder / kind, name).directory / "report.html"
    return pages


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """{what a class is called: {kind: page}}."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "DPI", 40)
        labels = {"tame": LONG, "hostile": HOSTILE}
        return {name: make_pages(folder / name, label, patch) for name, label in labels.items()}


def test_there_is_a_page_of_every_kind(pages: Any) -> None:
    assert tuple(pages["tame"]) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_labels_change_no_element_of_a_page(kind: str, pages: Any) -> None:
    tame, hostile = (_Elements(pages[name][kind].read_text(encoding="utf-8")) for name in ("tame", "hostile"))
    assert tame.counts == hostile.counts
    for element in hostile.of["a"]:
        assert (element["href"] or "").startswith(("#", "./"))
    for element in hostile.of.get("img", []):
        assert (element["src"] or "").startswith("data:image/") and element["alt"]
    for element in hostile.of["th"]:
        assert element["scope"] in ("col", "row")


def test_no_page_is_wider_than_its_window(pages: Any, tmp_path: Path) -> None:
    """Tables that do not fit scroll within themselves."""
    script = """(window) => [window.innerWidth, window.document.documentElement.scrollWidth,
      window.document.querySelectorAll(".wide > table").length,
      [...window.document.querySelectorAll("body *")].filter((one) => !one.closest(".wide, #scatter, pre")
        && one.getBoundingClientRect().right > window.innerWidth + 1).map((one) => one.outerHTML.slice(0, 99))]"""
    texts = {kind: page.read_text(encoding="utf-8") for kind, page in pages["tame"].items()}
    found = in_frames(texts, script, tmp_path, widths=(360, 800, 1280))
    assert tuple(found) == KINDS
    for kind, measured in found.items():
        assert [width for width, *_ in measured] == [360, 800, 1280], kind
        for width, needed, num_tables, beyond in measured:
            assert needed <= width and not beyond, (kind, width, needed, beyond)
            assert num_tables, kind
