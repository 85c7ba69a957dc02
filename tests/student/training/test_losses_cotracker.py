"""Losses of CoTracker3: equal to those of the published training scripts, in value and in gradient
(`ct3_loss_*`)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from student.training.losses import LossConfig, TapirLossConfig, from_query_on, huber
from student.training.losses_cotracker import (
    CoTrackerTargets,
    confidence_loss,
    held_losses,
    position_loss,
    position_losses,
    visibility_loss,
)
from teachers.cotracker.cotracker3 import Refinements
from teachers.errors import ConfigError
from tests.support import parity

NOISE_SCALES = [24, 16, 10, 6, 5, 4]


class Inputs:
    """Clip and predictions of a loss case, built from its seed: the formula is in
    `meta["inputs"]`."""

    def __init__(self, case: parity.Case, dtype: torch.dtype) -> None:
        spec = case.meta["inputs"]
        seed, frames, points = spec["seed"], spec["T"], spec["N"]

        def u(name: str, *shape: int) -> np.ndarray:
            return parity.uniform(f"loss/{name}", shape)

        def ours(
            array: np.ndarray,
        ) -> Tensor:  # [..., T, N, c] -> [..., N, T, c] with the axis of one clip in front of N
            return torch.from_numpy(array).to(dtype)

        traj = (u(f"traj/{seed}", frames, points, 2) + 1) / 2 * [127, 95]
        visible = u(f"vis/{seed}", frames, points) > -0.3
        valid = u(f"valid/{seed}", frames, points) > -0.7
        query_frames = np.floor((u(f"qframe/{seed}", points) + 1) / 2 * frames)
        self.xy = ours(traj).transpose(0, 1)[None]
        self.visible = torch.from_numpy(visible).T[None]
        self.valid = torch.from_numpy(valid).T[None]
        self.query_mask = from_query_on(torch.from_numpy(query_frames)[None], frames)
        self.windows, self.vis, self.conf = [], [], []
        for w, (first, end) in enumerate(spec["windows"]):
            steps = range(spec["iters"])
            shape = (end - first, points)
            xy = [
                traj[first:end] + NOISE_SCALES[i] * u(f"pred/{seed}/{w}/{i}", *shape, 2)
                for i in steps
            ]
            vis, conf = (
                np.stack([0.5 + 0.49 * u(f"{name}/{seed}/{w}/{i}", *shape) for i in steps])
                for name in ("predvis", "predconf")
            )
            self.vis.append(ours(vis).transpose(1, 2)[:, None].requires_grad_())
            self.conf.append(ours(conf).transpose(1, 2)[:, None].requires_grad_())
            window = Probabilities(
                ours(np.stack(xy)).transpose(1, 2)[:, None].requires_grad_(),
                self.vis[-1],
                self.conf[-1],
                first,
            )
            self.windows.append(window)


class Probabilities(Refinements):
    """Refinements of given probabilities instead of logits: the cases have gradients with respect
    to probabilities."""

    @property
    def visibility(self) -> Tensor:
        return self.visibility_logit

    @property
    def confidence(self) -> Tensor:
        return self.confidence_logit


def check_value(case: parity.Case, name: str, loss: Tensor) -> None:
    suffix, tolerance = ("value", 1e-9) if loss.dtype == torch.float64 else ("value_f32", 1e-5)
    np.testing.assert_allclose(loss.item(), case[f"{name}_{suffix}"], rtol=tolerance)


def check_gradients(case: parity.Case, name: str, loss: Tensor, inputs: list[Tensor]) -> None:
    for w, gradient in enumerate(torch.autograd.grad(loss, inputs, retain_graph=True)):
        theirs = case[f"{name}_grad_w{w}"]
        np.testing.assert_allclose(
            gradient[:, 0].transpose(1, 2), theirs, rtol=1e-9, atol=1e-9 * np.abs(theirs).max()
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "variant", ["huber_visible", "huber_all", "l1_visible", "l1_invisible", "l1_all"]
)
def test_position_loss_equals_the_published_one(variant, dtype):
    case = parity.case("ct3_loss_sequence")
    inputs = Inputs(case, dtype)
    kind, which = variant.split("_")
    where = {
        "visible": inputs.visible,
        "invisible": ~inputs.visible,
        "all": torch.ones_like(inputs.visible),
    }[which]
    weight = inputs.valid & inputs.query_mask & where
    error = partial(huber, knee=LossConfig().huber_px) if kind == "huber" else torch.abs
    loss = position_loss(inputs.windows, inputs.xy, weight, error)
    check_value(case, variant, loss)
    if dtype == torch.float64:
        check_gradients(case, variant, loss, [window.xy for window in inputs.windows])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_visibility_loss_equals_the_published_one(dtype):
    case = parity.case("ct3_loss_visibility")
    inputs = Inputs(case, dtype)
    loss = visibility_loss(inputs.windows, inputs.visible)
    check_value(case, "bce", loss)
    if dtype == torch.float64:
        check_gradients(case, "bce", loss, inputs.vis)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_visibility_loss_stays_finite_for_certain_predictions(dtype):
    case = parity.case("ct3_loss_visibility")
    predicted = torch.tensor([0, 1, 0, 1, 0.25], dtype=dtype)[None, None, None]
    visible = torch.tensor([False, True, True, False, True])[None, None]
    window = Probabilities(predicted.new_zeros(1, 1, 1, 5, 2), predicted, predicted)
    check_value(case, "edge", visibility_loss([window], visible))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_confidence_loss_equals_the_published_one(dtype):
    case = parity.case("ct3_loss_confidence")
    inputs = Inputs(case, dtype)
    loss = confidence_loss(inputs.windows, inputs.xy, inputs.visible)
    check_value(case, "prob", loss)
    if dtype == torch.float64:
        check_gradients(case, "prob", loss, inputs.conf)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "script", ["real_online", "real_offline", "real_tapir", "kubric_online", "kubric_offline"]
)
def test_the_sum_equals_what_the_published_script_backpropagates(script, dtype):
    case = parity.case(f"ct3_loss_{script}")
    inputs = Inputs(case, dtype)
    targets = CoTrackerTargets(
        xy=inputs.xy,
        visible=inputs.visible,
        weight=inputs.valid if script.endswith("offline") else inputs.valid & inputs.query_mask,
        supervise_occluded=torch.tensor([script != "real_tapir"]),
    )
    losses = position_losses(inputs.windows, targets, LossConfig())
    if script.startswith("kubric"):
        losses["visibility"] = visibility_loss(inputs.windows, inputs.visible)
        losses["confidence"] = confidence_loss(inputs.windows, inputs.xy, inputs.visible)
    total = torch.stack(list(losses.values())).sum()
    check_value(case, "total", total)
    check_value(case, "flow", losses["visible"])
    if script == "real_tapir":
        assert losses["occluded"] == 0
    else:
        check_value(case, "flow_invisible", losses["occluded"])
    if script.startswith("kubric"):
        check_value(case, "visibility", losses["visibility"])
        check_value(case, "confidence", losses["confidence"])
    if dtype == torch.float64:
        check_gradients(case, "total", total, [window.xy for window in inputs.windows])
        if script.startswith("kubric"):
            check_gradients(case, "visibility", losses["visibility"], inputs.vis)
            check_gradients(case, "confidence", losses["confidence"], inputs.conf)


def random_windows(batch: int) -> list[Refinements]:
    draw = torch.Generator().manual_seed(0)
    shape = (4, batch, 5, 8)
    xy = 100 * torch.rand(*shape, 2, generator=draw)
    logits = torch.randn(2, *shape, generator=draw)
    return [Refinements(xy.requires_grad_(), *logits)]


def random_targets(batch: int) -> CoTrackerTargets:
    draw = torch.Generator().manual_seed(1)
    visible, weight = torch.rand(2, batch, 5, 8, generator=draw) > 0.3
    return CoTrackerTargets(100 * torch.rand(batch, 5, 8, 2, generator=draw), visible, weight)


def all_losses(windows: list[Refinements], targets: CoTrackerTargets) -> Tensor:
    return torch.stack(
        [
            *position_losses(windows, targets, LossConfig()).values(),
            visibility_loss(windows, targets.visible, None, targets.clip_weight),
            confidence_loss(windows, targets.xy, targets.visible, None, targets.clip_weight),
        ]
    ).sum()


def test_errors_count_squared_up_to_the_knee_and_linearly_beyond():
    """By hand: a point that is off by 3 px in x and half a pixel in y."""
    logit = torch.zeros(1, 1, 1, 1)
    window = Refinements(torch.tensor([3.0, 0.5]).view(1, 1, 1, 1, 2), logit, logit)
    seen = torch.ones(1, 1, 1, dtype=torch.bool)
    targets = CoTrackerTargets(torch.zeros(1, 1, 1, 2), seen, seen.float())
    for knee, x in ((6.0, 3**2 / 2), (1.0, 3 - 1 / 2)):
        loss = position_losses([window], targets, LossConfig(huber_px=knee))["visible"]
        assert loss.item() == pytest.approx(0.05 * (x + 0.5**2 / 2) / 2, rel=1e-5)


@pytest.mark.parametrize("name", ["huber_px", "tapir.huber_px"])
def test_a_knee_that_is_not_above_0_is_refused(name):
    with pytest.raises(ConfigError, match=f"loss.{name} = 0"):
        LossConfig(huber_px=0) if name == "huber_px" else LossConfig(
            tapir=TapirLossConfig(huber_px=0)
        )


@pytest.mark.parametrize("weights", [None, (1.0, 0.5, 2.0)])
def test_a_batch_is_the_weighted_mean_of_its_clips(weights):
    windows, targets = random_windows(batch=3), random_targets(batch=3)
    teachers = torch.tensor([True, False, True])
    of_clips = None if weights is None else torch.tensor(weights)
    together = all_losses(
        windows, replace(targets, supervise_occluded=teachers, clip_weight=of_clips)
    )
    alone = []
    for b in range(3):
        clip = slice(b, b + 1)
        window = Refinements(
            windows[0].xy[:, clip],
            windows[0].visibility_logit[:, clip],
            windows[0].confidence_logit[:, clip],
        )
        one = CoTrackerTargets(
            targets.xy[clip], targets.visible[clip], targets.weight[clip], teachers[clip]
        )
        alone.append((1 if weights is None else weights[b]) * all_losses([window], one))
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_masked_targets_may_be_nan():
    windows, targets = random_windows(batch=2), random_targets(batch=2)
    holes = replace(targets, xy=targets.xy.masked_fill(~targets.weight[..., None], torch.nan))
    whole, masked = (
        torch.stack(list(position_losses(windows, given, LossConfig()).values())).sum()
        for given in (targets, holes)
    )
    assert masked == whole
    assert torch.autograd.grad(masked, windows[0].xy)[0].isfinite().all()


def test_a_clip_without_a_valid_point_teaches_nothing():
    windows, targets = random_windows(batch=1), random_targets(batch=1)
    nothing = replace(targets, weight=torch.zeros_like(targets.weight))
    loss = torch.stack(list(position_losses(windows, nothing, LossConfig()).values())).sum()
    assert loss == 0
    assert not torch.autograd.grad(loss, windows[0].xy)[0].any()


def test_what_is_held_pulls_back_to_where_it_was_and_not_from_there():
    (window,) = random_windows(batch=2)
    logits = window.visibility_logit.clone().requires_grad_(), window.confidence_logit

    def pull(shift: float) -> Tensor:
        now = replace(window, visibility_logit=logits[0] + shift)
        loss, confidence = held_losses([now], [window])
        same, _ = held_losses([window], [window])
        assert loss >= same
        assert confidence == held_losses([window], [window])[1]
        return torch.autograd.grad(loss, logits[0])[0]

    assert pull(0.0).abs().max() < 1e-8
    assert (pull(0.5) > 0).all()
    assert (pull(-0.5) < 0).all()
