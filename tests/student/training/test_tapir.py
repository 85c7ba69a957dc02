"""TAPIR as a student: its losses are those of the paper on its own answer, a killed run goes on to
the same weights, and it leaves as an official file."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import teachers
from student.data.batch import Batch
from student.data.config import DataConfig
from student.data.mixture import batches
from student.training.beginning import weights_file
from student.training.checkpoint import Checkpoints
from student.training.config import TrainConfig
from student.training.interface import Goal
from student.training.losses import LossConfig, TapirLossConfig
from student.training.schedule import ScheduleConfig
from student.training.students import STUDENTS
from student.training.train import first_network, train
from teachers.checkpoints.files import read_metadata
from teachers.errors import CheckpointError, ConfigError
from teachers.layers.memory import Memory
from tests.support.slow import slow
from tests.support.students import (
    answer_at_own_size,
    assert_equal_states,
    assert_read_as,
    loss_before_and_after,
    not_moved,
    official_student,
    prepared,
    steps_done,
    whole_and_resumed,
)
from tests.support.training import assert_same_weights, tapir_losses_by_hand

KINDS = ("tapir", "bootstapir", "bootstapir-causal")
TAPIR = STUDENTS["tapir"]
DATA = DataConfig(procedural=1.0, frames=4, height=64, width=64, queries=6, batch=1)


def config(steps: int = 2, schedule: dict[str, Any] | None = None, **settings: Any) -> TrainConfig:
    """A fine-tuning of the mini that is shipped."""
    rate = {"learning_rate": 3e-4, "weight_decay": 1e-2, "clip_norm": 1.0} | (schedule or {})
    return TrainConfig(
        **{
            "student": "tapir",
            "data": DATA,
            "init": "tapir-mini",
            "schedule": ScheduleConfig(steps=steps, **rate),
            "device": "cpu",
            "checkpoint_every": 1,
            "calibration_clips": 1,
            **settings,
        }
    )


# --- losses


@pytest.mark.parametrize("loss", [TapirLossConfig(), TapirLossConfig(position=0.8, huber_px=0.25)])
def test_a_step_has_the_losses_that_are_computed_by_hand_on_the_networks_answer(loss, tmp_path):
    """A crop of 64 x 64 px goes in at its own size."""
    settings = config(1, loss=LossConfig(tapir=loss))
    (done,) = steps_done(settings, tmp_path)
    batch = next(batches(DATA, seed=0))
    steps = answer_at_own_size(settings, batch).steps
    expected = tapir_losses_by_hand(steps, batch, loss)
    assert {name: done.losses[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert done.losses["total"] == pytest.approx(sum(expected.values()), rel=1e-4)


def test_labels_that_are_not_valid_teach_nothing():
    batch = next(batches(DATA, seed=0))
    model = prepared(config())
    answer = TAPIR.track(model, batch.frames, batch.queries, None, Memory(recompute=False))
    some = torch.rand(batch.valid.shape, generator=torch.Generator().manual_seed(0)) < 0.5

    def losses(given: Batch) -> dict[str, Tensor]:
        goal = Goal(
            batch=given, clip_weight=torch.ones(1), visibility="consensus", config=LossConfig()
        )
        return TAPIR.losses(answer, goal)

    known = replace(batch, valid=batch.valid & some, visibility_valid=some)
    elsewhere = torch.where(some[..., None], batch.xy, 7.0)
    other = replace(known, xy=elsewhere, visible=batch.visible ^ ~some)
    torch.testing.assert_close(losses(known), losses(other))
    hidden = replace(batch, visible=batch.visible & False, valid=batch.valid & False)
    assert losses(hidden)["position"] == losses(hidden)["distance"] == 0
    assert losses(hidden)["occlusion"] > 0


def test_where_it_begins_what_is_held_gives_no_gradient(tmp_path):
    """Positions count for nothing here, so nothing may move."""
    nothing = LossConfig(tapir=TapirLossConfig(position=0.0))
    held, learnt = (
        steps_done(config(2, visibility=visibility, loss=nothing), tmp_path / visibility)
        for visibility in ("held", "consensus")
    )
    assert held[0].gradient_norm < 1e-4 * learnt[0].gradient_norm


def test_a_short_run_lowers_the_loss_on_the_clip_that_it_sees():
    """The same clip in every step."""
    settings = config(12, schedule={"learning_rate": 1e-3})
    batch = next(batches(DATA, seed=0))
    before, after = loss_before_and_after(TAPIR, prepared(settings), batch, settings)
    assert after < 0.8 * before


def test_it_learns_from_labelled_shards(dataset, tmp_path):
    """On a crop that is not square, and from teachers that lose hidden points."""
    data = replace(
        DATA, policy="random", data=(str(dataset.folder),), procedural=0.0, height=40, width=48
    )
    (done,) = steps_done(config(1, data=data, visibility="consensus"), tmp_path)
    assert all(value > 0 for value in done.losses.values())


# --- tracks


def test_the_student_is_the_teacher_that_it_becomes():
    """On frames of the network's own raster, at the first resolution: the same positions, in our
    pixel centres."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 256, 256, 3), np.uint8)
    queries = np.array([[0, 20, 20], [2, 200.25, 100]], np.float32)
    model = prepared(config(data=replace(DATA, height=256, width=256)))
    with torch.no_grad():
        answer = TAPIR.track(
            model, torch.from_numpy(frames)[None], torch.from_numpy(queries)[None], None, Memory()
        )
    xy, visible = TAPIR.last_tracks(answer, 3)
    first = {"resolutions": ((256, 256),)}
    teacher = teachers.load("tapir-mini", device="cpu", mode="benchmark", **first)
    expected = teacher.track(frames, queries)
    np.testing.assert_allclose(xy, expected.xy, atol=1e-2)
    np.testing.assert_array_equal(visible, teacher.info.rule(expected))


