"""An opened data set: what it says from records alone, what it reads of a tar, and what it measures
on raw tracks."""

from __future__ import annotations

import dataclasses
import re
import shutil
from dataclasses import replace

import fsspec
import numpy as np
import pytest

from benchmarks.harness.jobs import FRAMES, STILL, config
from benchmarks.harness.s3_server import proxy, s3_server
from labeler import open_dataset
from labeler.dataset.clip import Clip
from labeler.io.storage import Storage
from labeler.labels import AgreementConfig, TrustConfig, choose
from labeler.labels.agreement import Labels
from labeler.labels.disagreement import disagreement
from labeler.video.encode import decode_clip
from pipelines.jobs.labelling import label
from teachers import ConfigError, ShardError, Tracks
from teachers.licences import licence_note
from tests.support.grey_clip import grey_clip
from tests.support.jobs import FAR, findings

NEAR_PX = 0.25 * 256 / 64
"""`Near` lies a quarter of a pixel beside `Still`, in clips 64 px wide."""


@pytest.fixture(scope="module")
def opened(dataset):
    """Seven clips of 24 queries, in three units, by `Still` and `Near`."""
    return open_dataset(str(dataset.folder))


@pytest.fixture
def no_tar_is_read(monkeypatch):
    def refuse(*_):
        raise AssertionError("a tar was read")

    monkeypatch.setattr(Storage, "read_range", refuse)
    monkeypatch.setattr(Storage, "open", refuse)


# --- the summary, from records alone


def test_printing_says_what_is_there_without_reading_a_tar(opened, no_tar_is_read):
    said = repr(opened)
    assert said.splitlines()[0] == f"Dataset {opened.storage.url}"
    for part in (
        "7 with 112 frames",
        "3 of 3 units are written",
        "5 planned: 5 done",
        "168, of which 168 kept (100%); mean support 1.00",
        "tau 2 px, support >= 0.6",
        "near, still",
    ):
        assert part in said


def test_the_tables_come_from_records_alone(opened, no_tar_is_read):
    assert len(opened.clips) == len(opened) == 7
    assert opened.failures.empty


def test_in_a_notebook_the_summary_is_a_table_and_names_from_files_are_escaped(opened, tmp_path):
    assert opened._repr_html_().count("<tr>") == len(opened.summary)
    hostile = tmp_path / "<script>alert(1)</script>"
    shutil.copytree(opened.storage.url, hostile)
    html = open_dataset(str(hostile))._repr_html_()
    assert "<script" not in html
    assert "&lt;script" in html


def test_a_data_set_that_is_still_being_written_is_what_its_records_say(dataset, tmp_path):
    shutil.copytree(dataset.folder, tmp_path / "part")
    for name in ("clips.parquet", "failures.parquet", "records.parquet", "shards/000001.r0.json"):
        (tmp_path / "part" / name).unlink()
    part = open_dataset(str(tmp_path / "part"))
    assert "2 of 3 units are written" in repr(part)
    assert re.search(r"3 done, 0 left out, 0 failed, 2 open", repr(part))
    assert len(part) == len(part.clips) == 4
    assert len(part.what_if(2.0, 0.6)) == 1


def test_a_data_set_of_links_is_the_one_to_which_they_lead(dataset, tmp_path):
    """As DVC, git-annex, and the cache of the Hugging Face Hub store it."""
    for file in dataset.folder.rglob("*"):
        link = tmp_path / file.relative_to(dataset.folder)
        if file.is_file():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(file)
    keys = [clip.key for clip in open_dataset(str(dataset.folder))]
    assert [clip.key for clip in open_dataset(str(tmp_path))] == keys
    assert findings(tmp_path) == []
    record = tmp_path / "shards/000000.r0.json"
    record.unlink()
    record.symlink_to("not-fetched")
    assert any(f"{record} does not exist" in finding for finding in findings(tmp_path))
    with pytest.raises(ShardError, match=r"000000\.r0\.json does not exist"):
        open_dataset(str(tmp_path))


def test_a_data_set_without_a_clip_yet_can_be_looked_at(dataset, tmp_path):
    for name in ("dataset.json", "plan.0000.parquet"):
        shutil.copy(dataset.folder / name, tmp_path)
    empty = open_dataset(str(tmp_path))
    assert "0 of 3 units are written" in repr(empty)
    assert "nothing labelled yet" in empty._repr_html_()
    assert empty.sample("hardest") == []
    assert empty.distances().empty
    assert empty.kept_by("sampler").empty
    assert (empty.what_if()["kept"] == 0).all()


