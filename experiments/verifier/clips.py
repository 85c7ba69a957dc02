"""Clips with truth and with the tracks of real teachers, made once and kept in files.

Two kinds of world: those to learn from (`experiments.minis.pool.draw_world`: photographs and their
mixtures; bent, blurred, noisy, moving cameras, by chance), and the one to measure in
(`SynthConfig.unseen`: patterns and polygons), which nothing here ever learns from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

import teachers
from experiments.files import write_npz
from experiments.minis.pool import draw_world
from experiments.verifier.fakes import Truth
from labeler.clips.queries import QueryConfig, sample_queries
from labeler.video.encode import decode_clip, encode_clip
from student.clip import TestClip
from student.synth.layers import track
from student.synth.scene import SynthConfig, draw_scene, generate, points_at
from teachers import Teacher, Tracks, VisibleRule

Kind = Literal["train", "test"]
TEACHERS: dict[Kind, tuple[str, ...]] = {
    "train": ("lk", "flow", "match", "xfeat", "tapir-mini", "cotracker3-offline-mini"),
    "test": ("flow", "match", "tapir-mini", "xfeat"),
}
FIRST_SEED: dict[Kind, int] = {"train": 2_000_000, "test": 0}
"""Of clips that no mini learnt from, nor chose its visible rule on: on its own clips a teacher is
better than elsewhere."""
QUERIES: dict[Kind, int] = {"train": 128, "test": 192}


@dataclass(frozen=True)
class TrackedClip:
    """A procedural clip, its truth, and what teachers make of it."""

    frames: np.ndarray  # [T, H, W, 3] uint8 RGB
    queries: np.ndarray  # [N, 3] float32 (t, x, y)
    truth: Truth
    tracks: dict[str, Tracks]
    rules: dict[str, VisibleRule]
    evidence: dict[str, str]
    """`TeacherInfo.evidence` of each teacher."""

    @property
    def known(self) -> TestClip:
        """The clip and its truth."""
        xy, visible = self.truth.xy, self.truth.visible
        return TestClip(name="", frames=self.frames, queries=self.queries, xy=xy, visible=visible)

    def right(self, tracks: dict[str, Tracks]) -> np.ndarray:
        """bool [K, N, T]: visible, and within 2 px; clips are 256 x 256 here, as the raster is."""
        off = np.stack([each.xy for each in tracks.values()]) - self.truth.xy
        with np.errstate(invalid="ignore"):
            return (np.hypot(off[..., 0], off[..., 1]) <= 2) & self.truth.visible


def make_clip(kind: Kind, seed: int, folder: Path) -> Path:
    """The file of clip `seed`; made if it is not there."""
    path = folder / kind / f"{seed:05d}.npz"
    if path.exists():
        return path
    rng = np.random.default_rng((seed, 77))
    world = draw_world(seed) if kind == "train" else SynthConfig.unseen(points=192, split="test")
    frames = generate(seed, world).frames
    if kind == "test":  # as `label` stores it, and with its queries
        frames = decode_clip(encode_clip(frames, fps=24))
        config = QueryConfig(count=QUERIES[kind])
    else:
        sift, part = float(rng.choice([0.25, 0.75])), float(rng.choice([0.25, 1.0]))
        config = QueryConfig(count=QUERIES[kind], sift=sift, sift_part=part)
    queries = sample_queries(frames, config, rng).points
    truth = _truth(seed, world, queries)
    out = {
        "frames": frames,
        "queries": queries,
        "xy": truth.xy,
        "visible": truth.visible,
        "cover": truth.cover,
    }
    for name in TEACHERS[kind]:
        tracks = _teacher(name).track(frames, queries)
        out |= {
            f"{name}/{field}": getattr(tracks, field)
            for field in ("xy", "visibility", "confidence")
        }
        out[f"{name}/rule"] = np.array(_teacher(name).info.visible_rule)
    write_npz(path, **out)
    return path


def read_clip(path: Path) -> TrackedClip:
    """The inverse of `make_clip`."""
    with np.load(path) as stored:
        z = {name: stored[name] for name in stored.files}
    names = [name.removesuffix("/rule") for name in z if name.endswith("/rule")]
    truth = Truth(z["queries"][:, 0].astype(int), z["xy"], z["visible"], z["cover"])
    tracks = {
        name: Tracks(*(z[f"{name}/{field}"] for field in ("xy", "visibility", "confidence")))
        for name in names
    }
    rules = {name: VisibleRule.parse(str(z[f"{name}/rule"])) for name in names}
    evidence = {name: _teacher(name).info.evidence for name in names}
    return TrackedClip(z["frames"], z["queries"], truth, tracks, rules, evidence)


@cache
def _teacher(name: str) -> Teacher:
    return teachers.load(name, mode="label", device="cpu")


def _truth(seed: int, world: SynthConfig, queries: np.ndarray) -> Truth:
    layers = draw_scene(seed, world).layers
    query_t = queries[:, 0].astype(int)
    size = world.height, world.width
    xy, visible = track(layers, points_at(layers, query_t, queries[:, 1:].astype(float)), *size)
    inside = ((xy > -0.5) & (xy < np.array(size[::-1]) - 0.5)).all(-1)
    cover = np.full((2, *xy.shape), np.nan, np.float32)
    for way, step in enumerate((1, -1)):
        first = [_first_hidden(~visible[i] & inside[i], query_t[i], step) for i in range(len(xy))]
        some = np.flatnonzero(np.array(first) >= 0)
        if len(some):
            at = np.array(first)[some]
            over = points_at(layers, at, xy[some, at].astype(float))
            cover[way, some] = track(layers, over, *size)[0]
    return Truth(query_t, xy.astype(np.float32), visible, cover)


def _first_hidden(hidden: Sequence[bool] | np.ndarray, query: int, step: int) -> int:
    """The frame, from the query on in steps of 1 or -1, in which it is first hidden; -1 if it
    never is."""
    t = query
    while 0 <= t < len(hidden):
        if hidden[t]:
            return t
        t += step
    return -1
