"""The page of the worst mistakes: of each true class the clips that a run was most certain of, and wrong.

No video is opened: a thumbnail is what extraction left in the store.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from reelbank.heads.reports import html
from reelbank.heads.reports.clip_rows import ClipRow, Thumbnails
from reelbank.store.files import write_whole

MISTAKES, PAGE = "mistakes.html", "./report.html"
OPEN_CLASSES, PER_CLASS = 12, 8
"""Classes that are shown at once, the others open on a click; and clips of each."""
MOST_THUMBNAILS = 200
"""Pictures in all, about 3 kB each; further clips are text."""


def write_mistakes(
    folder: Path,
    rows: Sequence[ClipRow],
    split: str,
    thumbnails: Thumbnails,
    *,
    title: str,
    subtitle: str,
    warnings: Sequence[str] = (),
) -> Path | None:
    """Writes `mistakes.html` into `folder`; None, and no page, where no clip of `split` is judged by one class.

    Args:
        rows: of predictions.csv; a clip with several labels, or with a target alone, has no probability.
    """
    judged = [row for row in rows if row.split == split and row.correct is not None and row.probability is not None]
    path = folder / MISTAKES
    if not judged:
        return None
    wrong = by_class(judged)
    clips = Counter(row.label for row in judged)
    num_wrong = sum(map(len, wrong.values()))
    said = [f"Split {split}: {num_wrong} of {len(judged)} clips are taken for another class."]
    if num_wrong:
        said[0] += (
            f" Of each true class up to {PER_CLASS} are shown, those of which the run was most certain first; the "
            "classes with most mistakes come first."
        )
    body = html.paragraphs(said) + html.items([html.Link(text="the page of the run", target=PAGE)])
    places = _with_pictures(wrong)
    for place, (label, own) in enumerate(wrong.items()):
        heading = f"{label}: {len(own)} of {clips[label]} {'clip' if clips[label] == 1 else 'clips'} wrong"
        shown = [
            (row.clip_id, thumbnails.of(row.clip_id) if i < places[label] else "", _said(row))
            for i, row in enumerate(own[:PER_CLASS])
        ]
        if place < OPEN_CLASSES:
            body += html.cards([(heading, shown)])
        else:
            body += html.folded(heading, html.cards([("", shown)]))
    body += html.paragraphs(thumbnails.notes, kind="soft")
    write_whole(path, html.document(title=title, subtitle=subtitle, warnings=warnings, body=body))
    return path


def by_class(rows: Sequence[ClipRow]) -> dict[str, list[ClipRow]]:
    """{true class: its clips that are wrong, the highest probability of the wrong class first}.

    The class with most of them comes first, of equals in alphabetical order.
    """
    found: dict[str, list[ClipRow]] = defaultdict(list)
    for row in rows:
        if row.correct is False:
            found[row.label].append(row)
    ordered = sorted(found, key=lambda label: (-len(found[label]), label))
    return {label: sorted(found[label], key=lambda row: (-(row.probability or 0.0), row.clip_id)) for label in ordered}


def _with_pictures(wrong: Mapping[str, Sequence[ClipRow]]) -> dict[str, int]:
    """{class: how many of its clips have a picture}: all of the open ones, and what is left evenly of the others."""
    places, left, folded = {}, MOST_THUMBNAILS, len(wrong) - OPEN_CLASSES
    each = max(1, (MOST_THUMBNAILS - OPEN_CLASSES * PER_CLASS) // max(1, folded))
    for place, (label, own) in enumerate(wrong.items()):
        most = PER_CLASS if place < OPEN_CLASSES else each
        places[label] = min(len(own), most, PER_CLASS, left)
        left -= places[label]
    return places


def _said(row: ClipRow) -> str:
    true = "which training never saw" if row.true_probability is None else f"probability {row.true_probability:.2f}"
    return f"predicted {row.predicted}, probability {row.probability:.2f}; true {row.label}, {true}"
