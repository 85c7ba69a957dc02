"""Which teachers are nearly one, and what labels say, on cases counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from labeler.labels.agreement import DISPUTED, VISIBLE, AgreementConfig, label
from labeler.labels.disagreement import (
    LEAST_POSITIONS,
    by_state,
    kept_by_motion,
    mean_support,
    nearly_one,
    parted,
    repeated_errors,
    support_histogram,
)
from labeler.labels.hidden import proven
from labeler.labels.sample import Sample
from teachers import TeacherInfo, Tracks

SIZE = 256, 256
KINDS = {"lk": "patch", "match": "patch", "flow": "flow", "net": "network"}


def sample_of(x: dict[str, np.ndarray], seen: dict[str, np.ndarray] | None = None) -> Sample:
    """Queries in frame 0 of a clip as large as the raster; the x of each teacher [N, T], y = 50."""
    (n, t), *_ = {each.shape for each in x.values()}
    queries = np.tile(np.float32([0, 50, 50]), (n, 1))
    tracks = {
        name: Tracks(
            np.stack([each, each * 0 + 50], -1).astype(np.float32),
            np.broadcast_to(np.float32((seen or {}).get(name, 1.0)), (n, t)).copy(),
            np.full((n, t), np.nan, np.float32),
        )
        for name, each in x.items()
    }
    infos = {
        name: TeacherInfo(
            name=name, architecture=name, mode="label", visible_rule="v > 0.5", evidence=KINDS[name]
        )
        for name in x
    }
    rules = {name: info.rule for name, info in infos.items()}
    labels = label(tracks, rules, queries, SIZE, AgreementConfig(min_visible_frames=1), KINDS)
    meta = {
        "height": SIZE[0],
        "width": SIZE[1],
        "teachers": {name: info.to_json() for name, info in infos.items()},
    }
    return Sample("clip", b"", queries, np.full(n, "sift"), tracks, labels, meta)


def constant(x: float, n: int = 10, t: int = 20) -> np.ndarray:
    return np.full((n, t), x)


def test_a_teacher_that_repeats_the_errors_of_another_is_found():
    """`lk` is 20 px off in all of 200 places; `match` is there too in 60 of them, else right."""
    match = constant(50)
    match.reshape(-1)[:60] = 71
    x = {"lk": constant(70), "match": match, "flow": constant(50), "net": constant(51)}
    table = repeated_errors([sample_of(x)])
    assert table.loc["lk", "match"] == pytest.approx(60 / 200)
    assert table.loc["match", "lk"] == 1  # wherever it is off
    assert table.loc["lk", "flow"] == 0  # match and net are right together in 140 places
    assert np.isnan(table.loc["flow", "lk"])  # never off
    assert np.isnan(np.diag(table)).all()
    (said,) = nearly_one(table, KINDS)
    assert said.startswith("lk and match are nearly one: where match is far off, lk is at the same")
    assert "100%; they count for one opinion (patch)." in said
    (said,) = nearly_one(table, KINDS | {"lk": "another"})
    assert "two opinions" in said


def test_what_two_teachers_of_one_kind_say_tells_nobody_who_is_wrong():
    """Nobody but lk and match says that flow and net are far off."""
    x = {"lk": constant(50), "match": constant(50), "flow": constant(70), "net": constant(71)}
    table = repeated_errors([sample_of(x)])
    assert np.isnan(table.loc["flow", "net"])
    assert table.loc["lk", "match"] == 1  # by flow and net, who may be the ones that are wrong


def test_three_teachers_are_too_few_to_tell():
    x = {"lk": constant(70), "match": constant(70), "flow": constant(50)}
    table = repeated_errors([sample_of(x)])
    assert table.isna().all(axis=None)
    assert nearly_one(table, KINDS) == []


def test_a_share_of_few_places_is_not_told():
    frames = LEAST_POSITIONS - 1
    x = {"lk": 70, "match": 70, "flow": 50, "net": 50}
    few = sample_of({name: constant(at, 1, frames) for name, at in x.items()})
    assert repeated_errors([few]).isna().all(axis=None)
    enough = [few, sample_of({name: constant(at, 1, 1) for name, at in x.items()})]
    assert repeated_errors(enough).loc["lk", "match"] == 1


def test_a_point_that_is_called_hidden_is_no_error():
    x = {"lk": constant(70), "match": constant(70), "flow": constant(50), "net": constant(50)}
    table = repeated_errors([sample_of(x, seen={"match": np.zeros((10, 20))})])
    assert table.loc["lk", "match"] == 0
    assert np.isnan(table.loc["match", "lk"])


def test_states_are_counted_and_how_far_teachers_are_apart_in_each():
    """10 frames: 5 seen by both, 3 by none, where they are 30 px apart, 2 by one of them."""
    flow, net = constant(50, 1, 10), constant(51, 1, 10)
    net[0, 5:8] = 80
    seen = {
        "flow": np.float32([[1] * 5 + [0] * 3 + [1] * 2]),
        "net": np.float32([[1] * 5 + [0] * 5]),
    }
    table = by_state([sample_of({"flow": flow, "net": net}, seen)])
    assert table["share"].tolist() == [0.5, 0.3, 0.2]
    assert table["valid_share"].tolist() == [1, 1, 0]
    assert table["apart_px"].tolist() == [1, 30, 1]
    assert list(table.index) == ["visible", "occluded", "disputed"]


def test_a_shard_of_before_knows_the_evidence_of_its_teachers():
    sample = sample_of({"lk": constant(50), "flow": constant(50)})
    stored = sample.meta["teachers"]
    for name, architecture in (("lk", "pyramidal Lucas-Kanade"), ("flow", "chained dense flow")):
        stored[name] = {**stored[name], "architecture": architecture}
        del stored[name]["evidence"]
    assert sample.evidence == {"lk": "patch-alignment", "flow": "flow"}


def test_a_point_that_is_lost_as_it_moves_off_has_moved_far():
    """Ten points go 5 px a frame; `match` and `net` see them in the first frame only, so that
    labels have no motion at all. Ten others stay, seen by all."""
    moving = 50 + 5.0 * np.arange(20)
    x = np.concatenate([np.tile(moving, (10, 1)), constant(50)])
    lost = np.ones((20, 20))
    lost[:10, 1:] = 0
    sample = sample_of({"lk": x, "match": x, "net": x}, {"match": lost, "net": lost})
    table = kept_by_motion([sample])
    assert table["queries"].iloc[[0, -1]].tolist() == [10, 10]
    assert table["queries"].sum() == 20


def test_frames_that_nobody_sees_are_no_disagreement():
    """4 frames: both see the point at one place; 20 px apart; only one of them sees it; nobody
    does, and nothing says that it is hidden."""
    flow, net = constant(50, 1, 4), constant(50, 1, 4)
    net[0, 1] = 70
    seen = {"flow": np.float32([[1, 1, 1, 0]]), "net": np.float32([[1, 1, 0, 0]])}
    sample = proven(sample_of({"flow": flow, "net": net}, seen))
    assert sample.labels.state.tolist() == [[VISIBLE, VISIBLE, DISPUTED, DISPUTED]]
    assert parted(sample.labels).tolist() == [[False, True, True, False]]
    np.testing.assert_array_equal(mean_support(sample.labels), [1, 0.5, 0.5, np.nan])
    assert support_histogram(sample.labels).sum() == 3


def test_who_asks_for_more_support_sees_more_disagreement():
    labels = sample_of({"flow": constant(50), "net": constant(50), "lk": constant(70)}).labels
    assert not parted(labels).any()  # 2 of 3 are enough
    assert parted(replace(labels, settings={**labels.settings, "min_support": 0.7})).all()
