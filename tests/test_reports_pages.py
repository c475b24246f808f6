"""Every kind of page: in a browser of any width, with names that try to be markup, light, dark and printed."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from browser import chromium
from matplotlib.text import Text
from PIL import Image
from probe_stores import clustered_store
from recipe_stores import calorie_store, run_calories, shorten
from remembered import write_store

from reelbank.heads import SweepConfig, TrainConfig, sweep, train_head
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.probe import probe
from reelbank.heads.reports import clip_rows, drawing, html
from reelbank.heads.reports.clip_rows import PLAIN_ROWS, ClipRow, Thumbnails, clip_table, read_clip_rows, script
from reelbank.heads.reports.run_page import write_run_report

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
LONG = "a_class_name_without_any_place_to_break_it_" * 3
KINDS = ("train-head", "folds", "sweep", "probe", "recipe", "gallery")
DRAWN: list[tuple[str, float, float]] = []
"""(title, width in inches, smallest letter in points) of each figure on the pages."""
SMALL = {"device": "cpu", "epochs": 2, "bins": 8, "target": "kcal", "seed": 0}


def browse(page: Path, profile: Path, *what: str) -> str:
    """What headless Chromium prints of a page that is opened from disk."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--virtual-time-budget=8000"]
    command = [chromium(), *flags, f"--user-data-dir={profile}", *what, page.resolve().as_uri()]
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
    to_png = drawing._png
    blank = io.BytesIO()
    Image.new("RGB", (8, 8)).save(blank, "png")

    def noted(figure: Any, is_rendered: bool) -> bytes:
        letters = [text.get_fontsize() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
        DRAWN.append((figure.get_suptitle().split("\n")[0], figure.get_figwidth(), min(letters)))
        return to_png(figure) if is_rendered else blank.getvalue()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "DPI", 40)
        made = {}
        # Pages are measured with the pictures of long names. Hostile names are looked for in the elements of pages,
        # whatever the pixels of a picture: there every figure is made and none is rendered.
        for name, label, is_rendered in (("tame", LONG, True), ("hostile", HOSTILE, False)):
            patch.setattr(drawing, "_png", partial(noted, is_rendered=is_rendered))
            made[name] = make_pages(folder / name, label, patch)
        return made


def test_there_is_a_page_of_every_kind(pages: Any) -> None:
    assert tuple(pages["tame"]) == KINDS


def test_every_figure_can_be_read_at_a_width_of_16_cm(pages: Any) -> None:
    """Of every page; what a figure is shrunk by there would shrink its letters too."""
    assert len({title for title, *_ in DRAWN}) > 15 and pages
    assert [one for one in DRAWN if one[1] > 16 / 2.54 + 0.01 or one[2] < 7] == []


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


@pytest.mark.parametrize("kind", KINDS)
def test_links_lead_to_files_that_are_there(kind: str, pages: Any) -> None:
    page = pages["tame"][kind]
    targets = [str(one["href"]) for one in _Elements(page.read_text(encoding="utf-8")).of["a"]]
    files = [page.parent / unquote(target) for target in targets if not target.startswith("#")]
    assert files and all(file.exists() for file in files)
    if kind in ("train-head", "folds", "probe"):
        assert {"toy store.zarr", "results.json"} <= {file.name for file in files}


@pytest.mark.parametrize("kind", ["train-head", "probe"])
def test_intervals_over_few_groups_are_a_warning_and_no_note(kind: str, pages: Any) -> None:
    text = pages["tame"][kind].read_text(encoding="utf-8")
    said = re.findall(r"(<\w+[^>]*>)(Intervals [^<]* say little: read no difference out of them.)", text)
    assert {tag for tag, _ in said} == {'<p class="warning" role="note">'}
    assert re.search(r"\[[^\]]*; (Wilson, )?2 groups\]", text)


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


def test_no_table_is_cut_where_a_page_is_printed(pages: Any, tmp_path: Path) -> None:
    """On paper nothing scrolls: with the rules of print, at the width between the margins of A4."""
    script = """(window) => [
      ...[...window.document.querySelectorAll(".wide")].map((one) => one.scrollWidth - one.clientWidth),
      window.getComputedStyle(window.document.querySelector("nav")).display]"""
    texts = {kind: page.read_text().replace("@media print", "@media all") for kind, page in pages["tame"].items()}
    for kind, ((*beyond, nav),) in in_frames(texts, script, tmp_path, widths=(688,)).items():
        assert max(beyond) <= 1, (kind, beyond)
        assert nav == "none"


def test_worst_mistakes_have_the_thumbnails_of_the_store(pages: Any, tmp_path: Path) -> None:
    folder = pages["tame"]["train-head"].parent
    text = pages["tame"]["train-head"].read_text(encoding="utf-8")
    clips = read_clip_rows(folder / "predictions.csv")
    test = [row for row in clips if row.split == "test"]
    worst = max((row for row in test if row.correct is False), key=lambda row: row.probability or 0)
    section = text.partition('id="worst-mistakes"')[2].partition("</section>")[0]
    assert "most confident wrong class" in section and "largest error of the target" in section
    card = re.search(rf"<li>(<img[^>]*>)<b>{worst.clip_id}</b> predicted ([^,]*), probability", section)
    assert card is not None and card[2] == worst.predicted
    assert 'src="data:image/jpeg;base64,' in card[1] and f'alt="Thumbnail of {worst.clip_id}"' in card[1]
    for count in (len(re.findall(f"<b>{row.clip_id}</b>", section)) for row in test):
        assert count <= 2
    # A run whose store is gone has the same page without pictures, and says what to do.
    gone = shutil.copytree(folder, tmp_path / "gone")
    config = json.loads((gone / "config.json").read_text())
    config["stores"][0]["path"] = str(tmp_path / "nowhere.zarr")
    (gone / "config.json").write_text(json.dumps(config))
    without = write_run_report(gone).read_text(encoding="utf-8").partition('id="worst-mistakes"')[2]
    assert f"<li><b>{worst.clip_id}</b> predicted" in without and "data:image/jpeg" not in without
    assert "nowhere.zarr cannot be opened" in without and "write_run_report" in without


