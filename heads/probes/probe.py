"""Looking at a store without a head: t-SNE, k-means, nearest neighbours, linear probe, its manifest, its views.

`probe(config)` fills one folder:

`results.json`     (written last) what was asked, what was found, warnings and notes; `analyses` holds one entry
                   per analysis: `explore`, `views`, those of `reelbank.heads.probes.PROBES`, and plug-ins
`coordinates.csv`  one line per row: clip_id, step ('' for a whole clip), split, label, group, target, and x, y
                   (with t-SNE), cluster (with k-means) and what other analyses give; not written where no
                   features were read
`*.png`            the pictures
`index.html`       all of it as one page that needs no network
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelbank.heads.probes import PROBES, Finding, Question
from reelbank.heads.probes.config import ProbeConfig
from reelbank.heads.probes.figures import GENERAL, PICTURES
from reelbank.manifests.events import Event, Progress
from reelbank.manifests.notebooks import with_bar
from reelbank.manifests.registry import Found
from reelbank.store.files import FILLING, filling, refuse_links, regular
from reelbank.store.processes import leave_if_importing

if TYPE_CHECKING:
    from reelbank.heads.probes import Probe
    from reelbank.heads.probes.exploration import Exploration
    from reelbank.heads.probes.rows import ProbeRows
    from reelbank.heads.probes.stored_views import StoredViews
    from reelbank.heads.reports.drawing import Heading
    from reelbank.store.reader import Store

OUTPUTS = (*PICTURES, "coordinates.csv", "index.html", "results.json")
"""What a probe may leave, beside the pictures of plug-ins."""

DEFAULT_PLAN = ("tsne", "knn")
"""Analyses where none is asked for."""


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What a probe found.

    Attributes:
        out: the folder.
        page: its index.html.
        pictures: its PNG files, and the same in the format that was asked for.
        results: the content of results.json.
        verdict: the sentences a person wants to read first.
        warning: the sentence every report must show; '' for none.
    """

    out: Path
    page: Path
    pictures: tuple[Path, ...]
    results: dict[str, Any]
    verdict: tuple[str, ...]
    warning: str

    def text(self) -> str:
        """The findings for a person: sentences, then where the page is that shows the pictures."""
        lines = [*([self.warning] if self.warning else []), *self.verdict, f"Page: {self.page}"]
        return "\n".join(lines)


@with_bar("probe")
def probe(config: ProbeConfig, progress: Progress | None = None) -> ProbeResult:
    """Runs the analyses of `config` on a store and writes the folder described above.

    Raises:
        ValueError: no or several stores, an unknown tap or column, too few rows (with their number), or an
            output folder that holds other files.
        StoreError: a path that is not a store.
        PluginError: an analysis from outside that fails or gives what it must not.
    """
    leave_if_importing()
    from reelbank.heads.reports.drawing import figures_as

    with figures_as(config.figures):
        return _probe(config, progress)


