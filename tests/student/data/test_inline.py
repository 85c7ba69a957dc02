"""Inline labels: a teacher inside the step says what the stored labels of the same frames would
say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.harness.teachers import Near, Still
from student.data.batch import Batch, InlineRequest
from student.data.config import DataConfig
from student.data.inline import InlineLabels
from student.data.mixture import batches
from student.training.config import TrainConfig
from student.training.train import train
from teachers.errors import CheckpointError, ConfigError

CPU = torch.device("cpu")


def inline(dataset, **changes) -> DataConfig:
    settings = {"data": (str(dataset.folder),), "labels": "inline", "teachers": ("lk", "flow")}
    sizes = {"frames": 8, "height": 48, "width": 64, "queries": 12, "batch": 2, "at_once": 2}
    return DataConfig(**{**settings, **sizes, **changes})


@pytest.fixture
def asked(dataset) -> Batch:
    return next(batches(inline(dataset), seed=0))


def test_a_stored_clip_asks_for_a_teacher_and_uses_nothing_but_its_queries(asked):
    for clip, ask in enumerate(asked.inline):
        assert ask is not None
        assert ask.teacher in ("lk", "flow")
        at_query = asked.queries[clip, :, 0].long()
        for point in np.flatnonzero(asked.valid[clip].any(1)):
            assert asked.valid[clip, point, at_query[point]]
            torch.testing.assert_close(
                asked.xy[clip, point, at_query[point]], asked.queries[clip, point, 1:]
            )


def test_the_labels_are_what_the_teacher_says_of_these_frames(asked):
    still, near = (
        stub(name=name, checkpoint=None, device="cpu", mode="recipe")
        for stub, name in ((Still, "still"), (Near, "near"))
    )
    batch = replace(asked, inline=(InlineRequest("still", 1), InlineRequest("near", 2)))
    labelled = InlineLabels({"still": still, "near": near}).label(batch)
    for clip, teacher in enumerate((still, near)):
        tracks = teacher.track(batch.frames[clip].numpy(), batch.queries[clip].numpy(), clip + 1)
        used = labelled.valid[clip].numpy()
        asked_for = batch.valid[clip].any(1).numpy()
        assert not used[~asked_for].any()
        np.testing.assert_array_equal(labelled.xy[clip].numpy()[used], tracks.xy[used])
        np.testing.assert_array_equal(
            labelled.visible[clip].numpy()[used], teacher.info.rule(tracks)[used]
        )
    assert labelled.inline == (None, None)


def test_clips_with_labels_keep_them(dataset):
    batch = next(batches(inline(dataset, procedural=1.0, height=64), seed=0))
    labelled = InlineLabels({}).label(batch)
    for name in ("xy", "visible", "valid", "supervise_occluded"):
        assert torch.equal(getattr(batch, name), getattr(labelled, name))


def test_a_student_learns_from_inline_labels(dataset, tmp_path):
    data = inline(dataset, procedural=0.5, height=64)
    config = TrainConfig.from_scratch(data, 2, iterations=2, device="cpu", calibration_clips=1)
    assert train(config, tmp_path).steps == 2


def test_teachers_that_cannot_be_are_refused(dataset):
    with pytest.raises(
        ConfigError, match="checkpoint tapir=file: write NAME=FILE with a NAME from --teachers"
    ):
        InlineLabels.of(inline(dataset, checkpoint=("tapir=file",)), CPU)
    with pytest.raises(ConfigError, match="no teacher 'nobody'"):
        InlineLabels.of(inline(dataset, teachers=("nobody",)), CPU)
    random = inline(
        dataset, teachers=("cotracker3-offline",), checkpoint=("cotracker3-offline=random",)
    )
    with pytest.raises(ConfigError, match="random weights: noise is never a label"):
        InlineLabels.of(random, CPU)
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        InlineLabels.of(inline(dataset, teachers=("tapir",), checkpoint=("tapir=gone.pt",)), CPU)
