"""What holds for the teacher of every network, whatever the network."""

from __future__ import annotations

import numpy as np
import pytest

from teachers.alltracker.teacher import AllTrackerTeacher
from teachers.cotracker.offline import CoTracker3OfflineTeacher
from teachers.cotracker.online import CoTracker2Teacher, CoTracker3OnlineTeacher
from teachers.errors import CheckpointError, ConfigError
from teachers.layers.memory import Memory
from teachers.locotrack.teacher import LocoTrackTeacher
from teachers.network_teacher import NetworkTeacher
from teachers.pips.teacher import Pips2Teacher, PipsTeacher
from teachers.tapir.stream import CausalBootsTapirTeacher
from teachers.tapir.teacher import BootsTapirTeacher, TapirTeacher
from teachers.tapnext.teacher import TapNextTeacher
from tests.support import parity
from tests.support.networks import LARGE_BLOCKS, SMALL_BLOCKS, mini
from tests.support.parity import NOISE_PX

CLIP = {"seed": 3, "T": 10, "H": 96, "W": 128, "vx": 1.0, "vy": -0.5}
QUERIES = 6


@pytest.mark.parametrize(
    ("kind", "name", "where"),
    [
        (AllTrackerTeacher, "alltracker", "get its file .*aharley/alltracker"),
        (BootsTapirTeacher, "tapir", "get its file from .*/bootstapir_checkpoint_v2.pt"),
        (CoTracker2Teacher, "cotracker2", ".*facebook/cotracker"),
        (CoTracker3OfflineTeacher, "cotracker3-offline", ".*facebook/cotracker3"),
        (CoTracker3OnlineTeacher, "cotracker3-online", ".*facebook/cotracker3"),
        (LocoTrackTeacher, "locotrack-base", "get its file from .*hamacojr"),
        (Pips2Teacher, "pips2", "get its file from .*aharley/pips2 "),
        (PipsTeacher, "pips", "get its file from .*aharley/pips "),
        (TapNextTeacher, "bootstapnext", "get its file from .*tapnet"),
        (TapirTeacher, "tapir", "get its file from .*/tapir_checkpoint_panning.pt"),
    ],
)
def test_one_without_weights_refuses_and_says_where_they_are(kind, name, where):
    with pytest.raises(
        CheckpointError, match=f"'{name}' has no weights: {where}.*--checkpoint FILE"
    ):
        kind(name=name, device="cpu")


