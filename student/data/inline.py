"""Inline labels: a teacher runs inside the training step, on the very frames that the student gets.

This is how the published script does it: nothing is stored, and every step pays for a teacher. It
exists for comparison with stored labels (`benchmarks/inline_labels.py`). Teachers run in mode
"recipe", which is the published call.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

import teachers
from labeler.labels.teacher_choice import checkpoints, refuse_untrained
from student.data.batch import Batch
from student.data.config import DataConfig
from teachers.interface import Teacher


class InlineLabels:
    """The teachers of a training run."""

    def __init__(self, trackers: Mapping[str, Teacher]) -> None:
        self._trackers = trackers
        self.seconds = 0.0
        """Spent with teachers so far."""

    @classmethod
    def of(cls, config: DataConfig, device: torch.device) -> InlineLabels:
        """Those that the config names.

        Raises:
            ConfigError: no such teacher, or one with random weights. CheckpointError: weights that
                are missing or not of that network.
        """
        files = checkpoints(config.checkpoint, config.teachers)
        trackers = {}
        for name in config.teachers:
            trackers[name] = teachers.load(
                name, checkpoint=files.get(name), device=str(device), mode="recipe"
            )
        refuse_untrained({name: tracker.info for name, tracker in trackers.items()})
        return cls(trackers)

    def label(self, batch: Batch) -> Batch:
        """The batch with the labels that it asks for; on the CPU."""
        started = time.perf_counter()
        xy, visible, valid, visibility_valid, supervise_occluded = (
            part.clone()
            for part in (
                batch.xy,
                batch.visible,
                batch.valid,
                batch.visibility_valid,
                batch.supervise_occluded,
            )
        )
        for clip, request in enumerate(batch.inline):
            if request is None:
                continue
            teacher = self._trackers[request.teacher]
            tracks = teacher.track(
                batch.frames[clip].numpy(), batch.queries[clip].numpy(), request.seed
            )
            seen, known = teacher.info.rule(tracks), bool(teacher.info.knows_hidden_points)
            requested = valid[clip].any(1, keepdim=True).numpy()
            found = np.isfinite(tracks.xy).all(-1) & requested
            good = found & (seen | known)
            valid[clip] = torch.from_numpy(good)
            visibility_valid[clip] = torch.from_numpy(found)
            xy[clip] = torch.from_numpy(np.where(good[..., None], tracks.xy, 0))
            visible[clip] = torch.from_numpy(seen & found)
            supervise_occluded[clip] = known
        self.seconds += time.perf_counter() - started
        return replace(
            batch,
            xy=xy,
            visible=visible,
            valid=valid,
            visibility_valid=visibility_valid,
            supervise_occluded=supervise_occluded,
            inline=(None,) * len(batch.inline),
        )
