"""Rerun export: frames, every teacher's points, and support over time, for the Rerun viewer
(`pip install 'tapdistill[rerun]'`).

    <key>/frame                        the stored frames, as JPEG
    <key>/frame/<teacher>/seen         points that the teacher sees, in its colour; their numbers
                                       are those of the queries
    <key>/frame/<teacher>/occluded     points that it says are occluded, smaller and pale
    <key>/support                      mean support of the points that any teacher sees and
                                       that are not agreed to be occluded

The timeline is `frame`. The viewer draws trails where "visible time range" is switched on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np

from labeler.dataset import Clip
from labeler.labels.disagreement import mean_support
from labeler.show.draw import to_jpeg
from labeler.show.player import tracker_colour
from teachers import ConfigError

JPEG_QUALITY = 90
SEEN_PX, OCCLUDED_PX, PALE = 2.5, 1.5, 110


class RerunWriter:
    """Writes clips into a recording (.rrd), one after another. ConfigError where rerun-sdk is not
    installed."""

    def __init__(self, file: Path) -> None:
        try:
            import rerun
        except ImportError as error:
            raise ConfigError(
                "--to rerun needs the package rerun-sdk: pip install 'tapdistill[rerun]'."
            ) from error
        self._rerun: Any = rerun
        self._recording = rerun.RecordingStream("tapdistill")
        self._recording.save(file)

    def write(self, clip: Clip) -> None:
        """Log one clip."""
        rerun, log = self._rerun, self._recording.log
        support = mean_support(clip.labels)
        sees = {name: clip.visible(name) for name in clip.tracks}
        for t, frame in enumerate(clip.frames):
            self._recording.set_time("frame", sequence=t)
            log(
                f"{clip.key}/frame",
                rerun.EncodedImage(contents=to_jpeg(frame, JPEG_QUALITY), media_type="image/jpeg"),
            )
            for k, (name, tracks) in enumerate(clip.tracks.items()):
                tracked = np.isfinite(tracks.xy[:, t]).all(-1)
                seen, colour = (
                    sees[name][:, t],
                    [int(tracker_colour(k)[i : i + 2], 16) for i in (1, 3, 5)],
                )
                for what, which, radius, alpha in (
                    ("seen", seen, SEEN_PX, 255),
                    ("occluded", tracked & ~seen, OCCLUDED_PX, PALE),
                ):
                    # Rerun puts (0, 0) at the corner of the top-left pixel
                    points = tracks.xy[which, t] + 0.5
                    ids = np.flatnonzero(which).astype(np.uint16)
                    marks = rerun.Points2D(
                        points, colors=[[*colour, alpha]], radii=radius, keypoint_ids=ids
                    )
                    log(f"{clip.key}/frame/{name}/{what}", marks)
            if np.isfinite(support[t]):
                log(f"{clip.key}/support", rerun.Scalars(float(support[t])))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._recording.flush()
        self._recording.disconnect()