def test_every_parameter_moves(tmp_path):
    """No part of the network is cut off from the loss."""
    assert not_moved(config(1, schedule={"weight_decay": 0.0}), tmp_path) == []


# --- killed, resumed, exported


@pytest.mark.parametrize("visibility", ["consensus", *slow("held")])
def test_a_killed_run_goes_on_to_the_same_weights_and_the_same_mean_of_them(visibility, tmp_path):
    settings = config(3, schedule={"ema": 2}, visibility=visibility)
    whole, resumed = whole_and_resumed(settings, tmp_path)
    assert_same_weights(whole, resumed)
    last = [Checkpoints(tmp_path / run, keep=1).latest().model for run in ("whole", "killed")]
    assert_equal_states(*last)
    mean = load_file(whole)
    assert any(not torch.equal(value, last[0][key]) for key, value in mean.items())


def test_it_is_exported_as_what_it_began_as_though_it_learnt_on_smaller_crops(tmp_path):
    out = train(config(1), tmp_path).weights
    metadata = read_metadata(out)
    assert (metadata["teacher"], metadata["licence"]) == ("tapir", "Apache-2.0")
    began = teachers.load("tapir-mini", device="cpu")
    ends = teachers.load("mine", checkpoint=str(out), device="cpu")
    assert ends.model.config == began.model.config
    assert first_network(replace(config(), init=str(out))).config == began.model.config


@pytest.mark.parametrize("kind", [KINDS[0], *slow(*KINDS[1:])])
def test_an_official_student_has_the_official_keys_and_loads_strictly(kind, tmp_path):
    model, path = official_student(kind, tmp_path)
    # as the official file is: without a word about itself
    torch.save(load_file(path), tmp_path / "official.pt")
    assert_read_as(model, kind, tmp_path / "official.pt")
    assert teachers.load(STUDENTS[kind].teacher, checkpoint=str(path), device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_larger_ones_learn_too(kind, tmp_path):
    settings = config(1, student=kind, init="scratch", preset="mini")
    (done,) = steps_done(settings, tmp_path)
    assert math.isfinite(done.losses["total"])
    assert done.gradient_norm > 0
    assert teachers.load(
        kind, checkpoint=str(tmp_path / "student.safetensors"), device="cpu"
    ).model.config.causal is (kind == "bootstapir-causal")


def test_weights_of_another_architecture_are_refused_by_their_name():
    with pytest.raises(
        CheckpointError,
        match=r"cotracker3-offline-mini\.safetensors: weights of cotracker3-offline.*, and this "
        "student begins with those of tapir",
    ):
        first_network(config(init="cotracker3-offline-mini"))


def test_a_crop_that_the_network_has_no_cells_for_is_refused():
    with pytest.raises(ConfigError, match=r"height = width = 100: .* multiples of 8"):
        prepared(config(data=replace(DATA, height=100, width=100)))


def test_a_folder_does_not_hide_the_teacher_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tapir-mini").mkdir()
    assert weights_file("tapir-mini").endswith("tapir-mini.safetensors")


def test_a_teacher_whose_weights_are_not_here_is_named(monkeypatch):
    monkeypatch.setattr("student.training.beginning.cached_checkpoint", lambda name: None)
    with pytest.raises(CheckpointError, match="tapdistill teachers pull bootstapir"):
        weights_file("bootstapir")
