"""What decoding costs: ours, decord, and plain PyAV, on the same videos at the same size.

    taskset -c 0 python -m benchmarks.decode

A camera moves over a photograph in 720p and 1080p H.264. Each reader opens the file and gives its
80 frames at a short side of 384 px, by turns, each in a process of its own for its peak memory, on
one thread. CPU seconds, medians over the turns.

loop      PyAV as one would write it, which resizes inside the conversion to RGB (the goal: ours
          costs no more than 1.1 times that)
loop cv2  the same with cv2.INTER_AREA after the conversion
pyav      `open_video`, the default: with its scan and verified frames
decord    `open_video(decoder="decord")`
clip      what a job does with the file: the search for cuts, and one clip of 80 frames, coded
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

FRAMES, SHORT_SIDE = 80, 384
SIZES = {"720p": (720, 1280), "1080p": (1080, 1920)}
READERS = ("loop", "loop cv2", "pyav", "decord", "clip")
GOAL, GOAL_MIB = 1.1, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=5, help="of each reader")
    parser.add_argument("--files", type=int, default=2, help="read in a turn")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured(asked.one[0], Path(asked.one[1]), asked.files)))
        return
    print(f"{platform.machine()}, one thread, Python {platform.python_version()}, ", end="")
    names = ("av", "decord", "numpy", "opencv-python-headless")
    print(", ".join(f"{name} {version(name)}" for name in names))
    print(f"goal: pyav at most {GOAL} times the loop, and {GOAL_MIB} MiB")
    print("| video | reader | CPU s a file | times the loop | peak MiB |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            path = Path(folder, f"{name}.mp4")
            write_video(path, size)
            found: dict[str, list[tuple[float, float]]] = {reader: [] for reader in READERS}
            for turn in range(asked.turns):
                for reader in READERS[:: -1 if turn % 2 else 1]:
                    found[reader].append(in_its_own_process(reader, path, asked.files))
            loop = np.array([seconds for seconds, _ in found["loop"]])
            for reader, pairs in found.items():
                seconds, mib = np.array(pairs).T
                print(
                    f"| {name} | {reader} | {np.median(seconds):.2f} | "
                    f"{np.median(seconds / loop):.2f} | {mib.max():.0f} |",
                    flush=True,
                )


def write_video(path: Path, size: tuple[int, int]) -> None:
    """`FRAMES` frames of a camera that moves over a photograph with noise."""
    import av
    import cv2
    import skimage.data

    height, width = size
    photo = cv2.resize(skimage.data.coffee(), (width + 400, height + 200))
    noise = np.random.default_rng(0).normal(0, 6, photo.shape)
    photo = np.clip(photo + noise, 0, 255).astype(np.uint8)
    options = {"crf": "23", "preset": "veryfast"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i in range(FRAMES):
            y, x = int(100 + 60 * np.sin(i / 17)), int(i * 3.7)
            part = np.ascontiguousarray(photo[y : y + height, x : x + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        container.mux(stream.encode())


def in_its_own_process(reader: str, path: Path, files: int) -> tuple[float, float]:
    """CPU seconds a file, and peak MiB."""
    command = [sys.executable, "-m", __spec__.name, "--one", reader, str(path)]
    command += ["--files", str(files)]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **threads}
    )
    seconds, mib = json.loads(done.stdout.splitlines()[-1])
    return seconds, mib


def measured(reader: str, path: Path, files: int) -> tuple[float, float]:
    """CPU seconds a file, without imports and the first one, and peak MiB."""
    import cv2

    cv2.setNumThreads(1)
    read = {
        "loop": lambda: by_hand(path, after=False),
        "loop cv2": lambda: by_hand(path, after=True),
        "pyav": lambda: ours(path, "pyav"),
        "decord": lambda: ours(path, "decord"),
        "clip": lambda: clip_of(path),
    }[reader]
    read()
    start = time.process_time()
    for _ in range(files):
        read()
    seconds = (time.process_time() - start) / files
    # getrusage would count what the parent had when it forked
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in one)
    return seconds, int(line.split()[1]) / 1024


def by_hand(path: Path, *, after: bool) -> np.ndarray:
    """uint8 [T, H, W, 3], by a loop over PyAV."""
    import av
    import cv2
    from av.video.reformatter import VideoReformatter

    frames, reformatter = [], VideoReformatter()
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        for frame in container.decode(video=0):
            width = frame.width * SHORT_SIDE // frame.height // 8 * 8
            if after:
                whole = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                size = width, SHORT_SIDE
                frames.append(cv2.resize(whole, size, interpolation=cv2.INTER_AREA))
            else:
                small = reformatter.reformat(
                    frame, width, SHORT_SIDE, "rgb24", interpolation="AREA", threads=1
                )
                frames.append(small.to_ndarray())
    return np.stack(frames)


def ours(path: Path, decoder: str) -> np.ndarray:
    from labeler.video.decode import open_video

    with open_video(path, decoder=decoder) as video:  # type: ignore[arg-type]
        return video.read(range(len(video)), short_side=SHORT_SIDE, multiple=8)


def clip_of(path: Path) -> object:
    from labeler.clips.choice import ClipConfig
    from labeler.clips.making import VideoSource
    from labeler.clips.recipe import ClipRecipe
    from labeler.sources import Source

    clips = ClipConfig(frames=FRAMES, strides=(1,), clips_per_video=1, short_side=SHORT_SIDE)
    return VideoSource(ClipRecipe(clips=clips)).clip(Source(str(path), path.stat().st_size, ""), 0)


if __name__ == "__main__":
    main()
