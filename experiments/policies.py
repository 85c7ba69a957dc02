"""The experiment that the paper is about, in small: does a student pass its teachers, and which
label policy teaches it best?

    python -m experiments.policies --out OUT            # about 25 minutes on one core
    python -m experiments.policies --out OUT --quick    # a minute: every part works, none measures

Killed, the same command goes on.

1. Procedural videos of a world that no mini was trained on (`SynthConfig.unseen`) are encoded and
   labelled by `tapdistill label` with every teacher that has weights here. Their exact tracks are
   known, and used for the oracle and for scoring alone.
2. The mini student learns from the shards alone, its visibility head frozen, once for each policy
   and seed, from the same weights, for the same number of steps. `oracle` has a data set of its
   own, in which each query has the tracks of the teacher nearest to the truth.
3. Teachers and students are scored on other clips of that world, all in mode "label", TAP-Vid
   figures, query mode first.

The first table is what each policy teaches: its labels against the truth. The second one is who
tracks how well. What is done is kept in OUT: the shards, the students, and a JSON file with the
figures of each tracker.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import tyro
from rich.table import Table

import teachers
from labeler.clips.choice import ClipConfig
from labeler.clips.queries import QueryConfig
from labeler.dataset.dataset import open_dataset
from labeler.fingerprint import one_thread
from labeler.labels.agreement import AgreementConfig
from labeler.labels.policies import POLICIES, Policy, choose
from labeler.labels.sample import Sample
from labeler.video.encode import decode_clip, encode_clip
from pipelines.jobs.config import LabelConfig
from pipelines.jobs.labelling import label
from pipelines.terminal.console import say
from pipelines.tracking.trackers import load_tracker
from student.clip import TestClip
from student.data.config import AS_STORED, AgreementOverride, DataConfig
from student.evaluation.evaluate import (
    FIGURES,
    score_policy,
    score_tracks,
    track_clips,
    with_interval,
)
from student.synth.layers import track
from student.synth.scene import SynthConfig, draw_scene, generate, points_at
from student.training.config import TrainConfig
from student.training.schedule import ScheduleConfig
from student.training.train import train
from teachers import (
    CheckpointError,
    ConfigError,
    Mode,
    ShardError,
    TapdistillError,
    Teacher,
    TeacherInfo,
    Tracks,
)
from teachers.registry import entry_of

WORLD = SynthConfig.unseen(frames=24, height=256, width=256, points=128, split="test")
TEST_SEED = 10_000
"""Of the first clip to score on; those to learn from begin at 0."""
CLASSICAL = ("lk", "flow", "match")
LEARNT = "xfeat"
STUDENT = "cotracker3-offline-mini"
MODE: Mode = "label"
BEFORE = "student before"
FREE = ("out", "policies", "seeds")
"""Settings that may be others when the same command goes on: each training has a folder of its
own."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Label an unseen world with several teachers, teach the mini student by each policy, and score
    all of them on it."""

    out: Path
    """Folder for everything. The same command goes on there; other settings need another folder."""
    policies: tuple[Policy, ...] = ("random", "random-agreeing", "oracle")
    """Label policies; also medoid, mean, median."""
    seeds: int = 3
    """Trainings of each policy."""
    steps: int = 60
    """Of a training."""
    learning_rate: float = 2e-4
    """Its highest value."""
    batch: int = 2
    """Clips of a step."""
    crop: int = 128
    """Side of what the student sees in training, px."""
    frames: int = 16
    """Of what the student sees in training."""
    queries: int = 192
    """Points that are labelled in a clip; a third of them enters a step."""
    clips: int = 24
    """Videos to learn from."""
    test_clips: int = 6
    """Videos to score on."""
    init: str | None = None
    """Weights of the student before, one of ours; None: the mini that is shipped, or where there is
    none, one that learns here first."""
    base_steps: int = 600
    """Of that first learning, from nothing, on procedural photographs."""
    agreement: AgreementOverride = AS_STORED
    """Thresholds of random-agreeing. To try others without labelling again, copy `videos` and
    `labels` of OUT into another one."""
    quick: bool = False
    """So small that it takes a minute."""

    def __post_init__(self) -> None:
        unknown = [policy for policy in self.policies if policy not in POLICIES]
        if unknown or not self.policies:
            raise ConfigError(
                f"--policies {' '.join(self.policies)}: name some of {', '.join(POLICIES)}."
            )
        for name in ("seeds", "steps", "batch", "clips", "test_clips"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1."
                )

    def sized(self) -> Experiment:
        """The experiment that is really done."""
        if not self.quick:
            return self
        return replace(
            self,
            seeds=1,
            steps=2,
            batch=1,
            crop=64,
            frames=8,
            queries=24,
            clips=2,
            test_clips=1,
            base_steps=2,
            quick=False,
        )


class Oracle(Teacher):
    """For each query the tracks of the teacher that came nearest to the truth: looked up, by frames
    and queries, in a folder."""

    def __init__(self, *, name: str, checkpoint: str | None, device: str, mode: Mode) -> None:
        if checkpoint is None:
            raise ConfigError(f"teacher {name!r} needs the folder of its tracks as its checkpoint.")
        self.folder = Path(checkpoint)
        self.info = TeacherInfo(
            name=name, architecture="oracle", mode=mode, visible_rule="v > 0.5", licence="none"
        )

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        with np.load(self.folder / f"{digest(frames, queries)}.npz") as npz:
            return Tracks(npz["xy"], npz["visibility"], npz["confidence"])


def main() -> None:
    try:
        run(tyro.cli(Experiment, description=__doc__).sized())
    except TapdistillError as error:
        raise SystemExit(str(error)) from error


def run(experiment: Experiment) -> None:
    """Do what is left to do, and print the tables."""
    began = time.monotonic()
    names = teachers_here()
    freeze(experiment, names)
    with one_thread():
        labels = make_labels(experiment, names)
        say(policy_table(score_labels(labels, experiment)))
        scores = {name: scored(experiment, name, load_tracker(name, mode=MODE)) for name in names}
        base = student_before(experiment)
        scores[BEFORE] = scored(experiment, BEFORE, load_tracker(str(base), mode=MODE))
        oracle = (
            make_oracle(experiment, labels, names) if "oracle" in experiment.policies else labels
        )
        for seed in range(experiment.seeds):
            for policy in experiment.policies:
                name = f"{policy} {seed}"
                if not figures_of(experiment, name).exists():
                    say(f"training {name}")
                student = taught(
                    experiment, oracle if policy == "oracle" else labels, policy, seed, base
                )
                scores[name] = scored(experiment, name, load_tracker(str(student), mode=MODE))
    say(tracker_table(scores, names, experiment))
    say(f"{time.monotonic() - began:.0f} s")


def freeze(experiment: Experiment, names: tuple[str, ...]) -> None:
    """Write down the settings and teachers, so that a folder holds one experiment."""
    experiment.out.mkdir(parents=True, exist_ok=True)
    file = experiment.out / "experiment.json"
    settings = {name: value for name, value in asdict(experiment).items() if name not in FREE} | {
        "teachers": names
    }
    now = json.loads(json.dumps(settings))
    then = json.loads(file.read_text()) if file.exists() else now
    changed = [name for name in now if now[name] != then.get(name)]
    if changed:
        name = changed[0]
        raise ConfigError(
            f"{experiment.out} holds an experiment with {name} = {then.get(name)}, not "
            f"{now[name]}: give another --out."
        )
    file.write_text(json.dumps(now, indent=1))


def teachers_here() -> tuple[str, ...]:
    """The classical teachers, XFeat if its weights are here, and every mini that is shipped."""
    learnt = [name for name in teachers.names() if name == LEARNT or name.endswith("-mini")]
    return (*CLASSICAL, *(name for name in learnt if has_weights(name)))


def has_weights(name: str) -> bool:
    try:
        teachers.load(name, mode=MODE)
    except CheckpointError:
        return False
    return True


# Labels


def make_labels(experiment: Experiment, names: tuple[str, ...]) -> str:
    """The data set that `tapdistill label` makes of the world's videos."""
    videos = experiment.out / "videos"
    videos.mkdir(exist_ok=True)
    for seed in range(experiment.clips):
        file = videos / f"{seed:05d}.mp4"
        if not file.exists():
            file.write_bytes(encode_clip(generate(seed, WORLD).frames, fps=24))
    return labelled(experiment, "labels", names, ())


