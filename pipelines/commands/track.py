"""tapdistill track: run any teacher or student on one video.

    frames (labeler.video.frames) --> queries: a grid, or a file --> each tracker
        --> npz of tracks, mp4 with the tracks drawn on it

With `--stream`, frames are not kept: see `tracking/stream.py`.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import tyro

from labeler.clips.queries import read_queries
from labeler.show import Overlay
from labeler.show.flow import draw_flow
from labeler.video import VideoWriter, open_frames
from labeler.video.fetch import shown
from labeler.video.frames import FramePart, FrameSource, read_all
from pipelines.terminal.console import console, say
from pipelines.terminal.tracking import Counts, summary, watched
from pipelines.tracking.stream import follow
from pipelines.tracking.track_file import TrackFile, save_flow, save_tracks
from pipelines.tracking.trackers import load_tracker, name_and_checkpoint, titles
from pipelines.wording import duration
from teachers import ConfigError, Mode, Teacher, TransientError
from teachers.info import Precision
from teachers.loading import refuse_compiled
from teachers.stream import ENDLESS
from teachers.tracks import checked_queries

LONGER_SIDE = 24
"""Points of the default grid along the longer side of the frame."""
NOT_SETTINGS = ("name", "checkpoint", "device", "mode", "precision", "compiled", "memory")
"""Arguments of a teacher that have flags of their own, or are not text."""


@dataclass(frozen=True, kw_only=True)
class TrackCommand(FramePart):
    """Track points through one video, with any teacher or student, and write the tracks, a video
    that shows them, or both.

    The tracker gets the frames exactly as they are decoded. Frame numbers in queries and tracks
    count the frames selected by --start and --stride; positions are px of these frames, after
    --short-side, with integers at pixel centres.
    """

    video: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")]
    """A video file or URL, or a folder of png or jpg frames; with --stream also "-" (standard
    input), a camera's number, rtsp://..."""
    teacher: tuple[str, ...]
    """One or several, separated by spaces or commas: a teacher's name, NAME=CHECKPOINT, or a
    checkpoint file, whose network is recognised."""
    checkpoint: str | None = None
    """Weights of the teacher, if there is only one; "random" for untrained ones."""
    mode: Mode = "predictor"
    """How trackers are called: the page on teachers says what each mode does, docs/teachers.md."""
    setting: tuple[str, ...] = ()
    """Settings of the teachers, as KEY=VALUE, VALUE in JSON or a plain word: support_grid=6
    predictor=online."""
    device: str = "auto"
    """Where trackers run: auto, cpu, cuda."""
    precision: Precision = "auto"
    """How networks multiply. float32; tf32, on a GPU, many times faster; bf16, faster again, in the
    parts that can bear it. auto: tf32 on a GPU, float32 on a CPU."""
    compiled: bool = False
    """Hand the large parts of networks to torch.compile, which is meant for a GPU and many clips of
    one size. The first clip then takes a minute or more; nothing was measured on a GPU."""
    seed: int = 0
    """For everything that a tracker draws at random."""
    grid: int | None = None
    """Track N x N points, spread evenly over the first frame. Without it and without --queries, a
    grid of square cells with 24 points along the longer side."""
    queries: Path | None = None
    """Track the points of this file: an npz with `queries` [N, 3] as (t, x, y), or a csv with the
    columns t, x, y."""
    overlay: Annotated[Path | None, tyro.conf.arg(metavar="FILE.mp4")] = None
    """Write a video with the tracks drawn on it; several teachers are shown side by side."""
    tracks: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz")] = None
    """Write queries [N, 3], xy [N, T, 2], visibility [N, T], confidence [N, T], info (JSON); with
    several teachers, one FILE.NAME.npz for each."""
    dense: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz")] = None
    """Write where every pixel of frame --dense-frame is in every frame, with a teacher that can
    (alltracker): flow [T, H, W, 2], visibility [T, H, W], confidence [T, H, W], info (JSON); and a
    picture of it, FILE.png."""
    dense_frame: int = 0
    """The frame whose pixels --dense follows."""
    stream: bool = False
    """Track frames as they come, with a teacher that can, in memory that does not grow; Ctrl-C ends
    it."""
    max_gib: float = 4.0
    """Limit on the memory for the frames of a video, in GiB; a stream needs none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.overlay and not self.tracks and not self.dense:
            raise ConfigError(
                "nothing would be written: give --overlay FILE.mp4, --tracks FILE.npz, or both; or "
                "--dense FILE.npz."
            )
        if self.dense and (self.stream or self.overlay or self.tracks or self.queries or self.grid):
            raise ConfigError(
                "--dense follows every pixel of a whole clip: give no --stream, --queries, or "
                "--grid, and write --overlay and --tracks with a command of their own."
            )
        if self.dense and len(self.teacher_names) > 1:
            raise ConfigError("--dense belongs to one teacher.")
        names = self.teacher_names
        if not names or len(set(names)) != len(names):
            raise ConfigError(
                f"--teacher {' '.join(self.teacher)}: name at least one tracker, each once."
            )
        if self.checkpoint and (len(names) > 1 or "=" in names[0]):
            raise ConfigError(
                "--checkpoint belongs to one teacher: give several as NAME=CHECKPOINT each."
            )
        if self.grid is not None and (self.grid < 1 or self.queries):
            raise ConfigError(f"--grid {self.grid}: must be at least 1, and not beside --queries.")

    @property
    def teacher_names(self) -> list[str]:
        return [name for text in self.teacher for name in text.split(",") if name]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that --setting gives."""
        found = {}
        for text in self.setting:
            key, separator, value = text.partition("=")
            if not separator or not key.isidentifier() or key in NOT_SETTINGS:
                raise ConfigError(
                    f"--setting {text}: write KEY=VALUE with a setting of the teacher, such as "
                    "support_grid=6."
                )
            try:
                found[key] = json.loads(value)
            except ValueError:
                found[key] = value
        return found


