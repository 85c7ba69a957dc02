"""The clip of a module's tests, from its `CLIP` and the number of its `QUERIES`."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import parity


@pytest.fixture(scope="module")
def frames(request: pytest.FixtureRequest) -> np.ndarray:
    """uint8 [T, H, W, 3]"""
    return parity.video(**request.module.CLIP)


@pytest.fixture(scope="module")
def queries(request: pytest.FixtureRequest) -> np.ndarray:
    """[N, 3]"""
    clip, count = request.module.CLIP, request.module.QUERIES
    return parity.queries(clip["seed"], count, clip["T"], clip["H"], clip["W"])
