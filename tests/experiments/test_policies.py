"""The experiment in experiments/policies.py: its truth is true, and what is done is not done
again."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.policies import Experiment, run, with_truth
from teachers.errors import ConfigError


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Experiment:
    """All of it, as small as can be."""
    experiment = Experiment(out=tmp_path_factory.mktemp("experiment"), quick=True).sized()
    run(experiment)
    return experiment


@pytest.mark.slow
def test_the_truth_goes_through_every_query_where_it_is_seen(done):
    seen = 0
    for sample, truth in with_truth(str(done.out / "labels")):
        at_query = np.arange(len(sample.queries)), sample.queries[:, 0].astype(int)
        # a bend is inverted to that
        np.testing.assert_allclose(truth.xy[at_query], sample.queries[:, 1:], atol=0.05)
        # on an edge, half of the light may be another layer's
        assert truth.visible[at_query].mean() > 0.9
        seen += len(sample.queries)
    assert seen == done.clips * done.queries


@pytest.mark.slow
def test_the_oracle_labels_the_same_clips_with_no_track_farther_from_the_truth(done):
    def error(tracks, truth) -> np.ndarray:
        distance = np.linalg.norm(tracks.xy - truth.xy, axis=-1)
        shown = truth.visible & np.isfinite(distance)
        return np.where(
            shown.any(1), np.where(shown, distance, 0).sum(1) / np.maximum(shown.sum(1), 1), np.inf
        )

    teachers, oracles = (
        dict((s.key, (s, t)) for s, t in with_truth(str(done.out / name)))
        for name in ("labels", "labels-oracle")
    )
    assert teachers.keys() == oracles.keys()
    for key, (sample, truth) in teachers.items():
        nearest = np.min([error(tracks, truth) for tracks in sample.tracks.values()], axis=0)
        np.testing.assert_allclose(
            error(oracles[key][0].tracks["oracle"], truth), nearest, atol=0.02
        )


@pytest.mark.slow
def test_every_tracker_is_in_the_table_and_nothing_is_done_twice(done, capsys):
    before = {path: path.stat().st_mtime_ns for path in (done.out / "scores").iterdir()}
    run(done)
    said = capsys.readouterr().out
    for name in (
        "lk",
        "flow",
        "match",
        "student before",
        "student, random",
        "student, random-agreeing",
        "student, oracle",
    ):
        assert name in said
    assert {path: path.stat().st_mtime_ns for path in (done.out / "scores").iterdir()} == before


@pytest.mark.slow
def test_a_folder_holds_one_experiment(done):
    with pytest.raises(
        ConfigError, match="holds an experiment with steps = 2, not 60: give another --out"
    ):
        run(Experiment(out=done.out))


def test_an_experiment_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--policies best: name some of random, random-agreeing"):
        Experiment(out=tmp_path, policies=("best",))
    with pytest.raises(ConfigError, match="--seeds 0: must be at least 1"):
        Experiment(out=tmp_path, seeds=0)