def test_thumbnails_say_why_there_are_none(tmp_path: Path) -> None:
    features = [np.zeros((2, 3), np.float16)] * 2
    black = np.zeros((72, 96, 3), np.uint8)
    store = write_store(
        tmp_path / "s.zarr", {"pool": features}, [{"clip_id": "a"}, {"clip_id": "b"}], thumbnails=[black, black + 9]
    )
    entry = {"path": str(store.path), "spec_digest": store.spec_digest}
    found = Thumbnails([entry])
    assert found.of("b").startswith("data:image/jpeg;base64,") and not found.notes
    assert [found.of("a"), found.of("unknown")] == ["", ""]
    assert ["no thumbnail in the store" in note for note in found.notes] == [True]
    other = Thumbnails([{**entry, "spec_digest": "0"}])
    assert other.of("b") == "" and "no longer the store of this run" in next(iter(other.notes))


CLIPS = """(window) => {
  const document = window.document, table = document.getElementById("clip-table");
  const column = (name) => [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === name);
  const values = (name) => [...table.tBodies[0].rows].map((row) => row.cells[column(name)].textContent);
  const press = (name) => table.tHead.rows[0].cells[column(name)].querySelector("button").click();
  const enter = (field, value, kind) => { field.value = value; field.dispatchEvent(new Event(kind)); };
  const tools = document.querySelector(".tools"), status = tools.querySelector("[role=status]");
  const found = { first: values("error"), said: status.textContent };
  press("error"); found.down = values("error");
  found.sorted = table.tHead.rows[0].cells[column("error")].getAttribute("aria-sort");
  press("error"); found.up = values("error");
  press("clip"); found.clips = values("clip");
  enter(tools.querySelector("select"), "test", "change");
  found.splits = values("split"); found.test = status.textContent;
  tools.querySelector("[type=checkbox]").click(); found.right = values("right");
  enter(tools.querySelector("[type=search]"), "clip_3 TEST", "input"); found.some = values("clip");
  found.stops = [...table.querySelectorAll("th button")].every((one) => one.tabIndex === 0);
  [...tools.querySelectorAll("button")].pop().click();
  return found;
}"""


def test_the_table_of_clips_sorts_and_filters(pages: Any, tmp_path: Path) -> None:
    page = pages["hostile"]["train-head"]
    found = in_frames({"run": page.read_text(encoding="utf-8")}, CLIPS, tmp_path)["run"][0]
    clips = read_clip_rows(page.parent / "predictions.csv")
    errors = sorted(row.error for row in clips if row.error is not None)
    assert found["said"].startswith(f"{len(clips)} clips")
    assert [float(text) for text in found["up"]] == pytest.approx(errors, rel=1e-3)
    assert found["down"] == found["up"][::-1] != found["first"] and found["sorted"] == "descending"
    numbers = [int(clip.removeprefix("clip_")) for clip in found["clips"]]
    assert numbers == sorted(numbers)  # clip_9 before clip_10
    tested = [row for row in clips if row.split == "test"]
    assert found["splits"] == ["test"] * len(tested) and found["test"].startswith(f"{len(tested)} of {len(clips)}")
    assert found["right"] == ["no"] * sum(row.correct is False for row in tested)
    assert all("3" in clip for clip in found["some"]) and found["stops"]


def test_a_table_of_many_clips_has_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        ClipRow(
            clip_id=f"c{i}", group="", split="test", label="a", predicted="b", probability=i / 20_000, correct=False,
            true_probability=None, target=None, predicted_target=None, error=None,
        )
        for i in range(20_000)
    ]  # fmt: skip
    text = html.document(title="t", subtitle="", warnings=[], body="".join(clip_table(rows)), scripts=[script()])
    assert text.count("<tr>") == PLAIN_ROWS + 1 and len(text) < 3_000_000
    assert f"the first {PLAIN_ROWS} are shown" in text
    look = """(window) => {
      const document = window.document, rows = () => document.querySelectorAll("#clip-table tbody tr");
      const [before, after] = document.querySelectorAll(".tools button");
      const found = [rows().length, document.querySelector("[role=status]").textContent, before.disabled];
      after.click();
      return [...found, rows().length, rows()[0].cells[0].textContent, before.disabled];
    }"""
    found = in_frames({"many": text}, look, tmp_path)["many"][0]
    assert found == [50, "20000 clips, page 1 of 400", True, 50, "c19949", False]
    monkeypatch.setattr(clip_rows, "MOST_ROWS", 10)
    assert "The first 10 are here; predictions.csv has all." in "".join(clip_table(rows))
