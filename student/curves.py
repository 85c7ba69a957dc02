"""Curves and pictures of a training run, for TensorBoard."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from labeler.storage import surroundings
from student.train_events import StepDone


class Curves:
    """Scalars are means over every `every` steps.

    A SurroundingsError where they cannot be written, as on a full disk; TensorBoard writes late, so it may come steps after.
    """

    def __init__(self, out: Path, step: int, every: int) -> None:
        self._folder = out / "tensorboard"
        with self._written():
            self._writer = SummaryWriter(str(self._folder), purge_step=step + 1)
        self._every = every
        self._events: list[StepDone] = []

    def add(self, event: StepDone) -> None:
        self._events.append(event)
        if event.step % self._every:
            return
        events, self._events = self._events, []
        with self._written():
            for part in event.losses:
                self._writer.add_scalar(f"loss/{part}", sum(each.losses[part] for each in events) / len(events), event.step)
            seconds = sum(each.seconds for each in events)
            self._writer.add_scalar("learning_rate", event.learning_rate, event.step)
            self._writer.add_scalar("gradient_norm", sum(each.gradient_norm for each in events) / len(events), event.step)
            self._writer.add_scalar("speed/steps_per_s", len(events) / seconds, event.step)
            self._writer.add_scalar("speed/waiting_for_data", sum(each.waited_s for each in events) / seconds, event.step)

    def add_figures(self, step: int, figures: dict[str, float]) -> None:
        with self._written():
            for name, value in figures.items():
                self._writer.add_scalar(f"eval/{name}", value, step)

    def add_picture(self, step: int, picture: np.ndarray) -> None:  # uint8 [H, W, 3]
        with self._written():
            self._writer.add_image("labels_above_predictions", picture, step, dataformats="HWC")

    def close(self) -> None:
        with self._written():
            self._writer.close()

    def _written(self) -> AbstractContextManager[None]:
        return surroundings(f"write curves in {self._folder}")