def _probe(config: ProbeConfig, progress: Progress | None) -> ProbeResult:
    import reelbank.store
    from reelbank.heads.probes.rows import default_store, load_rows
    from reelbank.heads.reports.drawing import Heading
    from reelbank.store.description import random_weights_warning

    began = time.monotonic()
    store = reelbank.store.open(config.store or default_store(Path.cwd()))
    tap = config.tap or store.default_tap
    out = config.out or Path(f"{store.path.name.removesuffix('.zarr')}-probe")
    plan = config.asked() or ([] if config.explore or config.views else [*DEFAULT_PLAN])
    former = {*OUTPUTS, *(file for name in plan for file in PROBES.row(name).captions(name)), *_files_before(out)}
    require_free(out, former)
    options = {name: config.options_of(name) for name in plan}
    warning = random_weights_warning([store.spec.backbone]) if store.weights_are_random else ""
    source = f"{store.path.name} · {store.spec.backbone}"
    tell = _Teller(progress, config.explore + config.views + (len(plan) + 1 if plan else 0) + 1)
    page = _Page(store=store, config=config, tap=tap, source=source, warning=warning)
    if config.explore:
        from reelbank.heads.probes.exploration import explore

        tell("explore", f"manifest and ledger of {store.path.name}")
        page.exploration = explore(store, label=config.label, target=config.target)
    if config.views:
        from reelbank.heads.probes.stored_views import stored_views

        tell("views", f"frames of {store.path.name}")
        page.views = stored_views(store, tap=config.tap, clip_ids=config.clip)
    if plan:
        tell("load", f"reading tap {tap} of {store.path.name}")
        rows = page.rows = load_rows(
            store,
            tap=tap,
            level=config.level,
            view=config.view,
            normalize=config.normalize,
            label_column=config.label,
            target_column=config.target,
            highlight=config.highlight,
        )
        _require_rows(config, rows, num_steps=int(store.num_steps[store.done_rows()].sum()))
        page.notes += rows.notes
        count = f"n = {len(rows)} {'clips' if config.level == 'clip' else f'steps of {rows.num_clips} clips'}"
        page.heading = Heading(source=f"{source} · tap {tap}", count=count, warning=warning)
        questions = {
            name: Question(
                rows=rows, options=options[name], seed=config.seed, device=config.device, heading=page.heading
            )
            for name in plan
        }
        for name in page.without(_impossible(questions), is_asked=bool(config.asked())):
            plan.remove(name)
        for name in plan:
            tell(name, f"{len(rows)} rows of {rows.vectors.shape[1]} numbers")
            try:
                page.findings[name] = _answer(PROBES.find(name), questions[name])
            except BaseException as error:  # an interrupt as well: what took minutes is not thrown away
                if page.findings:
                    page.notes.append(f"{name} did not finish, and what was asked after it was not begun.")
                    page.write(out, former, began)
                    error.add_note(f"what was finished before ({', '.join(page.findings)}) is in {out}")
                raise
    tell("report", str(out))
    return page.write(out, former, began)


class _Teller:
    """Sends events; counts the parts of one probe."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, stage: str, message: str) -> None:
        if self._progress is not None:
            self._progress(Event(stage=stage, done=self._done, total=self._total, message=message))
        self._done += 1


def _files_before(out: Path) -> list[str]:
    """What the results of a former probe in this folder say it wrote."""
    try:
        files = json.loads(regular(out / "results.json").read_text(encoding="utf-8"))["files"]
        return [str(name) for name in files if Path(str(name)).name == name]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def require_free(out: Path, former: set[str], *, writer: str = "probe") -> None:
    """Raises ValueError for a folder that holds more than files called as in `former`, those of a former `writer`."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; give a folder")
    refuse_links(out, ValueError)
    names = [path.name for path in out.iterdir()] if out.exists() else []
    if others := sorted(name for name in names if name not in former and not name.startswith(f".{FILLING}-")):
        raise ValueError(
            f"--out {out} holds files that no {writer} wrote ({', '.join(others[:3])}); give another folder"
        )


def _require_rows(config: ProbeConfig, rows: ProbeRows, *, num_steps: int) -> None:
    if config.kmeans is None or config.kmeans <= len(rows):
        return
    asked = f"--kmeans {config.kmeans}: {config.kmeans} clusters asked, {len(rows)} rows found"
    if config.level == "step":
        raise ValueError(f"{asked} (steps of {rows.num_clips} clips); ask for at most {len(rows)}")
    raise ValueError(
        f"{asked} (one per clip); ask for at most {len(rows)}, or pass --level step, "
        f"which clusters their {num_steps} steps instead of clips"
    )


def _impossible(questions: Mapping[str, Question]) -> dict[str, str]:
    """{analysis: what the rows lack for it}, of those that cannot be done."""
    lacks = {}
    for name, question in questions.items():
        found = PROBES.find(name)
        if not found.row.check:
            continue
        try:
            with nullcontext() if found.plugin is None else found.plugin.running(found.row.check):
                found.load(found.row.check)(question)
        except ValueError as error:
            lacks[name] = str(error)
    return lacks


