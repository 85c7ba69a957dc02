"""A clip of two teachers, and a browser that shows it."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from labeler import open_dataset
from tests.support.browser import Browser


@pytest.fixture(scope="module")
def clip(dataset):
    """24 points in 16 frames by `near` and `still`; `still` says that they are occluded from frame
    8 on."""
    clip = open_dataset(str(dataset.folder))[0]
    still = clip.tracks["still"]
    visibility = np.where(np.arange(16) < 8, still.visibility, 0.25).astype(np.float32)
    return replace(clip, tracks={**clip.tracks, "still": replace(still, visibility=visibility)})


@pytest.fixture
def opened(chromium, tmp_path):
    """Opens a clip in a browser, which is closed at the end."""
    with contextlib.ExitStack() as stack:

        def open_clip(clip, **shown) -> Browser:
            clip.show(**shown).save(tmp_path / "clip.html")
            browser = Browser(chromium, tmp_path / "clip.html", tmp_path / "profile")
            stack.callback(browser.close)
            return browser

        yield open_clip


@pytest.fixture
def parted(clip, opened):
    """A browser in which the clip's teachers part in frames 5 and 12."""
    support = np.ones_like(clip.labels.support)
    support[:, 5], support[:4, 12] = 0.5, 0.5
    labels = replace(clip.labels, support=support, state=np.ones_like(clip.labels.state))
    return opened(replace(clip, labels=labels))
