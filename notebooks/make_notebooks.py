"""Runs the notebooks of this folder from top to bottom, and stores them with their outputs.

python notebooks/make_notebooks.py [NAME ...]

What a notebook writes goes to a temporary folder, whose name is taken out of the outputs: they say
`labels`, not where that was.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
TIMEOUT_S = 7200
"""Of one cell."""


def executed(notebook: Path) -> nbformat.NotebookNode:
    """The notebook with new outputs; a CellExecutionError if a cell fails."""
    with tempfile.TemporaryDirectory() as folder:
        node = nbformat.read(notebook, as_version=4)
        NotebookClient(
            node, timeout=TIMEOUT_S, record_timing=False, resources={"metadata": {"path": folder}}
        ).execute()
        node.metadata.pop("widgets", None)
        return nbformat.reads(nbformat.writes(node).replace(f"{folder}/", ""), as_version=4)


def main(names: list[str]) -> None:
    for notebook in [FOLDER / f"{name}.ipynb" for name in names] or sorted(FOLDER.glob("*.ipynb")):
        print(f"running {notebook.name}")
        nbformat.write(executed(notebook), notebook)


if __name__ == "__main__":
    main(sys.argv[1:])
