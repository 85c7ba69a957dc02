"""What counts as a label, by agreement and by a policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labeler import open_dataset
from labeler.labels.agreement import OCCLUDED, VISIBLE
from labeler.labels.labelled import described, labelled, target_of
from labeler.labels.trust import TrustConfig
from labeler.labels.verdict import ClipVerdict
from teachers import ConfigError
from tests.support.grey_clip import T, grey_clip

OLD = Path(__file__).parents[2] / "data" / "dataset_schema1"


@pytest.fixture
def judged():
    """8 points in 24 frames by a, b, and c. Points 0-3: c is trusted with 0.6, the others with
    nothing, and the point is hidden with 0.8 in the last 6 frames. Points 4-7: nobody is trusted,
    and nothing is hidden."""
    right, hidden = np.zeros((3, 8, T), np.float32), np.zeros((8, T), np.float32)
    right[2, :4], hidden[:4, -6:] = 0.6, 0.8
    return replace(grey_clip(), verdict=ClipVerdict(("a", "b", "c"), right, hidden, "by hand"))


def test_without_a_policy_labels_are_the_stored_ones_at_the_medoid():
    sample = grey_clip()
    sample.labels.keep[3] = False
    sample.labels.state[5, 7:9] = OCCLUDED
    labels = labelled(sample)
    kept = sample.labels.valid & sample.labels.keep[:, None]
    assert labels.by == labels.how == "agreement"
    assert (labels.visible == (kept & (sample.labels.state == VISIBLE))).all()
    assert (labels.hidden == (kept & (sample.labels.state == OCCLUDED))).all()
    assert labels.hidden.sum() == 2
    assert np.isnan(labels.xy[~labels.visible]).all()
    # b lies between a and c, and does not track the first frame
    at = labels.visible[:, 1:20]
    np.testing.assert_array_equal(
        labels.xy[:, 1:20][at], sample.tracks["b"].xy[:, 1:20][at].astype(np.float32)
    )


def test_with_a_policy_they_are_what_it_takes_by_these_thresholds(judged):
    lenient = TrustConfig(min_right=0.5, min_hidden=0.7)
    labels = labelled(judged, "verified", lenient)
    seen = np.zeros((8, T), bool)
    seen[:4, :-6] = True
    assert (labels.visible == seen).all()
    assert (labels.hidden[:4] == ~seen[:4]).all()
    assert not labels.hidden[4:].any()
    np.testing.assert_array_equal(labels.xy[seen], judged.tracks["c"].xy[seen])  # not a, not b
    assert labels.how == "verified (min-right 0.5, min-hidden 0.7)"
    by_default = labelled(judged, "verified")
    assert not by_default.visible.any()
    assert by_default.how == "verified (min-right 0.8, min-hidden 0.9)"


def test_a_policy_that_draws_does_so_by_the_key_alone(judged):
    first, again = labelled(judged, "random"), labelled(judged, "random")
    np.testing.assert_array_equal(first.xy, again.xy)
    others = [labelled(replace(judged, key=key), "random").xy for key in ("b", "c", "d")]
    assert any(not np.array_equal(first.xy, other, equal_nan=True) for other in others)
    assert described("random") == "random"  # it does not look at the verdict


def test_agreement_is_as_the_clip_was_labelled(judged):
    strict = replace(judged.labels, settings={**judged.labels.settings, "min_support": 0.9})
    assert target_of(judged, "medoid").used.any()
    assert not target_of(replace(judged, labels=strict), "medoid").used.any()


def test_what_a_stored_clip_cannot_have_is_refused(judged):
    with pytest.raises(ConfigError, match="'oracle' needs exact tracks"):
        labelled(judged, "oracle")
    with pytest.raises(ConfigError, match="'verified': no verifier has judged these labels"):
        labelled(open_dataset(str(OLD))[0], "verified")
    with pytest.raises(ConfigError, match="no label policy 'verifed'"):
        labelled(judged, "verifed")
