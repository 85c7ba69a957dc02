"""Windows of a long clip."""

from __future__ import annotations

import pytest

from teachers.layers.overlapping import overlapping


@pytest.mark.parametrize(
    ("frames", "window", "reach"), [(100, 20, 3), (21, 20, 96), (40, 1, 5), (7, 4, 0)]
)
def test_windows_answer_for_every_frame_once(frames, window, reach):
    answered = []
    for whole, kept in overlapping(frames, window, reach):
        assert 0 <= whole.start < whole.stop <= frames
        assert whole.stop - whole.start == window
        answered += range(frames)[whole][kept]
        for frame, place in (
            (answered[-1], kept.stop),
            (range(frames)[whole][kept][0], kept.start + 1),
        ):
            assert (
                frame in (0, frames - 1)
                or min(place - 1, window - place) >= min(reach, window // 4)
                or whole.start == 0
            )
    assert answered == list(range(frames))
