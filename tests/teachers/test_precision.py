"""Precision: what a network multiplies in, and what is said of it. There is no GPU here, so what a
GPU would be told is looked at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import teachers
from labeler.fingerprint import fingerprint
from labeler.labels.teacher_choice import refuse_untrained
from pipelines import cli
from pipelines.engines.common import TeacherSpec
from pipelines.tracking.drift import drifts_on
from student.data.config import DataConfig
from student.synth.scene import SynthConfig, generate
from student.training.config import TrainConfig
from teachers import ConfigError, Teacher, TeacherInfo, Tracks
from teachers.layers import device as devices
from teachers.layers.device import _switches, describe, multiplying, resolved

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("precision", "device", "parts", "is_"),
    [
        ("auto", CPU, True, "float32"),
        ("auto", GPU, True, "tf32"),
        ("float32", GPU, True, "float32"),
        ("tf32", GPU, False, "tf32"),
        ("bf16", CPU, True, "bf16"),
        ("bf16", GPU, True, "bf16"),
        ("bf16", CPU, False, "float32"),
        ("bf16", GPU, False, "tf32"),
    ],
)
def test_what_a_precision_is_on_a_device(precision, device, parts, is_):
    assert resolved(precision, device, parts) == is_


@pytest.mark.parametrize(
    ("precision", "words"), [("tf32", "only GPUs have it"), ("half", "there are auto, float32")]
)
def test_a_precision_that_cannot_be_is_refused(precision, words):
    with pytest.raises(ConfigError, match=words):
        resolved(precision, CPU, True)
    with pytest.raises(ConfigError, match=words):
        teachers.load("tapir-mini", device="cpu", precision=precision)


def rounding() -> list[object]:
    return [getattr(place, name) for place, name, *_ in _switches()]


def test_torch_is_told_while_a_network_computes_and_no_longer():
    before = rounding()
    for precision, column in (("float32", 2), ("tf32", 3), ("bf16", 3)):
        with multiplying(precision, GPU):
            assert rounding() == [switch[column] for switch in _switches()]
        assert rounding() == before
    with pytest.raises(KeyError), multiplying("tf32", GPU):
        raise KeyError
    assert rounding() == before
    with multiplying("tf32", CPU):
        assert rounding() == before


@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize("asked_before", ["highest", "high", "medium"])
def test_old_and_new_names_of_torchs_settings_say_the_same(precision, asked_before):
    """Else torch refuses to read the old ones, which it does itself while it compiles for a GPU."""
    torch.set_float32_matmul_precision(asked_before)
    try:
        with multiplying(precision, GPU):
            rounds = precision == "tf32"
            assert torch.backends.cuda.matmul.allow_tf32 is rounds
            assert torch.backends.cudnn.allow_tf32 is rounds
            assert torch.get_float32_matmul_precision() == ("high" if rounds else "highest")
        assert torch.get_float32_matmul_precision() == asked_before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_program_that_uses_only_the_new_names_keeps_what_it_has_set():
    matmul = torch.backends.cuda.matmul
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has no new names")
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    try:
        with multiplying("float32", GPU):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")
        matmul.fp32_precision = before


def test_a_teacher_says_what_it_computes_in():
    plain = teachers.load("tapir-mini", device="cpu")
    assert (plain.info.precision, plain.info.device) == ("", "")
    # as samples had it before there was a choice
    assert not {"precision", "device"} & plain.info.to_json().keys()
    rounded = teachers.load("tapir-mini", device="cpu", precision="bf16")
    assert (rounded.info.precision, rounded.info.settings["bf16"]) == ("bf16", True)
    assert TeacherInfo.from_json(rounded.info.to_json()) == rounded.info
    assert TeacherInfo.from_json(plain.info.to_json()) == plain.info
    with pytest.raises(ConfigError, match="leave one of them out"):
        teachers.load("tapir-mini", device="cpu", bf16=True, precision="float32")


def test_a_teacher_without_a_network_computes_as_it_does():
    assert teachers.load("lk", precision="bf16").info == teachers.load("lk").info


def test_a_job_hands_its_precision_to_networks():
    made = TeacherSpec(name="tapir-mini", device="cpu", precision="bf16").load()
    refuse_untrained({"tapir-mini": made.info})
    assert made.info.precision == "bf16"
    assert TeacherSpec(name="match", precision="bf16").load().info.precision == ""


def test_the_fingerprint_tells_two_gpus_apart():
    info = teachers.load("tapir-mini", device="cpu").info
    assert fingerprint({"tapir-mini": info}) == fingerprint()
    on = {gpu: replace(info, device=gpu, precision="tf32") for gpu in ("H100, ...", "A100, ...")}
    said = [fingerprint({"tapir-mini": each}) for each in on.values()]
    assert [one["device of tapir-mini"] for one in said] == ["H100, ..., tf32", "A100, ..., tf32"]


def test_a_gpu_is_described_with_its_libraries(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 90501)
    monkeypatch.setattr(devices, "_driver", lambda: "550.54.15")
    describe.cache_clear()
    assert describe(GPU) == "NVIDIA H100, driver 550.54.15, CUDA 12.6, cuDNN 9.5.1"
    assert describe(CPU) == ""
    describe.cache_clear()


def test_a_training_has_one_precision():
    def config(**settings):
        return TrainConfig(data=DataConfig(data=("labels",)), init="given.pth", **settings)

    assert config(precision="bf16").bf16 is True
    assert config(precision="float32").bf16 is False
    assert config().bf16 is None
    with pytest.raises(ConfigError, match="bf16 = True with precision = 'tf32'"):
        config(bf16=True, precision="tf32")
    with pytest.raises(ConfigError, match="needs float32"):
        config(student="tapir", precision="bf16")


def test_drift_is_measured_with_the_weights_that_are_here():
    scene = SynthConfig(frames=6, height=64, width=64, points=16, split="test")
    clip = generate(600_000_000, scene)
    (found,) = drifts_on(clip, "tapir-mini", device="cpu")
    assert found.precision == "bf16"
    assert 0 < found.median_px <= found.high_px <= found.most_px
    assert found.median_px < 1
    with pytest.raises(ConfigError, match="no network"):
        drifts_on(clip, "lk", device="cpu")


class LosesAllInBf16(Teacher):
    """Follows every point in float32, and has no position at all in bf16."""

    def __init__(self, *, name, checkpoint=None, device="auto", mode="predictor", precision="auto"):
        self.info = TeacherInfo(
            name=name,
            architecture="still",
            mode=mode,
            visible_rule="none",
            settings={},
            precision="bf16" if precision == "bf16" else "",
        )

    def _track(self, frames, queries, seed):
        unknown = np.full((len(queries), len(frames)), np.nan, np.float32)
        xy = np.repeat(queries[:, None, 1:], len(frames), axis=1)
        return Tracks(xy * np.nan if self.info.precision else xy, unknown, unknown)


def test_precisions_that_share_no_position_have_no_drift_and_the_command_says_so(capsys):
    assert cli.run(["teachers", "drift", f"{__name__}:LosesAllInBf16"]) == 0
    said = capsys.readouterr().out.splitlines()[-1].split()
    assert " ".join(said) == "bf16 no position that both precisions have 100.00% on a CPU"
