"""A labelled data set of odd names, and its reports, for the tests of `tapdistill inspect`."""

from __future__ import annotations

import pytest

from benchmarks.harness.jobs import NEAR, STILL, config, write_moving
from pipelines import label
from pipelines.reports import dataset as inspect_report
from tests.support.inspecting import HOSTILE, inspect


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four clips: two of a.mp4 by `Still` and `Near`, one of b.mp4, one of a hostile name; and a
    file that is no video."""
    root = tmp_path_factory.mktemp("inspect")
    (root / "videos").mkdir()
    for seed, (name, frames) in enumerate((("a.mp4", 34), ("b.mp4", 16), (f"{HOSTILE}.mp4", 16))):
        write_moving(root / "videos" / name, seed, frames)
    (root / "videos" / f"{HOSTILE} broken.mp4").write_text("no video")
    label(config(root / "videos", root / "labels", (STILL, NEAR)))
    return root


@pytest.fixture(scope="module")
def page(folder):
    assert inspect(folder, "--out", folder / "report") == 0
    return folder / "report" / "index.html"


@pytest.fixture(scope="module")
def split_page(folder):
    """The same report, whose players are too large for one page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect_report, "ONE_FILE_BYTES", 10_000)
        assert inspect(folder, "--out", folder / "split.html") == 0
    return folder / "split.html"
