"""`torch.compile` is asked for by name, is recorded, and changes no track beyond rounding."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pytest
import torch

import teachers
from tests.support.waves import translating

load = partial(teachers.load, checkpoint="random", device="cpu", mode="label", preset="mini")


def test_a_network_without_such_parts_is_refused():
    with pytest.raises(teachers.ConfigError, match="'xfeat': its network has no part that is comp"):
        teachers.load("xfeat", checkpoint="random", device="cpu", compiled=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
def test_compiled_parts_track_alike_in_clips_of_two_sizes():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, compiled = load("tapir"), load("tapir", compiled=True)
    assert "compiled" not in plain.info.settings
    assert compiled.info.settings["compiled"] is True
    queries = np.float32([[0, 20, 30], [5, 40, 20], [8, 31.5, 17]])
    for frames, height in ((12, 64), (9, 80)):
        clip = translating(frames=frames, height=height, width=96, velocity=(0.5, 0.25))
        expected, found = plain.track(clip, queries), compiled.track(clip, queries)
        np.testing.assert_allclose(found.xy, expected.xy, atol=1e-3)
        np.testing.assert_allclose(found.visibility, expected.visibility, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= len(plain.model.BF16_PARTS)
