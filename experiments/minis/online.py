"""Make an online mini CoTracker3 of the weights of an offline one.

    python -m experiments.minis.online OFFLINE.safetensors ONLINE.safetensors

Both have the same parameters; what differs is the time embedding, which is computed. The visible
rule is chosen anew (`experiments.minis.calibrate`). Weights that rely less on passes over frames of
several sizes do better in windows: those that are shipped are of an earlier step than the offline
mini's (docs/log.md, 2026-11-30).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from experiments.minis.calibrate import CLIPS, calibrate
from student.training.checkpoint import Checkpoints
from student.training.cotracker import COTRACKERS
from teachers import TapdistillError
from teachers.checkpoints.files import LICENCE, read_metadata


def convert(offline: Path, online: Path) -> None:
    """Write the weights of an offline CoTracker3 as those of an online one."""
    student = COTRACKERS["online"]
    model = student.from_file(offline, "mini")
    about = read_metadata(offline)
    kept = {name: about[name] for name in (LICENCE, "step") if name in about}
    Checkpoints(online.parent, keep=1).export(online.stem, model, student.teacher, kept)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("offline", type=Path, help="weights of an offline mini")
    parser.add_argument("online", type=Path, help="file to write, .safetensors")
    parser.add_argument("--clips", type=int, default=CLIPS, help="to choose the visible rule on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        convert(arguments.offline, arguments.online)
        chosen = calibrate(arguments.online, arguments.clips)
    except TapdistillError as error:
        raise SystemExit(str(error)) from error
    print(f"{arguments.online.name}: {chosen}", flush=True)


if __name__ == "__main__":
    main()
