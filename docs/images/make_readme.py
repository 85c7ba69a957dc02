"""Makes readme.webp: three teachers on real video, and what they agree on.

The video is `demo` of iscc-samples 0.6.0, CC-BY-4.0, (c) 2021 Titusz Pan; its 3gp has the largest
picture. Of its black bars nothing is shown.

pip download --no-deps iscc-samples==0.6.0 && tar xzf iscc_samples-0.6.0.tar.gz
python docs/images/make_readme.py iscc_samples-0.6.0/iscc_samples/files/video/demo.3gp
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import teachers
from labeler import AgreementConfig, QueryConfig, open_video, sample_queries
from labeler.labels.agreement import VISIBLE, label, medoids, stack
from labeler.show.draw import draw_tracks, rainbow, side_by_side

SHOT = (398, 482)
"""Frames without a cut."""
ROWS = slice(46, 242)
STRIDE, POINTS, FPS = 2, 260, 12
NAMES = ("lk", "flow", "tapir-mini")
PANEL = (440, 246)
"""Width and height px; tracks are drawn on twice the video's size, and shrunk to it."""


def main() -> None:
    with open_video(sys.argv[1]) as video:
        shot = np.stack([frame[ROWS] for _, frame in video.stream(*SHOT, STRIDE)])
    shot = np.stack(
        [cv2.resize(f, None, fx=2, fy=2, interpolation=cv2.INTER_LANCZOS4) for f in shot]
    )
    queries = spread_out(sample_queries(shot, QueryConfig(count=900), seed=1).points)
    loaded = {name: teachers.load(name, mode="label", device="cpu") for name in NAMES}
    tracks = {name: teacher.track(shot, queries) for name, teacher in loaded.items()}
    rules = {name: teacher.info.rule for name, teacher in loaded.items()}
    size = shot.shape[1:3]
    labels = label(tracks, rules, queries, size, AgreementConfig())
    stacked = stack(tracks, rules, size)
    medoid, _ = medoids(stacked.xy, stacked.sees)
    there = np.stack([tracks[name].xy for name in stacked.names])
    agreed = np.take_along_axis(there, np.maximum(medoid, 0)[None, ..., None], 0)[0]
    shown = labels.valid & (labels.state == VISIBLE) & labels.keep[:, None]
    agreed[~shown] = np.nan
    panels = [
        (name, panel(shot, tracks[name].xy, rules[name](tracks[name]), queries)) for name in NAMES
    ]
    panels.append(("what they agree on", panel(shot, agreed, shown, queries)))
    rows = [side_by_side(panels[:2]), side_by_side(panels[2:])]
    frames = [Image.fromarray(frame) for frame in np.concatenate(rows, 1)]
    out = Path(__file__).with_name("readme.webp")
    frames[0].save(
        out,
        save_all=True,
        append_images=frames[1:],
        duration=1000 // FPS,
        loop=0,
        quality=62,
        method=6,
    )
    kept = labels.keep.mean()
    print(f"{out.name}: {len(frames)} frames, {out.stat().st_size / 1e6:.2f} MB, {kept:.0%} kept")


def spread_out(queries: np.ndarray) -> np.ndarray:
    """The first `POINTS` that keep away from each other, in whatever frame they are."""
    chosen: list[np.ndarray] = []
    for query in queries:
        if all(np.hypot(*(query[1:] - other[1:])) > 17 for other in chosen):
            chosen.append(query)
    return np.stack(chosen[:POINTS])


def panel(shot: np.ndarray, xy: np.ndarray, seen: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """uint8 [T, h, w, 3], with what is seen."""
    xy = np.where(seen[..., None], xy, np.nan)
    drawn = draw_tracks(shot, xy, seen, rainbow(queries), scale=1, point_radius=4.5, trail_frames=8)
    return np.stack([cv2.resize(frame, PANEL, interpolation=cv2.INTER_AREA) for frame in drawn])


if __name__ == "__main__":
    main()
