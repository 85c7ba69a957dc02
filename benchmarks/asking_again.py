"""What a second query for lost points does to `tapir-mini`: see docs/teachers.md, "Asking again".

    python -m benchmarks.asking_again
    python -m benchmarks.asking_again --clips 24 --requery 0.9

A row for each kind of clip with exact tracks: the figures of TAP-Vid when asked once and when asked
again, and the difference, paired over clips, with its bootstrap interval. None of these clips was
trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import tyro

import teachers
from experiments.policies.config import WORLDS
from labeler.fingerprint import one_thread
from student.clip import TestClip
from student.evaluation.evaluate import FIGURES, compare, minus
from student.evaluation.testsets import on_tapvid_raster, procedural_clips
from student.synth.scene import SynthConfig, generate

FIRST_PROCEDURAL, FIRST_OF_WORLD = 100, 880_000
"""Seeds; the first is that of the clips on which minis are reported."""


@dataclass(frozen=True, kw_only=True)
class AskingAgain:
    """How many clips, and from which certainty on a frame is asked from."""

    clips: int = 8
    requery: float = 0.8


def main(asked: AskingAgain) -> None:
    trackers = {
        "once": teachers.load("tapir-mini", mode="benchmark", device="cpu"),
        "again": teachers.load("tapir-mini", mode="benchmark", device="cpu", requery=asked.requery),
    }
    kinds = {
        "procedural": map(on_tapvid_raster, procedural_clips(asked.clips, FIRST_PROCEDURAL)),
        **{name: clips_of(world, asked.clips) for name, world in WORLDS.items()},
    }
    print(f"{asked.clips} clips of each kind; {' / '.join(FIGURES)}\n")
    print("| clips | asked once | asked again | difference | seconds |\n|---|---|---|---|---|")
    for kind, clips in kinds.items():
        scores = compare(trackers, clips)
        means = 100 * scores.groupby("model")[list(FIGURES)].mean()
        once, again = (" / ".join(f"{mean:.1f}" for mean in means.loc[name]) for name in trackers)
        gains = " / ".join(
            f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
            for mean, low, high in minus(scores, "once")[["mean", "low", "high"]].to_numpy()
        )
        seconds = scores.groupby("model")["seconds"].sum()
        said = " and ".join(f"{seconds[name]:.0f}" for name in trackers)
        print(f"| {kind} | {once} | {again} | {gains} | {said} |", flush=True)


def clips_of(world: SynthConfig, count: int) -> Iterator[TestClip]:
    for seed in range(FIRST_OF_WORLD, FIRST_OF_WORLD + count):
        yield generate(seed, world)


if __name__ == "__main__":
    with one_thread():
        main(tyro.cli(AskingAgain, description=__doc__))