def run(command: TrackCommand) -> int:
    """The command: track, write, and say what was written."""
    begun = time.monotonic()
    for flag, path, suffix in (
        ("--overlay", command.overlay, ".mp4"),
        ("--tracks", command.tracks, ".npz"),
        ("--dense", command.dense, ".npz"),
    ):
        if path is not None:
            _check_output(
                flag,
                path,
                suffix,
                {"the video itself": Path(command.video), "the file of --queries": command.queries},
            )
    if command.dense:
        return run_dense(command, command.dense, begun)
    with open_frames(command.video, command) as source:
        queries = queries_of(command, source)
        trackers = load_trackers(command)
        height, width = source.size
        length = "" if source.length is None else f"{source.length} frames of "
        say(
            f"{source.name}: {length}{width} x {height} px, {len(queries)} points, "
            f"{', '.join(trackers)}, mode {command.mode}"
        )
        if source.damage:
            say(f"{source.name} is cut: {source.damage}; the frames that are there are tracked")
        files = track_files(command, source, trackers)
        if command.stream:
            counts = follow(source, trackers, queries, command.overlay, files)
        else:
            counts = track_clip(command, source, trackers, queries, files)
    say(summary(counts, len(queries)))
    written = [file.path for file in files.values()] + (
        [command.overlay] if command.overlay else []
    )
    say(f"{', '.join(map(str, written))}, in {duration(time.monotonic() - begun)}")
    return 0


def run_dense(command: TrackCommand, path: Path, begun: float) -> int:
    """`run`, with --dense."""
    picture = path.with_suffix(".png")
    _check_output("--dense", picture, ".png", {"the video itself": Path(command.video)})
    with open_frames(command.video, command) as source:
        ((title, teacher),) = load_trackers(command).items()
        frames = read_all(
            source, command.max_gib, lambda frames: watched(frames, "reading", source.length)
        )
        with console.status(f"tracking with {title}"):
            dense = teacher.flow(frames, command.dense_frame)
        rule = teacher.info.rule
        visible = rule.seen(dense.visibility, dense.confidence)
        info = teacher.info.to_json() | {"clip": _clip_info(command, source)}
    save_flow(TrackFile(path, info), command.dense_frame, dense)
    image = cv2.cvtColor(draw_flow(frames, dense.flow, visible), cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(picture), image):
        raise TransientError(f"{picture}: cannot be written.")
    count, height, width = frames.shape[:3]
    say(f"{title}: every pixel of frame {command.dense_frame} in {count} of {width} x {height} px")
    say(f"{path}, {picture}, in {duration(time.monotonic() - begun)}")
    return 0


