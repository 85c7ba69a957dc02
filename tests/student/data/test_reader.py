"""Reader: which bytes of a data set are read, and what is said of those that are not as they should
be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from benchmarks.harness.jobs import config
from labeler.dataset.dataset import open_dataset
from labeler.dataset.review import Review, read_review
from labeler.io.storage import Storage
from labeler.labels.agreement import AgreementConfig
from labeler.labels.trust import TrustConfig
from labeler.shards.manifest import freeze
from labeler.shards.records import latest_records
from student.data.augment import Crop, UnusableSample, View, at_crop, at_frames, crop_of
from student.data.batch import InlineRequest
from student.data.config import AgreementOverride
from student.data.mixture import batches
from student.data.reader import (
    NEIGHBOUR_BYTES,
    LabelChoice,
    first_by_hash,
    open_clips,
    read_clip,
    read_unlabelled,
    refuse_unknown_teachers,
    reviewed,
)
from teachers import ConfigError, ShardError
from tests.support.training import small_data

CROP = 32, 48
LENIENT = AgreementOverride(min_visible_frames=1)


class CountingFileSystem(LocalFileSystem):
    """`counting:///folder`: the local disk, which remembers how much of which file was read."""

    protocol = "counting"
    reads: ClassVar[list[tuple[str, int, int]]] = []
    """(path, first byte, byte after the last)."""

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("counting://"))

    def cat_file(self, path, start=None, end=None, **arguments):
        data = super().cat_file(path, start, end, **arguments)
        self.reads.append((path, start or 0, (start or 0) + len(data)))
        return data


@pytest.fixture
def counting(dataset):
    fsspec.register_implementation("counting", CountingFileSystem, clobber=True)
    CountingFileSystem.reads.clear()
    return f"counting://{dataset.folder}"


@pytest.fixture
def copy(dataset, tmp_path) -> Path:
    """The data set, to be damaged."""
    return Path(shutil.copytree(dataset.folder, tmp_path / "copy"))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def of_tars() -> list[tuple[int, int]]:
    return [(start, end) for path, start, end in CountingFileSystem.reads if path.endswith(".tar")]


def test_opening_reads_no_tar(counting):
    clips, left_out = open_clips((counting,), CROP)
    assert len(clips) > 3
    assert not left_out
    assert len(CountingFileSystem.reads) > 0
    assert not of_tars()


@pytest.mark.parametrize(
    ("policy", "teachers"), [("random", 1), ("random-agreeing", 2), ("verified", 2)]
)
def test_only_the_members_that_a_policy_needs_are_read(counting, policy, teachers):
    clips, _ = open_clips((counting,), CROP)
    for clip in clips:
        CountingFileSystem.reads.clear()
        read_clip(clip, policy, rng())
        ranges, offsets = of_tars(), clip.entry.offsets
        touched = {
            s
            for s, (first, size) in offsets.items()
            if any(start < first + size and first < end for start, end in ranges)
        }
        assert {"mp4", "queries.npz"} < touched
        assert len(touched & {"near.npz", "still.npz"}) == teachers
        assert not touched & {"json", "labels.npz"}
        assert ("verdict.npz" in touched) == (policy != "random")
        needed = sum(offsets[suffix][1] for suffix in touched)
        assert sum(end - start for start, end in ranges) <= needed + len(touched) * NEIGHBOUR_BYTES
        assert len(ranges) <= 2  # neighbours come together


def test_a_clip_has_the_stored_pixels_queries_and_tracks(dataset):
    there = open_dataset(str(dataset.folder))
    clips, _ = open_clips((str(dataset.folder),), CROP)
    assert [clip.entry.key for clip in clips] == [sample.key for sample in there]
    for clip, sample in zip(clips, there, strict=True):
        whole = read_clip(clip, "random", rng())
        assert whole.frames.shape == (sample.meta["frames"], *sample.size_hw, 3)
        np.testing.assert_array_equal(whole.queries, sample.queries)
        nearest = min(np.abs(whole.xy - tracks.xy).max() for tracks in sample.tracks.values())
        assert nearest < 1e-4  # the policies go through the 256 raster and back
        assert whole.valid.all()


def test_verified_labels_are_the_most_trusted_of_the_stored_positions(dataset):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    (sample,) = open_dataset(str(dataset.folder))[:1]
    trust = TrustConfig(min_right=0.5)
    whole = read_clip(clips[0], "verified", rng(), LENIENT, trust)
    right = {name: sample.verdict.of([name])[0] for name in sample.tracks}
    found = 0
    for n, t in np.argwhere(whole.valid):
        best = max(right, key=lambda name: right[name][n, t])
        assert right[best][n, t] >= 0.5
        np.testing.assert_allclose(whole.xy[n, t], sample.tracks[best].xy[n, t], atol=1e-3)
        found += 1
    assert found == (sample.verdict.best >= np.maximum(0.5, sample.verdict.hidden)).sum() > 0
    assert not whole.visible[whole.visibility_valid & ~whole.valid].any()


def test_random_verified_labels_are_one_teachers_where_it_is_trusted(dataset):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    sample = open_dataset(str(dataset.folder))[0]
    whole = read_clip(clips[0], "random-verified", rng(), LENIENT, TrustConfig(min_right=0.5))
    for n in np.flatnonzero(whole.valid.any(1)):
        of = [
            name
            for name, tracks in sample.tracks.items()
            if np.allclose(tracks.xy[n][whole.valid[n]], whole.xy[n][whole.valid[n]], atol=1e-3)
        ]
        assert len(of) == 1  # `Near` is nowhere where `Still` is
        assert (sample.verdict.of(of)[0, n][whole.valid[n]] >= 0.5).all()
    assert whole.valid.any()


def test_a_weighed_frame_counts_as_much_as_its_label_is_trusted(dataset):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    sample = open_dataset(str(dataset.folder))[0]
    assert read_clip(clips[0], "random", rng()).weight is None
    whole = read_clip(clips[0], "random", rng(), weigh=True)
    (name,) = (
        name for name, tracks in sample.tracks.items() if np.abs(tracks.xy - whole.xy).max() < 1e-3
    )
    assert whole.visible.all()
    np.testing.assert_array_equal(whole.weight, sample.verdict.of([name])[0])


@pytest.mark.parametrize(("policy", "weigh"), [("verified", False), ("random", True)])
def test_labels_that_no_verifier_judged_are_refused_before_training(tmp_path, policy, weigh):
    old = Path(__file__).parents[2] / "data" / "dataset_schema1"
    config = small_data(old, policy=policy, weigh=weigh)
    with pytest.raises(
        ConfigError, match=r"2 shards of .*dataset_schema1 have none: `tapdistill r"
    ):
        batches(config, seed=0)
    clips, _ = open_clips((str(old),), CROP)
    with pytest.raises(ConfigError, match="`tapdistill relabel"):
        read_clip(clips[0], policy, rng(), weigh=weigh)


def test_labels_of_before_are_trained_on_as_before(tmp_path):
    """Every policy that needs no verdict reads them; a teacher that failed is not offered."""
    old = str(Path(__file__).parents[2] / "data" / "dataset_schema1")
    clips, _ = open_clips((old,), CROP)
    assert [len(clip.teachers) for clip in clips] == [3, 2]
    for policy in ("random", "random-agreeing", "medoid"):
        assert any(read_clip(clip, policy, rng(), LENIENT).valid.any() for clip in clips)


def test_random_draws_one_teacher_for_a_clip_and_each_of_them_at_times(dataset):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    shifts = set()
    for seed in range(20):
        whole = read_clip(clips[0], "random", np.random.default_rng(seed))
        # `Still` is 0 px off, `Near` a quarter to the right
        shift = whole.xy[:, 0, 0] - whole.queries[:, 1]
        assert np.ptp(shift) < 1 / 32
        shifts.add(round(float(shift.mean()), 1))
    assert shifts == {0.0, 0.2}


def test_thresholds_are_those_of_the_stored_labels_unless_others_are_given(dataset):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    stored = clips[0].shard.agreement
    assert stored == AgreementConfig()
    whole = read_clip(clips[0], "random-agreeing", rng())
    assert whole.valid.any()
    strict = read_clip(
        clips[0],
        "random-agreeing",
        rng(),
        AgreementOverride(min_visible_frames=whole.valid.shape[1] + 1),
    )
    assert not strict.valid.any()


@pytest.mark.parametrize(
    ("said", "knows"),
    [
        ({"knows_hidden_points": True}, True),
        ({"knows_hidden_points": False, "architecture": "PIPs"}, False),
        # as before teachers declared it
        ({"architecture": "CoTracker3 offline, mini", "knows_hidden_points": None}, True),
        ({"architecture": "TAPIR", "knows_hidden_points": None}, False),
    ],
    ids=str,
)
def test_hidden_points_are_learnt_from_who_says_that_it_knows_them(dataset, said, knows):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    infos = {
        name: {**info, "visible_rule": "v > 2", **said}
        for name, info in clips[0].shard.teachers.items()
    }
    # so no point is ever visible
    hidden = replace(clips[0], shard=replace(clips[0].shard, teachers=infos))
    whole = read_clip(hidden, "random", rng())
    assert whole.supervise_occluded is knows
    assert whole.valid.all() if knows else not whole.valid.any()
    assert whole.visibility_valid.all()  # that it is hidden, it says


def test_a_teacher_that_failed_in_a_clip_is_not_drawn(copy):
    clips, _ = open_clips((str(copy),), CROP)
    failed = clips[0].entry.key
    record = latest_records(Storage(str(copy)))[0]
    path = copy / record.name
    fields = json.loads(path.read_bytes())
    row = {
        "uri": "x",
        "what": "teacher",
        "stage": "teacher:near",
        "reason": "teacher-error",
        "key": failed,
    }
    path.write_text(json.dumps({**fields, "rows": [*fields["rows"], row]}))
    by_key = {clip.entry.key: clip.teachers for clip in open_clips((str(copy),), CROP)[0]}
    assert by_key.pop(failed) == ("still",)
    assert set(by_key.values()) == {("near", "still")}


@pytest.mark.parametrize("suffix", ["mp4", "queries.npz", "still.npz"])
def test_a_damaged_member_makes_the_sample_unusable(copy, suffix):
    clip = open_clips((str(copy),), CROP)[0][0]
    offset, size = clip.entry.offsets[suffix]
    with (copy / clip.shard.tar).open("r+b") as tar:
        tar.seek(offset)
        tar.write(bytes(size))
    with pytest.raises(UnusableSample, match="corrupt"):
        read_clip(clip, "medoid", rng())


def test_a_truncated_tar_is_left_out_by_name(copy):
    clips, _ = open_clips((str(copy),), CROP)
    tar = copy / clips[0].shard.tar
    # by a block of zeros: every sample could still be read
    tar.write_bytes(tar.read_bytes()[:-512])
    rest, (one,) = open_clips((str(copy),), CROP)
    assert (one.file, one.reason) == (str(tar), "truncated")
    assert one.clips == len(clips) - len(rest) > 0
    assert "its record says" in one.detail


def test_a_tar_that_is_missing_at_the_start_is_left_out_by_name(copy):
    clips, _ = open_clips((str(copy),), CROP)
    (copy / clips[0].shard.tar).unlink()
    rest, (one,) = open_clips((str(copy),), CROP)
    assert (one.file, one.reason, one.clips) == (
        str(copy / clips[0].shard.tar),
        "missing",
        len(clips) - len(rest),
    )


def test_a_tar_that_disappears_later_is_an_error_with_its_name(copy):
    clip = open_clips((str(copy),), CROP)[0][0]
    (copy / clip.shard.tar).unlink()
    with pytest.raises(ShardError, match=rf"{clip.shard.tar} does not exist.*gc.*start again"):
        read_clip(clip, "random", rng())


def test_clips_too_small_for_the_crop_are_said_at_once(dataset):
    assert not open_clips((str(dataset.folder),), (96, 128))[1]  # twice as large as the clips
    with pytest.raises(
        ShardError, match=r"none of the clips can be used \(\d+ too-small; .*smaller crop"
    ):
        open_clips((str(dataset.folder),), (97, 128))


def test_an_empty_data_set_says_what_to_do(dataset, tmp_path):
    freeze(Storage(str(tmp_path)), config(dataset.folder, tmp_path).frozen(), "0")
    with pytest.raises(
        ShardError, match="no labelled clip yet: run `tapdistill label VIDEOS --out"
    ):
        open_clips((str(tmp_path),), CROP)


def test_a_folder_that_is_no_data_set_says_so(tmp_path):
    with pytest.raises(ShardError, match="is not a data set"):
        open_clips((str(tmp_path),), CROP)


@pytest.mark.parametrize("file", ["dataset.json", "record"])
def test_shards_of_another_schema_are_refused(copy, file):
    path = copy / (latest_records(Storage(str(copy)))[0].name if file == "record" else file)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "schema": 99}))
    with pytest.raises(ShardError, match=r"schema 99.*Use the version that wrote it"):
        open_clips((str(copy),), CROP)


def test_a_part_of_a_clip_is_the_whole_at_those_frames(dataset):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    index = np.array([5, 7, 9, 2, 2])
    whole = read_clip(clips[0], "random-agreeing", rng(), LENIENT)
    part = read_clip(clips[0], "random-agreeing", rng(), LENIENT, view=lambda entry: View(index))
    np.testing.assert_array_equal(part.frames, whole.frames[index])
    for name in ("xy", "visible", "valid", "visibility_valid"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:, index])
    asked = whole.queries[:, 0]
    first = {5: 0, 7: 1, 9: 2, 2: 3}
    assert part.queries[:, 0].tolist() == [first.get(int(t), -1) for t in asked]


@pytest.mark.parametrize(
    ("crop_hw", "scale"), [((20, 26), (1.0, 1.0)), ((24, 30), (0.6, 0.9)), ((60, 70), (1.0, 1.0))]
)
def test_a_view_is_cut_out_of_the_whole(dataset, crop_hw, scale):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    index = np.array([5, 7, 9, 2])
    for seed, clip in enumerate(clips):
        cut: list[Crop] = []

        def view(entry, cut=cut, seed=seed):
            size = entry.height, entry.width
            cut.append(crop_of(size, crop_hw, np.random.default_rng(seed), scale))
            return View(index, cut[0])

        whole = read_clip(clip, "random-agreeing", rng(), LENIENT)
        part = read_clip(clip, "random-agreeing", rng(), LENIENT, view=view)
        frames = replace(at_frames(whole, index), frames=whole.frames[index])
        expected = at_crop(frames, cut[0])
        assert part.frames.shape == (4, *crop_hw, 3)
        for name in ("frames", "xy", "visible", "valid", "visibility_valid", "queries"):
            np.testing.assert_array_equal(getattr(part, name), getattr(expected, name))


def test_only_the_named_teachers_and_samplers_count(dataset):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    sample = open_dataset(str(dataset.folder))[0]
    for name in ("near", "still"):
        found = read_clip(clips[0], "random", rng(), choice=LabelChoice(teachers=(name,)))
        np.testing.assert_allclose(found.xy, sample.tracks[name].xy, atol=1e-4)
    for sampler in np.unique(sample.sampler):
        choice = LabelChoice(samplers=(str(sampler),))
        found = read_clip(clips[0], "random", rng(), choice=choice)
        assert (found.valid.any(1) <= (sample.sampler == sampler)).all()
        assert found.valid.any()
    with pytest.raises(UnusableSample, match="no-labels"):
        read_clip(clips[0], "random", rng(), choice=LabelChoice(teachers=("other",)))


def reviewing(folder: Path, *rows: str, columns: str = "key,point,verdict") -> Review:
    (folder / "review.csv").write_text("\n".join([columns, *rows]))
    return read_review(folder / "review.csv")


@pytest.mark.parametrize("policy", ["random", "medoid"])
def test_points_that_a_person_calls_wrong_are_not_learnt_from(dataset, tmp_path, policy):
    clip, *_ = open_clips((str(dataset.folder),), CROP)[0]
    before = read_clip(clip, policy, rng(), LENIENT)
    learnt = before.valid.any(1)
    wrong, right = np.flatnonzero(learnt)[:2]
    key = clip.entry.key
    review = reviewing(tmp_path, f"{key},{wrong},wrong", f"{key},{right},right")
    for only, left in ((False, learnt & (np.arange(24) != wrong)), (True, np.arange(24) == right)):
        choice = LabelChoice(review=review, reviewed_only=only)
        after = read_clip(clip, policy, rng(), LENIENT, choice=choice)
        assert (after.valid.any(1) == left).all()
        assert (after.visibility_valid.any(1) <= left).all()
        np.testing.assert_array_equal(after.valid[left], before.valid[left])
        np.testing.assert_array_equal(after.xy, before.xy)
        inline = read_unlabelled(clip, InlineRequest("still", 0), choice)
        assert (inline.valid.any(1) <= (np.arange(24) != wrong)).all()
        assert inline.valid.any()


def test_clips_of_which_no_point_is_left_are_not_read(dataset, tmp_path):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    a, b, *rest = [clip.entry.key for clip in clips]
    review = reviewing(tmp_path, f"{a},*,wrong", f"{b},*,wrong", f"{b},5,right")
    left, said = reviewed(clips, review)
    assert ([clip.entry.key for clip in left], said) == ([b, *rest], "")
    assert [clip.entry.key for clip in reviewed(clips, review, only=True)[0]] == [b]
    for rows, why in (
        ([f"{a},24,wrong"], f"point 24 of {a}, which has 24 points"),
        (["another,1,wrong"], "names no clip of the data"),
        ([f"{key},*,wrong" for key in (a, b, *rest)], "leaves no point"),
    ):
        with pytest.raises(ConfigError, match=why):
            reviewed(clips, reviewing(tmp_path, *rows))


def test_a_review_of_other_queries_is_told_from_one_of_fewer(dataset, tmp_path):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    opened = open_dataset(str(dataset.folder))
    key, other = clips[0].entry.key, clips[1].entry.key
    t, x, y = opened[key].queries[5].round(2)
    placed = {"columns": "key,point,verdict,t,x,y"}
    here, gone = f"{key},9,wrong,{t},{x},{y}", f"{other},3,right,0,999,999"
    review = reviewing(tmp_path, here, gone, **placed)
    left, said = reviewed(clips, review)
    assert len(left) == len(clips)
    assert said == (
        f"review {tmp_path}/review.csv: of 2 points, 1 have another number by now and 1 are no "
        "longer queries of their clips"
    )
    choice = LabelChoice(review=review)
    learnt = read_clip(clips[0], "random", rng(), LENIENT, choice=choice).visibility_valid.any(1)
    assert not learnt[5]
    assert learnt.sum() >= 20
    with pytest.raises(ConfigError, match=f"none of its points .* the first of which is {other}"):
        reviewed(clips, reviewing(tmp_path, gone, **placed))


def test_training_reads_the_review(dataset, tmp_path):
    clip, *_ = open_clips((str(dataset.folder),), CROP)[0]
    reviewing(tmp_path, f"{clip.entry.key},3,right")
    config = replace(
        small_data(str(dataset.folder)),
        policy="random",
        review=str(tmp_path / "review.csv"),
        reviewed_only=True,
    )
    stream = batches(config, seed=0)
    assert {each for batch in islice(stream, 3) for each in batch.keys} == {clip.entry.key}
    with pytest.raises(ConfigError, match="reviewed_only needs a review"):
        replace(config, review=None)


def test_a_teacher_that_no_data_set_has_is_refused(dataset):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    refuse_unknown_teachers(clips, ("near",))
    with pytest.raises(ConfigError, match=r"has no tracks of 'far', only of near, still"):
        refuse_unknown_teachers(clips, ("near", "far"))


def test_fewer_clips_are_a_part_of_more(dataset):
    clips, _ = open_clips((str(dataset.folder),), CROP)
    kept = [[c.entry.key for c in first_by_hash(clips, most)] for most in range(len(clips) + 2)]
    assert [len(keys) for keys in kept] == [*range(len(clips) + 1), len(clips)]
    assert all(set(fewer) < set(more) for fewer, more in pairwise(kept[:-1]))
    assert kept[-1] == [c.entry.key for c in clips]
