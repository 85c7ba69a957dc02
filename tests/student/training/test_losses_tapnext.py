"""The training loss: equal to that of the torch release (`tapnext_loss`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from student.training.losses_tapnext import TapNextLoss, tapnext_loss
from tests.support import parity

CASE = "tapnext_loss"


@pytest.mark.parametrize(
    ("dtype", "suffix", "relative"), [(torch.float64, "f64", 1e-9), (torch.float32, "f32", 1e-5)]
)
def test_every_term_equals_the_official_one(dtype, suffix, relative):
    case, (xy, visible_logit, logits, truth, visible) = parity.case(CASE), inputs(dtype)
    terms = tapnext_loss(xy, visible_logit, logits, truth, visible, official_quirks=True)
    for name in ("huber", "softmax", "visibility", "total"):
        assert getattr(terms, name).item() == pytest.approx(
            float(case[f"{name}_{suffix}"]), rel=relative
        )


def test_gradients_equal_the_official_ones():
    case, (xy, visible_logit, logits, truth, visible) = parity.case(CASE), inputs(torch.float64)
    given = [value.requires_grad_() for value in (xy, visible_logit, logits)]
    grads = torch.autograd.grad(
        tapnext_loss(*given, truth, visible, official_quirks=True).total, given
    )
    close = {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(grads[0].flip(-1), case["grad_tracks"], **close)
    np.testing.assert_allclose(grads[1][..., None], case["grad_visible_logit"], **close)
    np.testing.assert_allclose(grads[2], case["grad_coord_logits"], rtol=1e-6, atol=1e-9)


def test_hidden_points_have_no_say_in_the_softmax_unless_quirks_are_asked_for():
    case, given = parity.case(CASE), inputs(torch.float64)
    assert tapnext_loss(*given).softmax.item() == pytest.approx(
        float(case["fixed_softmax_f64"]), rel=1e-9
    )


def test_a_clip_in_which_nothing_is_seen_has_a_loss():
    xy, visible_logit, logits, truth, visible = inputs(torch.float32)
    terms: TapNextLoss = tapnext_loss(xy, visible_logit, logits, truth, torch.zeros_like(visible))
    assert (terms.huber.item(), terms.softmax.item()) == (0, 0)
    assert terms.total.item() == terms.visibility.item() > 0


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As the case describes them; components there are (y, x), targets (x, y)."""

    def drawn(name: str, *shape: int) -> np.ndarray:
        return parity.uniform(f"loss/{name}", shape)

    b, t, q = 1, 5, 4
    pred = 128 * (drawn("pred", b, t, q, 2) + 1)
    target = pred + drawn("err", b, t, q, 2) * np.where(drawn("far", b, t, q, 1) > 0, 6, 0.9)
    target[0, 0, 0] = (-3, 258.5)
    target[0, 1, 1] = (255.9, 0.2)
    visible = torch.from_numpy(drawn("vis", b, t, q, 1) > -0.3)[..., 0]
    values = (
        pred[..., ::-1],
        3 * drawn("vislogit", b, t, q, 1)[..., 0],
        4 * drawn("logits", b, t, q, 512),
        target[..., ::-1],
    )
    xy, logit, logits, truth = (
        torch.from_numpy(value.astype(np.float32)).to(dtype) for value in values
    )
    return xy, logit, logits, truth, visible