def track_clip(
    command: TrackCommand,
    source: FrameSource,
    trackers: Mapping[str, Teacher],
    queries: np.ndarray,
    files: Mapping[str, TrackFile],
) -> dict[str, Counts]:
    """All frames at once, one tracker after the other."""
    frames = read_all(
        source, command.max_gib, lambda frames: watched(frames, "reading", source.length)
    )
    counts = {title: Counts() for title in trackers}
    results = []
    for title, teacher in trackers.items():
        begun = time.monotonic()
        with console.status(f"tracking with {title}"):
            tracks = teacher.track(frames, queries, command.seed)
        visible = teacher.info.rule(tracks)
        counts[title].add(tracks, visible, time.monotonic() - begun)
        if title in files:
            save_tracks(files[title], queries, tracks)
        results.append((tracks.xy, visible))
    if command.overlay:
        xy, visible = (np.stack(arrays) for arrays in zip(*results, strict=True))
        overlay = Overlay(queries, list(trackers), source.size)
        with VideoWriter(command.overlay, source.fps) as video:
            for t, frame in enumerate(watched(iter(frames), "drawing", len(frames))):
                video.write(overlay.draw(frame, xy[:, :, t], visible[:, :, t]))
    return counts


def queries_of(command: TrackCommand, source: FrameSource) -> np.ndarray:  # float32 [N, 3]
    """The points to track, checked against the frames."""
    height, width = source.size
    if command.queries is None:
        cell = max(height, width) / LONGER_SIDE
        rows, columns = (
            (command.grid,) * 2
            if command.grid
            else (max(1, round(height / cell)), max(1, round(width / cell)))
        )
        return grid(rows, columns, source.size)
    queries = read_queries(command.queries)
    try:
        return checked_queries(queries, (source.length or ENDLESS, height, width, 3))
    except ConfigError as error:
        raise ConfigError(f"--queries {command.queries}: {error}") from error


def grid(
    rows: int, columns: int, size: tuple[int, int]
) -> np.ndarray:  # float32 [rows * columns, 3]
    """The centres of rows x columns cells over frame 0, row by row."""
    height, width = size
    row, column = np.mgrid[:rows, :columns] + 0.5
    x, y = column.ravel() * width / columns - 0.5, row.ravel() * height / rows - 0.5
    return np.stack([np.zeros_like(x), x, y], 1).astype(np.float32)


def load_trackers(command: TrackCommand) -> dict[str, Teacher]:
    """Every tracker by its title (see `titles`)."""
    names = command.teacher_names
    texts = [f"{names[0]}={command.checkpoint}"] if command.checkpoint else names
    if command.compiled:
        refuse_compiled([name_and_checkpoint(text, "--teacher") for text in texts])
    loaded = [
        load_tracker(
            text,
            command.device,
            command.mode,
            command.settings,
            precision=command.precision,
            compiled=command.compiled,
            flag="--teacher",
        )
        for text in texts
    ]
    called = titles(
        [
            (teacher.info.name, name_and_checkpoint(text, "--teacher")[1])
            for text, teacher in zip(texts, loaded, strict=True)
        ],
        "--teacher",
    )
    return dict(zip(called, loaded, strict=True))


def track_files(
    command: TrackCommand, source: FrameSource, trackers: Mapping[str, Teacher]
) -> dict[str, TrackFile]:
    """Where the tracks of each tracker are written, if they are wanted, and what the file says
    about their origin."""
    if command.tracks is None:
        return {}
    clip = _clip_info(command, source)
    several = len(trackers) > 1
    return {
        title: TrackFile(
            command.tracks.with_suffix(f".{title}.npz") if several else command.tracks,
            teacher.info.to_json() | {"clip": clip},
        )
        for title, teacher in trackers.items()
    }


def _clip_info(command: TrackCommand, source: FrameSource) -> dict[str, Any]:
    return {
        "source": shown(command.video),
        "start": command.start,
        "stride": command.stride,
        "size_hw": source.size,
        "fps": source.fps,
    }


def _check_output(flag: str, path: Path, suffix: str, inputs: Mapping[str, Path | None]) -> None:
    """Refuse at once what could not be written at the end, and what would replace one of the
    `inputs`."""
    if path.suffix != suffix:
        raise ConfigError(f"{flag} {path}: must end in {suffix}.")
    if path.is_dir():
        raise ConfigError(f"{flag} {path}: is a folder: name a file.")
    for what, file in inputs.items():
        if file is not None and path.exists() and path.resolve() == file.resolve():
            raise ConfigError(f"{flag} {path}: is {what}: name another file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(0, "no permission")
    except OSError as error:
        raise TransientError(f"{flag} {path}: cannot be written: {error.strerror}.") from error
