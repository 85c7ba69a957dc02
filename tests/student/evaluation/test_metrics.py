"""Metrics: equal to the published code on stored cases, and sane where the published code has
nothing to say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from student.evaluation import metrics
from teachers.errors import ConfigError

DATA = Path(__file__).parents[3] / "tests" / "data"
SIZE_HW = (120, 200)


def case(name):
    """Arrays and meta of a stored case: inputs and the official outputs."""
    with np.load(DATA / f"metrics_{name}.npz", allow_pickle=False) as npz:
        arrays = {key: npz[key] for key in npz.files}
    return arrays, json.loads(str(arrays.pop("meta")))


@pytest.mark.parametrize("per", ["video", "track"])
@pytest.mark.parametrize("mode", ["first", "strided"])
@pytest.mark.parametrize("name", ["tapvid", "tapvid_plain"])
def test_tapvid_figures_are_the_official_ones(name, mode, per):
    arrays, meta = case(name)
    inputs = (
        arrays[key]
        for key in ("query_points", "occluded", "target_points", "pred_occluded", "pred_tracks")
    )
    figures = metrics.tapvid_metrics(*inputs, query_mode=mode, per=per)
    prefix = f"{mode}__" if per == "video" else f"{mode}_trackwise__"
    official = {
        key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)
    }
    assert figures.keys() == official.keys()
    for key, value in official.items():
        # NaN equals NaN
        np.testing.assert_allclose(figures[key], value, rtol=0, atol=meta["tolerance"], err_msg=key)


def test_one_video_needs_no_axis_of_videos():
    arrays, _ = case("tapvid_plain")
    inputs = (
        arrays[key][0]
        for key in ("query_points", "occluded", "target_points", "pred_occluded", "pred_tracks")
    )
    assert (
        metrics.tapvid_metrics(*inputs, query_mode="first")["average_jaccard"]
        == arrays["first__average_jaccard"][0]
    )


@pytest.mark.parametrize(
    ("name", "mode", "stride"),
    [("first", "first", 5), ("strided5", "strided", 5), ("strided3", "strided", 3)],
)
def test_sampled_queries_are_the_official_ones(name, mode, stride):
    arrays, _ = case("queries")
    sampled = metrics.sample_queries(arrays["occluded"], arrays["points"], mode, stride)
    np.testing.assert_array_equal(sampled.query_points, arrays[f"{name}__query_points"][0])
    np.testing.assert_array_equal(sampled.occluded, arrays[f"{name}__occluded"][0])
    if mode == "first":
        np.testing.assert_array_equal(sampled.target_points, arrays["first__target_points"][0])
    else:
        np.testing.assert_array_equal(sampled.track, arrays[f"{name}__trackgroup"][0])
        np.testing.assert_array_equal(sampled.target_points, arrays["points"][sampled.track])


@pytest.mark.parametrize(
    "key", ["d_1", "d_2", "d_4", "d_8", "d_16", "d_avg", "survival", "median_l2"]
)
def test_survival_figures_are_the_official_ones(key):
    arrays, meta = case("survival")
    figures = metrics.survival_metrics(
        arrays["pred_tracks"],
        arrays["gt_tracks"],
        arrays["valid"],
        tuple(meta["image_size"]),
        tuple(meta["video_size"]),
    )
    assert figures[key] == pytest.approx(float(arrays[key]), abs=meta["tolerance"])


@pytest.mark.parametrize("name", ["ajrd", "ajrd_long"])
def test_redetection_figures_and_events_are_the_official_ones(name):
    arrays, meta = case(name)
    result = metrics.redetection_metrics(
        *(arrays[key] for key in ("pred_tracks", "pred_visible", "gt_tracks", "gt_visible")),
        min_durations=tuple(meta["d_min_thresholds"]),
        thresholds_px=tuple(meta["dist_thresholds"]),
    )
    np.testing.assert_array_equal(result.index, arrays["event_index"])
    np.testing.assert_array_equal(result.duration, arrays["event_duration"])
    for column, d in enumerate(meta["dist_thresholds"]):
        np.testing.assert_allclose(
            result.jaccard[:, column], arrays[f"event_aj_rd_D{d}"], rtol=0, atol=meta["tolerance"]
        )
    official = {key: float(value) for key, value in arrays.items() if key.startswith("AJ_RD")}
    assert result.figures == pytest.approx(official, abs=meta["tolerance"], nan_ok=True)


def test_the_corner_raster_is_reached_and_left_exactly():
    # by hand: the corners of a 120 x 200 clip are half a pixel outside its outermost pixel centres
    corners = np.array([[-0.5, -0.5], [199.5, 119.5], [99.5, 59.5]])
    np.testing.assert_allclose(
        metrics.to_tapvid_raster(corners, SIZE_HW), [[0, 0], [256, 256], [128, 128]]
    )
    xy = np.random.default_rng(0).uniform(-50, 250, (7, 5, 2))
    np.testing.assert_allclose(
        metrics.from_tapvid_raster(metrics.to_tapvid_raster(xy, SIZE_HW), SIZE_HW), xy, atol=1e-12
    )


@pytest.fixture
def truth():
    """queries, xy, visible of 6 tracks in 10 frames, all queries at frame 0."""
    rng = np.random.default_rng(1)
    xy = rng.uniform(0, 100, (6, 10, 2))
    visible = rng.random((6, 10)) < 0.7
    visible[:, 0] = True
    return np.concatenate([np.zeros((6, 1)), xy[:, 0]], axis=1), xy, visible


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_the_truth_itself_scores_full_marks(truth, mode):
    queries, xy, visible = truth
    figures = metrics.score(queries, xy, visible, xy, visible, SIZE_HW, mode)
    assert figures.pop("median_error_px") == 0
    assert set(figures.values()) == {1.0}


@pytest.mark.parametrize("mode", ["first", "strided"])
@pytest.mark.parametrize("claimed", [False, True])
def test_missing_predictions_score_nothing_at_all(truth, mode, claimed):
    queries, xy, visible = truth
    figures = metrics.score(
        queries,
        xy,
        visible,
        np.full_like(xy, np.nan),
        np.full_like(visible, claimed),
        SIZE_HW,
        mode,
    )
    assert figures.pop("median_error_px") == np.inf
    assert set(figures.values()) == {0.0}


def test_a_third_of_the_frames_missing_is_a_third_wrong():
    # by hand: nine evaluated frames, points visible in six and occluded in three; frames 3, 6, 9
    # are missing, the truth elsewhere
    xy, visible = np.full((1, 10, 2), 50.0), np.ones((1, 10), bool)
    visible[0, [1, 2, 3]] = False
    missing = xy.copy()
    missing[0, [3, 6, 9]] = np.nan
    figures = metrics.score(np.array([[0, 50.0, 50.0]]), xy, visible, missing, visible, SIZE_HW)
    assert figures["OA"] == pytest.approx(6 / 9)
    assert figures["delta_avg"] == pytest.approx(4 / 6)
    # the missing occluded frame is a false positive
    assert figures["AJ"] == pytest.approx(4 / (6 + 1))
    # lost at frame 6, its first missing visible one
    assert figures["survival"] == pytest.approx(6 / 10)


def test_thresholds_are_px_of_the_256_raster_on_each_axis():
    queries, xy, visible = (
        np.array([[0, 50.0, 50.0]]),
        np.full((1, 3, 2), 50.0),
        np.ones((1, 3), bool),
    )
    # 1 px of a clip that is 200 wide and 120 high is 1.28 px to the right and 2.13 px downwards in
    # the raster
    right = metrics.score(queries, xy, visible, xy + np.array([1, 0]), visible, SIZE_HW)
    down = metrics.score(queries, xy, visible, xy + np.array([0, 1]), visible, SIZE_HW)
    assert right["median_error_px"] == pytest.approx(256 / 200)
    assert down["median_error_px"] == pytest.approx(256 / 120)
    assert (right["pts_within_1"], right["pts_within_2"]) == (0, 1)
    assert (down["pts_within_2"], down["pts_within_4"]) == (0, 1)


def test_survival_of_a_clip_is_that_of_pips2_when_every_query_is_in_frame_0(truth):
    queries, xy, visible = truth
    drifting = xy + np.linspace(0, 20, 10)[:, None] * np.linspace(0.3, 1.5, 6)[:, None, None]
    by_time = (array.swapaxes(0, 1) for array in (drifting, xy, visible))
    published = metrics.survival_metrics(*by_time, SIZE_HW, SIZE_HW)["survival"]
    assert 0 < published < 100
    assert 100 * metrics.score(queries, xy, visible, drifting, visible, SIZE_HW)[
        "survival"
    ] == pytest.approx(published)


def test_redetection_of_a_clip_is_the_published_one_on_the_corner_raster(truth):
    queries, xy, visible = truth
    rng = np.random.default_rng(5)
    found, seen = xy + rng.normal(0, 2, xy.shape), rng.random(visible.shape) < 0.8

    def by_time(array: np.ndarray) -> np.ndarray:
        return array.swapaxes(0, 1)[None]

    predicted, true = (by_time(metrics.to_tapvid_raster(places, SIZE_HW)) for places in (found, xy))
    published = metrics.redetection_metrics(
        predicted, by_time(seen), true, by_time(visible)
    ).figures["AJ_RD"]
    assert 0 < published < 1
    assert metrics.score(queries, xy, visible, found, seen, SIZE_HW)["AJ_RD"] == pytest.approx(
        published
    )


def test_no_query_gives_nan_not_a_number_that_looks_good():
    figures = metrics.score(
        np.zeros((0, 3)),
        np.zeros((0, 5, 2)),
        np.zeros((0, 5), bool),
        np.zeros((0, 5, 2)),
        np.zeros((0, 5), bool),
        SIZE_HW,
    )
    assert np.isnan(list(figures.values())).all()


def test_a_wrong_mode_is_refused(truth):
    queries, xy, visible = truth
    with pytest.raises(ConfigError, match="no query mode 'last': there are 'first' and 'strided'"):
        metrics.score(queries, xy, visible, xy, visible, SIZE_HW, "last")
    with pytest.raises(ConfigError, match="no query mode 'last'"):
        metrics.sample_queries(~visible, xy, "last")
    with pytest.raises(ConfigError, match="per 'video' or per 'track'"):
        metrics.tapvid_metrics(queries, ~visible, xy, ~visible, xy, "first", per="clip")
