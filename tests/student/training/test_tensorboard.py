"""TensorBoard: curves and pictures of a training."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from student.training.train import train
from teachers.errors import TransientError
from tests.student.training.test_train import config


def test_curves_go_on_where_the_checkpoint_was(tmp_path):
    train(config(steps=4, log_every=2), tmp_path)
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    names = {
        "loss/total",
        "loss/visible",
        "learning_rate",
        "gradient_norm",
        "speed/steps_per_s",
        "speed/waiting_for_data",
    }
    assert names <= set(curves.Tags()["scalars"])
    assert [point.step for point in curves.Scalars("loss/total")] == [2, 4]


@pytest.mark.parametrize(("log_every", "steps"), [(2, [2, 3]), (10, [3])])
def test_the_last_steps_are_in_the_curves_too(log_every, steps, tmp_path):
    train(config(steps=3, log_every=log_every), tmp_path)
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("loss/total")] == steps


def test_pictures_show_labels_above_predictions(tmp_path):
    train(config(steps=3, picture_every=2), tmp_path)
    pictures = (
        EventAccumulator(str(tmp_path / "tensorboard")).Reload().Images("labels_above_predictions")
    )
    assert [picture.step for picture in pictures] == [2, 3]  # and the last step's
    assert pictures[0].height == 2 * pictures[0].width / 4  # two rows of four square frames


def test_curves_that_cannot_be_written_are_an_error_with_their_place(tmp_path):
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    with pytest.raises(
        TransientError,
        match=r"could not write curves in .*tensorboard: .*run the same command again",
    ):
        train(config(steps=1), tmp_path)
