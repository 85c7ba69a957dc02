"""TensorBoard: curves and pictures of a training run.

A picture is a strip of frames that shows what a student is to learn and what it answers. The upper
row has the labels, where they are valid; the lower row has the student's answer, after its last
refinement.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from labeler.io.storage import transient_errors
from labeler.show.draw import draw_tracks, rainbow
from student.data.batch import Batch
from student.training.events import StepDone


class Curves:
    """Writes curves and pictures. Scalars are means over every `every` steps, and at
    the end over those that are left.

    A TransientError if they cannot be written, as on a full disk; TensorBoard writes late, so it
    may come some steps later.
    """

    def __init__(self, out: Path, step: int, every: int) -> None:
        self._folder = out / "tensorboard"
        with self._written():
            self._writer = SummaryWriter(str(self._folder), purge_step=step + 1)
        self._every = every
        self._events: list[StepDone] = []

    def add(self, event: StepDone) -> None:
        self._events.append(event)
        if event.step % self._every == 0:
            self._add_means()

    def _add_means(self) -> None:
        """Of the steps since the last time."""
        events, self._events = self._events, []
        event = events[-1]
        with self._written():
            for part in event.losses:
                self._writer.add_scalar(
                    f"loss/{part}",
                    sum(each.losses[part] for each in events) / len(events),
                    event.step,
                )
            seconds = sum(each.seconds for each in events)
            self._writer.add_scalar("learning_rate", event.learning_rate, event.step)
            self._writer.add_scalar(
                "gradient_norm",
                sum(each.gradient_norm for each in events) / len(events),
                event.step,
            )
            self._writer.add_scalar("speed/steps_per_s", len(events) / seconds, event.step)
            self._writer.add_scalar(
                "speed/waiting_for_data",
                sum(each.waited_s for each in events) / seconds,
                event.step,
            )

    def add_figures(self, step: int, figures: dict[str, float]) -> None:
        with self._written():
            for name, value in figures.items():
                self._writer.add_scalar(f"eval/{name}", value, step)

    def add_picture(self, step: int, picture: np.ndarray) -> None:  # uint8 [H, W, 3]
        with self._written():
            self._writer.add_image("labels_above_predictions", picture, step, dataformats="HWC")

    def close(self) -> None:
        if self._events:
            self._add_means()
        with self._written():
            self._writer.close()

    def _written(self) -> AbstractContextManager[None]:
        return transient_errors(f"write curves in {self._folder}")


STRIP_FRAMES, STRIP_POINTS = 4, 48
"""The most frames in a strip, and the most points in it."""


def strip(
    batch: Batch,
    xy: np.ndarray,  # [N, T, 2] px, the answer for the first clip
    visible: np.ndarray,  # [N, T]
) -> np.ndarray:  # uint8 [2 H', frames * W', 3]
    """A strip of the first clip of a batch, with frames evenly spaced in time."""
    frames, queries = batch.frames[0].cpu().numpy(), batch.queries[0, :STRIP_POINTS].cpu().numpy()
    valid = batch.valid[0, :STRIP_POINTS].cpu().numpy()
    labels = np.where(valid[..., None], batch.xy[0, :STRIP_POINTS].cpu().numpy(), np.nan)
    rows = (
        (labels, batch.visible[0, :STRIP_POINTS].cpu().numpy() & valid),
        (xy[:STRIP_POINTS], visible[:STRIP_POINTS]),
    )
    colours = rainbow(queries)
    shown = np.unique(np.linspace(0, len(frames) - 1, STRIP_FRAMES).round().astype(int))
    return np.concatenate(
        [
            np.concatenate(
                [*draw_tracks(frames, xy, seen, colours, query_frames=queries[:, 0], only=shown)],
                1,
            )
            for xy, seen in rows
        ]
    )