WRONG: list[tuple[type[NetworkTeacher], dict[str, object], str]] = [
    (AllTrackerTeacher, {"max_frames": 0}, "max_frames = 0: must be a whole number, at least 1"),
    (AllTrackerTeacher, {"window": 7}, "window = 7, stride = 3: a window must be even"),
    (AllTrackerTeacher, {"window": 8, "stride": 5}, "window = 8, stride = 5: .* at most half"),
    (AllTrackerTeacher, {"counts": "best"}, "counts = 'best': there are first, last, evaluation"),
    (AllTrackerTeacher, {"resolution": 5}, "resolution = 5: write height and width in px"),
    (AllTrackerTeacher, {"official_quirks": "off"}, "official_quirks = off: must be true or false"),
    (CoTracker2Teacher, {"predictor": "live"}, "predictor = 'live': there are offline, online"),
    (CoTracker2Teacher, {"mode": "benchmark", "single": True}, "only measured with all points"),
    (CoTracker3OfflineTeacher, {"iterations": 0}, "iterations = 0: must be a whole number, at lea"),
    (CoTracker3OfflineTeacher, {"iterations": 1.5}, "iterations = 1.5: must be a whole number"),
    (
        CoTracker3OfflineTeacher,
        {"support_points": -1},
        "support_points = -1: .* at least 0",
    ),
    (CoTracker3OfflineTeacher, {"support_grid": "6"}, "support_grid = 6: must be a whole number"),
    (CoTracker3OfflineTeacher, {"overlap": 300}, r"overlap = 300: must be in 1\.\.255"),
    (CoTracker3OfflineTeacher, {"resolution": (100, 130)}, "height and width, multiples of 4"),
    (CoTracker3OfflineTeacher, {"resolution": [64]}, "height and width, multiples of 4"),
    (CoTracker3OfflineTeacher, {"bf16": "no"}, "bf16 = no: must be true or false"),
    (CoTracker3OfflineTeacher, {"single": True}, "belongs to mode 'benchmark', not to 'predictor'"),
    (CoTracker3OfflineTeacher, {"device": "abacus"}, "device 'abacus' cannot be used here"),
    (CoTracker3OfflineTeacher, {"device": "meta"}, "device 'meta' cannot be used here"),
    (LocoTrackTeacher, {"max_frames": 0}, "max_frames = 0: must be a whole number, at least 1"),
    (LocoTrackTeacher, {"through_query": "no"}, "through_query = no: must be true or false"),
    (LocoTrackTeacher, {"resolution": "large"}, "resolution = 'large': write height and width"),
    (LocoTrackTeacher, {"resolution": (0, 5)}, r"resolution = \(0, 5\): write height and width"),
    (LocoTrackTeacher, {"resolutions": [(100, 128)]}, "both sides must be multiples of 8"),
    (PipsTeacher, {"iterations": 0}, "iterations = 0: must be a whole number, at least 1"),
    (PipsTeacher, {"max_frames": 7}, "max_frames = 7: a window has 8 frames"),
    (Pips2Teacher, {"iterations": 0}, "iterations = 0: must be a whole number, at least 1"),
    (Pips2Teacher, {"window": 1}, "window = 1: must be a whole number, at least 2"),
    (Pips2Teacher, {"beautify": "off"}, "beautify = off: must be true or false"),
    (TapNextTeacher, {"backward": "no"}, "backward = no: must be true or false"),
    (TapNextTeacher, {"support_points": 1.5}, "support_points = 1.5: must be .* at least 0"),
    (TapNextTeacher, {"numerics": "tf"}, "numerics = 'tf': there are"),
    (TapNextTeacher, {"bf16": 1}, "bf16 = 1: must be true or false"),
    (TapirTeacher, {"max_frames": 0}, "max_frames = 0: must be a whole number, at least 1"),
    (TapirTeacher, {"max_frames": 2.5}, "max_frames = 2.5: must be a whole number, at least 1"),
    (TapirTeacher, {"half_pixel": "False"}, "half_pixel = False: must be true or false"),
    (TapirTeacher, {"resolutions": [(100, 128)]}, "both sides must be multiples of 8, at least 8"),
]
EVERY_NETWORK = sorted({kind for kind, _, _ in WRONG}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        *WRONG,
        *(
            (kind, {"preset": "large"}, "preset = 'large': there are official, mini")
            for kind in EVERY_NETWORK
        ),
    ],
)
def test_settings_that_cannot_be_right_are_refused(kind, settings, message, frames, queries):
    with pytest.raises(ConfigError, match=message):
        mini(kind, **settings).track(frames, queries)


@pytest.mark.parametrize(
    "kind",
    [
        TapirTeacher,
        BootsTapirTeacher,
        CausalBootsTapirTeacher,
        LocoTrackTeacher,
        AllTrackerTeacher,
    ],
)
def test_how_much_is_computed_at_once_does_not_change_the_result(kind, frames, queries):
    few_points = Memory(points_per_block=1)  # and as many frames as suit the teacher
    small, some, large = (
        mini(kind, memory=memory).track(frames, queries)
        for memory in (SMALL_BLOCKS, few_points, LARGE_BLOCKS)
    )
    np.testing.assert_allclose(small.xy, large.xy, atol=NOISE_PX)
    np.testing.assert_allclose(some.xy, large.xy, atol=NOISE_PX)


@pytest.mark.parametrize(
    ("kind", "side"), [(TapirTeacher, 256), (LocoTrackTeacher, 256), (TapNextTeacher, 128)]
)
def test_a_clip_twice_as_large_has_tracks_twice_as_large(kind, side):
    """Every pixel four times: resized to the raster the two clips are the same, and a pixel's
    centre x has become 2 x + 0.5."""
    clip = parity.video(**CLIP | {"H": side, "W": side, "T": 2})
    queries = parity.queries(4, 5, 2, side, side)
    teacher = mini(kind, mode="benchmark")
    small = teacher.track(clip, queries)
    large = teacher.track(
        clip.repeat(2, axis=1).repeat(2, axis=2), queries * [1, 2, 2] + [0, 0.5, 0.5]
    )
    np.testing.assert_allclose(large.xy, 2 * small.xy + 0.5, atol=NOISE_PX)
    np.testing.assert_allclose(large.visibility, small.visibility, atol=1e-3)


@pytest.mark.parametrize("kind", [TapirTeacher, LocoTrackTeacher])
def test_label_mode_answers_every_frame_and_goes_through_the_query(kind, frames, queries):
    tracks = mini(kind, mode="label").track(frames, queries)
    assert np.isfinite(tracks.xy).all()
    np.testing.assert_array_equal(
        tracks.xy[np.arange(QUERIES), queries[:, 0].astype(int)], queries[:, 1:]
    )
