"""The verifier with its file: loaded strictly, told from teachers, and asked with arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import teachers
from teachers import CheckpointError, ConfigError
from teachers.checkpoints.check import check
from teachers.checkpoints.pull import pull
from teachers.checkpoints.recognise import recognise
from teachers.verifier import (
    TrackOnVerifier,
    VerifierConfig,
    VerifierNetwork,
    load_verifier,
    names,
    verifier,
)
from tests.support import parity
from tests.support.verifier import file_of

NAME = "track-on-r-verifier"
NOISE = 2e-5


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPDISTILL_HOME", str(tmp_path / "home"))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file made like the published one: a training checkpoint of keys with a prefix."""
    zeros = {
        f"module.{entry['key']}": torch.zeros(()).expand(entry["shape"])
        for entry in parity.key_list("verifier")
    }
    path = tmp_path / "verifier.pt"
    torch.save({"model": zeros, "optimizer": {"state": {0: {"step": 1}}}, "epoch": 99}, path)
    return path


@pytest.fixture(scope="module")
def mini() -> TrackOnVerifier:
    return TrackOnVerifier(name="mini", checkpoint="random", device="cpu", preset="mini")


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """6 frames of 48 x 64 px, 5 queries, 3 teachers."""
    frames = parity.video(seed=3, T=6, H=48, W=64, vx=0.7, vy=-0.4)
    queries = parity.queries(3, 5, 6, 48, 64)
    xy = queries[:, None, 1:] + 6 * parity.uniform("xy", (3, 5, 6, 2))
    return frames, queries, xy.astype(np.float32)


# --- its file


def test_a_file_made_like_the_published_one_loads_and_is_checked(published):
    checked = check(NAME, published)
    assert (checked.preset, checked.parameters) == ("official", 11_329_126)
    loaded = load_verifier(NAME, checkpoint=str(published), device="cpu")
    assert loaded.info.checkpoint_sha256 == checked.sha256
    assert loaded.info.architecture == "Track-On-R's verifier"
    assert not any(value.any() for value in loaded.model.state_dict().values())


def test_its_licence_forbids_commercial_use(published):
    assert (
        load_verifier(NAME, checkpoint=str(published), device="cpu").info.licence == "CC-BY-NC-4.0"
    )


def test_a_file_that_was_pulled_is_found_by_its_name(published):
    assert pull(NAME, from_file=published).checked.preset == "official"
    assert load_verifier(NAME, device="cpu").info.name == NAME


def test_without_a_file_the_error_says_where_it_is_and_under_which_licence():
    with pytest.raises(
        CheckpointError, match=r"gorkaydemir/track_on_r.*\(licence: CC-BY-NC-4\.0\).*pull track-on"
    ):
        load_verifier(NAME)


def test_a_file_of_another_network_is_named_for_what_it_is(tmp_path):
    zeros = {
        entry["key"]: torch.zeros(()).expand(entry["shape"])
        for entry in parity.key_list("cotracker3_offline")
    }
    torch.save(zeros, tmp_path / "verifier.pt")
    for reading in (
        check,
        lambda name, path: load_verifier(name, checkpoint=str(path), device="cpu"),
    ):
        with pytest.raises(
            CheckpointError,
            match=r"not a checkpoint of 'track-on-r-verifier'.*'cotracker3-offline'",
        ):
            reading(NAME, tmp_path / "verifier.pt")


def test_a_teacher_refuses_its_file_by_name(published):
    with pytest.raises(
        CheckpointError,
        match=r"not a checkpoint of 'cotracker3-offline'.*like a file of 'track-on-r-verifier'",
    ):
        check("cotracker3-offline", published)


def test_its_file_is_recognised_as_none_of_a_teacher(published):
    with pytest.raises(
        CheckpointError, match=r"verifier\.pt: is the file of 'track-on-r-verifier'"
    ):
        recognise(published)


@pytest.mark.parametrize("key", ["cnn_encoder.conv1.weight", "displacement_scale"])
def test_no_key_may_be_missing(published, key):
    content = torch.load(published)
    del content["model"][f"module.{key}"]
    torch.save(content, published)
    with pytest.raises(CheckpointError, match=f"1 of 212 keys are missing .first: {key}.*changed"):
        load_verifier(NAME, checkpoint=str(published), device="cpu")


def test_a_file_of_one_s_own_says_its_size_and_licence(tmp_path):
    case = parity.case("verifier_one")
    own = TrackOnVerifier(name="own", checkpoint=str(file_of(case, tmp_path)), device="cpu")
    assert own.info.licence == "none: from a formula"
    assert own.info.settings == {"resolution": (96, 128)}
    assert own.info.architecture == "Track-On-R's verifier, 11.3 M parameters"
    assert own.info.to_json()["name"] == "own"


