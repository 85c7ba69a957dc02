"""Data sets whose own files are damaged: every command says which, in one sentence, and none shows
a traceback."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from labeler.dataset.dataset import open_dataset
from labeler.io.storage import Storage
from labeler.shards.verify import verify
from pipelines.cli import run
from teachers import ShardError
from tests.support.slow import slow

COMMANDS = ("status", "verify", "gc", "relabel")
PLAN = "plan.0000.parquet"


@pytest.fixture
def spoiled(dataset, tmp_path) -> Path:
    """A copy of a good data set."""
    return Path(
        shutil.copytree(
            dataset.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("records.parquet")
        )
    )


def refusals(folder: Path, capsys) -> dict[str, str]:
    """What each command that refuses says; AssertionError if it takes more than a sentence."""
    said = {}
    for command in COMMANDS:
        if run([command, str(folder)]):
            said[command] = capsys.readouterr().err
            assert said[command].count("\n") == 1, said[command]
    return said


@pytest.mark.parametrize("data", [b"", b"garbage", b"PAR1" * 100])
def test_a_plan_that_is_none_is_named(spoiled, capsys, data):
    (spoiled / PLAN).write_bytes(data)
    said = refusals(spoiled, capsys)
    assert "status" in said
    assert "is not a plan" in said["status"]
    assert any("is not a plan" in finding.problem for finding in verify(Storage(str(spoiled))))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("uri", None),
        ("uri", 5),
        ("unit", "a"),
        ("unit", float("nan")),
        ("unit", -2),
        ("size", "x"),
        ("metadata", 0.5),
    ],
)
def test_a_plan_with_odd_columns_is_named(spoiled, capsys, column, value):
    table = pd.read_parquet(spoiled / PLAN)
    table[column] = value
    table.to_parquet(spoiled / PLAN)
    assert "is not a plan" in refusals(spoiled, capsys)["status"]
    table.drop(columns=[column]).to_parquet(spoiled / PLAN)
    assert "is not a plan" in refusals(spoiled, capsys)["status"]


def places(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """Every field of a record, and of the first of each of its lists."""
    if at:
        yield at
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:1])
        if isinstance(value, list)
        else ()
    )
    for name, one in inner:
        if name not in ("teachers", "fingerprint", "agreement"):
            yield from places(one, (*at, name))


@pytest.mark.parametrize(
    "value",
    [
        None,
        float("inf"),
        *slow("x", -1, [], {}),
    ],
)
def test_a_record_with_odd_fields_is_read_or_refused(spoiled, value):
    file = sorted(spoiled.glob("shards/*.json"))[0]
    record = json.loads(file.read_text())
    for place in places(record):
        changed = copy.deepcopy(record)
        inner = changed
        for name in place[:-1]:
            inner = inner[name]
        inner[place[-1]] = value
        file.write_text(json.dumps(changed))
        with contextlib.suppress(ShardError):
            dataset = open_dataset(str(spoiled))
            assert len(dataset.clips) == len(dataset)
            repr(dataset)
        list(verify(Storage(str(spoiled)), quick=True))


def test_a_record_under_another_name_is_refused(spoiled):
    first, second = sorted(spoiled.glob("shards/*.json"))[:2]
    second.write_bytes(first.read_bytes())
    with pytest.raises(ShardError, match=r"it says that it is shards/000000\.r0\.json"):
        open_dataset(str(spoiled))


def test_copies_of_records_that_are_none_are_as_good_as_none(spoiled):
    before = open_dataset(str(spoiled)).clips
    for table in (
        pd.DataFrame({"name": ["x"]}),
        pd.DataFrame({"name": [["x"]], "tag": [["y"]], "record": [5]}),
    ):
        table.to_parquet(spoiled / "records.parquet")
        pd.testing.assert_frame_equal(open_dataset(str(spoiled)).clips, before)


def test_a_manifest_larger_than_any_is_not_read(spoiled, capsys):
    os.truncate(spoiled / "dataset.json", 10 << 30)
    assert "at most 67,108,864 are allowed" in refusals(spoiled, capsys)["status"]


def test_a_manifest_that_is_a_folder_is_transient(spoiled, capsys):
    (spoiled / "dataset.json").unlink()
    (spoiled / "dataset.json").mkdir()
    assert set(refusals(spoiled, capsys)) == set(COMMANDS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("now", "x"),
        ("now", None),
        ("started", None),
        ("videos_done", "a"),
        ("clips_per_s", [1]),
        ("teachers_busy", "x"),
        ("reasons", 3),
    ],
)
def test_an_odd_heartbeat_is_left_out(spoiled, capsys, field, value):
    good = json.loads(next((spoiled / "jobs").iterdir()).read_text())
    (spoiled / "jobs" / "odd-1.json").write_text(json.dumps({**good, "host": "odd", field: value}))
    assert run(["status", str(spoiled)]) == 0
    assert "job odd" not in capsys.readouterr().out


def test_a_folder_whose_name_looks_like_markup_is_verified(dataset, tmp_path):
    folder = shutil.copytree(dataset.folder, tmp_path / "[" / "x]")
    assert run(["verify", str(folder)]) == 0
