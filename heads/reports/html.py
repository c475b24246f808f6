"""Reports as one self-contained HTML page: nothing is loaded from a network, and data is only ever text.

Pages are made of the parts below, whose HTML is in `templates/` (Jinja2, which escapes every value). Class names, file
names and notes are data from strangers: a part takes text, or HTML made of other parts where it says so; scripts carry
data as JSON that cannot end their element, and the page's content security policy runs only the scripts whose hash it
lists.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from reelbank.heads.reports.wording import DASH, cell

if TYPE_CHECKING:
    import numpy as np
    from jinja2 import Environment
    from numpy.typing import NDArray

    from reelbank.store.reader import Store

MOST_ROOMY_COLUMNS = 6
"""A table with more is set in smaller print, so that it fits the page."""
_JPEG_QUALITY = 65


@dataclass(frozen=True, kw_only=True)
class Script:
    """A script of ours; never made from data."""

    text: str

    @property
    def hash(self) -> str:
        """Its source expression in a content security policy."""
        return f"'sha256-{base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode()}'"


@dataclass(frozen=True, kw_only=True)
class Link:
    """A text that leads to a file beside the page; `link_to` makes it.

    Attributes:
        target: relative, percent-encoded: it can name no scheme.
    """

    text: str
    target: str


@dataclass(frozen=True, kw_only=True)
class _Cell:
    value: Any
    is_head: bool = False
    numeric: bool = False
    span: int = 1


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("reelbank.heads.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["cell"] = cell
    made.tests["link"] = lambda value: isinstance(value, Link)
    return made


def _part(name: str, *values: Any) -> str:
    return str(getattr(_templates().get_template("parts.html.j2").module, name)(*values))


def _as_html(text: str) -> Any:
    """HTML made of parts, which templates take as it is."""
    from markupsafe import Markup

    return Markup(text)


def document(*, title: str, subtitle: str, warnings: Iterable[str], body: str, scripts: Sequence[Script] = ()) -> str:
    """The whole page. `body` is HTML made of the parts below; the other texts are escaped."""
    allowed = " ".join(script.hash for script in scripts) or "'none'"
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            title=title,
            subtitle=subtitle,
            warnings=[text for text in dict.fromkeys(warnings) if text],
            headings=[(name, _as_html(text)) for name, text in re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', body)],
            body=_as_html(body),
            scripts=[_as_html(script.text) for script in scripts],
            policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}",
        )
    )


def section(heading: str, *parts: str) -> str:
    """A headed section of `parts` (HTML); nothing where all of them are empty."""
    content = "".join(parts)
    identifier = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
    return _part("section", identifier, heading, _as_html(content)) if content else ""


def paragraphs(texts: Iterable[str], *, kind: str = "") -> str:
    """One block of paragraphs; `kind` is a class of the style sheet."""
    said = [text for text in texts if text]
    return _part("paragraphs", said, kind) if said else ""


def items(texts: Iterable[str | Link]) -> str:
    """A list of texts and links."""
    said = [text for text in texts if text]
    return _part("items", said) if said else ""


def fact_table(rows: Iterable[tuple[str, Any]]) -> str:
    """What is known by name: (name, value), a list of values beside each other; without those that are not known."""
    known = [
        (name, value if isinstance(value, list) else [value]) for name, value in rows if value not in (None, "", [])
    ]
    return _part("facts", known) if known else ""


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, lead: int = 0, identifier: str = "") -> str:
    """A table; numbers are right-aligned, None is a dash. Nothing where there are no rows.

    Among the first `lead` cells of a row the first runs over those after it that are empty. A cell may be a Link.
    """
    lines = [list(row) for row in rows]
    if not lines:
        return ""
    if wrong := next((row for row in lines if len(row) != len(head)), None):
        raise ValueError(f"a row of {len(wrong)} cells below {len(head)} headings: {wrong}")
    numeric = [all(_is_number_like(row[i]) for row in lines) for i in range(len(head))]
    body = []
    for row in lines:
        span = next((i for i in range(1, lead) if row[i] != ""), lead) if lead and row[0] != "" else 1
        cells = [_Cell(value=value, numeric=number) for value, number in zip(row, numeric, strict=True)]
        if not numeric[0] and row[0] not in ("", None):
            cells[:span] = [_Cell(value=row[0], is_head=True, span=span)]
        body.append(cells)
    return _part("table", identifier, head, numeric, body, len(head) > MOST_ROOMY_COLUMNS)


def link_to(path: Path, folder: Path, text: str = "") -> Link | str:
    """A link from a page in `folder` to `path`, called `text` or its name; the text alone where no such file is."""
    shown = text or path.name
    if not path.exists():
        return shown
    try:
        relative = Path(os.path.relpath(path.resolve(), folder.resolve()))
    except ValueError:  # another drive has no relative path
        return shown
    # A leading "./" and the encoded colon: no name of a file becomes the scheme of an address.
    return Link(text=shown, target="./" + quote(relative.as_posix()))


def beside(name: str) -> Link:
    """A link to a file that is written into the folder of the page."""
    return Link(text=name, target="./" + quote(name))


def stored_in(store: Store, folder: Path) -> list[tuple[str, Link | str]]:
    """Links from a page in `folder` to a store and to the manifest that it was made of, where that is still there."""
    named = store.provenance.get("manifest")
    # Its path is relative to the store's folder.
    manifest = [("manifest", link_to(store.path.parent / named, folder))] if isinstance(named, str) and named else []
    return [("store", link_to(store.path, folder, f"{store.path.name} ({store.spec.backbone})")), *manifest]


def files_below(folder: Path, *, deep: bool = True, own: str = "report.html") -> list[Link | str]:
    """Links to the files of a folder, by name, with those of its folders where `deep`; `own` is the page itself."""
    found = folder.rglob("*") if deep else folder.iterdir()
    names = sorted(path.relative_to(folder).as_posix() for path in found if path.is_file())
    return [link_to(folder / name, folder, name) for name in names if name != own]


def is_png(content: bytes) -> bool:
    """Whether a file begins as a PNG does."""
    return content.startswith(b"\x89PNG") and len(content) >= 24


def picture(content: bytes, caption: str) -> str:
    """A PNG inside the page; the caption is its text for those who do not see it, too."""
    size = struct.unpack(">II", content[16:24]) if is_png(content) else None  # the page does not jump
    return _part("picture", f"data:image/png;base64,{base64.b64encode(content).decode()}", size, caption)


def thumbnail_source(rgb: NDArray[np.uint8]) -> str:
    """A picture (H, W, 3) as a small JPEG, as the source of an image; '' for one that is all black: there is none."""
    from PIL import Image

    if not rgb.any():
        return ""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def cards(rows: Sequence[tuple[str, Sequence[tuple[str, str, str]]]]) -> str:
    """(heading, [(name, source of its picture or '', text)]): clips beside each other, with or without a picture."""
    return _part("cards", rows) if rows else ""


def details(summary: str, text: str) -> str:
    """Preformatted text that opens on a click."""
    return _part("details", summary, text)


def folded(summary: str, content: str) -> str:
    """HTML made of the other parts, that opens on a click; nothing where it is empty."""
    return _part("folded", summary, _as_html(content)) if content else ""


def data_block(identifier: str, data: Any) -> str:
    """JSON for a script of the page. '<', '>' and '&' are written as escapes: it cannot end its element."""
    text = json.dumps(data, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return _part("data_block", identifier, _as_html(text))


def point_map(num_points: int, keys: Sequence[tuple[str, str, str]], place: str = "scatter") -> str:
    """The place of a map that a script draws, with its id, and its keys: (name, colour, mark)."""
    return _part("map", place, num_points, keys)


def _is_number_like(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, int | float)
        or (isinstance(value, str) and value[:1] in f"{DASH}-0123456789")
    )