# --- a verifier is no teacher


def test_it_is_no_teacher_and_never_a_default():
    assert names() == [NAME]
    assert NAME not in teachers.names()
    with pytest.raises(ConfigError, match="'track-on-r-verifier' judges the tracks of teachers"):
        teachers.load(NAME, checkpoint="random")


def test_an_unknown_name_or_preset_is_refused():
    with pytest.raises(ConfigError, match="no verifier 'lk': there is track-on-r-verifier"):
        load_verifier("lk")
    with pytest.raises(ConfigError, match="preset = 'large': there are official, mini"):
        load_verifier(NAME, checkpoint="random", preset="large")


# --- asked with arrays


def test_scores_are_those_of_the_network(mini, clip):
    frames, queries, xy = clip
    with torch.inference_mode():
        logits = mini.model(
            torch.from_numpy(frames).permute(0, 3, 1, 2),
            torch.from_numpy(queries),
            torch.from_numpy(xy),
        )
    np.testing.assert_allclose(mini.score(*clip), logits, atol=NOISE)


@pytest.mark.slow
def test_scores_at_the_published_size_equal_the_published_ones(tmp_path):
    case = parity.case("verifier_a")
    own = TrackOnVerifier(name="own", checkpoint=str(file_of(case, tmp_path)), device="cpu")
    scores = own.score(case.frames, case["queries"], case["candidates"].transpose(2, 1, 0, 3))
    tolerance = case.meta["tolerance_logit"]
    np.testing.assert_allclose(scores.transpose(2, 1, 0), case["logits"], atol=tolerance, rtol=0)


def test_queries_in_parts_are_judged_alike(mini, clip, monkeypatch):
    whole = mini.score(*clip)
    monkeypatch.setattr(verifier, "PLACES_AT_ONCE", 2 * 3 * 6)
    np.testing.assert_allclose(mini.score(*clip), whole, atol=NOISE)


def test_arrays_that_cannot_be_written_are_taken(mini, clip):
    for array in clip:
        array.flags.writeable = False
    assert np.isfinite(mini.score(*clip)).all()


def test_no_query_has_no_score(mini, clip):
    frames, _, xy = clip
    assert mini.score(frames, np.zeros((0, 3)), xy[:, :0]).shape == (3, 0, 6)


def test_one_teacher_is_judged_too(mini, clip):
    frames, queries, xy = clip
    assert np.isfinite(mini.score(frames, queries, xy[:1])).all()


def test_a_query_and_places_outside_the_frame_are_judged(mini, clip):
    frames, queries, xy = clip
    scores = mini.score(frames, queries + np.float32([0, 500, -900]), xy * 100)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, q, xy: (f[..., 0], q, xy), "frames must be a uint8 array"),
        (lambda f, q, xy: (f, q[:, :2], xy), r"queries must be an array \[N, 3\]"),
        (
            lambda f, q, xy: (f, q[1:], xy),
            r"tracks \(3, 5, 6, 2\) do not fit 4 queries in 6 frames",
        ),
        (lambda f, q, xy: (f[1:], q, xy), r"do not fit 5 queries in 5 frames"),
        (lambda f, q, xy: (f, q, xy[:0]), r"tracks \(0, 5, 6, 2\).* \[K >= 1, 5, 6, 2\]"),
        (lambda f, q, xy: (f, q + np.float32([6, 0, 0]), xy), r"query 0 is .*t must be in 0\.\.5"),
        (lambda f, q, xy: (f, q - np.float32([9, 0, 0]), xy), r"t must be in 0\.\.5"),
        (lambda f, q, xy: (f, q * np.float32([1, np.nan, 1]), xy), "x and y must be numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(mini, clip, change, message):
    with pytest.raises(ConfigError, match=message):
        mini.score(*change(*clip))


def test_broken_weights_are_an_error_and_no_silence(clip, tmp_path):
    weights = VerifierNetwork(VerifierConfig.mini()).state_dict()
    weights["q_projection.weight"][0, 0] = np.nan
    save_file(weights, tmp_path / "broken.safetensors")
    broken = TrackOnVerifier(
        name="broken", checkpoint=str(tmp_path / "broken.safetensors"), device="cpu", preset="mini"
    )
    with pytest.raises(
        CheckpointError, match="'broken' computed NaN or infinity for 90 of 90 positions"
    ):
        broken.score(*clip)
