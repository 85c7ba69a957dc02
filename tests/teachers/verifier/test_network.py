"""The verifier: equal to the published network (`verifier_*`), and what follows from its make.

Published outputs are for weights from a formula, so they prove the arithmetic, not what a trained
verifier is worth.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from teachers.verifier import VerifierConfig, VerifierNetwork, network
from tests.support import parity
from tests.support.slow import slow
from tests.support.verifier import inputs, network_of

LARGE = ("a", "t24", "t40")
CASES = ["small", "outside", "one", "loss", *slow(*LARGE)]
NOISE = 2e-5
"""Float32 noise of a logit of the mini network."""


# --- equal to the published network


@pytest.mark.parametrize("name", ["predictor", *CASES])
def test_logits_equal_the_published_ones(name):
    case = parity.case(f"verifier_{name}")
    with torch.inference_mode():
        logits = network_of(case)(*inputs(case))
    tolerance = case.meta["tolerance_logit"]
    np.testing.assert_allclose(logits.permute(2, 1, 0), case["logits"], atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ["one", "loss", *slow("small", "outside", *LARGE)])
def test_logits_in_float64_equal_the_published_ones(name):
    case = parity.case(f"verifier_{name}")
    with torch.inference_mode():
        logits = network_of(case).double()(*inputs(case, torch.float64))
    np.testing.assert_allclose(logits.permute(2, 1, 0), case["f64_logits"], atol=1e-7, rtol=0)


def test_every_stage_equals_the_published_one():
    case = parity.case("verifier_small")
    verifier, seen = network_of(case), defaultdict(list)

    def keep(name: str, module: nn.Module, of_input: bool = False) -> None:
        module.register_forward_hook(
            lambda _module, given, answer: seen[name].append(given[0] if of_input else answer)
        )

    keep("cnn", verifier.cnn_encoder)
    keep("proj", verifier.backbone_projection)
    keep("attention0", verifier.local_encoder[0].mha)
    keep("local0", verifier.local_encoder[0])
    keep("local_last", verifier.local_encoder[-1])
    keep("descriptor", verifier.local_projection, of_input=True)
    keep("described", verifier.local_projection)
    keep("layer0", verifier.layers[0])
    keep("layer5", verifier.layers[5])
    frames, queries, candidates = inputs(case)
    with torch.inference_mode():
        verifier(frames, queries, candidates)

    points, of_two = len(queries), 2 * len(candidates)
    asked_in = queries[:, 0].long()
    in_frame = [int((asked_in == t).sum()) for t in range(len(frames))]

    def equal(probe: str, ours: Tensor) -> None:
        theirs = case[f"probe_{probe}"]
        np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, atol=1e-3, rtol=0)

    def of_candidates(name: str, frame: int) -> Tensor:  # of the first two points: 2 * K rows
        return seen[name][frame][in_frame[frame] :][:of_two]

    rows, columns = [0, 5, 12], [0, 7, 16]
    first, last = 0, len(frames) - 1
    maps = torch.cat(seen["cnn"])
    equal("cnn", maps[[first, last]][:, :, rows, columns])
    of_frames = seen["proj"][-len(frames) :]  # before them, those where queries are looked up
    equal("proj", torch.cat([of_frames[first], of_frames[last]])[:, :, rows, columns])
    for name in ("attention0", "local0", "local_last"):
        equal(name, of_candidates(name, first))
    for probe, name in (("descriptor", "descriptor"), ("f", "described")):
        equal(probe, torch.cat([of_candidates(name, first), of_candidates(name, last)]))
    described = torch.zeros(points, verifier.config.width)
    for t, count in enumerate(in_frame):
        described[asked_in == t] = seen["described"][t][:count]
    equal("q", described)
    for name in ("layer0", "layer5"):
        (tokens,) = seen[name]
        equal(name, tokens[:3, [first, last]].transpose(0, 1))


def test_keys_and_shapes_are_those_of_the_published_checkpoint():
    with torch.device("meta"):
        verifier = VerifierNetwork(VerifierConfig())
    own = {key: list(value.shape) for key, value in verifier.state_dict().items()}
    assert own == {entry["key"]: entry["shape"] for entry in parity.key_list("verifier")}


# --- what follows from how it is made


@pytest.fixture(scope="module")
def mini() -> VerifierNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VerifierNetwork(VerifierConfig.mini()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def scene() -> tuple[Tensor, Tensor, Tensor]:
    """7 frames of 48 x 64 px, 5 queries, 4 teachers."""
    frames = torch.from_numpy(parity.video(seed=3, T=7, H=48, W=64, vx=0.7, vy=-0.4))
    queries = torch.from_numpy(parity.queries(3, 5, 7, 48, 64))
    noise = torch.from_numpy(parity.uniform("candidates", (4, 5, 7, 2))).float()
    return frames.permute(0, 3, 1, 2), queries, queries[:, None, 1:] + 6 * noise


@torch.inference_mode()
def logits_of(mini: VerifierNetwork, scene: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return mini(*scene)


def same(ours: Tensor, theirs: Tensor, atol: float = NOISE) -> None:
    np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)


def test_the_order_of_the_teachers_does_not_matter(mini, scene):
    frames, queries, candidates = scene
    logits = logits_of(mini, scene)
    assert logits.std(0).min() > 100 * NOISE
    same(logits_of(mini, (frames, queries, candidates.flip(0))), logits.flip(0))


def test_a_query_s_answer_does_not_depend_on_the_others(mini, scene):
    frames, queries, candidates = scene
    alone = [logits_of(mini, (frames, queries[n, None], candidates[:, n, None])) for n in range(5)]
    same(torch.cat(alone, 1), logits_of(mini, scene))


def test_blocks_of_queries_and_of_frames_change_nothing(mini, scene, monkeypatch):
    logits = logits_of(mini, scene)
    monkeypatch.setattr(network, "PLACES_PER_BLOCK", 1)
    with torch.inference_mode():
        same(mini(*scene, memory=network.Memory(frames_per_block=1)), logits)


def test_candidates_before_the_query_change_nothing_after_it(mini, scene):
    frames, queries, candidates = scene
    before = torch.arange(7) < queries[:, :1]
    assert before.any()
    moved = torch.where(before[..., None], candidates + 9, candidates)
    logits, after = logits_of(mini, scene), logits_of(mini, (frames, queries, moved))
    same(after[:, ~before], logits[:, ~before])
    assert (after[:, before] - logits[:, before]).abs().max() > 100 * NOISE


def test_a_teacher_without_places_counts_as_if_it_were_not_there(mini, scene):
    frames, queries, candidates = scene
    with_hole = candidates.clone()
    with_hole[1] = np.nan
    logits = logits_of(mini, (frames, queries, with_hole))
    assert logits[1].isnan().all()
    without = logits_of(mini, (frames, queries, candidates[[0, 2, 3]]))
    same(logits[[0, 2, 3]], without)
    assert (without - logits_of(mini, scene)[[0, 2, 3]]).abs().max() > 100 * NOISE


def test_a_place_that_is_missing_in_one_frame_is_missing_there_alone(mini, scene):
    frames, queries, candidates = scene
    candidates = candidates.clone()
    candidates[2, 0, 3] = np.nan
    logits = logits_of(mini, (frames, queries, candidates))
    assert torch.equal(logits.isnan(), candidates.isnan().any(-1))
    same(logits[:, 1:], logits_of(mini, scene)[:, 1:])


def test_a_frame_in_which_nobody_has_a_place_is_no_evidence(mini, scene):
    frames, queries, candidates = scene
    queries, candidates = queries.clone(), candidates.clone()
    queries[:, 0] = 0
    candidates[:, :, 6] = np.nan
    logits = logits_of(mini, (frames, queries, candidates))
    assert logits[:, :, 6].isnan().all()
    assert logits[:, :, :6].isfinite().all()
    other_end = torch.cat([frames[:6], 255 - frames[6:]])
    same(logits_of(mini, (other_end, queries, candidates))[:, :, :6], logits[:, :, :6])


def test_nothing_is_said_of_a_query_without_a_place_from_its_frame_on(mini, scene):
    frames, queries, candidates = scene
    queries, candidates = queries.clone(), candidates.clone()
    queries[1, 0] = 4
    candidates[:, 1, 4:] = np.nan
    logits = logits_of(mini, (frames, queries, candidates))
    assert logits[:, 1].isnan().all()
    assert logits[:, [0, 2, 3, 4]].isfinite().all()


@pytest.mark.parametrize("late", [6.5, 7.0])
def test_a_query_after_the_last_frame_is_nan_as_published(mini, scene, late):
    frames, queries, candidates = scene
    queries = queries.clone()
    queries[0, 0] = late
    logits = logits_of(mini, (frames, queries, candidates))
    assert logits[:, 0].isnan().all()
    assert logits[:, 1:].isfinite().all()


def test_a_time_between_frames_looks_in_the_frame_before_and_masks_it(mini, scene):
    frames, queries, candidates = scene
    between, whole, later = queries.clone(), queries.clone(), queries.clone()
    between[:, 0], whole[:, 0], later[:, 0] = 2.5, 2, 3
    logits = [logits_of(mini, (frames, at, candidates)) for at in (between, whole, later)]
    assert all((logits[0] - other).abs().max() > 100 * NOISE for other in logits[1:])
    other_look = torch.cat([frames[:2], 255 - frames[2, None], frames[3:]])
    looked = logits_of(mini, (other_look, between, candidates))
    assert (looked - logits[0])[:, :, 3:].abs().max() > 100 * NOISE


def test_places_that_are_missing_leave_every_gradient_finite(scene):
    frames, queries, candidates = scene
    queries, candidates = queries.clone(), candidates.clone()
    queries[1, 0] = 4
    candidates[:, 1, 4:] = np.nan
    candidates[0, 2, :3] = np.nan
    torch.manual_seed(0)
    verifier = VerifierNetwork(VerifierConfig.mini())
    logits = verifier(frames, queries, candidates)
    logits[logits.isfinite()].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in verifier.parameters())


def test_dropout_is_on_in_training_alone(scene):
    torch.manual_seed(0)
    verifier = VerifierNetwork(VerifierConfig.mini()).requires_grad_(False)
    training = verifier(*scene), verifier(*scene)
    assert not torch.equal(*training)
    verifier.eval()
    assert torch.equal(verifier(*scene), verifier(*scene))