def make_oracle(experiment: Experiment, labels: str, names: tuple[str, ...]) -> str:
    """The same clips and queries, labelled by `Oracle`."""
    folder = experiment.out / "nearest"
    folder.mkdir(exist_ok=True)
    for sample, truth in with_truth(labels):
        file = folder / f"{digest(truth.frames, truth.queries)}.npz"
        if not file.exists():
            rng = np.random.default_rng(0)  # the oracle draws nothing
            target = choose(
                "oracle",
                sample.tracks,
                sample.rules,
                truth.queries,
                sample.size_hw,
                rng,
                None,
                truth.xy,
                truth.visible,
            )
            seen = np.where(target.used, target.visible, np.nan).astype(np.float32)
            np.savez(file, xy=target.xy, visibility=seen, confidence=np.full_like(seen, np.nan))
    oracle = f"{Oracle.__module__}:{Oracle.__name__}"
    return labelled(experiment, "labels-oracle", (oracle,), (f"{oracle}={folder}",))


def labelled(
    experiment: Experiment, name: str, names: tuple[str, ...], checkpoint: tuple[str, ...]
) -> str:
    out = str(experiment.out / name)
    job = LabelConfig(
        videos=(str(experiment.out / "videos"),),
        out=out,
        teachers=names,
        checkpoint=checkpoint,
        engine="local",
        device="cpu",
        clips=ClipConfig(frames=WORLD.frames, strides=(1,), clips_per_video=1),
        queries=QueryConfig(count=experiment.queries),
    )
    label(job)
    return out


