"""The experiment in experiments/policies: its truth is true, its intervals are paired, and what is
done is not done again."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.policies.config import CONTROLS, Experiment
from experiments.policies.labels import with_truth
from experiments.policies.run import run
from experiments.policies.scores import differences
from labeler.dataset.dataset import open_dataset
from labeler.labels.agreement import AgreementConfig
from teachers.errors import ConfigError


def test_a_small_but_steady_gain_is_seen_among_clips_that_differ_much():
    rng = np.random.default_rng(0)
    teacher = pd.DataFrame(rng.uniform(0, 1, (12, 3)), columns=["AJ", "delta_avg", "OA"])
    gain = np.array([0.01, 0.0, -0.01]) + rng.normal(0, 0.002, (12, 3))
    student = teacher + gain
    (aj, low, high), delta_avg, occlusion = differences([student], [teacher])
    assert 0.8 < low < aj < high < 1.2
    assert delta_avg[1] < 0.0 < delta_avg[2]
    assert occlusion[2] < 0.0


def rows(values: np.ndarray) -> pd.DataFrame:
    """Scores of which each figure is the same."""
    return pd.DataFrame({figure: values for figure in ("AJ", "delta_avg", "OA")})


def test_of_one_training_each_it_is_the_paired_t_test():
    rng = np.random.default_rng(1)
    one, other = rng.uniform(0, 1, (2, 24))
    (mean, low, high), *_ = differences([rows(one)], [rows(other)])
    expected = stats.ttest_rel(100 * one, 100 * other)
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose((low, high), (interval.low, interval.high))
    assert mean == pytest.approx(100 * (one - other).mean())


def test_of_trainings_on_clips_that_are_all_alike_it_is_the_t_test_of_welch():
    ones, others = (0.41, 0.50, 0.62), (0.30, 0.33)
    (mean, low, high), *_ = differences(
        [rows(np.full(12, value)) for value in ones],
        [rows(np.full(12, value)) for value in others],
    )
    expected = stats.ttest_ind(100 * np.array(ones), 100 * np.array(others), equal_var=False)
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose((low, high), (interval.low, interval.high))
    assert mean == pytest.approx(19.5)


def test_trainings_in_pairs_differ_less():
    apart = [rows(np.full(12, v)) for v in (0.3, 0.4, 0.5)]
    below = [rows(np.full(12, v)) for v in (0.2, 0.3, 0.4)]
    np.testing.assert_allclose(differences(apart, below, pairs=True), 10)
    assert differences(apart, below)[0][1] < 0 < 20 < differences(apart, below)[0][2]


def test_the_interval_of_three_trainings_holds_the_truth_nineteen_times_of_twenty():
    rng = np.random.default_rng(2)
    for of_trainings in (0.0, 0.005, 0.02):  # spread beside 0.02 of clips, 0.004 after the mean
        held = []
        for _ in range(400):
            teacher = rng.uniform(0, 1, 24)
            gain = 0.01 + rng.normal(0, 0.02, 24)
            trained = [gain + bias for bias in rng.normal(0, of_trainings, 3)]
            (_, low, high), *_ = differences([rows(teacher + g) for g in trained], [rows(teacher)])
            held.append(low < 1.0 < high)
        assert 0.92 < np.mean(held) < 0.99, of_trainings


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Experiment:
    """All of it, as small as can be."""
    experiment = Experiment(out=tmp_path_factory.mktemp("experiment"), quick=True).sized()
    run(experiment)
    return experiment


@pytest.mark.slow
def test_the_truth_goes_through_every_query_where_it_is_seen(done):
    seen = 0
    for sample, truth in with_truth(done, "drawn"):
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

    oracles = {s.key: s for s in open_dataset(str(done.folder("drawn") / "labels-oracle"))}
    compared = 0
    for sample, truth in with_truth(done, "drawn"):
        nearest = np.min([error(tracks, truth) for tracks in sample.tracks.values()], axis=0)
        oracle = oracles[sample.key].tracks["oracle"]
        np.testing.assert_allclose(error(oracle, truth), nearest, atol=0.02)
        compared += 1
        assert oracles[sample.key].verdict is None  # which nobody would ask
        assert sample.verdict is not None
    assert compared == len(oracles) == done.clips


@pytest.mark.slow
def test_the_truth_labels_the_same_clips_with_exact_tracks(done):
    exact = {s.key: s for s in open_dataset(str(done.folder("drawn") / "labels-truth"))}
    compared = 0
    for sample, truth in with_truth(done, "drawn"):
        ((name, tracks),) = exact[sample.key].tracks.items()
        np.testing.assert_array_equal(exact[sample.key].queries, sample.queries)
        np.testing.assert_allclose(tracks.xy, truth.xy, atol=0.02)  # as far as a shard keeps them
        seen = exact[sample.key].rules[name].seen(tracks.visibility, tracks.confidence)
        np.testing.assert_array_equal(seen, truth.visible)
        compared += 1
    assert compared == len(exact) == done.clips


@pytest.mark.slow
def test_labels_have_the_agreement_of_the_experiment(done):
    labels = open_dataset(str(done.folder("drawn") / "labels"))
    assert labels.agreements == [asdict(done.agreement())]


@pytest.mark.slow
def test_every_tracker_is_in_the_table_and_nothing_is_done_twice(done, capsys):
    scores = done.folder("drawn") / "scores"
    before = {path: path.stat().st_mtime_ns for path in scores.iterdir()}
    run(done)
    said = capsys.readouterr().out
    for name in ("lk", "flow", "match", "tapir-mini", "cotracker3-offline-mini"):
        assert name in said
    for policy in done.policies:
        # in the table of labels, where self-training has rows of other names and the truth has
        # none; for each student in three tables, twice in one, and beside each other policy
        rows = (policy not in CONTROLS) + (4 + len(done.policies) - 1) * len(done.students)
        assert sum(policy in line.split() for line in said.splitlines()) == rows
    for name in done.students:
        assert f"self, {name}" in said
    assert {path: path.stat().st_mtime_ns for path in scores.iterdir()} == before


@pytest.mark.slow
def test_a_folder_holds_one_experiment(done):
    with pytest.raises(
        ConfigError, match="holds what was made with steps = 2, not 80: give another --out"
    ):
        run(Experiment(out=done.out))


def test_a_night_is_longer_and_what_differs_from_the_defaults_stays(tmp_path):
    hour = Experiment(out=tmp_path)
    night = Experiment(out=tmp_path, night=True, steps=500).sized()
    assert (night.steps, night.batch, night.seeds) == (500, 2, 3)
    assert (hour.videos("drawn").frames, night.videos("drawn").frames) == (12, 24)
    assert set(night.policies) == {*hour.policies, *CONTROLS}
    assert hour.sized() == hour
    assert night.sized() == night


def test_a_label_is_seen_in_a_third_of_its_video_which_is_the_threshold_of_the_package(tmp_path):
    hour = Experiment(out=tmp_path)
    night = Experiment(out=tmp_path, night=True).sized()
    assert night.agreement() == AgreementConfig()
    assert hour.agreement() == AgreementConfig(min_visible_frames=4)


def test_an_experiment_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--night and --quick: leave one of them out"):
        Experiment(out=tmp_path, night=True, quick=True)
    with pytest.raises(
        ConfigError, match="no label policy 'best': there are random, random-agreeing"
    ):
        Experiment(out=tmp_path, policies=("best",))
    with pytest.raises(ConfigError, match="--seeds 0: must be at least 1"):
        Experiment(out=tmp_path, seeds=0)
    with pytest.raises(ConfigError, match="--policies: name at least one, and each once"):
        Experiment(out=tmp_path, policies=("verified", "verified"))
    with pytest.raises(ConfigError, match="--clips 10001: at most 10000"):
        Experiment(out=tmp_path, clips=10_001)
