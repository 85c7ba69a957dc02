"""The training of the verifier."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from experiments.verifier import examples
from experiments.verifier.clips import TrackedClip
from experiments.verifier.fakes import Truth, fake
from experiments.verifier.network import Network
from labeler.labels.evidence import OWN, SHARED
from labeler.labels.verifier import Verifier
from teachers import Tracks, VisibleRule


def test_the_network_that_is_trained_is_the_one_that_runs():
    rng = np.random.default_rng(0)
    network = Network(width=16, seed=1)
    own = rng.normal(size=(3, 5, 20, len(OWN))).astype(np.float32)
    shared = rng.normal(size=(5, 20, len(SHARED))).astype(np.float32)
    placed = rng.random((3, 5, 20)) < 0.8
    network.normalise(own.reshape(-1, len(OWN)) * 2 + 1, shared.reshape(-1, len(SHARED)))
    right, hidden = network(*map(torch.from_numpy, (own, shared, placed)))
    there, here = Verifier(network.to_numpy(), "test").logits(own, shared, placed)
    np.testing.assert_allclose(there[placed], right.detach().numpy()[placed], atol=1e-4)
    np.testing.assert_allclose(here, hidden.detach().numpy(), atol=1e-4)


def test_a_fake_is_like_a_teacher_and_mostly_near_the_truth():
    rng = np.random.default_rng(0)
    n, t = 40, 24
    xy = rng.uniform(40, 216, (n, 1, 2)) + np.cumsum(rng.normal(0, 1, (n, t, 2)), 1)
    visible = np.ones((n, t), bool)
    visible[::4, 8:14] = False
    query_t = rng.integers(0, 6, n)
    truth = Truth(query_t, xy, visible, np.full((2, n, t, 2), np.nan))
    near, agree, unlike = [], [], set()
    for _ in range(40):
        tracks, rule = fake(rng, truth, [], np.ones(n))
        placed = np.isfinite(tracks.xy).all(-1)
        np.testing.assert_array_equal(placed, np.isfinite(tracks.xy).any(-1))
        for value in (tracks.visibility, tracks.confidence):
            known = np.isfinite(value)
            assert not (known & ~placed).any()
            assert ((value[known] >= 0) & (value[known] <= 1)).all()
        assert placed[np.arange(n), query_t].all()
        error = np.hypot(*np.moveaxis(tracks.xy - xy, -1, 0))
        near.append((error[placed & visible] <= 2).mean())
        agree.append((rule(tracks) == visible)[placed].mean())
        unlike.add(str(rule))
    assert min(near) > 0.3
    assert max(near) > 0.9
    assert np.mean(near) < 0.95, "a fake that never fails teaches nothing"
    assert 0.6 < np.mean(agree) < 0.98
    assert len(unlike) > 3


def test_a_teacher_that_is_left_out_is_met_in_no_form(tmp_path, monkeypatch):
    """Neither itself nor in a fake: its tracks are the only ones in that corner."""
    truth = Truth(np.zeros(3, int), np.full((3, 9, 2), 99.0), np.ones((3, 9), bool),
                  np.full((2, 3, 9, 2), np.nan))  # fmt: skip
    nan = np.full((3, 9), np.nan)
    tracks = {"here": Tracks(truth.xy, nan, nan), "out": Tracks(truth.xy - 90, nan, nan)}
    clip = TrackedClip(
        np.zeros((9, 256, 256, 3), np.uint8), np.full((3, 3), 99.0), truth, tracks,
        dict.fromkeys(tracks, VisibleRule("none")), dict.fromkeys(tracks, ""),
    )  # fmt: skip
    seen: dict[str | None, list[np.ndarray]] = {None: [], "out": []}
    monkeypatch.setattr(examples, "read_clip", lambda path: clip)

    def gather(frames, queries, tracks, rules):
        seen[without].extend(each.xy for each in tracks.values())
        k = len(tracks)
        return SimpleNamespace(own=np.zeros((k, 3, 9, 1)), shared=np.zeros((3, 9, 1)),
                               placed=np.ones((k, 3, 9), bool))  # fmt: skip

    monkeypatch.setattr(examples, "gather", gather)
    for without in seen:
        files = [
            examples.make_examples("train", Path(f"{seed:05d}.npz"), tmp_path, without)
            for seed in range(12)
        ]
        assert len(set(files)) == 12
    near = {
        without: any((np.abs(xy - 9) < 2).all(-1).any() for xy in found)
        for without, found in seen.items()
    }
    assert near == {None: True, "out": False}