def test_the_table_of_clips_begins_with_what_tells_most(opened):
    table = opened.clips
    assert [*table.columns[:5]] == ["key", "video", "frames", "queries", "kept"]
    assert "offsets" not in table
    for uri, video in zip(table.uri, table.video, strict=True):
        assert uri.endswith(f"/{video}")


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(ShardError, match="is not a data set"):
        open_dataset(str(tmp_path))


# --- licences


@pytest.mark.parametrize(
    ("licences", "says"),
    [
        ({}, "no teacher yet"),
        (
            {"lk": "Apache-2.0", "pips": "MIT"},
            "Apache-2.0 (lk); MIT (pips): commercial use is not restricted by them",
        ),
        (
            # as version 0.1.0 wrote it
            {"cotracker2": "CC-BY-NC 4.0 (official weights)", "lk": "MIT"},
            "CC-BY-NC-4.0 (cotracker2); MIT (lk): no commercial use of these labels, because of "
            "cotracker2",
        ),
        (
            {"own": "see its package", "lk": "MIT"},
            "MIT (lk); see its package (own): whether commercial use is free depends on own",
        ),
        (
            {"locotrack-base": "NOASSERTION"},
            "not confirmed (locotrack-base): whether commercial use is free depends on "
            "locotrack-base",
        ),
    ],
)
def test_the_narrowest_licence_of_the_teachers_is_named(licences, says):
    assert licence_note({name: {"licence": licence} for name, licence in licences.items()}) == says


# --- a clip


def test_a_clip_is_the_same_by_number_and_by_key(opened):
    for number, key in enumerate(opened.clips["key"]):
        assert opened[number].key == opened[key].key == key
    assert opened[-1].key == opened.clips["key"].iloc[-1]


def test_there_is_no_clip_beyond_the_last_and_none_of_another_key(opened):
    with pytest.raises(IndexError, match=r"no clip 7: .* has 7"):
        opened[7]
    with pytest.raises(KeyError, match="no clip 'no-such-key'"):
        opened["no-such-key"]


def test_a_slice_is_a_list_of_clips(opened):
    keys = list(opened.clips["key"])
    assert [clip.key for clip in opened[:3]] == keys[:3]
    assert [clip.key for clip in opened[-1:2:-2]] == keys[-1:2:-2]
    assert opened[7:] == []


def test_a_clip_holds_arrays(opened):
    clip = opened[0]
    assert isinstance(clip, Clip)
    assert (clip.frames.shape, clip.frames.dtype) == ((FRAMES, 48, 64, 3), np.uint8)
    assert clip.frames is clip.frames, "decoded once"
    np.testing.assert_array_equal(clip.frames, decode_clip(clip.mp4))
    assert clip.queries.shape == (24, 3)
    assert clip.tracks.keys() == {"near", "still"}
    for tracks in clip.tracks.values():
        assert tracks.xy.shape == (24, FRAMES, 2)
        assert tracks.visibility.shape == tracks.confidence.shape == (24, FRAMES)
    assert clip.labels.support.shape == (24, FRAMES)
    assert (
        repr(clip)
        == f"Clip({clip.key!r}): 16 frames of 64 x 48 px, 24 queries of which 24 kept, near, still"
    )


