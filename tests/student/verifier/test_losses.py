"""The loss of a verifier: equal to the published training (`verifier_loss`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from student.verifier.losses import counted_frames, reliability, reliability_loss
from tests.support import parity
from tests.support.verifier import inputs, network_of


@pytest.fixture(scope="module")
def case() -> parity.Case:
    return parity.case("verifier_loss")


def test_the_target_is_the_published_one(case):
    _, _, candidates = inputs(case, torch.float64)
    target = reliability(candidates, torch.from_numpy(case["truth"]).double().transpose(0, 1))
    np.testing.assert_allclose(target.permute(2, 1, 0), case["target_f64"], atol=1e-12)


def test_the_frames_that_count_are_the_published_ones(case):
    visible = torch.from_numpy(case["visible"]).T
    counted = counted_frames(torch.from_numpy(case["queries"]), visible)
    np.testing.assert_array_equal(counted.T, case["counted"])
    assert not counted[-1].any()  # a query in the last frame


def test_the_loss_in_float32_equals_the_published_one(case):
    frames, queries, candidates = inputs(case)
    truth, counted = (torch.from_numpy(case[name]).transpose(0, 1) for name in ("truth", "counted"))
    with torch.inference_mode():
        logits = network_of(case)(frames, queries, candidates)
    loss = reliability_loss(logits, candidates, truth, counted)
    np.testing.assert_allclose(loss, case["loss_f32"], rtol=1e-5)


def test_the_loss_and_every_gradient_equal_the_published_ones(case):
    frames, queries, candidates = inputs(case, torch.float64)
    truth, counted = (torch.from_numpy(case[name]).transpose(0, 1) for name in ("truth", "counted"))
    verifier = network_of(case).double().requires_grad_(True)
    verifier.cnn_encoder.requires_grad_(False)
    logits = verifier(frames, queries, candidates)
    logits.retain_grad()
    loss = reliability_loss(logits, candidates, truth.double(), counted)
    loss.backward()

    np.testing.assert_allclose(loss.item(), case["loss_f64"], rtol=1e-7)
    gradients = {key: p.grad.numpy() for key, p in verifier.named_parameters() if p.requires_grad}
    expected = {
        name.removeprefix("grad/"): value
        for name, value in case.arrays.items()
        if name.startswith("grad/")
    }
    assert len(expected) == 10
    for key, theirs in expected.items():
        close(gradients[key], theirs)
    close(logits.grad.permute(2, 1, 0).numpy(), case["grad_logits_f64"])
    close(gradients["time_emb"][0, 1], case["grad_time_emb_row1"])
    norms = [np.linalg.norm(gradients[key]) for key in case.meta["grad_norm_keys"]]
    np.testing.assert_allclose(norms, case["grad_norms"], rtol=1e-6, atol=1e-12)
    assert sorted(gradients) == sorted(case.meta["grad_norm_keys"])


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())


def test_where_no_frame_counts_the_loss_is_zero_and_so_is_its_gradient():
    logits = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    candidates, truth = torch.ones(3, 2, 4, 2), torch.zeros(2, 4, 2)
    loss = reliability_loss(logits, candidates, truth, torch.zeros(2, 4, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()
