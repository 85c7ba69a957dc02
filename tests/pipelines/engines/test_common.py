"""Why a teacher could not track a clip, as its row says it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness.teachers import Still
from pipelines.engines.common import track_or_say_why
from teachers import InstallationError, TeacherError, TransientError

FRAMES = np.zeros((3, 8, 8, 3), np.uint8)
QUERIES = np.float32([[0, 1, 2]])


def failing(error: Exception) -> Still:
    """A teacher that raises `error` in every clip."""

    class Failing(Still):
        def _track(self, frames, queries, seed):
            raise error

    return Failing(name="failing", checkpoint=None, device="cpu", mode="label")


def test_an_error_that_nobody_expected_names_the_line_that_raised_it():
    why = track_or_say_why(failing(KeyError("scale")), FRAMES, QUERIES, 0)
    line = failing.__code__.co_firstlineno + 5
    assert why == f"KeyError: 'scale' (test_common.py:{line})"


def test_what_a_teacher_says_itself_is_enough():
    why = track_or_say_why(failing(TeacherError("too dark.")), FRAMES, QUERIES, 0)
    assert why == "TeacherError: too dark."


def test_a_machine_without_memory_is_no_fault_of_the_clip():
    with pytest.raises(TransientError, match="'failing': the machine is out of memory"):
        track_or_say_why(failing(MemoryError()), FRAMES, QUERIES, 0)


@pytest.mark.parametrize("error", [TypeError("shape"), AttributeError("x"), ImportError("torch")])
def test_code_that_does_not_fit_its_packages_is_no_fault_of_the_clip(error):
    with pytest.raises(InstallationError, match=rf"'failing': {type(error).__name__}: "):
        track_or_say_why(failing(error), FRAMES, QUERIES, 0)
