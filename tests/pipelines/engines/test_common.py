"""Why a teacher could not track a clip, as its row says it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.harness.teachers import Still
from labeler.fingerprint import one_thread
from pipelines.engines import local
from pipelines.engines.common import DecodeLimits, TeacherSpec, track_or_say_why
from pipelines.engines.ray_actors import TeacherActor
from pipelines.jobs.config import LabelConfig
from teachers import ConfigError, InstallationError, TeacherError, TransientError
from teachers.errors import DeviceError

FRAMES = np.zeros((3, 8, 8, 3), np.uint8)
QUERIES = np.float32([[0, 1, 2]])


def failing(error: Exception) -> Still:
    """A teacher that raises `error` in every clip."""

    class Failing(Still):
        def _track(self, frames, queries, seed):
            raise error

    return Failing(name="failing", checkpoint=None, device="cpu", mode="label")


def test_a_file_of_weights_is_named_so_that_every_process_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.pth").touch()
    given = ("tapir=x.pth", "own:Class=large", f"locotrack-base={tmp_path / 'y.pth'}")
    names = ("tapir", "own:Class", "locotrack-base", "lk")
    config = LabelConfig(videos=("v",), out="out", teachers=names, checkpoint=given)
    files = [spec.checkpoint for spec in config.specs()]
    assert files == [str(tmp_path / "x.pth"), "large", str(tmp_path / "y.pth"), None]


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


class AcceleratorError(RuntimeError):
    """As torch has it since 2.8."""


@pytest.mark.parametrize(
    "error",
    [
        AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),  # torch before 2.8
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("HIP error: unspecified launch failure"),
    ],
)
def test_a_gpu_that_fails_is_no_fault_of_the_clip(error):
    with pytest.raises(DeviceError, match="'failing': "):
        track_or_say_why(failing(error), FRAMES, QUERIES, 0)


def test_other_errors_of_torch_are_the_clips():
    error = RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")
    assert "must match" in str(track_or_say_why(failing(error), FRAMES, QUERIES, 0))


def test_a_teacher_on_ray_ends_its_process_after_its_gpu_failed(monkeypatch):
    """At the next call, once the error was told; Ray then starts another process."""

    def end(code):
        raise SystemExit(code)

    monkeypatch.setattr("os._exit", end)
    broken = failing(RuntimeError("CUDA error: device-side assert triggered"))
    with one_thread():  # which the actor sets for good
        actor = TeacherActor(SimpleNamespace(device="cpu", load=lambda: broken))
        with pytest.raises(DeviceError, match="device-side assert"):
            actor.track(FRAMES, QUERIES, 0)
        with pytest.raises(SystemExit):
            actor.track(FRAMES, QUERIES, 0)


@pytest.mark.parametrize(("gpus", "device"), [([0], "cuda"), ([], "auto")])
def test_a_teacher_to_which_ray_gave_a_gpu_computes_there_or_not_at_all(monkeypatch, gpus, device):
    """With "auto", a node whose driver is broken would label on its CPU."""
    monkeypatch.setattr("ray.get_gpu_ids", lambda: gpus)
    asked = []

    def load(spec):
        asked.append(spec.device)
        raise ConfigError("device 'cuda' cannot be used here.")

    monkeypatch.setattr(TeacherSpec, "load", load)
    with pytest.raises(ConfigError, match="^node .*cannot" if gpus else "^device"):
        TeacherActor(TeacherSpec(name="tapir-mini")).info()
    assert asked == [device]


def test_a_process_whose_gpu_failed_does_not_try_all_other_units(monkeypatch):
    tried = []

    def fails(job, unit, decoding, trackers, then):
        tried.append(unit.number)
        raise DeviceError("CUDA error")
        yield

    monkeypatch.setattr(local, "do_unit", fails)
    monkeypatch.setattr(local, "LocalTrackers", lambda specs: SimpleNamespace(infos={}))
    monkeypatch.setattr(
        local, "DecodingProcess", lambda *_, **__: nullcontext(SimpleNamespace(check=lambda: None))
    )
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    job = SimpleNamespace(frozen=SimpleNamespace(recipe=lambda: None))
    units = [SimpleNamespace(number=n) for n in range(3)]
    with pytest.raises(DeviceError):
        list(local.run(job, [], DecodeLimits(), units))
    assert tried == [0, 0, 0]


@pytest.mark.parametrize("error", [TypeError("shape"), AttributeError("x"), ImportError("torch")])
def test_code_that_does_not_fit_its_packages_is_no_fault_of_the_clip(error):
    with pytest.raises(InstallationError, match=rf"'failing': {type(error).__name__}: "):
        track_or_say_why(failing(error), FRAMES, QUERIES, 0)
