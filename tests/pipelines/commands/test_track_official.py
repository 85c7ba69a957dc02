"""`tapdistill track` in the modes of the official predictors and evaluations: their numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from teachers import Tracks, VisibleRule
from teachers.checkpoints.architectures import configs
from teachers.registry import factory_of
from tests.labeler.video.test_frames import write_pictures
from tests.support import parity
from tests.support.official import check, file_of
from tests.support.tracking import arrays_of, track


@pytest.mark.parametrize(
    ("name", "teacher", "settings"),
    [
        pytest.param(
            "ct3_predictor_offline_queries_backward",
            "cotracker3-offline",
            [],
            marks=pytest.mark.slow,
        ),
        pytest.param("ct3_predictor_online", "cotracker3-online", [], marks=pytest.mark.slow),
        pytest.param(
            "ct3_predictor_online_support",
            "cotracker3-online",
            ["support_grid=6"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "ct2_predictor_offline_queries_backward", "cotracker2", [], marks=pytest.mark.slow
        ),
        pytest.param(
            "ct2_predictor_online", "cotracker2", ["predictor=online"], marks=pytest.mark.slow
        ),
    ],
)
def test_predictor_mode_gives_the_numbers_of_the_official_cotracker_predictors(
    tmp_path, name, teacher, settings
):
    case = parity.case(name)
    stored = track_case(tmp_path, case, teacher, case["queries"], *settings)
    check(stored["xy"], case["tracks"], case.meta["tolerance_px"])
    visible, sure = rule_of(stored)(as_tracks(stored)).T, case["visibility_sure"]
    np.testing.assert_array_equal(visible[sure], case["visibility"][sure])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "teacher"),
    [
        ("tapir_256", "tapir"),
        ("tapir_resize_chunk", "tapir"),
        ("tapir_hires_list", "tapir"),
        ("bootstapir_hires_default", "bootstapir"),
        ("bootstapir_causal_offline", "bootstapir-causal"),
    ],
)
def test_predictor_mode_gives_the_numbers_of_the_official_tapirs_half_a_pixel_away(
    tmp_path, name, teacher
):
    case = parity.case(name)
    listed = case.meta["settings"]["refinement_resolutions"]
    settings = [f"resolutions={json.dumps(listed)}"] if listed else []
    stored = track_case(
        tmp_path, case, teacher, case["queries"] - np.float32([0, 0.5, 0.5]), *settings
    )
    np.testing.assert_allclose(
        stored["xy"] + 0.5, case["tracks"], atol=case.meta["tolerance_px"], rtol=0
    )
    product = stored["visibility"] * stored["confidence"]
    np.testing.assert_allclose(
        product, case["visible_product"], atol=case.meta["tolerance_logit"], rtol=0
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "teacher"), [("pips_chain", "pips"), ("pips2_chain", "pips2")])
def test_predictor_mode_gives_the_numbers_of_the_official_pips(tmp_path, name, teacher):
    case = parity.case(name)
    settings = [f"iterations={case.meta['iters']}"]
    if teacher == "pips2":
        settings += [
            f"window={case.meta['S_max']}",
            f"beautify={json.dumps(case.meta['beautify'])}",
        ]
    stored = track_case(
        tmp_path, case, teacher, np.pad(case["queries_xy"], ((0, 0), (1, 0))), *settings
    )
    check(stored["xy"], case["trajs"], case.meta["tolerance_px"])


@pytest.mark.slow
def test_benchmark_mode_gives_the_numbers_of_the_official_evaluation(tmp_path):
    case = parity.case("ct3_eval_offline_joint")
    call = case.meta["constructor"]
    settings = f"resolution={json.dumps(call['interp_shape'])}", f"iterations={call['n_iters']}"
    stored = track_case(
        tmp_path, case, "cotracker3-offline", case["queries"], *settings, mode="benchmark"
    )
    check(stored["xy"], case["tracks"], case.meta["tolerance_px"])
    check(
        stored["visibility"] * stored["confidence"], case["visibility"], case.meta["tolerance_prob"]
    )


def track_case(
    folder: Path,
    case: parity.Case,
    teacher: str,
    queries: np.ndarray,
    *settings: str,
    mode: str = "predictor",
) -> dict[str, np.ndarray]:
    """What the command writes for the case's frames as PNG files, with the case's weights."""
    network = factory_of(teacher).network(configs(teacher)["official"])
    keys = teacher.replace("-", "_")
    np.savez(folder / "queries.npz", queries=queries)
    arguments = [
        *(
            write_pictures(folder / "frames", case.frames),
            "--teacher",
            teacher,
            "--checkpoint",
            file_of(case, network, keys, folder),
        ),
        *(
            "--mode",
            mode,
            "--queries",
            folder / "queries.npz",
            "--tracks",
            folder / "out.npz",
            "--device",
            "cpu",
        ),
        *(("--setting", *settings) if settings else ()),
    ]
    assert track(*arguments) == 0
    return arrays_of(folder / "out.npz")


def as_tracks(stored: dict[str, np.ndarray]) -> Tracks:
    return Tracks(stored["xy"], stored["visibility"], stored["confidence"])


def rule_of(stored: dict[str, np.ndarray]) -> VisibleRule:
    return VisibleRule.parse(json.loads(str(stored["info"]))["visible_rule"])
