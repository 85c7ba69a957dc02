"""The training of the verifier goes on after a kill, calibrates, and measures what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from experiments.verifier import train
from experiments.verifier.clips import TrackedClip
from experiments.verifier.examples import Example, read_examples
from experiments.verifier.fakes import Truth
from experiments.verifier.measure import scores_by_policy, verified, wrong
from experiments.verifier.network import Network
from experiments.verifier.train import Training, calibrate, taught
from labeler.labels.evidence import OWN, SHARED
from labeler.labels.verdict import ClipVerdict
from labeler.labels.verifier import Verifier
from teachers import ConfigError, Tracks, VisibleRule

N, T = 6, 10


def example(seed, k):
    """Evidence whose first number tells right from wrong, and hidden from visible."""
    rng = np.random.default_rng(seed)
    right, hidden = rng.random((k, N, T)) < 0.5, rng.random((N, T)) < 0.3
    own = rng.normal(size=(k, N, T, len(OWN)))
    shared = rng.normal(size=(N, T, len(SHARED)))
    own[..., 0] += 5 * right
    shared[..., 0] += 5 * hidden
    shared[..., SHARED.index("in query frame")] = 0
    names = tuple(f"teacher-{i}" for i in range(k))
    half = np.float16
    return Example(names, own.astype(half), shared.astype(half), right | True, right, hidden)


@pytest.fixture
def examples():
    return [example(seed, 1 + seed % 3) for seed in range(9)]


def test_a_training_that_was_killed_ends_with_the_same_weights(examples, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_EVERY", 3)
    whole = taught(Training(out=tmp_path, steps=20, without="a"), examples)
    batch, made = train._batch, []

    def dies_in_step_8(*args):
        made.append(None)
        if len(made) == 8:
            raise KeyboardInterrupt
        return batch(*args)

    monkeypatch.setattr(train, "_batch", dies_in_step_8)
    killed = Training(out=tmp_path, steps=20)
    with pytest.raises(KeyboardInterrupt):
        taught(killed, examples)
    again = taught(killed, examples)
    assert len(made) == 8 + 14, "the steps after the sixth are taken again, and no others"
    for name, value in whole.items():
        np.testing.assert_array_equal(again[name], value, name)


@pytest.mark.slow
def test_it_learns_what_the_evidence_says(examples, tmp_path):
    weights = taught(Training(out=tmp_path, steps=150), examples)
    new = example(99, 2)
    right, hidden = Verifier(weights, "").logits(
        new.own.astype(np.float32), new.shared.astype(np.float32), new.placed
    )
    assert ((right > 0) == new.right).mean() > 0.75
    assert ((hidden > 0) == new.hidden).mean() > 0.75


def test_a_verifier_that_is_too_sure_is_cooled(examples):
    weights = Network(width=8, seed=0).to_numpy()
    for name in ("right.w", "hidden.out"):
        weights[name] *= 30
    before = {name: value.copy() for name, value in weights.items()}
    calibrate(weights, examples)
    for name in weights:
        cooler = name in ("right.w", "right.b", "hidden.out", "hidden.b3")
        same = np.array_equal(weights[name], before[name])
        assert same != cooler or not before[name].any(), name
    assert np.abs(weights["right.w"]).max() < 0.5 * np.abs(before["right.w"]).max()


def test_labels_are_counted_as_by_hand():
    """Two points in three frames, queries in frame 0. The first is right, then 5 px off; the second
    is hidden in frame 1, and in frame 2 the better position is 1 px off."""
    xy = np.full((2, 3, 2), 50.0)
    visible = np.array([[True, True, True], [True, False, True]])
    truth = Truth(np.zeros(2, int), xy, visible, np.full((2, 2, 3, 2), np.nan))
    near, far = xy + np.array([1.0, 0]), xy + np.array([5.0, 0])
    nan = np.full((2, 3), np.nan)
    tracks = {"near": Tracks(near, nan, nan), "far": Tracks(far, nan, nan)}
    rules = dict.fromkeys(tracks, VisibleRule("none"))
    queries = np.array([[0.0, 50, 50], [0, 50, 50]])
    frames = np.zeros((3, 256, 256, 3), np.uint8)
    clip = TrackedClip(frames, queries, truth, tracks, rules, dict.fromkeys(tracks, "alike"))
    of_near = np.array([[0.9, 0.8, 0.3], [0.9, 0.7, 0.6]])
    of_far = np.array([[0.1, 0.1, 0.6], [0.1, 0.1, 0.2]])
    said = ClipVerdict(("near", "far"), np.float32([of_near, of_far]), np.zeros((2, 3)), "by hand")
    figures = verified([said], [clip], 0.5)
    assert figures["used"] == 1
    # 1, 1, and 5 px: none, 2, 2, 3, 3 of them are nearer than 1, 2, 4, 8, 16 px
    assert figures["delta_avg"] == pytest.approx((0 + 2 / 3 + 2 / 3 + 1 + 1) / 5)
    assert figures["off_4px"] == pytest.approx(1 / 3)
    assert figures["wrongly_visible"] == pytest.approx(1 / 4)
    assert wrong(figures) == pytest.approx(2 / 4)
    surer = verified([said], [clip], 0.75)
    assert surer["used"] == pytest.approx(1 / 3)
    gone = replace(said, hidden=np.float32([[0, 0.85, 0], [0, 0, 0]]))  # likelier than 0.8
    assert verified([gone], [clip], 0.75)["used"] == 0


def test_in_the_table_of_policies_a_family_is_one_opinion():
    """Two that are alike are right in every frame, two strangers are 5 px off."""
    xy, nan = np.full((1, 12, 2), 50.0), np.full((1, 12), np.nan)
    truth = Truth(np.zeros(1, int), xy, np.ones((1, 12), bool), np.full((2, 1, 12, 2), np.nan))
    tracks = {name: Tracks(xy + np.array([5.0 * (name > "b"), 0]), nan, nan) for name in "abcd"}
    rules = dict.fromkeys(tracks, VisibleRule("none"))
    frames, queries = np.zeros((12, 256, 256, 3), np.uint8), np.array([[0.0, 50, 50]])

    def off(**evidence):
        clip = TrackedClip(frames, queries, truth, tracks, rules, evidence)
        figures = scores_by_policy([clip])["random-agreeing"]
        return figures["used"], figures["off_4px"]

    assert off(a="alike", b="alike", c="c", d="d") == (1, 1)
    assert off(a="alike", b="alike", c="other", d="other")[0] == 0, "one against one is no majority"


def test_examples_are_read_as_they_were_written(tmp_path):
    one = example(0, 2)
    path = tmp_path / "00007.npz"
    fields = ("own", "shared", "placed", "right")
    stored = {f"0/{name}": getattr(one, name) for name in fields}
    np.savez(path, hidden=one.hidden, **stored, **{"0/teachers": np.array(one.teachers)})
    (again,) = read_examples(path)
    assert again.teachers == one.teachers
    for name in (*fields, "hidden"):
        np.testing.assert_array_equal(getattr(again, name), getattr(one, name))
    assert train.aside(path)
    assert not train.aside(tmp_path / "00008.npz")


def test_so_few_clips_that_none_is_kept_aside_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--clips 7: at least 8, since every 8th is kept aside"):
        Training(out=tmp_path, clips=7)
