"""Shards and their records: one winner of a race, new revisions that keep bytes, and nothing that
verify does not find."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.harness.jobs import tars
from labeler.dataset.dataset import open_dataset
from labeler.io.storage import Storage
from labeler.labels.agreement import AgreementConfig
from labeler.shards.commit import commit, tar_of
from labeler.shards.manifest import read_manifest
from labeler.shards.members import from_members
from labeler.shards.record import Record, record_name
from labeler.shards.records import (
    COPIES,
    copy_records,
    latest,
    latest_records,
    read_record,
    revisions,
)
from labeler.shards.revisions import relabel
from labeler.shards.tar import ShardWriter, read_samples, shard_name, tar_offsets
from labeler.shards.verify import collect_garbage, verify
from pipelines.commands.relabel import RelabelConfig
from pipelines.commands.relabel import run as run_relabel
from teachers import ShardError
from tests.labeler.io.test_storage import race


def shard_of(folder: Path, members: dict[str, bytes], key: str = "k") -> object:
    folder.mkdir(exist_ok=True)
    with ShardWriter(folder / "unit.tar") as writer:
        writer.write(key, members)
        return writer.finish()


def record_of(unit: int, revision: int, shard, **fields) -> Record:
    return Record(
        unit=unit,
        revision=revision,
        plan=0,
        teachers={},
        agreement={},
        videos=[],
        clips=[],
        rows=[],
        planned=1,
        **{**tar_of(unit, revision, shard), **fields},
    )


# --- the tar


def test_a_shard_comes_back_as_it_was_written(tmp_path):
    samples = {"a": {"mp4": b"1", "x.npz": b"22"}, "b": {"mp4": b"", "x.npz": b"4444"}}
    with ShardWriter(tmp_path / "a.tar") as writer:
        for key, members in samples.items():
            writer.write(key, members)
        shard = writer.finish()
    with (tmp_path / "a.tar").open("rb") as stream:
        assert dict(read_samples(stream, "a.tar")) == samples
    data = (tmp_path / "a.tar").read_bytes()
    assert len(data) == shard.size_bytes
    for key, offsets in shard.offsets.items():
        assert {
            suffix: data[start : start + size] for suffix, (start, size) in offsets.items()
        } == samples[key]


def test_the_same_members_give_the_same_bytes(tmp_path):
    first = shard_of(tmp_path / "1", {"b": b"2", "a": b"1"})
    time.sleep(1.1)  # a tar stores whole seconds
    second = shard_of(tmp_path / "2", {"b": b"2", "a": b"1"})
    assert first.sha256 == second.sha256


def test_a_shard_without_samples_is_no_file(tmp_path):
    with ShardWriter(tmp_path / "a.tar") as writer:
        assert writer.finish() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["a.b", "a/b"])
def test_a_key_that_webdataset_would_cut_is_refused(tmp_path, key):
    with (
        ShardWriter(tmp_path / "a.tar") as writer,
        pytest.raises(ShardError, match="WebDataset would cut it there"),
    ):
        writer.write(key, {"mp4": b""})


def odd_tar(*members: tarfile.TarInfo) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    buffer.seek(0)
    return buffer


def member(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    "odd",
    [
        member("../k.mp4"),
        member("/k.mp4"),
        member("a/k.mp4"),
        member("k.mp4", tarfile.SYMTYPE),
        member("k.mp4", tarfile.LNKTYPE),
        member("k", tarfile.DIRTYPE),
        member(".mp4"),
        member("k.mp4", tarfile.FIFOTYPE),
    ],
)
def test_a_member_that_no_shard_of_ours_has_is_refused(odd):
    with pytest.raises(ShardError, match=r"bad\.tar holds .*refused"):
        list(read_samples(odd_tar(odd), "bad.tar"))


@pytest.mark.parametrize("data", [b"not a tar at all" * 99, b"\x00" * 100, b""])
def test_what_is_no_tar_is_refused_by_name(data):
    with pytest.raises(ShardError, match=r"bad\.tar is not a whole tar"):
        list(read_samples(io.BytesIO(data), "bad.tar"))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_tar_of_a_data_set_is_never_taken_for_a_whole_one(dataset, tmp_path, share):
    copy = copied(dataset, tmp_path)
    record = latest(copy, 0)
    data = copy.read(record.tar)
    copy.replace(record.tar, data[: int(len(data) * share)])
    with pytest.raises(ShardError, match="Run `tapdistill verify"):
        relabel(copy, record, AgreementConfig(tau_px=3))
    assert revisions(copy)[0] == [0]


# --- records and races


def test_a_record_comes_back_as_it_was(dataset):
    storage = Storage(str(dataset.folder))
    for record in dataset.result.records:
        assert Record.from_bytes(record.to_bytes(), "x") == record
        assert storage.read(record.name) == record.to_bytes()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": 1}', '{"schema": 1, "videos": 3}']
)
def test_a_damaged_record_is_named(text):
    with pytest.raises(ShardError, match=r"000001\.r0\.json"):
        Record.from_bytes(text.encode(), "000001.r0.json")


def test_a_record_of_a_later_schema_is_refused_as_such(dataset):
    fields = {**json.loads(dataset.result.records[0].to_bytes()), "schema": 3}
    with pytest.raises(
        ShardError, match=r"has schema 3; this version of tapdistill reads schema 1 and 2"
    ):
        Record.from_bytes(json.dumps(fields).encode(), "000001.r0.json")


def test_the_highest_revision_counts(tmp_path):
    storage = Storage(str(tmp_path))
    for revision in range(11):
        assert commit(storage, record_of(3, revision, None), None)
    assert revisions(storage) == {3: list(range(11))}
    assert latest(storage, 3).revision == 10
    assert latest(storage, 4) is None
    assert [record.revision for record in latest_records(storage)] == [10]


def test_copies_of_records_are_used_only_while_their_files_are_the_ones_copied(tmp_path):
    storage = Storage(str(tmp_path))
    for unit in range(3):
        assert commit(storage, record_of(unit, 0, None), None)
    copy_records(storage, latest_records(storage))
    read = []
    storage.read = lambda name, original=storage.read: read.append(name) or original(name)

    assert [record.unit for record in latest_records(storage)] == [0, 1, 2]
    assert read == [COPIES]

    read.clear()
    assert commit(storage, record_of(1, 1, None), None)  # a later revision
    # the file, written anew
    storage.replace(
        record_name(2, 0), dataclasses.replace(record_of(2, 0, None), planned=7).to_bytes()
    )
    assert [(record.revision, record.planned) for record in latest_records(storage)] == [
        (0, 1),
        (1, 1),
        (0, 7),
    ]
    assert sorted(read) == [COPIES, record_name(1, 1), record_name(2, 0)]


def test_damaged_copies_of_records_are_as_good_as_none(tmp_path):
    storage = Storage(str(tmp_path))
    assert commit(storage, record_of(0, 0, None), None)
    storage.replace(COPIES, b"PAR1 or not")
    assert [record.unit for record in latest_records(storage)] == [0]


def test_of_eight_writers_with_equal_bytes_all_are_done(tmp_path):
    storage = Storage(str(tmp_path / "data"))
    shards = [shard_of(tmp_path / str(i), {"mp4": b"same"}) for i in range(8)]
    assert race(8, lambda i: commit(storage, record_of(0, 0, shards[i]), shards[i])) == [True] * 8
    assert storage.names("shards") == sorted(
        ["000000.r0.json", Path(shard_name(0, 0, shards[0].sha256)).name]
    )


def test_of_eight_writers_with_other_bytes_one_wins_and_the_others_leave_nothing(tmp_path):
    storage = Storage(str(tmp_path / "data"))
    shards = [shard_of(tmp_path / str(i), {"mp4": b"%d" % i}) for i in range(8)]
    won = race(8, lambda i: commit(storage, record_of(0, 0, shards[i]), shards[i]))
    assert sorted(won) == [False] * 7 + [True]
    winner = shards[won.index(True)]
    assert latest(storage, 0).sha256 == winner.sha256
    assert storage.names("shards") == sorted(
        ["000000.r0.json", Path(shard_name(0, 0, winner.sha256)).name]
    )


def test_a_unit_without_clips_has_a_record_and_no_tar(tmp_path):
    storage = Storage(str(tmp_path))
    assert commit(storage, record_of(0, 0, None), None)
    assert commit(storage, record_of(0, 0, None), None)  # another writer with the same nothing
    assert storage.names("shards") == ["000000.r0.json"]


# --- relabel


def copied(dataset, folder: Path) -> Storage:
    shutil.copytree(dataset.folder, folder, dirs_exist_ok=True)
    return Storage(str(folder))


def kept(storage: Storage) -> int:
    return sum(entry.kept for record in latest_records(storage) for entry in record.clips)


def test_another_tau_changes_what_is_kept_and_only_the_labels(dataset, tmp_path):
    """The teachers are a quarter of a pixel of 64 apart, which is one pixel of the 256 raster."""
    storage = copied(dataset, tmp_path)
    assert kept(storage) == 7 * 24
    run_relabel(RelabelConfig(data=str(tmp_path), agreement=AgreementConfig(tau_px=0.9)))
    assert kept(storage) == 0
    for record in latest_records(storage):
        assert record.revision == 1
        old, new = (
            dict(read_samples(storage.open(read_record(storage, record.unit, i).tar), ""))
            for i in (0, 1)
        )
        for key in old:
            assert {suffix for suffix in old[key] if old[key][suffix] != new[key][suffix]} == {
                "labels.npz"
            }
    assert list(verify(storage)) == []
    assert (pd.read_parquet(tmp_path / "clips.parquet")["kept"] == 0).all()
    run_relabel(RelabelConfig(data=str(tmp_path), agreement=AgreementConfig(tau_px=1.0)))
    assert kept(storage) == 7 * 24


def test_relabelling_back_gives_the_first_bytes(dataset, tmp_path):
    storage = copied(dataset, tmp_path)
    for tau_px in (0.9, 2.0):
        run_relabel(RelabelConfig(data=str(tmp_path), agreement=AgreementConfig(tau_px=tau_px)))
    assert {record.revision for record in latest_records(storage)} == {2}
    assert list(tars(tmp_path).values()) == list(tars(dataset.folder).values())


def test_the_same_settings_do_nothing(dataset, tmp_path, capsys):
    storage = copied(dataset, tmp_path)
    before = storage.names("shards")
    run_relabel(RelabelConfig(data=str(tmp_path)))
    assert storage.names("shards") == before
    assert "0 of 3 units have new labels" in capsys.readouterr().out


def test_prune_leaves_rejected_queries_out_of_every_member(dataset, tmp_path):
    storage = copied(dataset, tmp_path)
    settings = AgreementConfig(min_motion_px=1e-9)  # nothing moves: all are rejected ...
    run_relabel(RelabelConfig(data=str(tmp_path), agreement=settings, prune=True))
    for sample in open_dataset(str(tmp_path)):
        assert len(sample.queries) == len(sample.sampler) == 0
        assert sample.tracks["still"].xy.shape == (0, 16, 2)
        assert sample.labels.support.shape == (0, 16)
    assert all(
        entry.kept == entry.queries for record in latest_records(storage) for entry in record.clips
    )
    assert list(verify(storage)) == []
    before = storage.names("shards")
    run_relabel(RelabelConfig(data=str(tmp_path), agreement=settings, prune=True))
    assert storage.names("shards") == before


def test_prune_keeps_the_rows_that_are_kept(dataset, tmp_path, monkeypatch):
    storage = copied(dataset, tmp_path)
    before = {sample.key: sample for sample in open_dataset(str(tmp_path))}
    label = __import__("labeler.labels.agreement", fromlist=["label"]).label

    def every_third(*arguments):
        labels = label(*arguments)
        return dataclasses.replace(labels, keep=np.arange(len(labels.keep)) % 3 == 0)

    monkeypatch.setattr("labeler.labels.agreement.label", every_third)
    for record in latest_records(storage):
        assert relabel(storage, record, AgreementConfig(), prune=True)
    for sample in open_dataset(str(tmp_path)):
        old = before[sample.key]
        np.testing.assert_array_equal(sample.queries, old.queries[::3])
        np.testing.assert_array_equal(sample.sampler, old.sampler[::3])
        for name in old.tracks:
            np.testing.assert_array_equal(sample.tracks[name].xy, old.tracks[name].xy[::3])
        np.testing.assert_array_equal(sample.labels.support, old.labels.support[::3])
        assert sample.mp4 == old.mp4


# --- verify and gc


def problems(storage: Storage, quick: bool = False) -> dict[str, str]:
    return {
        finding.file.split("/")[-1]: finding.problem
        for finding in verify(storage, quick=quick)
        if not finding.harmless
    }


def harmless(storage: Storage) -> list[str]:
    return [finding.file.split("/")[-1] for finding in verify(storage) if finding.harmless]


def test_a_whole_data_set_has_no_finding(dataset):
    assert list(verify(Storage(str(dataset.folder)))) == []


@pytest.mark.parametrize("where", [0.01, 0.5, 0.999])
def test_one_flipped_byte_is_found(dataset, tmp_path, where):
    storage = copied(dataset, tmp_path)
    tar = latest(storage, 1).tar
    data = bytearray(storage.read(tar))
    data[int(len(data) * where)] ^= 1
    storage.replace(tar, bytes(data))
    assert "sha256" in problems(storage)[Path(tar).name]
    assert problems(storage, quick=True) == {}


def test_a_missing_tar_is_found_and_a_short_one(dataset, tmp_path):
    storage = copied(dataset, tmp_path)
    gone, short = latest(storage, 0).tar, latest(storage, 1).tar
    storage.remove(gone)
    storage.replace(short, storage.read(short)[:-512])
    for quick in (True, False):
        found = problems(storage, quick)
        assert found[Path(gone).name] == "is missing"
        assert "bytes, but its record says" in found[Path(short).name]


def test_a_truncated_record_is_found_and_the_others_are_still_looked_at(dataset, tmp_path):
    storage = copied(dataset, tmp_path)
    storage.replace(record_name(1, 0), storage.read(record_name(1, 0))[:100])
    storage.remove(latest(storage, 2).tar)
    found = problems(storage)
    assert "is not a commit record" in found["000001.r0.json"]
    assert len(found) >= 2


def test_a_record_that_lost_a_clip_does_not_close_the_accounts(dataset, tmp_path):
    storage = copied(dataset, tmp_path)
    record = latest(storage, 1)
    storage.replace(record.name, dataclasses.replace(record, clips=record.clips[1:]).to_bytes())
    assert any("accounts are wrong" in problem for problem in problems(storage).values())


def test_a_stray_tar_and_a_half_written_file_are_harmless_and_another_file_is_not(
    dataset, tmp_path
):
    storage = copied(dataset, tmp_path)
    for name in ("000001.r7.abcdefabcdef.tar", ".000001.r0.json@host-1-1.part", "notes.txt"):
        storage.create(f"shards/{name}", b"")
    assert sorted(harmless(storage)) == [
        ".000001.r0.json@host-1-1.part",
        "000001.r7.abcdefabcdef.tar",
    ]
    assert problems(storage) == {"notes.txt": "is neither a shard nor a record"}


def test_a_tar_with_the_right_hash_but_other_samples_than_its_record_names_is_found(
    dataset, tmp_path
):
    storage = copied(dataset, tmp_path)
    record, other = latest(storage, 0), latest(storage, 1)
    (tmp_path / record.tar).write_bytes(storage.read(other.tar))
    forged = dataclasses.replace(record, sha256=other.sha256, size_bytes=other.size_bytes)
    storage.replace(record.name, forged.to_bytes())
    assert "that its record does not name" in problems(storage)[Path(record.tar).name]


@pytest.mark.parametrize("command", [verify, collect_garbage])
def test_a_folder_that_is_no_data_set_is_refused(tmp_path, command):
    with pytest.raises(ShardError, match=r"is not a data set: it has no dataset\.json"):
        list(command(Storage(str(tmp_path))))


def test_where_there_is_no_data_set_the_error_says_what_there_is(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "out" / "labels").mkdir(parents=True)
    (tmp_path / "out" / "labels" / "dataset.json").touch()
    for name, says in (
        ("none", "is not a data set: there is no such folder"),
        ("file", "is not a data set: it is a file"),
        ("out", f"it has no dataset.json. {tmp_path}/out/labels is one."),
    ):
        with pytest.raises(ShardError, match=re.escape(says)):
            read_manifest(Storage(str(tmp_path / name)))


def test_gc_removes_old_revisions_and_old_strays_only(dataset, tmp_path):
    storage = copied(dataset, tmp_path)
    run_relabel(RelabelConfig(data=str(tmp_path), agreement=AgreementConfig(tau_px=3)))
    storage.create("shards/000001.r9.abcdefabcdef.tar", b"a writer at work")
    old = {name for name in storage.names("shards") if ".r0." in name and name.endswith(".tar")}
    assert len(old) == 3
    assert {Path(name).name for name in collect_garbage(storage, dry_run=True)} == old
    assert old <= set(storage.names("shards"))
    assert {Path(name).name for name in collect_garbage(storage)} == old
    assert "000001.r9.abcdefabcdef.tar" in storage.names("shards")
    assert {"000000.r0.json", "000000.r1.json"} <= set(storage.names("shards")), (
        "a revision's number is never free again"
    )
    assert collect_garbage(storage, older_than_s=-1) == ["shards/000001.r9.abcdefabcdef.tar"]
    assert list(verify(storage)) == []
    assert len(open_dataset(str(tmp_path)).clips) == 7


def test_gc_refuses_to_work_on_a_damaged_record(dataset, tmp_path):
    storage = copied(dataset, tmp_path)
    storage.replace(record_name(1, 0), b"{")
    before = storage.names("shards")
    with pytest.raises(ShardError, match=r"000001\.r0\.json is not a commit record"):
        collect_garbage(storage, older_than_s=-1)
    assert storage.names("shards") == before


def test_offsets_are_of_the_tar_that_tarfile_reads(dataset):
    for record in dataset.result.records:
        assert tar_offsets(dataset.folder / record.tar) == {
            entry.key: entry.offsets for entry in record.clips
        }


def test_a_sample_of_a_shard_is_the_sample_by_offset(dataset):
    opened = open_dataset(str(dataset.folder))
    for record in opened.records:
        with opened.storage.open(record.tar) as stream:
            for key, parts in read_samples(stream, record.tar):
                assert from_members(key, parts).mp4 == opened[key].mp4
