"""Makes tracks.webp: the teacher `flow` on a procedural clip, whose photographs are those inside
scikit-image and scikit-learn.

python docs/images/make_tracks.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

import teachers
from labeler.show.draw import draw_tracks, rainbow
from student.synth.scene import SynthConfig, generate

POINTS, FPS = 160, 12


def main() -> None:
    clip = generate(
        11, SynthConfig(frames=40, height=288, width=448, points=POINTS, split="train", motion=0.8)
    )
    teacher = teachers.load("flow", mode="label")
    tracks = teacher.track(clip.frames, clip.queries)
    drawn = draw_tracks(
        clip.frames,
        tracks.xy,
        teacher.info.rule(tracks),
        rainbow(clip.queries),
        scale=1,
        point_radius=3,
    )
    frames = [Image.fromarray(frame) for frame in np.ascontiguousarray(drawn)]
    out = Path(__file__).with_name("tracks.webp")
    frames[0].save(
        out,
        save_all=True,
        append_images=frames[1:],
        duration=1000 // FPS,
        loop=0,
        quality=70,
        method=6,
    )


if __name__ == "__main__":
    main()
