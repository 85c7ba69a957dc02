"""What a tracker is called: by one rule, whatever command names it."""

import shutil

import pytest

from pipelines.commands.eval import EvalCommand, trackers_of
from pipelines.commands.track import TrackCommand, load_trackers
from pipelines.live.trackers import LiveTrackers
from pipelines.tracking.trackers import titles
from teachers import ConfigError
from teachers.registry import entry_of


@pytest.mark.parametrize(
    ("trackers", "called"),
    [
        ([("lk", None), ("tapir", None)], ["lk", "tapir"]),
        ([("tapir", "student/student.safetensors")], ["tapir-student"]),
        ([("tapir", "tapir_checkpoint_panning.pt")], ["tapir_checkpoint_panning"]),
        ([("tapir", "random"), ("tapir", None)], ["tapir-random", "tapir"]),
        ([("tapir", "runs/step-1.5")], ["tapir-step-1.5"]),
        (
            [("tapir", "/a/best.pt"), ("tapir", "/b/best.pt"), ("lk", None)],
            ["tapir-a-best", "tapir-b-best", "lk"],
        ),
        (
            [("tapir", "a/x/best.pt"), ("tapir", "b/x/best.pt")],
            ["tapir-a-x-best", "tapir-b-x-best"],
        ),
        ([("tapir", "best.pt"), ("tapir", "b/best.pt")], ["tapir-best", "tapir-b-best"]),
    ],
)
def test_a_tracker_is_called_by_its_name_and_its_file(trackers, called):
    assert titles(trackers) == called


def test_trackers_that_cannot_be_told_apart_are_refused():
    for trackers in ([("lk", None)] * 2, [("tapir", "a/best.pt"), ("tapir", "a/best.pth")]):
        with pytest.raises(ConfigError, match=r"--teacher: .* name each tracker once"):
            titles(trackers, "--teacher")


def test_track_eval_and_live_call_a_file_the_same(tmp_path):
    file = tmp_path / "student.safetensors"
    shutil.copy(entry_of("tapir-mini").shipped_checkpoint, file)
    tracked = TrackCommand(video="v.mp4", teacher=("lk", str(file)), tracks=tmp_path / "o.npz")
    said = [
        list(load_trackers(tracked)),
        list(trackers_of(EvalCommand(model=("lk", str(file))))),
        list(LiveTrackers(["lk", str(file)]).offered),
    ]
    assert said == [["lk", "tapir-student"]] * 3


@pytest.mark.parametrize(("given", "called"), [("{own}", "live"), ("mine={file}", "mine-student")])
def test_so_are_a_class_of_ones_own_and_a_student_with_a_name_of_its_own(given, called, tmp_path):
    file = tmp_path / "student.safetensors"
    shutil.copy(entry_of("tapir-mini").shipped_checkpoint, file)
    text = given.format(own="tests.support.stub_teachers:Live", file=file)
    tracked = TrackCommand(video="v.mp4", teacher=(text,), tracks=tmp_path / "o.npz")
    live = LiveTrackers([text])
    said = [
        list(load_trackers(tracked)),
        list(trackers_of(EvalCommand(model=(text,)))),
        list(live.offered),
    ]
    assert said == [[called]] * 3
    assert live.load(called).info.name == called.partition("-")[0]
