"""TAPNext as a teacher: its modes, blocks of frames, streams, support points, and published
files."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import teachers
from teachers.checkpoints.cache import cached_checkpoint, checkpoint_path
from teachers.checkpoints.check import check
from teachers.checkpoints.files import CONFIG, read_weights
from teachers.checkpoints.pull import pull
from teachers.checkpoints.recognise import recognise
from teachers.errors import CheckpointError, ConfigError
from teachers.layers.memory import Memory
from teachers.registry import TABLE
from teachers.tapnext.network import TapNext, TapNextConfig
from teachers.tapnext.support_points import around
from teachers.tapnext.teacher import TapNext512Teacher, TapNextTeacher
from tests.support import parity
from tests.support import tapnext as official
from tests.support.networks import mini
from tests.support.waves import translating

NOISE_PX = 2e-3
"""Float32 noise of a track of a mini network on frames of about 100 px."""

CLIP = {"frames": 12, "height": 80, "width": 112, "velocity": (1.2, 0.6)}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return translating(**CLIP)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.array(
        [[0, 20, 30], [3, 60.5, 41], [3, -0.5, 79.5], [11, 100, 10], [7, 55, 55]], np.float32
    )


# --- equal to the official wrapper


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "size", "support"), [("plain", 256, 0), ("plain", 512, 0), ("support", 512, 64)]
)
def test_frames_of_any_size_are_tracked_as_by_the_official_wrapper(kind, size, support, tmp_path):
    case = parity.case("tapnextpp_mini_frame")
    teacher = (TapNextTeacher if size == 256 else TapNext512Teacher)(
        name="t", checkpoint=converted(case, tmp_path, size), device="cpu", support_points=support
    )
    given = case["queries"] - np.float32(
        [0, 0.5, 0.5]
    )  # the wrapper's px have their origin at the corner
    stream = teacher.stream(given)
    pushed = [stream.push(frame[None]) for frame in case.frames]
    for tracks in (teacher.track(case.frames, given), joined([*pushed, stream.finish()])):
        np.testing.assert_allclose(
            tracks.xy + 0.5, case[f"{kind}_{size}_xy"], atol=case.meta["tolerance_px"], rtol=0
        )
        np.testing.assert_array_equal(teacher.info.rule(tracks), case[f"{kind}_{size}_visible"])


def test_support_points_are_those_of_the_official_wrapper():
    case = parity.case("tapnextpp_mini_frame")
    np.testing.assert_array_equal(
        around(case["queries"], 64, case.frames.shape[1:3])[:, 1:], case["support_xy"]
    )


def converted(case: parity.Case, folder: Path, raster: int) -> str:
    """A file that says how large its network is."""
    path = folder / "mini.safetensors"
    config = json.dumps({"raster": raster, **official.SIZES[case.meta["model"]]})
    save_file(official.weights(case), path, {CONFIG: config})
    return str(path)


# --- modes


def test_predictor_says_nothing_before_the_query_and_label_goes_through_it(frames, queries):
    forward, label, benchmark = (
        mini(TapNextTeacher, mode=mode).track(frames, queries)
        for mode in ("predictor", "label", "benchmark")
    )
    before = np.arange(12) < queries[:, :1]
    for value in (forward.xy[..., 0], forward.visibility, forward.confidence):
        np.testing.assert_array_equal(np.isnan(value), before)
    np.testing.assert_array_equal(benchmark.xy[~before], forward.xy[~before])
    at_query = np.arange(5), queries[:, 0].astype(int)
    np.testing.assert_array_equal(label.xy[at_query], queries[:, 1:])
    assert (np.abs(benchmark.xy[at_query] - queries[:, 1:]) > 0).all()
    elsewhere = np.arange(12) != queries[:, :1]
    np.testing.assert_array_equal(label.xy[elsewhere], benchmark.xy[elsewhere])
    np.testing.assert_array_equal(label.visibility, benchmark.visibility)


def test_frames_before_a_query_are_those_of_the_reversed_clip(frames, queries):
    teacher = mini(TapNextTeacher, mode="benchmark")
    there = teacher.track(frames, queries)
    back = teacher.track(frames[::-1], queries * [-1, 1, 1] + [11, 0, 0])
    not_at_query = np.arange(12) != queries[:, :1]
    np.testing.assert_array_equal(there.xy[not_at_query], back.xy[:, ::-1][not_at_query])


@pytest.mark.parametrize("frames_per_block", [1, 5, 12])
def test_how_many_frames_are_computed_at_once_changes_nothing(frames, queries, frames_per_block):
    whole = mini(TapNextTeacher, mode="label").track(frames, queries)
    parts = mini(
        TapNextTeacher, mode="label", memory=Memory(frames_per_block=frames_per_block)
    ).track(frames, queries)
    np.testing.assert_allclose(parts.xy, whole.xy, atol=NOISE_PX)
    np.testing.assert_allclose(parts.visibility, whole.visibility, atol=1e-4)
    np.testing.assert_allclose(parts.confidence, whole.confidence, atol=1e-4)


def test_a_block_of_the_published_network_is_of_two_frames_on_a_cpu():
    teacher = mini(TapNextTeacher)
    teacher.model.config = TapNextConfig()
    assert teacher.frames_per_block(256) == 2
    teacher.model.config = TapNextConfig(raster=512)
    assert teacher.frames_per_block(5000) == 1


def test_points_see_each_other(frames, queries):
    """So that nobody takes the points of a video apart and expects the same answers."""
    teacher = mini(TapNextTeacher)
    together, alone = teacher.track(frames, queries), teacher.track(frames, queries[:1])
    assert np.abs(together.visibility[0] - alone.visibility[0]).max() > 1e-5


def test_certainty_can_have_a_say_in_what_is_visible(frames, queries):
    plain, sure = mini(TapNextTeacher), mini(TapNextTeacher, use_certainty=True)
    assert (plain.info.visible_rule, sure.info.visible_rule) == ("v > 0.5", "v*c > 0.5")
    tracks = sure.track(frames, queries)
    np.testing.assert_array_equal(tracks.xy, plain.track(frames, queries).xy)
    seen = sure.info.rule(tracks)
    np.testing.assert_array_equal(seen, np.nan_to_num(tracks.visibility * tracks.confidence) > 0.5)


def test_in_bf16_tracks_are_near_and_the_state_stays_float32(frames, queries):
    exact, short = mini(TapNextTeacher), mini(TapNextTeacher, bf16=True)
    difference = np.abs(short.track(frames, queries).xy - exact.track(frames, queries).xy)
    assert 0 < np.nanmedian(difference) < 0.5
    stream = short.stream(queries[:1])
    stream.push(frames)
    assert {
        value.dtype for past in stream._state.blocks for value in (past.hidden, past.inputs)
    } == {torch.float32}


# --- streams


@pytest.mark.parametrize("pushes", [[12], [1] * 12, [3, 1, 8]])
def test_a_stream_gives_the_tracks_of_the_whole_clip(frames, queries, pushes):
    teacher = mini(TapNextTeacher)
    stream = teacher.stream(queries)
    parts = [stream.push(part) for part in np.split(frames, np.cumsum(pushes)[:-1])]
    streamed, whole = joined([*parts, stream.finish()]), teacher.track(frames, queries)
    np.testing.assert_allclose(streamed.xy, whole.xy, atol=NOISE_PX)
    np.testing.assert_allclose(streamed.visibility, whole.visibility, atol=1e-4)
    np.testing.assert_allclose(streamed.confidence, whole.confidence, atol=1e-4)


def test_a_stream_can_go_through_its_queries(frames, queries):
    stream = mini(TapNextTeacher, through_query=True).stream(queries)
    tracks = joined([stream.push(frames[:5]), stream.push(frames[5:])])
    np.testing.assert_array_equal(
        tracks.xy[np.arange(5), queries[:, 0].astype(int)], queries[:, 1:]
    )


def test_a_mode_that_goes_back_does_not_stream():
    with pytest.raises(ConfigError, match="mode 'label' of 'mini' needs the whole clip"):
        mini(TapNextTeacher, mode="label").stream(np.array([[0, 1, 1]]))


@pytest.mark.slow
def test_a_stream_of_two_thousand_frames_holds_no_more_at_its_end_than_at_its_beginning():
    teacher = mini(TapNextTeacher)
    clip = translating(frames=50, height=96, width=128, velocity=(0.2, 0.1))
    stream = teacher.stream(np.array([[0, 20, 30], [1500, 60, 41]]))

    def held() -> int:
        return sum(
            value.numel() for past in stream._state.blocks for value in (past.hidden, past.inputs)
        )

    stream.push(clip)
    begin, resident = held(), None
    tracemalloc.start()
    for i in range(1, 40):
        tracks = stream.push(clip if i % 2 == 0 else clip[::-1])
        if i == 10:
            tracemalloc.reset_peak()
            resident, python = resident_mib(), tracemalloc.get_traced_memory()[0]
    grown = tracemalloc.get_traced_memory()[0] - python
    tracemalloc.stop()
    assert np.isfinite(tracks.xy).all()
    assert stream._state.frames == 2000
    assert held() == begin
    assert grown < 2**20
    assert resident_mib() - resident < 8
    assert stream.finish().xy.shape == (2, 0, 2)


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def joined(parts: list[teachers.Tracks]) -> teachers.Tracks:
    return teachers.Tracks(
        *(
            np.concatenate([getattr(part, name) for part in parts], 1)
            for name in ("xy", "visibility", "confidence")
        )
    )


# --- published files


MINI = {768: 64, 3072: 256, 1024: 64, 12: 2, 64: 32, 1536: 128, 2304: 192}
"""Sides of the published arrays, and of those of the mini network."""


@pytest.fixture(scope="module")
def mini_jax_file(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """Of the mini network, made from the list of JAX keys by the operations that stand there."""
    width = MINI[768]
    operations = {
        "a": lambda a: a,
        "a.T": lambda a: a.T,
        "a[0] with axes (3, 2, 0, 1)": lambda a: a[0].transpose(3, 2, 0, 1),
        "a.reshape(768, 768).T": lambda a: a.reshape(width, width).T,
        "a.reshape(768)": lambda a: a.reshape(width),
    }
    entries = json.loads((parity.DATA / "tapnext.jax_keys.json").read_text())["entries"]
    rng, arrays, expected = np.random.default_rng(0), {}, {}
    for entry in entries:
        block = re.search(r"encoderblock_(\d+)", entry["jax"])
        if block and int(block[1]) > 1:
            continue
        a = rng.standard_normal([MINI.get(side, side) for side in entry["shape"]])
        arrays[entry["jax"]] = a.astype(np.float32)
        ours = operations[entry["op"]](arrays[entry["jax"]])
        if "rows" in entry:
            first, end = (MINI.get(row, row) for row in entry["rows"])
            whole = np.zeros((3 * width, *ours.shape[1:]), np.float32)
            expected.setdefault(entry["torch"], whole)[first:end] = ours
        else:
            expected[entry["torch"]] = ours
    path = tmp_path_factory.mktemp("jax") / "tapnext_ckpt.npz"
    np.savez(path, **arrays)
    tensors = {key: torch.from_numpy(value.copy()) for key, value in expected.items()}
    return path, tensors


def test_arrays_of_the_jax_release_go_where_its_list_of_keys_says(mini_jax_file):
    path, expected = mini_jax_file
    ours = read_weights(path)
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(ours[key], value, atol=0, rtol=0, msg=key)


def test_a_jax_file_is_pulled_found_again_and_loaded(mini_jax_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TAPDISTILL_HOME", str(tmp_path / "home"))
    path, expected = mini_jax_file
    pulled = pull("tapnext", from_file=path)
    assert (pulled.checked.preset, pulled.path.suffix) == ("mini", ".npz")
    assert cached_checkpoint("tapnext") == pulled.path
    teacher = mini(TapNextTeacher, checkpoint=str(pulled.path))
    assert teacher.info.checkpoint_sha256 == pulled.checked.sha256
    torch.testing.assert_close(teacher.model.mask_token, expected["mask_token"])


@pytest.mark.parametrize("entry", [entry for entry in TABLE if entry.file], ids=lambda e: e.name)
def test_the_published_file_of_every_teacher_is_found_where_it_is_put(entry, tmp_path, monkeypatch):
    monkeypatch.setenv("TAPDISTILL_HOME", str(tmp_path))
    place = checkpoint_path(entry.name, Path(entry.file.file).suffix)
    place.parent.mkdir()
    place.touch()
    assert cached_checkpoint(entry.name) == place


def test_a_jax_file_that_is_incomplete_or_damaged_is_refused(mini_jax_file, tmp_path):
    path, _ = mini_jax_file
    with np.load(path) as arrays:
        some = {key: arrays[key] for key in arrays.files if "_0/query/bias" not in key}
    np.savez(tmp_path / "some.npz", **some)
    with pytest.raises(
        CheckpointError, match=r"not a checkpoint of 'tapnext': .* keys are missing"
    ):
        check("tapnext", tmp_path / "some.npz")
    cut = tmp_path / "cut.npz"
    cut.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(CheckpointError, match=r"cut.npz: not a checkpoint"):
        read_weights(cut)
    np.savez(tmp_path / "objects.npz", a=np.array([{"code": 1}], dtype=object))
    with pytest.raises(
        CheckpointError, match=r"objects.npz: not a checkpoint that can be read as tensors alone"
    ):
        read_weights(tmp_path / "objects.npz")


def test_a_training_checkpoint_of_the_torch_release_loads_without_its_prefix_and_its_constant_table(
    tmp_path,
):
    case = parity.case("tapnextpp_mini_frame")
    path = official.file_of(case, tmp_path)
    assert read_weights(path).keys() == official.weights(case).keys()
    broken = official.file_of(case, tmp_path, table_factor=1.5)
    assert "query_pos_embed" in read_weights(broken)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("tapnext_ckpt.npz", "tapnext"),
        ("bootstapnext_ckpt.npz", "bootstapnext"),
        ("tapnextpp_ckpt.pt", "tapnextpp"),
        ("tapnextpp_512.ckpt", "tapnextpp-512"),
    ],
)
def test_published_files_are_recognised_by_their_names(file, name, published, tmp_path):
    path = tmp_path / file
    path.hardlink_to(published)
    assert recognise(path) == name
    other = tmp_path / "weights.pt"
    other.hardlink_to(published)
    with pytest.raises(
        CheckpointError,
        match="its keys and shapes are those of tapnext and of bootstapnext and of tapnextpp",
    ):
        recognise(other)
    assert check(name, path).parameters == 194202881


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Weights of the published size, all 0."""
    path = tmp_path_factory.mktemp("published") / "weights"
    with torch.device("meta"):
        shapes = TapNext(TapNextConfig()).state_dict()
    save_file({key: torch.zeros(value.shape) for key, value in shapes.items()}, path)
    return path


def test_a_clip_twice_as_large_is_the_same_on_the_raster():
    """Bilinear without antialiasing reads the four middle pixels alone."""
    clip, teacher = (
        translating(frames=3, height=128, width=128, velocity=(1, 1)),
        mini(TapNextTeacher),
    )
    assert teacher.model.config.raster == 64
    with torch.inference_mode():
        torch.testing.assert_close(
            teacher.to_raster(clip), teacher.to_raster(clip.repeat(2, axis=1).repeat(2, axis=2))
        )
