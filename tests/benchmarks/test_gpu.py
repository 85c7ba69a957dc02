"""The one command for a GPU, tried without one: every table, small."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import FOUR, Asked, Bench, clip, counted_flops, moving_batch


def test_what_does_not_fit_the_time_is_said():
    lines = list(Bench(Asked(device="cpu", small=True, minutes=0)).run())
    text = "\n".join(lines)
    assert "TFLOP/s" in text
    assert "GB/s" in text
    for name in FOUR:
        assert f"| {name} | not run: out of time |" in lines
        assert f"| {name}, bf16 | not run: out of time |" in lines
    assert "| online | kept | not run: out of time |" in lines


@pytest.mark.slow
def test_every_table_is_filled():
    lines = list(Bench(Asked(device="cpu", small=True, teachers=FOUR, minutes=30)).run())
    assert not [line for line in lines if "not run" in line]
    (together,) = [line for line in lines if line.startswith("| the four, bf16")]
    rows = [line.split("|") for line in lines if line.startswith(tuple(f"| {n}," for n in FOUR))]
    of_each = [float(row[2]) for row in rows]
    assert abs(float(together.split("|")[2]) - sum(of_each)) < 0.01
    assert sum(line.startswith(("| offline |", "| online |")) for line in lines) == 4


def test_the_clip_moves_as_its_tracks_say():
    frames, queries = clip(6, 20, 30, 4)
    batch = moving_batch(6, 20, 30, 4)
    for row, (t, x, y) in enumerate(queries):
        for frame in range(6):
            assert batch.xy[0, row, frame].tolist() == pytest.approx([x - (frame - t), y], abs=1e-4)
    assert (frames[1, :, :-1] == frames[0, :, 1:]).all()


def test_products_that_end_in_a_gelu_are_counted():
    """A GPU computes wide layers of the transformers so, and torch's counter leaves them out."""
    x, weight, bias = torch.ones(8, 16), torch.ones(32, 16), torch.ones(32)
    with counted_flops() as flops:
        torch._addmm_activation(bias, x, weight.mT, use_gelu=True)
        torch.addmm(bias, x, weight.mT)
    assert flops.get_total_flops() == 2 * (2 * 8 * 16 * 32)
