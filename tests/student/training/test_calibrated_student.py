"""A student is exported with the visible rule that fits it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
from safetensors.torch import load_file

import teachers
from labeler import open_dataset
from student.data.config import DataConfig
from student.evaluation.calibration import calibrated
from student.evaluation.evaluate import track_clips
from student.synth.scene import SynthConfig, generate
from student.training.beginning import weights_file
from student.training.calibration_clips import calibration_clips
from student.training.config import TrainConfig
from student.training.events import Calibrated, Measuring, Saved
from student.training.schedule import ScheduleConfig
from student.training.train import train
from teachers import VisibleRule
from teachers.checkpoints.files import LICENCE, read_metadata, stored_rule
from tests.support.training import assert_same_weights, small_data

DATA = DataConfig(procedural=1.0, frames=4, height=64, width=64, queries=6, batch=1)


def config(clips: int) -> TrainConfig:
    return TrainConfig.from_scratch(
        DATA, 2, iterations=2, device="cpu", checkpoint_every=2, calibration_clips=clips
    )


def test_the_student_is_exported_with_the_visible_rule_that_fits_it(tmp_path):
    events: list[object] = []
    result = train(config(2), tmp_path / "a", watch=events.append)
    assert type(events[-1]) is Calibrated
    found = events[-1].fitted.calibration
    measured = [event for event in events if isinstance(event, Measuring)]
    assert [(event.done, event.total) for event in measured] == [(0, 2), (1, 2), (2, 2)]
    made, known = calibration_clips(config(2))
    assert all(each.all() for each in known)
    assert [clip.frames.shape for clip in made] == [(4, 64, 64, 3)] * 2
    teacher = teachers.load(
        "cotracker3-offline", checkpoint=str(result.weights), device="cpu", mode="label"
    )
    assert teacher.info.rule == found.rule
    tracks, _ = track_clips(teacher, made)
    assert calibrated(tracks, made, teacher.published_rule) == found

    without = train(config(0), tmp_path / "b")
    assert_same_weights(result.weights, without.weights)
    assert stored_rule(without.weights) is None


def test_with_stored_labels_the_rule_is_chosen_on_the_clips_and_labels_it_learns_from(dataset):
    """`Still` says that every point stays where it was asked for, and `Near` nearly so; the student
    sees a part of a clip, as in training, with clean frames."""
    data = small_data(dataset.folder, policy="random", height=48, photometric=1.0)
    made, known = calibration_clips(TrainConfig(init="scratch", data=data, calibration_clips=3))
    stored = {clip.key: clip for clip in open_dataset(str(dataset.folder))}
    for clip, frames in zip(made, known, strict=True):
        assert clip.frames.shape == (8, 48, 48, 3)
        assert len(clip.queries) > 4
        assert clip.visible.any()
        assert not (clip.visible & ~frames).any()
        still = np.broadcast_to(clip.queries[:, None, 1:], clip.xy.shape)
        np.testing.assert_allclose(clip.xy[clip.visible], still[clip.visible], atol=0.26)
        parts = np.lib.stride_tricks.sliding_window_view(
            stored[clip.name].frames, clip.frames.shape
        ).reshape(-1, clip.frames.size)
        as_seen = (clip.frames.ravel(), clip.frames[:, :, ::-1].ravel())
        assert any((parts == each).all(1).any() for each in as_seen)


def test_whole_frames_are_those_that_are_stored(dataset):
    data = small_data(dataset.folder, policy="random", height=48, flip=False)
    settings = TrainConfig(init="scratch", data=data, calibration_clips=3)
    stored = {clip.key: clip.frames for clip in open_dataset(str(dataset.folder))}
    made, _ = calibration_clips(settings, whole=True)
    assert made
    for clip in made:
        video = stored[clip.name]
        assert any(
            np.array_equal(clip.frames, video[first : first + 8]) for first in range(len(video) - 7)
        )
        assert clip.visible.any()


@pytest.mark.slow
def test_the_clips_are_read_once_however_often_the_student_is_scored(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "student.training.train.calibration_clips",
        lambda settings, whole: read.append(1) or calibration_clips(settings, whole),
    )
    small = SynthConfig(frames=4, height=64, width=64, points=6)
    monkeypatch.setattr(
        "student.training.train.procedural_clips", lambda clips: [generate(1, small)] * clips
    )
    train(replace(config(1), eval_every=1, eval_clips=1), tmp_path)
    assert read == [1]


@pytest.mark.parametrize("clips", [0, 1])
def test_a_student_begins_with_the_visible_rule_of_its_weights(clips, tmp_path, monkeypatch):
    """That of the mini is not the published one, and stays if the labels do not know better."""
    monkeypatch.setattr("student.evaluation.calibration.LEAST_GAIN", 1.0)
    settings = replace(
        config(clips), init="cotracker3-offline-mini", schedule=ScheduleConfig(steps=1)
    )
    events: list[object] = []
    weights = train(settings, tmp_path, watch=events.append).weights
    rule = stored_rule(weights_file("cotracker3-offline-mini"))
    assert rule not in (None, VisibleRule("v", 0.9))
    assert stored_rule(weights) == rule
    fitted = [event.fitted for event in events if isinstance(event, Calibrated)]
    assert [found.calibration.before for found in fitted] == [rule] * clips


def test_a_run_goes_on_without_the_file_that_it_began_with(tmp_path):
    """Its rule and licence are still those of the student."""

    def stop(event: object) -> None:
        if isinstance(event, Saved):
            raise KeyboardInterrupt

    mini = weights_file("cotracker3-offline-mini")
    begun = tmp_path / "begun.safetensors"
    metadata = read_metadata(mini) | {LICENCE: "of its own"}
    begun.write_bytes(safetensors.torch.save(load_file(mini), metadata))
    settings = replace(config(0), init=str(begun), schedule=ScheduleConfig(steps=2))
    settings = replace(settings, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "out", watch=stop)
    begun.unlink()
    weights = train(settings, tmp_path / "out").weights
    assert stored_rule(weights) == stored_rule(mini)
    assert read_metadata(weights)[LICENCE] == "of its own"
