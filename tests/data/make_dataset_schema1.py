"""Writes dataset_schema1: labels as they were written before verdicts.

In a checkout of commit d61d768, the last one before verdicts came with schema 2:

    python make_dataset_schema1.py dataset_schema1

Two units of one video each (16 and 9 frames of 48 x 64 px), 24 queries a clip, by `lk`, `flow`, and
a teacher that cannot track the shorter one.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.harness.jobs import config, write_moving
from pipelines.jobs.labelling import label

TEACHERS = ("lk", "flow", "tests.support.stub_teachers:NeedsLongClips")

if __name__ == "__main__":
    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    videos = Path(tempfile.gettempdir()) / "videos"
    videos.mkdir(exist_ok=True)
    for seed, frames in enumerate((16, 9)):
        write_moving(videos / f"{seed}.mp4", seed, frames)
    label(config(videos, out, TEACHERS, videos_per_unit=1))
