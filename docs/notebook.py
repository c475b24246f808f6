"""The notebook of the docs: `python docs/notebook.py` executes it and keeps what it showed.

`docs/generate.py` makes a page of it, so that the site needs no extension for notebooks; a test executes it, too.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).resolve().parent / "notebooks" / "first-hour.ipynb"
CELL_SECONDS = 300
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_BAR = re.compile("[━╸╺]")


def executed(path: Path, folder: Path) -> Any:
    """The notebook with its outputs, run in `folder` by a kernel of this Python. Raises what a cell raised."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook, timeout=CELL_SECONDS, record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    here = str(Path(sys.executable).parent)  # `!reelbank` is this Python's
    client.execute(env={**os.environ, "PATH": os.pathsep.join([here, os.environ.get("PATH", "")])})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _settled(cell.outputs)
    return notebook


def _settled(outputs: list[Any]) -> list[Any]:
    """What stays to be seen: of text with a moving bar the last state, in one piece."""
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    lines = [_CONTROL.sub("", line.rstrip("\r")).rpartition("\r")[2].rstrip() for line in text.splitlines()]
    kept = [output for output in outputs if output.output_type != "stream"]
    if said := [line for line in lines if line and not _BAR.search(line)]:
        first = next(output for output in outputs if output.output_type == "stream")
        first.text = "\n".join(said) + "\n"
        kept.insert(0, first)
    return kept


def markdown(notebook: Any) -> str:
    """The cells as a page of MyST: Python in blocks, what it showed below them."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        language = "bash" if source.startswith("!") else "python"
        parts.append(f"```{language}\n{source.removeprefix('!')}\n```")
        parts += [_shown(output) for output in cell["outputs"]]
    return "\n\n".join(parts)


def _shown(output: Any) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        png = "".join("".join(data["image/png"]).split())
        return f'```{{raw}} html\n<img alt="" style="max-width:100%" src="data:image/png;base64,{png}">\n```'
    if "text/html" in data:
        return f'```{{raw}} html\n<div style="overflow-x:auto">{"".join(data["text/html"])}</div>\n```'
    text = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
    return f"```text\n{text}\n```"


def main() -> None:
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(NOTEBOOK, Path(folder))
    nbformat.write(notebook, NOTEBOOK)  # type: ignore[no-untyped-call]
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
