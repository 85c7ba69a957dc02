"""Maps of frames that are put together keep the order in which a device wants them in memory."""

from __future__ import annotations

import pytest
import torch

from teachers.layers.clip_features import together


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("last", ["features", "columns"])
def test_maps_put_together_lie_in_memory_as_before(axis, last):
    maps = [torch.rand(1, 2, 3, 4, 5) for _ in range(3)]  # [B, T, h, w, C]
    if last == "columns":  # features first, as a convolution makes them
        maps = [each.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2) for each in maps]
    joined = together(maps, axis)
    assert torch.equal(joined, torch.cat(maps, axis))
    assert joined.stride()[2:] == maps[0].stride()[2:]
    assert joined.stride(4) == (1 if last == "features" else 12)
