"""The notebook of the docs does what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from docs_pages import ROOT

from reelbank.docs.notebook import NOTEBOOK, executed, markdown
from reelbank.heads.fitting import forests

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

MAX_BYTES = 250_000


@pytest.fixture(scope="module")
def committed() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def kinds(notebook: Any) -> list[tuple[str, list[list[str]]]]:
    """(source, what kinds of output) of every code cell."""
    return [
        (cell.source, [sorted(output.get("data", [output.get("name", "")])) for output in cell.outputs])
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_committed_notebook_was_executed_and_is_small(committed: Any) -> None:
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "widget" not in text and "\\u001b" not in text and str(ROOT) not in text and "/tmp" not in text


def test_every_cell_runs_and_shows_what_the_committed_one_does(
    committed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a kernel that grows as few trees as the tests do."""
    trees = "\n".join(f"forests.{name} = {getattr(forests, name)}" for name in ("MOST_TREES", "LEAST_TREES"))
    (tmp_path / "startup.py").write_text(f"from reelbank.heads.fitting import forests\n{trees}\n")
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "startup.py"))
    ran = executed(NOTEBOOK, tmp_path)
    assert kinds(ran) == kinds(committed)
    said = ["\n".join(str(output.get("data", output)) for output in cell.get("outputs", [])) for cell in ran.cells]
    for call in ("featurize", "train-head", "predict"):
        assert any(f"{call}: done, " in text for text in said), call
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_page_shows_cells_and_outputs(committed: Any) -> None:
    page = markdown(committed)
    assert page.startswith("# The first hour in a notebook\n")
    assert page.count("```python\n") + page.count("```bash\n") == len(kinds(committed))
    assert "data:image/png;base64," in page and "<b>Store</b> flow.zarr" in page and "featurize: done" in page
    assert page.count("```") % 2 == 0
