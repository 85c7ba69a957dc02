"""Frames that count by how far their label is trusted: in every student's losses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from student.data.batch import Batch
from student.data.config import DataConfig
from student.data.mixture import batches
from student.training.interface import Goal
from student.training.losses import LossConfig
from student.training.students import STUDENTS
from teachers.layers.memory import Memory

DATA = DataConfig(procedural=1.0, frames=12, height=64, width=64, queries=6, batch=1)
KINDS = ("offline", "online", "tapir")


@pytest.fixture(scope="module")
def batch() -> Batch:
    return next(batches(DATA, seed=0))


@pytest.fixture(scope="module", params=KINDS)
def losses(request, batch):
    """Batch -> losses by name, of one answer of a small network."""
    student = STUDENTS[request.param]
    model = student.from_scratch("mini", DATA.frames, (DATA.height, DATA.width), 0)
    student.prepare(model, (DATA.height, DATA.width), 2)
    with torch.no_grad():
        answer = student.track(model, batch.frames, batch.queries, 2, Memory())

    def of(given: Batch) -> dict[str, Tensor]:
        goal = Goal(
            batch=given, clip_weight=torch.ones(1), visibility="consensus", config=LossConfig()
        )
        return student.losses(answer, goal)

    return of


def some(batch: Batch) -> Tensor:
    return torch.rand(batch.valid.shape, generator=torch.Generator().manual_seed(0)) < 0.5


def test_exact_clips_count_fully(batch):
    assert (batch.weight == 1).all()


def test_a_frame_of_weight_0_is_as_if_it_were_not_there(losses, batch):
    where = some(batch)
    weighed = replace(batch, weight=where.float())
    without = replace(
        batch, valid=batch.valid & where, visibility_valid=batch.visibility_valid & where
    )
    assert losses(weighed) != losses(batch)
    torch.testing.assert_close(losses(weighed), losses(without))


def test_what_counts_is_how_much_more_a_frame_weighs_than_another(losses, batch):
    """A loss between those of its two halves, nearer to the one that weighs more."""
    where = some(batch)

    def total(weight: Tensor) -> float:
        return float(sum(losses(replace(batch, weight=weight)).values()))

    first, second = total(where.float()), total((~where).float())
    low = total(torch.where(where, 0.9, 0.1))
    high = total(torch.where(where, 0.1, 0.9))
    assert min(first, second) < max(first, second)
    assert (low < high) == (first < second)
