"""Students: both kinds learn with the published masks, begin with weights of either kind, and leave
as official files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import teachers
from student.data.batch import Batch
from student.data.config import DataConfig
from student.data.mixture import batches
from student.training.beginning import first_network
from student.training.checkpoint import Checkpoints
from student.training.config import TrainConfig
from student.training.cotracker import kind_of_file
from student.training.interface import Goal
from student.training.losses import LossConfig, from_query_on
from student.training.losses_cotracker import CoTrackerTargets, position_losses
from student.training.step import clip_weights
from student.training.students import STUDENTS
from student.training.train import train
from teachers.cotracker.cotracker3 import CoTracker3, CoTracker3Config
from teachers.errors import CheckpointError, ConfigError
from teachers.layers.memory import Memory
from teachers.registry import entry_of
from tests.support import parity
from tests.support.training import assert_same_weights

KINDS = ("offline", "online")
PUBLISHED = LossConfig()
DATA = DataConfig(procedural=1.0, frames=12, height=64, width=64, queries=6, batch=1)


def config(kind: str, **settings) -> TrainConfig:
    return TrainConfig.from_scratch(
        settings.pop("data", DATA),
        settings.pop("steps", 2),
        iterations=2,
        device="cpu",
        calibration_clips=1,
        student=kind,
        **settings,
    )


def wide_windows(kind: str):
    """A mini network whose windows are short enough for a clip of 12 frames to have two."""
    sizes = replace(STUDENTS[kind].presets["mini"](), window=8, resolution=(64, 64))
    torch.manual_seed(0)
    return STUDENTS[kind].network(sizes)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return next(batches(replace(DATA, batch=2, at_once=2), seed=0))


def goal(
    batch: Batch, visibility: str, config: LossConfig = PUBLISHED, progress: float = 0.0
) -> Goal:
    return Goal(
        batch=batch,
        clip_weight=clip_weights(batch, config, progress),
        visibility=visibility,
        config=config,
    )


def test_an_online_student_goes_window_by_window_and_an_offline_one_does_not(batch):
    spans = {}
    for kind in KINDS:
        windows = STUDENTS[kind].track(wide_windows(kind), batch.frames, batch.queries, 2, Memory())
        spans[kind] = [(window.first_frame, window.xy.shape[3]) for window in windows]
    assert spans == {"offline": [(0, 12)], "online": [(0, 8), (4, 8)]}


@pytest.fixture
def coarse_to_fine():
    """A mini teacher whose network refines tracks on frames of half, once, and twice the size."""
    given = {"checkpoint": "random", "preset": "mini", "mode": "label", "device": "cpu"}
    teacher = teachers.load("cotracker3-offline", support_points=0, iterations=2, **given)
    sizes = replace(teacher.config, sides=(32, 64, 128), resolution=(64, 64))
    teacher.config = teacher.model.config = sizes
    # an untrained network leaves points where they are
    torch.nn.init.normal_(teacher.model.updateformer.flow_head.weight, std=0.03)
    return teacher


def test_an_offline_student_learns_on_frames_of_every_size_that_its_teacher_refines_on(
    batch, coarse_to_fine
):
    student, model = STUDENTS["offline"], coarse_to_fine.model
    with torch.no_grad():
        passes = student.track(model, batch.frames[:1], batch.queries[:1], 2, Memory())
    assert [(found.first_frame, found.xy.shape[3]) for found in passes] == [(0, 12)] * 3
    tracks = coarse_to_fine.track(batch.frames[0].numpy(), batch.queries[0].numpy())
    found, queries = passes[-1].xy[-1, 0], batch.queries[0]
    assert (found - queries[:, None, 1:]).norm(dim=-1).median() > 1
    # where it was asked, a teacher says what it was told
    found[torch.arange(len(queries)), queries[:, 0].long()] = queries[:, 1:]
    torch.testing.assert_close(found, torch.from_numpy(tracks.xy), atol=1e-3, rtol=0)


def test_a_pass_is_learnt_without_those_before_it(batch, coarse_to_fine):
    """A pass gets positions from the one before, not its gradient."""
    student, model = STUDENTS["offline"], coarse_to_fine.model.requires_grad_()
    passes = student.track(model, batch.frames[:1], batch.queries[:1], 2, Memory())
    for found in passes:
        found.xy.retain_grad()
    passes[-1].xy.sum().backward()
    assert passes[-1].xy.grad is not None
    assert all(found.xy.grad is None for found in passes[:-1])


def test_positions_before_its_query_teach_an_offline_student_alone(batch):
    """The masks of `ct3_loss_real_offline` and `ct3_loss_real_online`: valid, and valid from the
    query on."""
    sources = replace(batch, sources=("shards", "shards"))
    for kind in KINDS:
        student = STUDENTS[kind]
        windows = student.track(wide_windows(kind), batch.frames, batch.queries, 2, Memory())
        after = from_query_on(batch.queries[..., 0].long(), 12)
        valid = {"offline": batch.valid, "online": batch.valid & after}[kind]
        targets = CoTrackerTargets(batch.xy, batch.visible, valid, batch.supervise_occluded)
        expected = position_losses(windows, targets, LossConfig())
        found = student.losses(windows, goal(sources, "frozen"))
        assert found == {**expected, "visibility": 0, "confidence": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_every_parameter(kind, tmp_path):
    """No part of the network is cut off from the loss."""
    settings = config(kind, steps=1)
    before = first_network(settings).state_dict()
    after = load_file(train(settings, tmp_path).weights)
    still = [key for key, value in before.items() if torch.equal(value, after[key])]
    assert still == ["time_emb"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_stops_goes_on_to_the_same_weights(kind, tmp_path):
    settings = config(kind, checkpoint_every=1)
    whole = train(settings, tmp_path / "whole").weights
    train(settings, tmp_path / "stopped")
    (tmp_path / "stopped" / "checkpoints" / "step-00000002.pt").unlink()
    resumed = train(settings, tmp_path / "stopped").weights
    assert_same_weights(whole, resumed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_official_student_is_exported_under_the_official_keys_and_comes_back_equal(
    kind, tmp_path
):
    student = STUDENTS[kind]
    torch.manual_seed(0)
    model = student.network(student.presets["official"]()).eval()
    path = Checkpoints(tmp_path, keep=1).export("student", model, student.teacher, {})
    official = {entry["key"]: entry["shape"] for entry in parity.key_list(f"cotracker3_{kind}")}
    assert {key: list(value.shape) for key, value in load_file(path).items()} == official
    # as the official file is: without a word about itself
    torch.save(load_file(path), tmp_path / "official.pth")
    assert kind_of_file(tmp_path / "official.pth") == kind
    frames = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)
    queries = np.array([[0, 20, 20], [3, 40, 10]], np.float32)
    found = [
        teachers.load(
            student.teacher, checkpoint=str(tmp_path / name), device="cpu", mode="recipe"
        ).track(frames, queries)
        for name in ("student.safetensors", "official.pth")
    ]
    with torch.no_grad():
        windows = student.track(
            model, torch.from_numpy(frames)[None], torch.from_numpy(queries)[None], 2, Memory()
        )
        again = student.from_file(tmp_path / "official.pth", "official").eval()
        others = student.track(
            again, torch.from_numpy(frames)[None], torch.from_numpy(queries)[None], 2, Memory()
        )
    np.testing.assert_array_equal(found[0].xy, found[1].xy)
    assert all(torch.equal(one.xy, other.xy) for one, other in zip(windows, others, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of", KINDS)
def test_weights_of_either_kind_begin_either_student(kind, of, tmp_path):
    given = first_network(config(of))
    path = Checkpoints(tmp_path, keep=1).export("given", given, STUDENTS[of].teacher, {})
    begun = STUDENTS[kind].from_file(path, "mini")
    assert type(begun) is STUDENTS[kind].network
    theirs, ours = given.state_dict(), begun.state_dict()
    different = [
        key
        for key in theirs
        if theirs[key].shape != ours[key].shape or not torch.equal(theirs[key], ours[key])
    ]
    assert different == ([] if kind == of else ["time_emb"])


@pytest.mark.parametrize(("kind", "window"), [("offline", 24), ("online", 16)])
def test_a_mini_of_the_other_kind_gets_the_window_of_that_mini(kind, window):
    """Sizes are those of the file, although the official network is asked for where it states
    none."""
    (other,) = set(KINDS) - {kind}
    file = entry_of(f"cotracker3-{other}-mini").shipped_checkpoint
    begun = STUDENTS[kind].from_file(file, "official")
    assert begun.config.window == begun.time_emb.shape[1] == window


def test_weights_of_another_network_are_refused(tmp_path):
    other = CoTracker3(replace(CoTracker3Config.mini(), width=48))
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(
        CheckpointError, match=r"other\.pth: not a checkpoint of 'cotracker3-offline'"
    ):
        STUDENTS["online"].from_file(tmp_path / "other.pth", "mini")


def test_a_checkpoint_of_the_other_kind_of_student_is_not_gone_on_with(tmp_path):
    train(config("offline", steps=1), tmp_path)
    with pytest.raises(CheckpointError, match="was trained with student = 'offline', not 'online'"):
        train(config("online", steps=1), tmp_path)


def test_a_checkpoint_of_a_later_version_says_so(tmp_path):
    train(config("offline", steps=1), tmp_path)
    (path,) = (tmp_path / "checkpoints").glob("*.pt")
    later = torch.load(path, weights_only=True)
    later["network"]["colours"] = 3
    torch.save(later, path)
    with pytest.raises(CheckpointError, match="a later version of tapdistill: colours of its"):
        train(config("offline", steps=1), tmp_path)


def test_a_student_that_is_not_there_is_refused():
    with pytest.raises(
        ConfigError, match="student = 'causal': there are offline, online, tapir, bootstapir, "
    ):
        config("causal")


# --- weights of the sources


def test_the_weights_of_sources_go_from_the_first_value_to_the_last(batch):
    student = STUDENTS["offline"]
    windows = student.track(wide_windows("offline"), batch.frames, batch.queries, 2, Memory())
    mixed = replace(batch, sources=("shards", "procedural"))
    track_on_r = LossConfig(real=(1.0, 2.0), synthetic=(1.0, 0.0))

    def parts(settings: LossConfig, progress: float) -> dict[str, Tensor]:
        return student.losses(windows, goal(mixed, "exact", settings, progress))

    plain, begins, middle, ends = (
        parts(LossConfig(), 0.0),
        *(parts(track_on_r, progress) for progress in (0.0, 0.5, 1.0)),
    )
    torch.testing.assert_close(begins, plain)
    halves = [
        parts(LossConfig(real=(r, r), synthetic=(s, s)), 0.0)["visible"]
        for r, s in ((1.0, 0.0), (0.0, 1.0))
    ]
    torch.testing.assert_close(begins["visible"], sum(halves))
    torch.testing.assert_close(ends["visible"], 2 * halves[0])
    torch.testing.assert_close(middle["visible"], 1.5 * halves[0] + 0.5 * halves[1])
    assert ends["visibility"] == ends["confidence"] == 0


def test_a_negative_weight_is_refused():
    with pytest.raises(ConfigError, match=r"real = \(1.0, -1.0\)"):
        LossConfig(real=(1.0, -1.0))


def test_weights_of_another_architecture_are_refused_by_their_name():
    other = Path(teachers.__file__).parent / "weights" / "tapir-mini.safetensors"
    with pytest.raises(
        CheckpointError,
        match=r"tapir-mini\.safetensors: weights of tapir.*, and this student begins with those of",
    ):
        first_network(TrainConfig(data=DATA, init=str(other), device="cpu"))
