"""The scan: equal to the plain loop, in values and gradients, and safe where everything is
forgotten at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from teachers.tapnext.recurrence import (
    BlockDiagonal,
    BoundedRoot,
    CausalConvolution,
    RgLru,
    scan,
    scan_by_steps,
)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 9, 10, 24, 97])
def test_the_scan_equals_the_loop_in_values_and_gradients(frames):
    inputs = [value.requires_grad_() for value in decays(frames)]
    ours, plain = scan(*inputs), scan_by_steps(*inputs)
    torch.testing.assert_close(ours, plain, atol=1e-12, rtol=1e-10)
    weight = torch.randn(
        ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)
    )
    of_ours, of_plain = (
        torch.autograd.grad((value * weight).sum(), inputs, retain_graph=True)
        for value in (ours, plain)
    )
    for one, other in zip(of_ours, of_plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)


def test_the_scan_survives_decays_that_underflow():
    """exp(-80) a frame: in a form with cumulated logarithms, 1/a would overflow in the second
    frame."""
    a = torch.full((1, 50, 1, 2), 1e-35)
    b = torch.ones(1, 50, 1, 2)
    torch.testing.assert_close(
        scan(a, b, torch.full((1, 1, 2), 1e30)), torch.ones(1, 50, 1, 2), atol=2e-5, rtol=0
    )


def test_the_scan_of_long_clips_takes_few_steps(monkeypatch):
    steps = []
    real = torch.addcmul
    monkeypatch.setattr(
        torch, "addcmul", lambda *args, **settings: steps.append(1) or real(*args, **settings)
    )
    scan(*decays(400))
    assert len(steps) <= 40  # 2 sqrt(400)


def test_the_convolution_puts_its_last_tap_on_the_current_frame():
    convolution = CausalConvolution(1).requires_grad_(False)
    convolution.w[:] = torch.tensor([[1.0], [10], [100], [1000]])
    convolution.b[:] = 0.5
    u = torch.tensor([0.0, 0, 0, 1, 2, 3, 4])[None, :, None, None]
    assert convolution(u).flatten().tolist() == [1000.5, 2100.5, 3210.5, 4321.5]


def test_heads_of_a_block_diagonal_layer_do_not_see_each_other():
    layer = BlockDiagonal(8, 2).requires_grad_(False)
    dense = torch.block_diag(*layer.w)
    layer.b[:] = torch.arange(8.0).view(2, 4)
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), x @ dense + torch.arange(8.0))


def test_the_first_frame_of_a_stream_enters_whole_and_later_ones_keep_the_variance():
    """By hand: with gates of weight 0 and bias 0, g = i = 1/2 and log a = -4 softplus(a_param)."""
    unit = RgLru(1, 1).requires_grad_(False)
    for gate in (unit.a_gate, unit.input_gate):
        gate.w.zero_()
    unit.a_param[:] = 0.0
    a = 2.0**-4  # softplus(0) = ln 2
    keep = (1 - a**2) ** 0.5
    c = torch.tensor([2.0, 4.0])[None, :, None, None]
    assert unit(c, None).flatten().tolist() == pytest.approx([1.0, a * 1.0 + keep * 2.0])
    assert unit(c, torch.full((1, 1, 1), 8.0)).flatten()[0].item() == pytest.approx(
        a * 8 + keep * 1.0
    )


def test_the_gradient_of_the_root_is_bounded_where_nothing_is_forgotten():
    x = torch.tensor([0.0, 1e-12, 0.25, 1.0], requires_grad=True)
    root = BoundedRoot.apply(x)
    assert root.tolist() == pytest.approx([0, 1e-6, 0.5, 1])
    assert torch.autograd.grad(root.sum(), x)[0].tolist() == pytest.approx([1000, 1000, 1, 0.5])


def decays(frames: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(frames)
    a = torch.rand(2, frames, 3, 4, generator=generator, dtype=torch.float64)
    b = torch.randn(2, frames, 3, 4, generator=generator, dtype=torch.float64)
    return a, b, torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
