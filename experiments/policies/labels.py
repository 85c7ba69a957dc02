"""Labels of a world's videos: made by `tapdistill label`, held against the truth, and those of the
oracle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import teachers
from experiments.files import write_npz, write_whole
from experiments.policies.config import SELF, TRUTH, Experiment, World
from labeler.clips.choice import ClipConfig
from labeler.clips.queries import QueryConfig
from labeler.dataset.dataset import open_dataset
from labeler.labels.policies import Policy, choose
from labeler.labels.sample import Sample
from labeler.video.encode import decode_clip, encode_clip
from pipelines.jobs.config import LabelConfig
from pipelines.jobs.labelling import label
from student.clip import TestClip
from student.evaluation.labels import LabelScore, labels_of
from student.synth.scene import SynthConfig, generate, true_tracks
from teachers import CheckpointError, ConfigError, Mode, ShardError, Teacher, TeacherInfo, Tracks

MODE: Mode = "label"
CLASSICAL = ("lk", "flow", "match")
LEARNT = ("xfeat", "tapir-mini", "cotracker3-offline-mini")
"""Of both CoTrackers only one, since they have nearly the same weights."""


class Oracle(Teacher):
    """Tracks that were made with the truth: looked up, by frames and queries, in a folder."""

    def __init__(self, *, name: str, checkpoint: str | None, device: str, mode: Mode) -> None:
        if checkpoint is None:
            raise ConfigError(f"teacher {name!r} needs the folder of its tracks as its checkpoint.")
        self.folder = Path(checkpoint)
        self.info = TeacherInfo(
            name=name, architecture="oracle", mode=mode, visible_rule="v > 0.5", licence="none"
        )

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        with np.load(self.folder / f"{_digest(frames, queries)}.npz") as npz:
            return Tracks(npz["xy"], npz["visibility"], npz["confidence"])


def teachers_here() -> tuple[str, ...]:
    """The classical teachers, and the learnt ones whose weights are here."""
    return (*CLASSICAL, *(name for name in LEARNT if _has_weights(name)))


def _has_weights(name: str) -> bool:
    try:
        teachers.load(name, mode=MODE)
    except CheckpointError:
        return False
    return True


def weights_of_teachers(names: Iterable[str]) -> dict[str, str | None]:
    """The digest of each teacher's weights; None for one that has none."""
    return {name: teachers.load(name, mode=MODE).info.checkpoint_sha256 for name in names}


def make_labels(experiment: Experiment, world: World, names: tuple[str, ...]) -> str:
    """The data set that `tapdistill label` makes of the world's videos."""
    folder = experiment.folder(world)
    draw_videos(folder / "videos", experiment.videos(world), range(experiment.clips))
    return label_videos(experiment, folder / "videos", folder / "labels", names)


def draw_videos(videos: Path, config: SynthConfig, seeds: range) -> None:
    """Write the clips of these seeds as mp4, unless they are there."""
    videos.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        file = videos / f"{seed:05d}.mp4"
        if not file.exists():
            write_whole(file, encode_clip(generate(seed, config).frames, fps=24))


def make_labels_with_truth(experiment: Experiment, world: World, policy: Policy) -> str:
    """The same clips and queries, labelled by `Oracle`: with the exact tracks, or for each query
    with those of the teacher that came nearest to them."""
    folder = experiment.folder(world) / ("exact" if policy == TRUTH else "nearest")
    folder.mkdir(exist_ok=True)
    for sample, truth in with_truth(experiment, world):
        file = folder / f"{_digest(truth.frames, truth.queries)}.npz"
        if not file.exists():
            xy, seen = truth.xy, truth.visible.astype(np.float32)
            if policy != TRUTH:
                target = choose(
                    policy,
                    sample.tracks,
                    sample.rules,
                    truth.queries,
                    sample.size_hw,
                    np.random.default_rng(0),  # the oracle draws nothing
                    truth_xy=truth.xy,
                    truth_visible=truth.visible,
                )
                xy = target.xy
                seen = np.where(target.used, target.visible, np.nan).astype(np.float32)
            write_npz(file, xy=xy, visibility=seen, confidence=np.full_like(seen, np.nan))
    oracle = f"{Oracle.__module__}:{Oracle.__name__}"
    files = (f"{oracle}={folder}",)
    videos, out = folder.with_name("videos"), folder.with_name(f"labels-{policy}")
    # its policy asks no verifier
    return label_videos(experiment, videos, out, (oracle,), files, judge=False)


def label_videos(
    experiment: Experiment,
    videos: Path,
    out: Path,
    names: tuple[str, ...],
    checkpoint: tuple[str, ...] = (),
    judge: bool = True,
) -> str:
    """What `tapdistill label` does with a folder of a world's videos; returns `out`."""
    job = LabelConfig(
        videos=(str(videos),),
        out=str(out),
        teachers=names,
        checkpoint=checkpoint,
        judge=judge,
        engine="local",
        device="cpu",
        clips=ClipConfig(frames=experiment.video_frames, strides=(1,), clips_per_video=1),
        queries=QueryConfig(count=experiment.queries),
        agreement=experiment.agreement(),
    )
    label(job)
    return job.out


def with_truth(experiment: Experiment, world: World) -> Iterator[tuple[Sample, TestClip]]:
    """Every stored clip, and the truth about its queries; what lies under a query is followed
    exactly, whatever teachers say.

    Raises:
        ShardError: the clips are not stored at the size of the world's videos.
    """
    labels, config = str(experiment.folder(world) / "labels"), experiment.videos(world)
    for sample in open_dataset(labels):
        frames = decode_clip(sample.mp4)
        if frames.shape[1:3] != (config.height, config.width):
            raise ShardError(
                f"{labels}: clip {sample.key} is {frames.shape[2]} x {frames.shape[1]} px, the "
                f"world's videos are {config.width} x {config.height}: label them again."
            )
        source = np.asarray(sample.meta["source_frames"])
        asked = sample.queries.copy()
        asked[:, 0] = source[asked[:, 0].astype(int)]
        xy, visible = true_tracks(int(Path(sample.meta["uri"]).stem), config, asked)
        xy, visible = xy[:, source].astype(np.float32), visible[:, source]
        yield sample, TestClip(sample.key, frames, sample.queries, xy, visible)


def _digest(frames: np.ndarray, queries: np.ndarray) -> str:
    return hashlib.sha256(frames.tobytes() + queries.astype(np.float32).tobytes()).hexdigest()


def score_labels(experiment: Experiment, world: World) -> pd.DataFrame:
    """A row per policy: how right its labels are. Of self-training, a row per student; the truth
    has none."""
    lessons: dict[str, tuple[Policy, str | None]] = {}
    for policy in experiment.policies:
        if policy == SELF:
            lessons |= {f"{SELF}, {name}": ("random", name) for name in experiment.students}
        elif policy != TRUTH:
            lessons[policy] = (policy, None)
    rngs = {lesson: np.random.default_rng(0) for lesson in lessons}
    scores = {lesson: LabelScore() for lesson in lessons}
    for sample, clip in with_truth(experiment, world):
        for lesson, (policy, alone) in lessons.items():
            tracks = sample.tracks if alone is None else {alone: sample.tracks[alone]}
            target = labels_of(
                policy,
                tracks,
                sample.rules,
                clip,
                rngs[lesson],
                experiment.agreement(),
                verdict=sample.verdict,
                trust=experiment.trust,
                evidence=sample.evidence,
            )
            scores[lesson].add(target, clip)
    return pd.DataFrame([{"policy": name, **score.figures()} for name, score in scores.items()])
