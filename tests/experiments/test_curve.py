"""The longer form of the experiment: ever more clips and steps."""

from __future__ import annotations

import pytest

from experiments.policies.curve import Curve, run
from teachers.errors import ConfigError


def test_cheap_trainings_come_first(tmp_path):
    curve = Curve(out=tmp_path, clips=(300, 100), steps=(1000, 300))
    assert curve.lessons() == [(100, 300), (300, 300), (100, 1000), (300, 1000)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clips": (100, 250)}, r"--clips \(100, 250\): must be multiples of --part 100"),
        ({"clips": (10_100,)}, "at most 10000; those after them are scored on"),
        ({"clips": ()}, "--clips: name at least one"),
        ({"steps": (0,)}, "--steps: name at least one, of at least 1"),
        ({"workers": 0}, "at least 1"),
    ],
)
def test_a_curve_that_cannot_be_is_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        Curve(out=tmp_path, **settings)


@pytest.mark.slow
def test_a_quick_curve_has_a_row_for_each_training_and_does_nothing_twice(tmp_path, capsys):
    run(Curve(out=tmp_path, quick=True))
    first = capsys.readouterr().out
    rows = [line.split() for line in first.splitlines() if line[:1].isdigit()]
    assert [row[:2] for row in rows] == [["2", "2"], ["4", "2"]]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(files) == 2
    run(Curve(out=tmp_path, quick=True))
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_it_has_the_videos_and_trainings_of_a_night_and_a_quick_one_few(tmp_path):
    _, experiment = Curve(out=tmp_path).sized()
    assert (experiment.clips, experiment.video_frames, experiment.batch) == (100, 24, 2)
    quick, few = Curve(out=tmp_path, quick=True).sized()
    assert (quick.clips, quick.part, few.clips, few.steps) == ((2, 4), 2, 2, 2)
