"""LocoTrack as a student: TAPIR's losses on its own answer, a killed run goes on to the same
weights, and it leaves as an official file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import teachers
from student.data.batch import Batch
from student.data.config import DataConfig
from student.data.mixture import batches
from student.training.config import TrainConfig
from student.training.losses import TapirLossConfig
from student.training.schedule import ScheduleConfig
from student.training.students import STUDENTS
from student.training.train import first_network, train
from teachers.checkpoints.files import read_metadata
from teachers.errors import CheckpointError
from teachers.layers.memory import Memory
from teachers.locotrack.teacher import LocoTrackTeacher
from tests.support import students
from tests.support.training import assert_same_weights, tapir_losses_by_hand

KINDS = ("locotrack-base", "locotrack-small")
LOCOTRACK = STUDENTS["locotrack-base"]
DATA = DataConfig(procedural=1.0, frames=4, height=64, width=64, queries=6, batch=1)


def config(steps: int = 2, schedule: dict[str, Any] | None = None, **settings: Any) -> TrainConfig:
    rate = {"learning_rate": 3e-4, "weight_decay": 0.0, "clip_norm": 1.0} | (schedule or {})
    return TrainConfig(
        **{
            "student": "locotrack-base",
            "data": DATA,
            "init": "scratch",
            "preset": "mini",
            "visibility": "consensus",
            "schedule": ScheduleConfig(steps=steps, **rate),
            "device": "cpu",
            "checkpoint_every": 1,
            "calibration_clips": 1,
            **settings,
        }
    )


@pytest.fixture(scope="module")
def batch() -> Batch:
    return next(batches(DATA, seed=0))


def test_a_step_has_tapirs_losses_computed_by_hand_over_matching_and_every_refinement(
    batch, tmp_path
):
    """A crop of 64 x 64 px goes in at its own size."""
    settings = config(1)
    (done,) = students.steps_done(settings, tmp_path)
    steps = students.answer_at_own_size(settings, batch)
    assert len(steps) == 1 + first_network(settings).config.iterations
    expected = tapir_losses_by_hand(steps, batch, TapirLossConfig())
    assert {name: done.losses[name] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_outputs_that_nothing_reads_are_left_as_they_are(tmp_path):
    """The published files hold more rows of the last layer than any result needs."""
    before = first_network(config(1)).state_dict()["torch_pips_mixer.output_proj.weight"]
    after = load_file(train(config(1), tmp_path).weights)["torch_pips_mixer.output_proj.weight"]
    torch.testing.assert_close(after[4:], before[4:], atol=0, rtol=0)
    assert not torch.equal(after[:4], before[:4])


@pytest.mark.parametrize("points", [8, 4096])
def test_how_much_is_computed_at_once_or_again_changes_no_gradient(batch, points):
    gradients = []
    for memory in (Memory(4, 4096, recompute=False), Memory(1, points, recompute=True)):
        model = students.prepared(config()).double()
        steps = model(
            batch.frames.permute(0, 1, 4, 2, 3), batch.queries.double(), [(64, 64)], memory
        )
        steps.square().mean().backward()
        gradients.append({key: weight.grad for key, weight in model.named_parameters()})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-6, atol=1e-9, msg=key)


@pytest.mark.slow
def test_a_short_run_lowers_the_loss_on_the_clip_that_it_sees(batch):
    settings = config(12, schedule={"learning_rate": 1e-3})
    model = students.prepared(settings)
    before, after = students.loss_before_and_after(LOCOTRACK, model, batch, settings)
    assert after < 0.8 * before


def test_the_student_is_the_teacher_that_it_becomes():
    """On frames of the network's own raster: the same positions, in our pixel centres."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), np.uint8)
    queries = np.array([[0, 20, 20], [2, 200.25, 100]], np.float32)
    teacher = LocoTrackTeacher(
        name="t", checkpoint="random", preset="mini", device="cpu", mode="benchmark"
    )
    with torch.no_grad():
        answer = LOCOTRACK.track(
            teacher.model,
            torch.from_numpy(frames)[None],
            torch.from_numpy(queries)[None],
            None,
            Memory(),
        )
    xy, visible = LOCOTRACK.last_tracks(answer, 3)
    expected = teacher.track(frames, queries)
    np.testing.assert_allclose(xy, expected.xy, atol=1e-2)
    np.testing.assert_array_equal(visible, teacher.info.rule(expected))


def test_every_parameter_moves(tmp_path):
    """No part of the network is cut off from the loss."""
    assert students.not_moved(config(1), tmp_path) == []


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    assert_same_weights(*students.whole_and_resumed(config(3, schedule={"ema": 2}), tmp_path))


def test_a_student_can_begin_the_next_one_and_hold_what_it_says_of_visibility(tmp_path):
    first = train(config(1), tmp_path / "first").weights
    settings = config(1, init=str(first), visibility="held")
    (done,) = students.steps_done(settings, tmp_path / "second")
    assert done.gradient_norm > 0
    metadata = read_metadata(tmp_path / "second" / "student.safetensors")
    assert metadata["teacher"] == "locotrack-base"
    assert teachers.load(
        "mine", checkpoint=str(tmp_path / "second" / "student.safetensors"), device="cpu"
    ).model.config == replace(first_network(settings).config, raster=256)


@pytest.mark.parametrize("kind", KINDS)
def test_an_official_student_has_the_official_keys_and_loads_strictly(kind, tmp_path):
    model, path = students.official_student(kind, tmp_path)
    # as the official file is: without a word about itself, every key behind "model."
    content = {f"model.{key}": value for key, value in load_file(path).items()}
    torch.save({"state_dict": content}, tmp_path / "official.ckpt")
    students.assert_read_as(model, kind, tmp_path / "official.ckpt")


def test_the_other_size_is_refused_by_its_name(tmp_path):
    path = train(config(1), tmp_path).weights
    with pytest.raises(
        CheckpointError, match="weights of locotrack-base, and this student begins with those of"
    ):
        STUDENTS["locotrack-small"].from_file(path, "mini")
