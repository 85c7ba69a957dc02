"""The documentation is true: its Python snippets run, and its links lead somewhere."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SNIPPETS = [
    pytest.param(page, snippet, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, snippet in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves tars open; they are closed by the collector below
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("page", "snippet"), SNIPPETS)
def test_a_snippet_runs(page, snippet, dataset, frames_and_queries):
    """Snippets may use `folder` (a data set of two teachers, `still` and `near`), `frames`, and `queries`."""
    frames, queries = frames_and_queries
    snippet = snippet.replace('"lk.npz"', '"still.npz"').replace('tracks["lk"]', 'tracks["still"]')  # the fixture's teachers
    exec(compile(snippet, str(page), "exec"), {"folder": str(dataset.folder), "frames": frames, "queries": queries})
    gc.collect()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"
