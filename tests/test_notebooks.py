"""The notebooks: what is stored is what they print, and they run from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.jobs import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST_BYTES = 3_000_000
OF_A_MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|private|var)/[\w.-]+")
"""A path that leads somewhere only where the notebook was run."""

stored = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook: Path) -> list[nbformat.NotebookNode]:
    return [
        cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"
    ]


def outputs(notebook: Path) -> list[nbformat.NotebookNode]:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_both_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["finetune_student", "inspect_labels"]


@stored
def test_a_stored_notebook_is_valid_and_small(notebook):
    nbformat.validate(nbformat.read(notebook, as_version=4))
    assert notebook.stat().st_size < LARGEST_BYTES


@stored
def test_every_cell_was_run_once_from_top_to_bottom(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


@stored
def test_outputs_are_stored_and_hold_no_error_or_warning(notebook):
    assert {output.output_type for output in outputs(notebook)} >= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert [
        output
        for output in outputs(notebook)
        if output.output_type == "error" or output.get("name") == "stderr"
    ] == []


@stored
def test_nothing_stored_names_a_path_of_the_machine_it_was_run_on(notebook):
    assert OF_A_MACHINE.findall(notebook.read_text(encoding="utf-8")) == []


def test_the_search_for_paths_finds_them():
    found = OF_A_MACHINE.findall(
        "at /home/someone/x, '/tmp/abc', file:///root/y; not labels/tmp/x or https://a.org/home/z"
    )
    assert found == ["/home/someone", "/tmp/abc", "/root/y"]


def test_the_stored_player_of_a_clip_plays_without_the_notebook():
    players = [
        output.data["text/html"]
        for output in outputs(ROOT / "notebooks" / "inspect_labels.ipynb")
        if "<iframe" in output.get("data", {}).get("text/html", "")
    ]
    assert len(players) == 1
    assert "data:video/mp4;base64" in players[0]


SIZES, SMALL = "VIDEOS, TEST_CLIPS, STEPS = 32, 24, 1000", "VIDEOS, TEST_CLIPS, STEPS = 3, 2, 8"
"""The stored run of the fine-tuning notebook takes most of an hour; here it has to work."""


def test_the_size_of_the_fine_tuning_is_set_in_one_line():
    sources = [cell.source for cell in code_cells(ROOT / "notebooks" / "finetune_student.ipynb")]
    assert sum(source.count(SIZES) for source in sources) == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@stored
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path):
    """In an empty folder, as it is after cloning; a cell that fails raises its own traceback."""
    node = nbformat.read(notebook, as_version=4)
    for cell in node.cells:
        cell.source = cell.source.replace(SIZES, SMALL)
    NotebookClient(node, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    errors = [
        text
        for cell in node.cells
        for text in cell.get("outputs", [])
        if text.get("name") == "stderr"
    ]
    assert errors == []
