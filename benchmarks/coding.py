"""What storing a clip costs its teachers: accuracy and size by the quality of the coding.

    python -m benchmarks.coding
    python -m benchmarks.coding --clips 12 --crf 18 12 --teachers lk match

Procedural clips are tracked as they are drawn, and again as `encode_clip` and `decode_clip` leave
them; the table has the difference of delta-avg in points, paired over clips, for clean video and
for video with noise, and bits for each pixel, which are nearly the same at any size.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tyro

import teachers
from labeler.fingerprint import one_thread
from labeler.video import EncodeConfig, decode_clip, encode_clip
from student.clip import TestClip
from student.evaluation.evaluate import score_tracks, track_clips, with_interval
from student.synth.scene import SynthConfig, generate

FIRST_SEED = 700_000_000
"""Of clips that nothing is trained on."""
SHOWN_AS = 384 * 680 * 24 * 60 / 8e6
"""MB a minute of 24 frames/s of 384 x 680 px take at one bit for each pixel."""


@dataclass(frozen=True, kw_only=True)
class Coding:
    """Which teachers, at which qualities."""

    teachers: tuple[str, ...] = ("lk", "flow", "match", "tapir-mini")
    crf: tuple[int, ...] = (23, 18, 15, 12, 10, 8, 4, 0)
    noise: tuple[float, ...] = (0.0, 4.0)
    """Standard deviations, of 255 levels."""
    clips: int = 8
    frames: int = 24
    height: int = 256
    width: int = 256
    points: int = 128


def main(asked: Coding) -> None:
    size = f"{asked.frames} x {asked.height} x {asked.width} px"
    print(f"{platform.machine()}, {asked.clips} clips of {size}")
    print("delta-avg as drawn, then coded minus drawn [95 %], in points", flush=True)
    loaded = {name: teachers.load(name, device="cpu") for name in asked.teachers}
    for noise in asked.noise:
        scene = SynthConfig(
            frames=asked.frames,
            height=asked.height,
            width=asked.width,
            points=asked.points,
            noise=noise,
            split="test",
        )
        clips = [generate(FIRST_SEED + number, scene) for number in range(asked.clips)]
        drawn = {
            name: np.array([accuracy(teacher, clip, clip.frames) for clip in clips])
            for name, teacher in loaded.items()
        }
        print(f"\n| noise {noise:g} | bits/px | MB/min | {' | '.join(asked.teachers)} |")
        print("|---|---|---|" + "---|" * len(asked.teachers))
        print(f"| drawn | 24 | | {' | '.join(f'{100 * drawn[n].mean():.1f}' for n in loaded)} |")
        for crf in asked.crf:
            row(crf, clips, loaded, drawn)


def row(
    crf: int,
    clips: Sequence[TestClip],
    loaded: dict[str, teachers.Teacher],
    drawn: dict[str, np.ndarray],
) -> None:
    """Print the row of a quality."""
    coded = [encode_clip(clip.frames, 24, EncodeConfig(crf=crf)) for clip in clips]
    bits = 8 * sum(map(len, coded)) / sum(clip.frames.size / 3 for clip in clips)
    stored = [decode_clip(data) for data in coded]
    cells = []
    for name, teacher in loaded.items():
        after = np.array(
            [accuracy(teacher, clip, seen) for clip, seen in zip(clips, stored, strict=True)]
        )
        mean, low, high = with_interval(100 * (after - drawn[name]))
        cells.append(f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]")
    print(f"| {crf} | {bits:.2f} | {bits * SHOWN_AS:.0f} | {' | '.join(cells)} |", flush=True)


def accuracy(teacher: teachers.Teacher, clip: TestClip, frames: np.ndarray) -> float:
    """delta-avg in [0, 1] of a teacher that sees `frames` in place of the clip's."""
    seen = replace(clip, frames=frames)
    (found,), _ = track_clips(teacher, [seen])
    return float(score_tracks([found], teacher.info.rule, [seen])["delta_avg"].iloc[0])


if __name__ == "__main__":
    with one_thread():
        main(tyro.cli(Coding))
