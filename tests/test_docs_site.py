"""The built site (`make docs`) needs nothing from outside, and no page is wider than a desk's or a phone's window."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from docs_pages import ROOT

SITE = ROOT / "build" / "docs"
WIDTHS_PX = (1280, 390)

MEASURE = """<!doctype html><body><div id="found">nothing</div><script>
const pages = PAGES, widths = WIDTHS, found = [];
(async () => {
  for (const width of widths) for (const page of pages) {
    const frame = document.createElement("iframe");
    frame.style.cssText = `width:${width}px;height:900px;border:0`;
    frame.src = page;
    document.body.append(frame);
    await new Promise(resolve => { frame.onload = resolve; });
    const root = frame.contentDocument.documentElement;
    const broken = [...frame.contentDocument.images].filter(image => !image.naturalWidth).length;
    found.push([page, width, root.clientWidth, root.scrollWidth, broken]);
    frame.remove();
  }
  document.getElementById("found").textContent = JSON.stringify(found);
})();
</script></body>"""


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, and {what}")
    pytest.skip(what)


@pytest.fixture(scope="module")
def pages() -> list[Path]:
    found = sorted(SITE.rglob("*.html"))
    if not found:
        _missing("there is no site; `make docs` builds it")
    return found


def measure(pages: list[Path], folder: Path) -> list[list[Any]]:
    """[address, width asked, width of the window, width of the content, pictures that did not load] per page."""
    browser = chromium()
    addresses = json.dumps([page.resolve().as_uri() for page in pages])
    wrapper = folder / "wrapper.html"
    wrapper.write_text(MEASURE.replace("PAGES", addresses).replace("WIDTHS", json.dumps(WIDTHS_PX)))
    command = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"),
        *("--virtual-time-budget=60000", "--window-size=1400,1000", f"--user-data-dir={folder / 'profile'}"),
        *("--dump-dom", wrapper.resolve().as_uri()),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    answer = re.search(r'<div id="found">(.*?)</div>', shown, re.DOTALL)
    assert answer is not None
    found: list[list[Any]] = json.loads(html.unescape(answer[1]))
    assert len(found) == len(pages) * len(WIDTHS_PX)
    return found


def faults(found: list[list[Any]]) -> list[str]:
    wide = [f"{page} at {width} px: {content} px" for page, width, window, content, _ in found if content > window]
    return wide + [f"{page}: {broken} pictures did not load" for page, *_, broken in found if broken]


def test_no_page_is_wider_than_its_window(pages: list[Path], tmp_path: Path) -> None:
    assert faults(measure(pages, tmp_path)) == []


def test_wide_page_and_lost_picture_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "wide.html").write_text('<pre style="width:600px">x</pre><img src="nothing.png">')
    found = faults(measure([tmp_path / "wide.html"], tmp_path))
    assert [bool(re.search(r"wide.html at 390 px: 6\d\d px", found[0])), len(found)] == [True, 3]


OUTSIDE_OF_PAGE = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"(?:https?:)?//|<link\b[^>]*\bhref=\"(?:https?:)?//"
)
OUTSIDE_OF_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//")


def test_no_page_loads_anything_from_outside(pages: list[Path]) -> None:
    styles = list(SITE.rglob("*.css"))
    assert styles
    assert [str(page) for page in pages if OUTSIDE_OF_PAGE.search(page.read_text(encoding="utf-8"))] == []
    assert [str(style) for style in styles if OUTSIDE_OF_STYLE.search(style.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (OUTSIDE_OF_PAGE, '<script async src="https://host/x.js">'),
        (OUTSIDE_OF_PAGE, '<link rel="stylesheet" href="//host/x.css">'),
        (OUTSIDE_OF_STYLE, "@import 'https://host/font.css'"),
        (OUTSIDE_OF_STYLE, "src: url(https://host/font.woff2)"),
    ],
)
def test_load_from_outside_would_be_found(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)