def test_one_clip_is_one_range_of_its_tar_on_s3_too(opened, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    with s3_server() as port, proxy(port) as server:
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": server.url})
        s3 = fsspec.filesystem("s3")
        s3.mkdir("labels")
        s3.put(f"{opened.storage.url}/", "labels/set", recursive=True)
        there = open_dataset("s3://labels/set")
        ranges = []
        read_range = Storage.read_range

        def counted(storage, name, start, size):
            ranges.append((name, size))
            return read_range(storage, name, start, size)

        monkeypatch.setattr(Storage, "read_range", counted)
        key = there.clips["key"].iloc[3]
        clip = there[key]
        np.testing.assert_array_equal(clip.tracks["near"].xy, opened[key].tracks["near"].xy)
        np.testing.assert_array_equal(clip.frames, opened[key].frames)
        # two here, of which one of this data set and one on the disk, and none for the frames
        assert len(ranges) == 3
        name, size = ranges[0]
        assert size < there.storage.size(name) / 1.5
        assert there.tars[0].startswith("s3://labels/set/shards/000000.r0.")
        s3.clear_instance_cache()


def test_the_plot_of_a_clip_has_a_panel_for_each_question(opened):
    pytest.importorskip("matplotlib")
    support, distance, pairs = opened[0].plot().axes
    np.testing.assert_allclose(support.lines[0].get_ydata(), 1.0)
    assert [line.get_label() for line in distance.lines[:2]] == ["near", "still"]
    assert "1.00" in [text.get_text() for text in pairs.texts]  # NEAR_PX


# --- samples


def test_a_random_sample_is_the_same_for_the_same_seed(opened):
    keys = [[clip.key for clip in opened.sample("random", 3, seed)] for seed in (1, 1, 2)]
    assert keys[0] == keys[1] != keys[2]
    assert len(set(keys[0])) == 3


def test_a_sample_is_at_most_the_data_set(opened):
    assert {clip.key for clip in opened.sample("random", 100)} == set(opened.clips["key"])


@pytest.fixture(scope="module")
def disputed(videos, tmp_path_factory):
    """The same clips by `Still` and `Far`, which never agree."""
    folder = tmp_path_factory.mktemp("disputed")
    label(config(videos, folder, (STILL, FAR)))
    return open_dataset(str(folder))


def test_the_hardest_clips_are_those_of_which_the_least_is_kept(opened, monkeypatch):
    kept = [24, 3, 24, 0, 12, 24, 24]
    entries = [
        (record, dataclasses.replace(entry, kept=k))
        for (record, entry), k in zip(opened._entries, kept, strict=True)
    ]
    monkeypatch.setattr(opened, "_entries", entries)
    keys = opened.clips["key"]
    assert [clip.key for clip in opened.sample("hardest", 3)] == [keys[3], keys[1], keys[4]]


@pytest.mark.parametrize(
    ("support", "state", "amount"),
    [
        ([[1, 1, 0]], [[1, 1, 2]], 0.0),
        ([[1, 0.5, 0.25, 0]], [[1, 1, 0, 2]], 2 / 4),
        ([[2 / 3, 0.6, 0.59, 0.5]], [[1, 1, 1, 0]], 2 / 4),  # a label asks for 0.6
        ([[0, 0, 0, 1 / 3]], [[0, 0, 0, 2]], 0.0),  # nobody sees it; occluded by evidence
        ([[0, 0]], [[2, 2]], 0.0),
    ],
)
def test_disagreement_is_where_some_see_the_point_and_too_few_agree(support, state, amount):
    support, state = np.array(support, np.float32), np.array(state, np.uint8)
    labels = Labels(support, support, state, state == 1, np.array([True]))
    assert disagreement(labels) == pytest.approx(amount)


def test_the_clips_with_the_most_disagreement_come_first(opened, monkeypatch):
    amounts = [0.1, 0.5, 0.0, 0.9, 0.2, 0.5, 0.3]
    monkeypatch.setattr(opened, "_disagreement", amounts.__getitem__)
    keys = opened.clips["key"]
    assert [clip.key for clip in opened.sample("most disagreement", 3)] == [
        keys[3],
        keys[1],
        keys[5],
    ]


def test_what_cannot_be_asked_is_refused(opened):
    with pytest.raises(
        ConfigError, match="no sample 'easiest': there are 'hardest', 'random', 'most disagreement'"
    ):
        opened.sample("easiest")
    with pytest.raises(ConfigError, match="n = 0"):
        opened.sample("random", 0)
    with pytest.raises(ConfigError, match="kept by 'colour': there are 'sampler', 'motion'"):
        opened.kept_by("colour")
    with pytest.raises(ConfigError, match="tau_px = 0"):
        opened.what_if(tau_px=0)


# --- measured on raw tracks


def test_the_distance_of_two_teachers_is_that_of_their_tracks(opened):
    table = opened.distances()
    assert (
        table.loc["near", "still"] == table.loc["still", "near"] == pytest.approx(NEAR_PX, abs=0.02)
    )
    assert table.columns.name == "median px, 7 of 7 clips"
    assert opened.distances(clips=3).columns.name == "median px, 3 of 7 clips"


def test_the_shares_add_up_to_all_queries(opened):
    by_sampler, by_motion = opened.kept_by("sampler"), opened.kept_by("motion")
    assert by_sampler["queries"].sum() == by_motion["queries"].sum() == 7 * 24
    assert by_motion.loc["< 2 px", "queries"] == 7 * 24  # Still
    assert by_sampler["kept"].sum() == opened.clips["kept"].sum()
    assert by_motion.columns.name == "by motion, 7 of 7 clips"


def test_other_thresholds_keep_what_relabelling_would(opened):
    table = opened.what_if(tau_px=(NEAR_PX / 2, 2), min_support=(0.5, 0.6), clips=4).set_index(
        ["tau_px", "min_support"]
    )
    assert table.loc[(NEAR_PX / 2, 0.5), "share"] == 1  # each alone is half of the teachers
    assert table.loc[(NEAR_PX / 2, 0.6), "share"] == 0
    assert table.loc[(2, 0.6), "share"] == table.loc[(2, 0.6), "label_share"] == 1
    assert (table["queries"] == 4 * 24).all()
    assert (table["clips"] == 4).all()


def test_thresholds_that_are_in_use_give_what_is_stored(disputed):
    assert disputed.what_if(2.0, 0.6)["kept"].item() == disputed.clips["kept"].sum() == 0
    assert disputed.distances().loc["far", "still"] == pytest.approx(30 * 256 / 64)


# --- the labels of a policy


def chosen_by_hand(clip, policy, agreement, trust, seed):
    return choose(
        policy,
        clip.tracks,
        clip.rules,
        clip.queries,
        clip.size_hw,
        np.random.default_rng([seed, *clip.key.encode()]),
        agreement,
        verdict=clip.verdict,
        trust=trust,
        evidence=clip.evidence,
    )


def assert_same_target(one, two):
    for name in ("xy", "visible", "used", "teacher", "called_occluded"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


@pytest.mark.parametrize("policy", ["verified", "random-verified", "random-agreeing", "medoid"])
def test_a_clip_gives_the_labels_of_a_policy(opened, policy):
    """By the settings that its labels were made with, or others, and by its own verdict."""
    clip = opened[0]
    asked = AgreementConfig(tau_px=0.5)
    stored = replace(clip, labels=replace(clip.labels, settings=vars(asked) | {"teachers": {}}))
    found = stored.target(policy)
    assert_same_target(found, chosen_by_hand(clip, policy, asked, TrustConfig(), 0))
    assert found.xy.shape == (len(clip.queries), len(clip.frames), 2)
    other, trust = AgreementConfig(min_visible_frames=3), TrustConfig(min_right=0.3)
    found = clip.target(policy, agreement=other, trust=trust, seed=3)
    assert_same_target(found, chosen_by_hand(clip, policy, other, trust, 3))


def test_the_settings_of_the_stored_labels_decide_what_a_clip_gives(opened):
    clip = opened[0]  # its teachers are 1 px of the raster apart
    strict = replace(clip, labels=replace(clip.labels, settings={"tau_px": 0.5}))
    assert clip.target("medoid").used.all()
    assert not strict.target("medoid").used[:, 1:].any()
    assert strict.target("medoid", agreement=AgreementConfig()).used.all()


def test_teachers_of_one_evidence_are_one_opinion_in_what_a_clip_gives():
    """b and c, at the same place, outvote a that is elsewhere, unless they are of one evidence."""
    clip = Clip.of(grey_clip())
    clip.tracks["c"] = clip.tracks["b"]
    clip.tracks["a"].visibility[:] = 0.95
    clip.tracks["a"].xy[..., 0] += 40
    every = AgreementConfig(min_visible_frames=1)
    assert clip.target("medoid", agreement=every).used[:, 1:].all()
    for name in "bc":
        clip.meta["teachers"][name]["evidence"] = "patch"
    assert not clip.target("medoid", agreement=every).used[:, 1:].any()


def test_labels_that_a_clip_cannot_give_are_refused(opened):
    clip = opened[0]
    with pytest.raises(ConfigError, match="no label policy 'best'"):
        clip.target("best")
    with pytest.raises(ConfigError, match="exact tracks"):
        clip.target("oracle")
    with pytest.raises(ConfigError, match="`tapdistill relabel URL`"):
        replace(clip, verdict=None).target("verified")


def test_arrays_of_a_clip_are_printed_in_a_line(opened):
    clip = opened[0]
    n, t = clip.labels.support.shape
    kept = int(clip.labels.keep.sum())
    assert re.fullmatch(
        rf"Labels of {n} x {t} points x frames: visible \d+%, occluded \d+%, disputed \d+%; "
        rf"{kept} kept",
        repr(clip.labels),
    )
    tracks = repr(next(iter(clip.tracks.values())))
    assert re.fullmatch(
        rf"Tracks of {n} x {t} points x frames: tracked in 100%, visibility (not )?known, "
        r"confidence (not )?known",
        tracks,
    )
    assert repr(Tracks.nan(0, 4)).startswith("Tracks of 0 x 4 points x frames: tracked in 0%")
    said = repr(clip.verdict)
    assert "\n" not in said
    assert said.startswith(f"ClipVerdict of {n} x {t} points x frames")
    for name, right in zip(clip.verdict.teachers, clip.verdict.right, strict=True):
        assert f"{name} {right.mean():.2f}" in said
