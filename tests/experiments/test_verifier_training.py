"""The training of the verifier goes on after a kill, calibrates, and measures what it says."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.verifier import train
from experiments.verifier.clips import TrackedClip
from experiments.verifier.examples import Example, read_examples
from experiments.verifier.fakes import Truth
from experiments.verifier.measure import verified
from experiments.verifier.network import Network
from experiments.verifier.train import Training, calibrate, taught
from labeler.labels.evidence import OWN, SHARED
from labeler.labels.verifier import Verifier
from teachers import Tracks, VisibleRule

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
    clip = TrackedClip(np.zeros((3, 8, 8, 3), np.uint8), queries, truth, tracks, rules)
    of_near = np.array([[0.9, 0.8, 0.3], [0.9, 0.7, 0.6]])
    of_far = np.array([[0.1, 0.1, 0.6], [0.1, 0.1, 0.2]])
    score = verified([np.stack([of_near, of_far])], [clip], 0.5)
    assert sorted(score.error) == [1, 1, 5]
    assert (score.hidden, score.visible) == (1, 3)
    assert score.coverage == 1
    assert score.wrong == pytest.approx(2 / 4)
    assert verified([np.stack([of_near, of_far])], [clip], 0.75).coverage == pytest.approx(1 / 3)


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
