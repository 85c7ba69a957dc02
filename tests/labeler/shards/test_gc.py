"""Garbage and other writers: gc removes only what no record names, whatever a copy or a clock says;
verify finds no fault with a data set that changes while it looks; relabel goes on past a shard that
is gone."""

from __future__ import annotations

import shutil
import time

import pytest

from labeler.io.storage import Storage
from labeler.labels.agreement import AgreementConfig
from labeler.shards.clock import storage_time
from labeler.shards.records import COPIES, latest, latest_records
from labeler.shards.verify import collect_garbage, verify
from pipelines.cli import run
from pipelines.commands.relabel import RelabelConfig
from pipelines.commands.relabel import run as run_relabel
from teachers import ShardError

HOUR_S = 3600.0


@pytest.fixture
def storage(dataset, tmp_path) -> Storage:
    """A copy of a good data set; its copies of records count."""
    # with the times of the files, which are a part of their tags
    return Storage(str(shutil.copytree(dataset.folder, tmp_path / "labels")))


def replace_in_copies(storage: Storage, old: str, new: str) -> None:
    """Change a text in the uncompressed columns of records.parquet."""
    data = storage.read(COPIES)
    assert data.count(old.encode()) == 1
    storage.replace(COPIES, data.replace(old.encode(), new.encode()))


def other_digit(name: str, at: int) -> str:
    """The name with another hexadecimal digit in that place."""
    return name[:at] + ("1" if name[at] == "0" else "0") + name[at + 1 :]


def test_gc_keeps_a_tar_that_only_a_damaged_copy_does_not_name(storage):
    tar = latest(storage, 1).tar
    replace_in_copies(storage, tar, other_digit(tar, len("shards/000001.r0.")))
    assert collect_garbage(storage, older_than_s=-1) == []
    assert latest(storage, 1).tar == tar
    assert storage.size(tar)


def test_verify_finds_a_copy_that_is_not_what_its_record_says(storage):
    tar = latest(storage, 1).tar
    replace_in_copies(storage, tar, other_digit(tar, len("shards/000001.r0.")))
    (found,) = verify(storage, quick=True)
    assert found.file == COPIES
    assert "shards/000001.r0.json" in found.problem
    assert not found.harmless


def test_a_copy_that_names_the_tar_of_another_unit_is_refused(storage):
    tar = latest(storage, 1).tar
    replace_in_copies(storage, tar, other_digit(tar, len("shards/00000")))
    with pytest.raises(ShardError, match=r"records\.parquet is damaged .* remove it"):
        latest_records(storage)


def test_a_clock_that_is_ahead_makes_no_tar_old(storage, monkeypatch):
    tar = "shards/000001.r9.abcdefabcdef.tar"
    storage.create(tar, b"a writer at work")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * HOUR_S)
    before = storage.names("shards")
    assert collect_garbage(storage) == []
    assert storage.names("shards") == before, "the file that told the time is gone"
    assert abs(storage_time(storage) - now) < HOUR_S
    assert collect_garbage(storage, older_than_s=-1) == [tar]


@pytest.mark.parametrize("quick", [True, False])
def test_verify_beside_relabel_and_gc_compares_the_newer_revision(storage, quick):
    size = storage.size

    def size_once_all_is_relabelled(name: str) -> int | None:
        if not name.endswith(".tar"):
            return size(name)
        storage.size = size
        run_relabel(RelabelConfig(data=storage.url, agreement=AgreementConfig(tau_px=3)))
        assert len(collect_garbage(storage)) == 3
        return size(name)

    seen = []
    storage.size = size_once_all_is_relabelled
    found = list(verify(storage, quick=quick, seen=lambda record: seen.append(record.revision)))
    assert found == []
    assert seen == [1, 1, 1]


def test_relabel_goes_on_past_a_shard_that_is_gone_and_names_it(storage, capsys):
    gone = latest(storage, 0).tar
    storage.remove(gone)
    assert run(["relabel", storage.url, "--agreement.tau-px", "0.9", "--no-judge"]) == 1
    said = capsys.readouterr()
    assert f"{gone} is missing" in said.out
    assert "2 of 3 units have new labels" in said.out
    assert "the shards of 1 unit are damaged or missing" in said.err
    assert latest_records(storage).table["revision"].tolist() == [0, 1, 1]
