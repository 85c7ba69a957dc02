"""How fast procedural clips are made, by what they have: CPU seconds a clip on one thread.

python -m benchmarks.generator [--clips 5] [--frames 24] [--size 256]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import cv2

from student.synth.scene import UNSEEN, SynthConfig, generate

WORLDS: dict[str, dict[str, Any]] = {
    "rigid, sharp": {},
    "light and noise": {"light": 1.0, "noise": 4.0},
    "bent, moving camera": {"bend": 1.0, "camera": 1.0},
    "motion blur": {"blur": 0.5},
    "patterns": {"domain": "patterns"},
    "all of it": UNSEEN,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=5)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, default=256, help="px a side")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    for name, more in WORLDS.items():
        config = SynthConfig(
            frames=arguments.frames, height=arguments.size, width=arguments.size, **more
        )
        generate(0, config)
        began = time.process_time()
        for seed in range(arguments.clips):
            generate(seed, config)
        seconds = (time.process_time() - began) / arguments.clips
        print(f"{name:20} {seconds:5.2f} CPU s a clip, {1 / seconds:4.1f} clips/s")


if __name__ == "__main__":
    main()