def with_truth(labels: str) -> Iterator[tuple[Sample, TestClip]]:
    """Every stored clip, and the truth about its queries; what lies under a query is followed
    exactly, whatever teachers say.

    Raises:
        ShardError: the clips are not stored at the size of the world's videos.
    """
    for sample in open_dataset(labels):
        frames = decode_clip(sample.mp4)
        if frames.shape[1:3] != (WORLD.height, WORLD.width):
            raise ShardError(
                f"{labels}: clip {sample.key} is {frames.shape[2]} x {frames.shape[1]} px, the "
                f"world's videos are {WORLD.width} x {WORLD.height}: label them again."
            )
        source = np.asarray(sample.meta["source_frames"])
        layers = draw_scene(int(Path(sample.meta["uri"]).stem), WORLD).layers
        points = points_at(
            layers, source[sample.queries[:, 0].astype(int)], sample.queries[:, 1:].astype(float)
        )
        xy, visible = track(layers, points, WORLD.height, WORLD.width)
        yield (
            sample,
            TestClip(
                sample.key,
                frames,
                sample.queries,
                xy[:, source].astype(np.float32),
                visible[:, source],
            ),
        )


def digest(frames: np.ndarray, queries: np.ndarray) -> str:
    return hashlib.sha256(frames.tobytes() + queries.astype(np.float32).tobytes()).hexdigest()


def score_labels(labels: str, experiment: Experiment) -> pd.DataFrame:
    """A row per policy: how right its labels are."""
    samples, clips = zip(*with_truth(labels), strict=True)
    tracks = {name: [sample.tracks[name] for sample in samples] for name in samples[0].tracks}
    rules, config = samples[0].rules, experiment.agreement.over(AgreementConfig())
    rows = [
        {"policy": policy, **score_policy(policy, tracks, rules, clips, config)}
        for policy in experiment.policies
    ]
    return pd.DataFrame(rows)


# Students


