"""How many frames a second the live page can follow: the CPU time of a session, one thread.

python -m benchmarks.live

A procedural video of 480 x 360 px stands for the camera. CPU seconds are what one core spends; a
machine that does nothing else follows at least 1 / that many frames a second.
"""

from __future__ import annotations

import time

import cv2
import numpy as np
import torch

from labeler.show.draw import to_jpeg
from pipelines.live.connection import JPEG_QUALITY
from pipelines.live.session import Session
from pipelines.live.trackers import LiveTrackers
from student.synth.scene import SynthConfig, generate

SIZE, FRAMES, WARM = (360, 480), 24, 8


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clip = generate(5, SynthConfig(frames=FRAMES, height=SIZE[0], width=SIZE[1], points=8))
    trackers = LiveTrackers(device="cpu")
    print("trackers              points  CPU ms a frame  frames/s of one core")
    for titles in (["tapir-mini"], ["lk"], ["tapir-mini", "lk"]):
        for points in (8, 48):
            spent = seconds_a_frame(trackers, titles, clip.frames, points)
            print(
                f"{' + '.join(titles):<20}  {points:>6}  {1000 * spent:>14.0f}  {1 / spent:>20.1f}"
            )


def seconds_a_frame(
    trackers: LiveTrackers, titles: list[str], frames: np.ndarray, points: int
) -> float:
    """CPU seconds, the median over the frames."""
    session = Session(SIZE, {title: trackers.load(title) for title in titles}, fps=30)
    session.push(frames[0], b"")
    rng = np.random.default_rng(0)
    session.add(0, (rng.uniform(0.05, 0.95, (points, 2)) * SIZE[::-1]).tolist())
    spent = []
    for frame in frames[1:]:
        begun = time.process_time()
        session.push(frame, to_jpeg(frame, JPEG_QUALITY))
        spent.append(time.process_time() - begun)
    return float(np.median(spent[WARM:]))


if __name__ == "__main__":
    main()
