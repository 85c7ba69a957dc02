"""What policies and thresholds would take, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labeler import open_dataset
from labeler.labels.agreement import AgreementConfig
from labeler.labels.trust import TrustConfig
from labeler.labels.trying import by_policy, what_if_trusted
from labeler.labels.verdict import ClipVerdict
from teachers import ConfigError
from tests.support.grey_clip import T, grey_clip

OLD = Path(__file__).parents[2] / "data" / "dataset_schema1"
ANY = AgreementConfig(min_visible_frames=1)


def judged_clip():
    """8 points in 24 frames by a, b, and c. Points 0-3: a is trusted with 0.8, c with 0.6; the
    others: nobody is, and they are hidden with 0.95 in the last 6 frames."""
    right = np.zeros((3, 8, T), np.float32)
    right[0, :4], right[2, :4] = 0.8, 0.6
    hidden = np.zeros((8, T), np.float32)
    hidden[:, -6:] = 0.95
    return replace(grey_clip(), verdict=ClipVerdict(("a", "b", "c"), right, hidden, "by hand"))


def test_other_thresholds_of_the_verifier_are_counted():
    table = what_if_trusted([judged_clip()] * 2, (0.5, 0.7, 0.9), (0.9,), ANY)
    assert table["min_right"].tolist() == [0.5, 0.7, 0.9]
    # points 0-3 in 17 frames, without their own, and as "hidden" is likelier in the last 6
    np.testing.assert_allclose(table["used_share"], [4 * 17 / (8 * 23), 4 * 17 / (8 * 23), 0])
    np.testing.assert_allclose(table["hidden_share"], [4 * 6 / (8 * 23), 4 * 6 / (8 * 23), 0])
    np.testing.assert_allclose(table["query_share"], [0.5, 0.5, 0])
    np.testing.assert_allclose(table["trust"], [0.8, 0.8, np.nan], rtol=1e-6)
    strict = what_if_trusted([judged_clip()], (0.5,), (0.99,), ANY)
    assert strict["hidden_share"].tolist() == [0]


def test_the_own_frame_of_a_query_counts_nowhere():
    """Every teacher is right there, whatever it does elsewhere. Points 0-3 are trusted in their own
    frame alone, the others also in one more, with 0.9."""
    right = np.zeros((3, 8, T), np.float32)
    right[0, :, 0], right[0, 4:, 5] = 1, 0.9
    verdict = ClipVerdict(("a", "b", "c"), right, np.zeros((8, T), np.float32), "by hand")
    table = what_if_trusted([replace(grey_clip(), verdict=verdict)], (0.5, 0.95), (0.9,), ANY)
    np.testing.assert_allclose(table["query_share"], [0.5, 0])
    np.testing.assert_allclose(table["used_share"], [4 / (8 * 23), 0])
    np.testing.assert_allclose(table["trust"], [0.9, np.nan], rtol=1e-6)


def test_each_policy_is_counted():
    table = by_policy([judged_clip()], ["verified", "random-verified"], ANY, TrustConfig())
    assert list(table.index) == ["verified", "random-verified"]
    np.testing.assert_allclose(table["used_share"], [4 * 17 / (8 * 23)] * 2)
    half = TrustConfig(min_right=0.5)
    lenient = by_policy([judged_clip()] * 8, ["random-verified"], ANY, half)
    assert 0.6 < lenient["trust"].iloc[0] < 0.8  # a or c, drawn for each query


def test_where_a_clip_was_not_judged_only_what_needs_no_verdict_is_counted():
    clips = [judged_clip(), grey_clip()]
    table = by_policy(clips, ["random", "verified"], ANY, TrustConfig())
    assert list(table.index) == ["random"]
    assert np.isnan(table["trust"]).all()
    with pytest.raises(ConfigError, match="`tapdistill relabel URL`"):
        what_if_trusted(clips, (0.5,), (0.9,), ANY)


def test_a_data_set_is_asked_for_its_policies_and_thresholds(dataset):
    opened = open_dataset(str(dataset.folder))
    table = opened.what_if(min_right=(0.3, 0.9), clips=3)
    assert table["clips"].tolist() == [3, 3]
    assert table["used_share"].is_monotonic_decreasing
    hidden = opened.what_if(min_hidden=(0.5, 0.9), clips=2)
    assert hidden["min_hidden"].tolist() == [0.5, 0.9]
    assert hidden["min_right"].tolist() == [TrustConfig.min_right] * 2
    assert "verified" in opened.by_policy(clips=2).index
    assert "tau_px" in opened.what_if(clips=2)
    old = open_dataset(str(OLD))
    assert "verified" not in old.by_policy().index
    assert "random-agreeing" in old.by_policy().index
    with pytest.raises(ConfigError, match="`tapdistill relabel URL`"):
        old.what_if(min_right=0.5)


def test_teachers_of_one_evidence_are_one_opinion_here_too():
    """b and c, at the same place, outvote a that is elsewhere, unless they are of one evidence."""
    clip = grey_clip()
    clip.tracks["c"] = clip.tracks["b"]
    clip.tracks["a"].visibility[:] = 0.95
    clip.tracks["a"].xy[..., 0] += 40
    agreed = by_policy([clip], ["medoid"], ANY, TrustConfig())
    assert agreed["used_share"].iloc[0] > 0.9
    for name in "bc":
        clip.meta["teachers"][name]["evidence"] = "patch"
    split = by_policy([clip], ["medoid"], ANY, TrustConfig())
    assert split["used_share"].iloc[0] == 0