def _answer(found: Found[Probe], question: Question) -> Finding:
    """What an analysis finds. Raises PluginError naming the field of a plug-in's finding that is wrong."""
    analyse = found.load(found.row.target)
    if found.plugin is None:
        own: Finding = analyse(question)
        return own
    with found.plugin.running(found.row.target):
        finding = analyse(question)
    if not isinstance(finding, Finding):
        raise found.plugin.wrong(f"{found.row.target} gave a {type(finding).__name__}, expected a Finding")
    if unknown := sorted(set(finding.pictures) - set(found.row.captions(found.name))):
        raise found.plugin.wrong(f"Finding.pictures has {unknown[0]!r}, which is not in Probe.pictures")
    size = len(question.rows)
    if found.row.is_map != (finding.coordinates is not None):
        raise found.plugin.wrong(f"Probe.is_map is {found.row.is_map}; Finding.coordinates must be there just then")
    if finding.coordinates is not None and finding.coordinates.shape != (size, 2):
        raise found.plugin.wrong(f"{finding.coordinates.shape = }, expected ({size}, 2)")
    for name, values in finding.columns.items():
        if len(values) != size:
            raise found.plugin.wrong(f"Finding.columns[{name!r}] has {len(values)} values, expected {size}")
    return finding


# --- the folder ----------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Page:
    """What the page and the files are made of."""

    store: Store
    config: ProbeConfig
    tap: str
    source: str
    warning: str

    def __post_init__(self) -> None:
        self.rows: ProbeRows | None = None
        self.heading: Heading | None = None
        self.exploration: Exploration | None = None
        self.views: StoredViews | None = None
        self.findings: dict[str, Finding] = {}
        self.notes: list[str] = []

    def without(self, lacks: Mapping[str, str], *, is_asked: bool) -> list[str]:
        """Analyses that are left out, with a note each: those that nobody asked for, where others are left.

        Raises:
            ValueError: what the rows lack for one that was asked for, before any is run.
        """
        if lacks and (is_asked or len(lacks) == len(DEFAULT_PLAN)):
            raise ValueError("\n".join(lacks.values()))
        self.notes += [f"{PROBES.row(name).title} was left out: {why}." for name, why in lacks.items()]
        return list(lacks)

    def pictures(self) -> dict[str, tuple[bytes, str]]:
        """{file name: (PNG, caption)}, those of the analyses in their order first."""
        from reelbank.heads.probes.figures import draw_map, draw_rows
        from reelbank.heads.reports.drawing import Heading

        drawn: dict[str, tuple[bytes, str]] = {}
        general: dict[str, bytes] = {}
        for name, finding in self.findings.items():
            row, own = PROBES.row(name), dict(finding.pictures)
            assert self.rows is not None and self.heading is not None
            if finding.coordinates is not None:
                own |= draw_map(name, row.title or name, self.rows, finding.coordinates, self.heading)
            drawn |= {file: (own[file], caption) for file, caption in row.captions(name).items() if file in own}
        if self.rows is not None and self.heading is not None:
            general = draw_rows(self.rows, self.heading)
        if self.exploration is not None:
            from reelbank.heads.probes.exploration_figures import draw_exploration

            # Every clip of the manifest, with features or not, instead of the pictures of those that were read.
            heading = Heading(source=self.source, count=f"n = {len(self.exploration)} clips", warning=self.warning)
            general |= draw_exploration(self.exploration, heading)
        if self.views is not None:
            from reelbank.heads.probes.stored_views import draw_views
            from reelbank.heads.reports.drawing import png

            source = f"{self.source} · tap {self.views.tap}"
            heading = Heading(source=source, count="the middle step of each clip", warning=self.warning)
            general["stored-views.png"] = png(draw_views(self.views, heading))
        return drawn | {file: (general[file], caption) for file, caption in GENERAL.items() if file in general}

    def write(self, out: Path, former: set[str], began: float) -> ProbeResult:
        from reelbank.heads.probes.report import probe_page, verdict
        from reelbank.heads.reports.drawing import files_of

        store, rows, pictures = self.store, self.rows, self.pictures()
        drawn = {
            file: data for name, (content, _) in pictures.items() for file, data in files_of(name, content).items()
        }
        analyses = {"explore": self.exploration.to_json()} if self.exploration is not None else {}
        analyses |= {"views": self.views.to_json()} if self.views is not None else {}
        analyses |= {name: dict(finding.numbers) for name, finding in self.findings.items()}
        self.notes += self.views.notes() if self.views is not None else []
        notes = dict.fromkeys([*self.notes, *(note for finding in self.findings.values() for note in finding.notes)])
        plugins = [plugin.identity() for name in self.findings if (plugin := PROBES.plugin(name)) is not None]
        results: dict[str, Any] = {
            "format_version": 1,
            "store": store.path.name,
            "backbone": store.spec.backbone,
            "weights": dict(store.spec.weights),
            "sampling": store.spec.sampling,
            "spec_digest": store.spec_digest,
            "weights_are_random": store.weights_are_random,
            "warning": self.warning,
            "config": {name: _plain(value) for name, value in asdict(self.config).items()}
            | {"tap": self.tap if rows is not None else None},
            **_counts(rows if rows is not None else self.exploration or self.views),
            "analyses": analyses,
            "plugins": plugins,
            "notes": list(notes),
            "seconds": round(time.monotonic() - began, 3),
        }
        results["verdict"] = list(verdict(results, self.findings))
        results["files"] = [
            *drawn, *(["coordinates.csv"] if rows is not None else []), "index.html", "results.json",
        ]  # fmt: skip
        page = probe_page(store, rows, self.findings, results, pictures, out)
        text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
        with filling(out, stale=former, last="results.json") as made:
            for name, content in drawn.items():
                (made / name).write_bytes(content)
            if rows is not None:
                _write_coordinates(made / "coordinates.csv", rows, self.findings)
            (made / "index.html").write_text(page, encoding="utf-8")
            (made / "results.json").write_text(text + "\n", encoding="utf-8")
        return ProbeResult(
            out=out,
            page=out / "index.html",
            pictures=tuple(out / name for name in drawn),
            results=results,
            verdict=tuple(results["verdict"]),
            warning=self.warning,
        )