def student_before(experiment: Experiment) -> Path:
    """Weights from which every training begins."""
    if experiment.init:
        return Path(experiment.init)
    if STUDENT in teachers.names() and (shipped := entry_of(STUDENT).shipped_checkpoint):
        return shipped
    side = max(64, experiment.crop)
    data = DataConfig(
        procedural=1,
        frames=experiment.frames,
        height=side,
        width=side,
        queries=64,
        batch=experiment.batch,
        at_once=experiment.batch,
    )
    say(f"no {STUDENT} is here: a student learns from nothing first, {experiment.base_steps} steps")
    return train(
        TrainConfig.from_scratch(data, experiment.base_steps, recompute=False, checkpoint_every=50),
        experiment.out / "base",
    ).weights


def taught(experiment: Experiment, labels: str, policy: Policy, seed: int, base: Path) -> Path:
    """The student after a training; one that was interrupted goes on."""
    stored: Literal["random", "random-agreeing", "medoid", "mean", "median"] = (
        "random" if policy == "oracle" else policy
    )
    data = DataConfig(
        data=(labels,),
        policy=stored,
        agreement=experiment.agreement,
        frames=experiment.frames,
        height=experiment.crop,
        width=experiment.crop,
        queries=max(1, experiment.queries // 3),
        batch=experiment.batch,
        at_once=experiment.batch,
    )
    config = TrainConfig(
        data=data,
        init=str(base),
        schedule=ScheduleConfig(steps=experiment.steps, learning_rate=experiment.learning_rate),
        recompute=False,
        seed=seed,
        device="cpu",
        checkpoint_every=25,
        keep=1,
    )
    return train(config, experiment.out / "students" / f"{policy}-{seed}").weights


# Scores


def scored(experiment: Experiment, name: str, tracker: Teacher) -> pd.DataFrame:
    """A row per test clip; kept in a file."""
    file = figures_of(experiment, name)
    if not file.exists():
        clips = [generate(TEST_SEED + seed, WORLD) for seed in range(experiment.test_clips)]
        tracks, _ = track_clips(tracker, clips)
        file.parent.mkdir(exist_ok=True)
        rows = score_tracks(tracks, tracker.info.rule, clips)[list(FIGURES)].to_dict("records")
        file.write_text(json.dumps(rows, indent=1))
    return pd.DataFrame(json.loads(file.read_text()))


def figures_of(experiment: Experiment, name: str) -> Path:
    return experiment.out / "scores" / f"{name.replace(' ', '-')}.json"


def policy_table(labels: pd.DataFrame) -> Table:
    table = _table(
        "what each policy teaches",
        "policy",
        ("used, %", "delta_avg, %", "median, px", "wrongly visible, %"),
    )
    for row in labels.to_dict("records"):
        shares = {name: f"{100 * row[name]:.1f}" for name in ("used", "delta_avg", "wrong")}
        table.add_row(
            row["policy"],
            shares["used"],
            shares["delta_avg"],
            f"{row['median_px']:.2f}",
            shares["wrong"],
        )
    return table


def _table(title: str, of: str, figures: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column(of)
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    return table


def tracker_table(
    scores: Mapping[str, pd.DataFrame], names: tuple[str, ...], experiment: Experiment
) -> Table:
    """Teachers and the student before: mean over clips and its 95 % interval. After: mean over
    seeds, and their least and most."""
    table = _table("who tracks how well, %", "tracker", FIGURES)
    for name in (*names, BEFORE):
        intervals = (with_interval(100 * scores[name][figure]) for figure in FIGURES)
        table.add_row(
            name, *(f"{mean:.1f} ({low:.1f}-{high:.1f})" for mean, low, high in intervals)
        )
    for policy in experiment.policies:
        means = [scores[f"{policy} {seed}"].mean() for seed in range(experiment.seeds)]
        cells = [100 * np.array([mean[figure] for mean in means]) for figure in FIGURES]
        table.add_row(
            f"student, {policy}",
            *(f"{cell.mean():.1f} [{cell.min():.1f}-{cell.max():.1f}]" for cell in cells),
        )
    table.caption = (
        f"(95 % interval over {experiment.test_clips} clips)  [least-most of {experiment.seeds} "
        "seeds]"
    )
    table.caption_justify = "left"
    return table


if __name__ == "__main__":
    main()
