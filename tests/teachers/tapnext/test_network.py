"""TAPNext's network: equal to the official code (`tapnext*`), whole, in parts, and frame by frame.

Official outputs are for weights from a formula, so they prove the arithmetic, not a trained model's
accuracy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from teachers.errors import ConfigError
from teachers.tapnext.network import TapNext, TapNextConfig, certainty
from tests.support import parity
from tests.support import tapnext as official

SLOW = pytest.mark.slow
LONG = [SLOW, pytest.mark.timeout(1200)]
"""Of the published size: a minute on an idle machine."""

WHOLE = [
    pytest.param("tapnext_b", marks=LONG),
    *(
        pytest.param(name, marks=SLOW)
        for name in ("tapnext_mini_clip", "tapnext_mini_long", "tapnextpp_mini_512")
    ),
    "tapnextpp_mini_wide",
]
IN_CALLS = [
    pytest.param("tapnext_b", [1] * 4, "online_", marks=LONG),
    pytest.param("tapnext_mini_clip", [1] * 12, "online_", marks=SLOW),
    pytest.param("tapnext_mini_clip", [5, 1, 4, 2], "chunk_", marks=SLOW),
    pytest.param("tapnext_mini_late", [7], "", marks=SLOW),
    pytest.param("tapnext_mini_late", [1] * 7, "online_", marks=SLOW),
    pytest.param("tapnext_mini_late", [3, 4], "chunk_", marks=SLOW),
    pytest.param("tapnext_mini_long", [1] * 300, "online_", marks=SLOW),
    pytest.param("tapnextpp_mini_512", [1] * 3, "online_", marks=SLOW),
    ("tapnextpp_mini_wide", [1] * 4, "online_"),
]


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_clip_equals_the_official_network(name):
    case = parity.case(name)
    answers, _ = official.in_calls(official.network(case), case, [len(case.frames)])
    official.check(answers, case)
    official.check_certainty(answers, case)
    if "coord_logits" in case.arrays:
        theirs = case["coord_logits"]
        np.testing.assert_allclose(
            answers[0].logits[0, :2], theirs, atol=case.meta["tolerance_logit"], rtol=0
        )


@pytest.mark.parametrize(("name", "lengths", "prefix"), IN_CALLS)
def test_parts_of_a_clip_equal_the_official_network(name, lengths, prefix):
    """With every query frame there is, "late" also at the border, beyond the clip, and between two
    frames."""
    case = parity.case(name)
    model = official.network(case, official_quirks=name == "tapnext_mini_late")
    answers, state = official.in_calls(model, case, lengths)
    official.check(answers, case, prefix)
    assert state.frames == len(case.frames)
    if prefix == "online_" and "state_lru" in case.arrays:
        noise = {"atol": 20 * case.meta["state_noise"], "rtol": 0}
        tokens = case.meta["state_tokens"]
        pasts = [state.blocks[block] for block in case.meta["state_blocks"]]
        hidden = np.stack([past.hidden[0, tokens] for past in pasts])
        inputs = np.stack([past.inputs[0][:, tokens, :96].transpose(0, 1) for past in pasts])
        np.testing.assert_allclose(hidden, case["state_lru"], **noise)
        np.testing.assert_allclose(inputs, case["state_conv"], **noise)


@SLOW
def test_every_step_of_the_first_block_equals_the_official_one():
    case = parity.case("tapnext_mini_clip")
    model, seen = official.network(case), {}
    block = model.blocks[0]
    branch = block.ssm_block.recurrent_block
    for name, part in {
        "b0_conv": branch.conv_1d, "b0_lru": branch.rg_lru, "b0_branch": branch, "b0_recurrent":
        block.ssm_block, "b0_out": block, "tokens_out": model.encoder_norm,
    }.items():  # fmt: skip
        part.register_forward_hook(
            lambda _part, _given, out, name=name: seen.update(
                {name: (out[0] if isinstance(out, tuple) else out).clone()}
            )
        )
    block.register_forward_pre_hook(lambda _part, given: seen.update(tokens_in=given[0]))
    official.in_calls(model, case, [12])
    at, tokens = [0, 1, 6, 11], [0, 1, 517, 1024, 1025, 1027]
    for name, value in seen.items():
        theirs = case[f"probe_{name}"]
        if name == "tokens_out":  # of the image tokens nothing is read after the last block
            ours, theirs = value[0, at][:, [0, 1, 3]], theirs[:, 3:]
        else:
            ours = value[0, at][:, tokens]
        np.testing.assert_allclose(ours, theirs, atol=2e-4, rtol=0, err_msg=name)
    assert len(seen) == 7


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("tapnext_b", marks=LONG),
        pytest.param("tapnext_mini_clip", marks=SLOW),
        pytest.param("tapnextpp_mini_512", marks=SLOW),
        "tapnextpp_mini_wide",
    ],
)
def test_in_float64_only_float64_noise_is_left(name):
    case = parity.case(name)
    model = official.network(case).double()
    with torch.inference_mode():
        answer, _ = model(
            official.frames(case, torch.float64), official.queries(case, torch.float64)
        )
    np.testing.assert_allclose(
        answer.xy[0], case["f64_tracks"], atol=case.meta["tolerance_f64_px"], rtol=0
    )
    np.testing.assert_allclose(
        answer.visible[0], case["f64_visible_logit"], atol=case.meta["tolerance_f64_logit"], rtol=0
    )


@pytest.mark.parametrize(("quirks", "prefix"), [(True, ""), (False, "fixed_")])
def test_a_grid_with_as_many_cells_gets_the_resized_table_unless_quirks_are_asked_for(
    quirks, prefix
):
    case = parity.case("tapnextpp_mini_quirk_wide")
    answers, _ = official.in_calls(official.network(case, official_quirks=quirks), case, [2])
    official.check(answers, case, prefix)


def test_a_query_between_two_frames_is_asked_in_the_first_unless_quirks_are_asked_for():
    fair, quirky = network(), network(official_quirks=True)
    frames, queries = small_inputs()
    between = queries + torch.tensor([0.5, 0, 0])
    with torch.inference_mode():
        torch.testing.assert_close(fair(frames, between)[0].xy, fair(frames, queries)[0].xy)
        never = queries + torch.tensor([1.0, 0, 0]) * (queries[..., :1] < 0)
        assert not torch.allclose(
            quirky(frames, between)[0].logits, quirky(frames, never)[0].logits
        )
        tokens = quirky.point_tokens(between, 0, 6)
    unknown_or_masked = torch.stack([quirky.unknown_token[0, 0], quirky.mask_token[0, 0, 0]])
    assert (tokens[..., None, :] == unknown_or_masked).all(-1).any(-1).all()


@pytest.mark.parametrize(
    ("quirks", "truth"), [(True, "f64_certainty"), (False, "f64_fixed_certainty")]
)
def test_certainty_equals_the_official_one_or_has_its_disc_the_right_way_round(quirks, truth):
    case = parity.case("tapnext_mini_certainty")
    xy, logits = torch.from_numpy(case["tracks"]), torch.from_numpy(case["coord_logits"])
    np.testing.assert_allclose(
        certainty(xy, logits, official_quirks=quirks),
        case[truth],
        atol=case.meta["tolerance"],
        rtol=0,
    )
    if quirks:
        np.testing.assert_allclose(
            certainty(xy, logits, official_quirks=True),
            case["certainty"],
            atol=case.meta["tolerance"],
            rtol=0,
        )


@SLOW
def test_the_numerics_of_the_jax_release_differ_as_little_as_is_known():
    """README of the parity cases: the GELUs by less than 0.01 px, the border code only for queries
    within half a unit of the border."""
    case = parity.case("tapnextpp_mini_wide")
    ours, jax = (
        official.in_calls(official.network(case, numerics=n), case, [4])[0][0]
        for n in ("torch", "jax")
    )
    difference = (ours.xy - jax.xy).abs().max()
    assert case.meta["tolerance_px"] < difference < 0.01
    inside, border = torch.tensor([[[100.0, 200.0]]]), torch.tensor([[[0.0, 200.0]]])
    fading, clamped = network(), network(numerics="jax")
    torch.testing.assert_close(fading.position_code(inside), clamped.position_code(inside))
    torch.testing.assert_close(2 * fading.position_code(border), clamped.position_code(border))


@pytest.mark.parametrize("model", official.SIZES)
def test_keys_and_shapes_are_those_of_the_official_checkpoint_but_for_its_constant_table(model):
    with torch.device("meta"):
        network = TapNext(TapNextConfig(**official.SIZES[model]))
    own = {key: list(value.shape) for key, value in network.state_dict().items()}
    listed = {entry["key"]: entry["shape"] for entry in parity.key_list(model)}
    assert listed.pop("query_pos_embed") == [1, 65536, network.config.width]
    assert own == listed


@pytest.mark.parametrize("model", official.SIZES)
def test_the_code_of_a_position_is_the_official_constant_table(model):
    """Its sum and its length are in the list of keys."""
    width = official.SIZES[model].get("width", 768)
    network = TapNext(
        TapNextConfig(width=width, depth=1, heads=official.SIZES[model].get("heads", 12))
    )
    entry = next(entry for entry in parity.key_list(model) if entry["key"] == "query_pos_embed")
    total, squares = 0.0, 0.0
    for y in range(256):
        row = torch.stack([torch.arange(256) + 0.5, torch.full((256,), y + 0.5)], -1)
        code = network.position_code(row[None]).double()
        total, squares = total + float(code.sum()), squares + float(code.square().sum())
    assert total == pytest.approx(entry["sum"], rel=1e-9)
    assert squares**0.5 == pytest.approx(entry["l2"], rel=1e-9)


@torch.inference_mode()
def test_the_network_never_sees_a_later_frame():
    model = network()
    frames, queries = small_inputs()
    whole = model(frames, queries)[0]
    for end in (1, 3, 5):
        part = model(frames[:, :end], queries)[0]
        torch.testing.assert_close(part.xy, whole.xy[:, :, :end], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_clips_of_a_batch_do_not_see_each_other():
    model = network()
    frames, queries = small_inputs()
    both = model(torch.cat([frames, frames.flip(1)]), torch.cat([queries, queries.flip(1)]))[0]
    torch.testing.assert_close(both.xy[:1], model(frames, queries)[0].xy, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        both.xy[1:], model(frames.flip(1), queries.flip(1))[0].xy, atol=1e-4, rtol=0
    )


def test_gradients_reach_every_weight():
    model = network().requires_grad_(True)
    answer, _ = model(*small_inputs())
    (answer.logits.sum() + answer.visible.sum()).backward()
    assert [key for key, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numerics": "tf"}, "numerics = 'tf': there are 'torch' and 'jax'"),
        ({"raster": 100}, "raster = 100: must be a multiple of 8"),
    ],
)
def test_a_config_that_cannot_be_right_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        TapNextConfig(**changes)


def network(**changes: Any) -> TapNext:
    torch.manual_seed(0)
    return TapNext(TapNextConfig.mini(**changes)).eval().requires_grad_(False)


def small_inputs() -> tuple[Tensor, Tensor]:
    """Six frames of 48 x 40 px, four queries in the first three."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand(1, 6, 3, 48, 40, generator=generator) * 2 - 1
    queries = torch.tensor([[[0.0, 20, 30], [0, 200, 90], [1, 128, 128], [2, 77, 230]]])
    return frames, queries