def _counts(looked_at: ProbeRows | Exploration | StoredViews | None) -> dict[str, Any]:
    """How much was looked at: rows of features, else the clips of the manifest, else those that were drawn."""
    import numpy as np

    from reelbank.heads.examples.splits import count_groups

    assert looked_at is not None
    vectors = getattr(looked_at, "vectors", None)
    return {
        "num_rows": len(looked_at),
        "num_clips": getattr(looked_at, "num_clips", len(looked_at)),
        "num_dimensions": None if vectors is None else vectors.shape[1],
        "num_groups": len(set(looked_at.groups.tolist()) - {""})
        if vectors is None
        else count_groups(looked_at.groups, np.arange(len(looked_at))) or 0,
        "labels": sorted(set(looked_at.labels.tolist()) - {""}),
        "target_name": looked_at.target_name or None,
    }


def _write_coordinates(path: Path, rows: ProbeRows, findings: Mapping[str, Finding]) -> None:
    columns: dict[str, Sequence[Any]] = {
        "clip_id": rows.clip_ids.tolist(),
        "step": ["" if step < 0 else step for step in rows.steps.tolist()],
        "split": rows.splits.tolist(),
        "label": rows.labels.tolist(),
        "group": ["" if group.startswith("c:") else group[2:] for group in rows.groups.tolist()],
    }
    if rows.target is not None:
        columns["target"] = ["" if value != value else value for value in rows.target.tolist()]
    for name, finding in findings.items():
        if finding.coordinates is not None:
            prefix = f"{name}_" if "x" in columns else ""
            for i, axis in enumerate("xy"):
                columns[prefix + axis] = [f"{value:.6g}" for value in finding.coordinates[:, i].tolist()]
        columns |= finding.columns
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
