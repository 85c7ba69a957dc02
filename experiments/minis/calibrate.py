"""Choose the visible rule of a mini's weights, and store it with them.

    python -m experiments.minis.calibrate teachers/weights/*.safetensors

The published rule is that of larger networks: by it, a mini hides points that it follows well. The
rule is chosen on procedural clips of the worlds that the minis learn from, of seeds that none of
them saw, in mode "label" (see `student.evaluation.calibration`). A file is only written where its
rule changes; the same weights and clips give the same rule. Training ends with this too.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import cast

import safetensors.torch
import torch

import teachers
from experiments.files import write_whole
from experiments.minis.pool import draw_world
from student.evaluation.calibration import Calibration, calibrated
from student.evaluation.evaluate import track_clips
from student.synth.scene import generate
from teachers import CheckpointError, TapdistillError
from teachers.checkpoints.files import TEACHER, VISIBLE, read_metadata
from teachers.network_teacher import NetworkTeacher

FIRST_SEED = 1_000_000
"""Above those of any pool."""
CLIPS, POINTS = 12, 128


def calibrate(weights: Path, clips: int = CLIPS) -> Calibration:
    """Choose the rule of the weights in a file, and store it there, or take away one that is no
    better than the published one.

    Raises:
        CheckpointError: there is no such file, or it is not of a mini.
    """
    metadata = read_metadata(weights)
    if TEACHER not in metadata:
        raise CheckpointError(f"{weights}: no weights of a mini; give the file of one.")
    teacher = cast(
        NetworkTeacher,
        teachers.load(metadata[TEACHER], checkpoint=str(weights), device="cpu", mode="label"),
    )
    seen = [
        generate(seed, replace(draw_world(seed), points=POINTS))
        for seed in range(FIRST_SEED, FIRST_SEED + clips)
    ]
    tracks, _ = track_clips(teacher, seen)
    found = calibrated(tracks, seen, teacher.published_rule)
    stored = {name: text for name, text in metadata.items() if name != VISIBLE}
    if found.changed:
        stored[VISIBLE] = str(found.rule)
    if stored != metadata:
        content = safetensors.torch.save(safetensors.torch.load_file(weights), stored)
        write_whole(weights, content)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, nargs="+", help="files of minis")
    parser.add_argument("--clips", type=int, default=CLIPS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        for weights in arguments.weights:
            print(f"{weights.name}: {calibrate(weights, arguments.clips)}", flush=True)
    except TapdistillError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
