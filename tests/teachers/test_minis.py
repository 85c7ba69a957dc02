"""The minis: small trained networks in the package that work without a download."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import teachers
from student.evaluation.evaluate import score_tracks
from student.synth.scene import SynthConfig, generate
from teachers.checkpoints.files import CONFIG, TEACHER, read_metadata

MINIS = [entry for entry in teachers.entries() if entry.shipped]
by_name = pytest.mark.parametrize("entry", MINIS, ids=lambda entry: entry.name)


@pytest.fixture(scope="module")
def clip():
    """From photographs that no mini was trained on."""
    return generate(0, SynthConfig(split="test", frames=16, points=48))


def score(teacher, clip):
    (figures,) = score_tracks(
        [teacher.track(clip.frames, clip.queries)], teacher.info.rule, [clip]
    ).to_dict("records")
    return figures


def test_there_are_minis():
    assert {"tapir-mini", "cotracker3-offline-mini"} <= {entry.name for entry in MINIS}


@by_name
def test_its_name_alone_loads_it_and_its_info_says_which_weights(entry):
    info = teachers.load(entry.name, device="cpu").info
    assert info.name == entry.name
    assert (
        info.checkpoint_sha256 == hashlib.sha256(entry.shipped_checkpoint.read_bytes()).hexdigest()
    )
    assert info.licence == entry.licence == "Apache-2.0"


@by_name
def test_its_file_is_small_and_says_how_it_came_about(entry):
    assert entry.shipped_checkpoint.stat().st_size < 8_000_000
    metadata = read_metadata(entry.shipped_checkpoint)
    assert metadata[TEACHER] == entry.name.removesuffix("-mini")
    assert json.loads(metadata[CONFIG])
    assert int(metadata["step"]) > 0


@by_name
def test_it_has_learnt_to_track(entry, clip):
    trained, untrained = (
        teachers.load(entry.name, checkpoint=c, device="cpu", mode="benchmark")
        for c in (None, "random")
    )
    trained, untrained = score(trained, clip), score(untrained, clip)
    assert trained["delta_avg"] > untrained["delta_avg"] + 0.15
    assert trained["OA"] > untrained["OA"]


@by_name
@pytest.mark.parametrize("size", [(272, 480), (384, 288)])
def test_it_tracks_frames_of_another_size_as_well(entry, size):
    height, width = size
    clip = generate(
        1, SynthConfig(split="test", frames=12, height=height, width=width, points=48, motion=0.5)
    )
    still = np.repeat(clip.queries[:, None, 1:], 12, 1)
    tracked = (
        teachers.load(entry.name, device="cpu", mode="label").track(clip.frames, clip.queries).xy
    )
    error, unmoved = (
        np.median(np.linalg.norm(xy - clip.xy, axis=-1)[clip.visible]) for xy in (tracked, still)
    )
    assert error < unmoved / 2


@by_name
def test_other_weights_may_be_given(entry, tmp_path):
    other = Path(tmp_path) / "other.safetensors"
    other.write_bytes(entry.shipped_checkpoint.read_bytes())
    assert teachers.load(entry.name, checkpoint=str(other), device="cpu").info.name == entry.name
    with pytest.raises(
        teachers.CheckpointError, match=r"nowhere\.safetensors: no such checkpoint file"
    ):
        teachers.load(entry.name, checkpoint="nowhere.safetensors", device="cpu")
