"""Verdicts in shards: written by `label`, added and renewed by `relabel`, always the same bytes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.harness.jobs import NEAR, STILL, config, tars
from labeler import open_dataset
from labeler.io.storage import Storage
from labeler.labels import verdict as verdicts
from labeler.labels.agreement import AgreementConfig
from labeler.labels.verdict import ClipVerdict, judged
from labeler.labels.verifier import Verifier
from labeler.shards.members import (
    VERDICT,
    from_members,
    members,
    verdict_from_npz,
    verdict_to_npz,
)
from labeler.shards.records import latest_records
from labeler.shards.tar import read_samples
from pipelines import cli
from pipelines.jobs.labelling import label
from teachers import ShardError
from tests.labeler.shards.test_members import a_sample, assert_same
from tests.support.jobs import FAR, differences, findings, flat

OLD = Path(__file__).parents[2] / "data" / "dataset_schema1"
SHORT = "tests.support.stub_teachers:NeedsLongClips"


class Killed(BaseException):
    """Stands for a kill -9: nobody may catch it."""


def relabel(out: Path, *flags: object) -> None:
    assert cli.run(["relabel", str(out), *map(str, flags)]) == 0


@pytest.fixture
def old(tmp_path) -> Path:
    """A data set of before verdicts, to be changed."""
    return shutil.copytree(OLD, tmp_path / "old")


@pytest.fixture
def copy(dataset, tmp_path) -> Path:
    return shutil.copytree(dataset.folder, tmp_path / "copy")


@pytest.fixture
def another_verifier(monkeypatch):
    """Until the test ends, a verifier of another version is the shipped one."""
    shipped = Verifier.load()
    bolder = {**shipped.weights, "right.b": shipped.weights["right.b"] + 1}
    other = Verifier(bolder, "1.another")

    def take(verifier: Verifier = other) -> Verifier:
        monkeypatch.setattr(verdicts, "_shipped", lambda: verifier)
        return verifier

    return take


def judged_sample():
    sample = a_sample()
    n, t = sample.labels.state.shape
    rng = np.random.default_rng(0)
    steps = rng.integers(0, 256, (4, n, t)).astype(np.float32) / np.float32(255)
    return replace(
        sample, verdict=ClipVerdict(tuple(sorted(sample.tracks)), steps[:3], steps[3], "1.a")
    )


# Members


def test_a_verdict_comes_back_as_it_was_beside_everything_else():
    sample = judged_sample()
    assert_same(from_members(sample.key, members(sample)), sample)


def test_a_verdict_is_bytes_that_numpy_reads_without_this_project(tmp_path):
    sample = judged_sample()
    (tmp_path / "v.npz").write_bytes(members(sample)[VERDICT])
    with np.load(tmp_path / "v.npz", allow_pickle=False) as found:
        assert found["right"].dtype == found["hidden"].dtype == np.uint8
        assert found["right"].shape == (3, 5, 9)
        assert found["hidden"].shape == (5, 9)
        assert found["teachers"].tolist() == ["broken", "one", "two"]
        assert str(found["version"]) == "1.a"
        np.testing.assert_allclose(found["right"] / 255, sample.verdict.right, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"right": np.zeros((2, 5, 9), np.uint8)},
        {"right": np.zeros((3, 5, 9), np.float32)},
        {"hidden": np.zeros((5, 8), np.uint8)},
        {"teachers": np.array("one")},
    ],
)
def test_a_damaged_verdict_is_refused(change):
    from labeler.shards.members import npz, read_npz

    arrays = read_npz(verdict_to_npz(judged_sample().verdict), "v")
    with pytest.raises(ShardError, match="v does not hold a verdict"):
        verdict_from_npz(npz(**{**arrays, **change}), "v")
    del arrays["version"]
    with pytest.raises(ShardError, match="v does not hold a verdict"):
        verdict_from_npz(npz(**arrays), "v")


# label


def test_label_stores_what_the_verifier_says_of_the_stored_clip(dataset):
    opened = open_dataset(str(dataset.folder))
    assert opened.verifiers == {Verifier.load().version: len(opened)}
    assert opened.unjudged == 0
    for clip in opened:
        said = Verifier.load().judge(clip.frames, clip.queries, clip.tracks, clip.rules)
        assert clip.verdict.teachers == tuple(clip.tracks)
        np.testing.assert_allclose(clip.verdict.right, said.right, atol=1 / 500)
        np.testing.assert_allclose(clip.verdict.hidden, said.hidden, atol=1 / 500)
        assert clip.meta["schema"] == 2
    table = pd.read_parquet(dataset.folder / "clips.parquet")
    assert set(table["verifier"]) == {Verifier.load().version}
    for clip, mean in zip(opened, table["mean_trust"], strict=True):
        sure = np.maximum(clip.verdict.right.max(0), clip.verdict.hidden)
        assert mean == pytest.approx(sure.mean(), abs=1e-4)


def test_adding_a_teacher_judges_all_of_them_together(videos, dataset, copy, tmp_path):
    label(config(videos, copy, (FAR,)))
    label(config(videos, tmp_path / "at once", (STILL, NEAR, FAR)))
    assert differences(tmp_path / "at once", copy) == []
    assert open_dataset(str(copy))[0].verdict.teachers == ("far", "near", "still")
    assert findings(copy) == []


def test_one_teacher_alone_is_judged_too(videos, tmp_path):
    label(config(videos, tmp_path, (STILL,)))
    clip = open_dataset(str(tmp_path))[0]
    assert clip.verdict.right.shape == (1, *clip.labels.state.shape)
    assert clip.verdict.right.max() > 0
    assert findings(tmp_path) == []


# relabel


def test_labels_of_before_are_read_and_said_to_be_not_judged(old):
    opened = open_dataset(str(old))
    assert (len(opened), opened.unjudged, opened.verifiers) == (2, 2, {})
    assert opened[0].verdict is None
    assert "2 clips not judged: `tapdistill relabel` does it" in repr(opened)
    assert opened.clips["verifier"].isna().all()
    assert findings(old) == []


def test_relabel_judges_labels_of_before_and_leaves_every_other_member_as_it_was(old):
    before = {name: dict(flat(data)) for name, data in tars(OLD).items()}
    relabel(old)
    assert findings(old) == []
    after = tars(old)
    for name, data in after.items():
        members_now = dict(flat(data))
        (was,) = [parts for there, parts in before.items() if there[:13] == name[:13]]
        new = members_now.keys() - was.keys()
        assert [each.partition(".")[2] for each in new] == [VERDICT]
        changed = {each for each in was if members_now[each] != was[each]}
        assert {each.partition(".")[2] for each in changed} <= {"json", "labels.npz"}
        assert all(b'"schema":2' in members_now[each] for each in changed if "json" in each)
    for clip in open_dataset(str(old)):
        assert_same(clip.verdict, judged(clip.frames, clip.queries, clip.tracks, clip.rules))


def test_a_failed_teacher_is_trusted_nowhere_and_changes_nothing_for_the_others(old):
    relabel(old)
    by_frames = {clip.meta["frames"]: clip for clip in open_dataset(str(old))}
    short = by_frames[9]
    assert short.verdict.teachers == ("flow", "lk", "needslongclips")
    assert not short.verdict.of(["needslongclips"]).any()
    others = {name: short.tracks[name] for name in ("flow", "lk")}
    alone = judged(short.frames, short.queries, others, short.rules)
    np.testing.assert_array_equal(alone.right, short.verdict.of(["flow", "lk"]))
    np.testing.assert_array_equal(alone.hidden, short.verdict.hidden)
    assert by_frames[16].verdict.of(["needslongclips"]).any()


def test_relabel_twice_does_nothing_the_second_time(old, capsys):
    relabel(old)
    first = tars(old)
    files = sorted(path.name for path in (old / "shards").iterdir())
    capsys.readouterr()
    relabel(old)
    assert "0 of 2 units have new labels" in " ".join(capsys.readouterr().out.split())
    assert tars(old) == first
    assert sorted(path.name for path in (old / "shards").iterdir()) == files


def test_relabel_there_and_back_gives_the_bytes_that_were(copy, dataset):
    relabel(copy, "--agreement.tau-px", 1)
    assert differences(dataset.folder, copy) != []
    relabel(copy)
    assert differences(dataset.folder, copy) == []


def test_a_verdict_that_is_made_again_has_the_bytes_of_the_first(copy, dataset, another_verifier):
    another_verifier()
    relabel(copy)
    changed = {
        name.partition(".")[2].rstrip("']")
        for line in differences(dataset.folder, copy)
        for name in line.split("', '")
    }
    assert changed == {VERDICT}
    assert open_dataset(str(copy)).verifiers == {"1.another": 7}
    another_verifier(Verifier.load())
    relabel(copy)
    assert differences(dataset.folder, copy) == []
    assert findings(copy) == []


def test_two_versions_in_one_data_set_are_told_apart_and_made_equal(
    copy, dataset, another_verifier, monkeypatch
):
    storage = Storage(str(copy))
    first, *_ = latest_records(storage)
    other = another_verifier()
    from labeler.shards import revisions

    assert revisions.relabel(storage, first, AgreementConfig(**first.agreement))
    another_verifier(Verifier.load())
    opened = open_dataset(str(copy))
    assert opened.verifiers == {
        other.version: len(first.clips),
        Verifier.load().version: 7 - len(first.clips),
    }
    assert {clip.verdict.version for clip in opened} == set(opened.verifiers)
    assert "`tapdistill relabel` makes them consistent" in repr(opened)
    assert findings(copy) == []
    untouched = {
        name: data for name, data in tars(copy).items() if not name.startswith("shards/000000")
    }
    relabel(copy)
    assert differences(dataset.folder, copy) == []
    now = tars(copy)
    assert {name: now.get(name) for name in untouched} == untouched


def test_thresholds_alone_leave_verdicts_and_clips_alone_where_that_is_asked(old, monkeypatch):
    monkeypatch.setattr(verdicts, "_shipped", None)  # whoever calls it fails
    relabel(old, "--no-judge", "--agreement.tau-px", 1)
    assert open_dataset(str(old)).unjudged == 2
    assert findings(old) == []


def test_pruned_queries_take_their_verdicts_along(old, tmp_path):
    whole = shutil.copytree(old, tmp_path / "whole")
    relabel(whole)
    relabel(old, "--prune")
    for clip, all_of_it in zip(open_dataset(str(old)), open_dataset(str(whole)), strict=True):
        keep = all_of_it.labels.keep
        assert len(clip.queries) == keep.sum() > 0
        np.testing.assert_array_equal(clip.verdict.right, all_of_it.verdict.right[:, keep])
        np.testing.assert_array_equal(clip.verdict.hidden, all_of_it.verdict.hidden[keep])
    relabel(old, "--prune")
    assert findings(old) == []


def test_a_clip_without_a_query_has_an_empty_verdict(old):
    relabel(old, "--no-judge", "--prune", "--agreement.min-visible-frames", 1000)
    relabel(old, "--agreement.min-visible-frames", 1000)
    for clip in open_dataset(str(old)):
        assert clip.verdict.right.shape == (3, 0, clip.meta["frames"])
        assert clip.verdict.hidden.shape == (0, clip.meta["frames"])
    assert open_dataset(str(old)).clips["mean_trust"].isna().all()
    assert findings(old) == []


@pytest.mark.parametrize("write", ["publish", "create"])
def test_relabel_that_is_killed_goes_on_where_it_stopped(
    copy, dataset, another_verifier, monkeypatch, write
):
    """Killed in the second of three units, before its tar or before its record."""
    another_verifier()
    whole = shutil.copytree(copy, copy.parent / "whole")
    relabel(whole)
    real, calls = getattr(Storage, write), []

    def die(*args):
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, write, die)
        with pytest.raises(Killed):
            relabel(copy)
    assert [line for line in findings(copy) if "no record names it" not in line] == []
    assert len(open_dataset(str(copy)).verifiers) == 2
    relabel(copy)
    assert differences(whole, copy) == []
    assert open_dataset(str(copy)).verifiers == {"1.another": 7}


def test_verify_finds_a_verdict_that_is_not_what_the_record_says(copy):
    file = next((copy / "shards").glob("000000.r0.json"))
    file.write_text(file.read_text().replace(Verifier.load().version, "1.0123456789ab"))
    assert any("but its record says 1.0123456789ab" in line for line in findings(copy))


def test_samples_of_an_old_tar_are_read(old):
    for file in (old / "shards").glob("*.tar"):
        with file.open("rb") as stream:
            for key, parts in read_samples(stream, file.name):
                sample = from_members(key, parts)
                assert sample.verdict is None
                assert members(sample) == {name: parts[name] for name in members(sample)}
