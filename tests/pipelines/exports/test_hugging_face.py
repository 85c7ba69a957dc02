"""The folder for Hugging Face, read by `datasets`, `mlcroissant`, and DuckDB themselves: with
metadata of mixed types, a teacher that failed on some clips, and the same video twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.harness.jobs import STILL, config, write_moving
from labeler import open_dataset
from pipelines import cli
from pipelines.exports.hugging_face import HubWriter
from pipelines.jobs.labelling import label

NEEDS_LONG_CLIPS = "tests.support.stub_teachers:NeedsLongClips"


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    """Clips of 16 and of 40 frames of two tables, in which "n" is a number and a text."""
    root = tmp_path_factory.mktemp("hf")
    for seed, frames in enumerate((16, 40, 16)):
        write_moving(root / f"{seed}.mp4", seed, frames)
    shutil.copy(root / "0.mp4", root / "copy.mp4")
    tables = {"numbers": {"0": 1, "1": 2}, "texts": {"2": "three", "copy": "four"}}
    for table, cells in tables.items():
        rows = [{"path": str(root / f"{name}.mp4"), "n": n} for name, n in cells.items()]
        pd.DataFrame(rows).to_parquet(root / f"{table}.parquet")
    job = config(root, root / "labels", (STILL, NEEDS_LONG_CLIPS), videos_per_unit=1)
    job = replace(job, videos=tuple(str(root / f"{table}.parquet") for table in tables))
    label(job)
    return root / "labels"


@pytest.fixture(scope="module")
def exported(labels, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("hub") / "my labels"
    assert cli.run(["export", str(labels), "--to", "hf", "--out", str(out)]) == 0
    return out


def read_by(script: str, folder: Path, tmp_path: Path) -> dict:
    """What a script prints as JSON; it runs in `folder`, without a network."""
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


READ = """
import json, os, numpy, datasets
clips = datasets.load_dataset({what}, split="train", streaming=True)
clips = clips.cast_column("mp4", datasets.Video(decode=False))
print(json.dumps({{
    clip["__key__"]: {{
        "columns": sorted(clip),
        "uri": clip["json"]["uri"],
        "details": clip["json"]["details"],
        "xy": numpy.asarray(clip["still.npz"]["xy"]).tolist(),
        "bytes": len(clip["mp4"]["bytes"]),
    }}
    for clip in clips
}}))
"""


@pytest.mark.parametrize(
    "what",
    [
        '"webdataset", data_files="data/*.tar"',
        pytest.param("os.getcwd()", marks=pytest.mark.slow),
    ],
)
def test_datasets_streams_every_clip(labels, exported, tmp_path, what):
    read = read_by(READ.format(what=what), exported, tmp_path)
    clips = {clip.key: clip for clip in open_dataset(str(labels))}
    assert read.keys() == clips.keys()
    assert len({tuple(one["columns"]) for one in read.values()}) == 1
    for key, one in read.items():
        assert json.loads(one["details"])["metadata"].keys() == {"n"}
        assert one["uri"] == json.loads(one["details"])["uri"]
        assert one["xy"] == clips[key].tracks["still"].xy.tolist()
        assert one["bytes"] == len(clips[key].mp4)


def test_the_croissant_is_valid_and_its_records_are_the_clips(labels, exported, tmp_path):
    script = """
import json, mlcroissant
described = mlcroissant.Dataset(jsonld="croissant.json")
assert not described.metadata.ctx.issues.errors, described.metadata.ctx.issues.errors
rows = list(described.records("clips"))
print(json.dumps([[row["clips/key"].decode(), int(row["clips/kept"])] for row in rows]))
"""
    rows = read_by(script, exported, tmp_path)
    table = open_dataset(str(labels)).clips.drop_duplicates("key")
    assert sorted(map(tuple, rows)) == sorted(zip(table["key"], table["kept"], strict=True))


def test_the_table_describes_the_clips_in_the_shards(labels, exported):
    """Of the clip that two units have, too: its videos have different names."""
    table = pd.read_parquet(exported / "clips.parquet").set_index("key")
    with tarfile.open(exported / "data/train-00000.tar") as tar:
        for key, row in table.iterrows():
            inside = json.loads(tar.extractfile(f"{key}.json").read())
            assert (row["uri"], row["frames"]) == (inside["uri"], inside["frames"])
    known = open_dataset(str(labels)).clips.set_index("key")
    once = known[~known.index.duplicated(keep=False)]
    columns = [name for name in table if name != "tar"]
    assert 0 < len(once) < len(table)
    pd.testing.assert_frame_equal(table.loc[once.index, columns], once[columns], check_dtype=False)


def test_duckdb_counts_the_clips_as_the_card_shows(exported, tmp_path):
    card = (exported / "README.md").read_text()
    query = card.split('duckdb -c "')[1].split('"')[0]
    script = f"""
import json, duckdb
print(json.dumps([[row[0], row[1]] for row in duckdb.sql({query!r}).fetchall()]))
"""
    counts = dict(read_by(script, exported, tmp_path))
    assert counts == pd.read_parquet(exported / "clips.parquet")["uri"].value_counts().to_dict()


def test_the_card_names_teachers_licences_and_counts(labels, exported):
    card = (exported / "README.md").read_text()
    table = pd.read_parquet(exported / "clips.parquet")
    assert f"{len(table)} clips of {table['uri'].nunique()} videos" in card
    for name in open_dataset(str(labels)).teachers:
        assert f"| `{name}` |" in card
    assert "The licence of the videos is not known" in card


def test_large_exports_are_several_shards(labels, tmp_path):
    dataset = open_dataset(str(labels))
    writer = HubWriter(tmp_path / "out", dataset, shard_bytes=1)
    for clip in dataset:
        writer.write(clip)
    writer.finish()
    table = pd.read_parquet(tmp_path / "out" / "clips.parquet")
    assert table["tar"].nunique() == len(table) == len(list((tmp_path / "out/data").iterdir()))


def test_an_export_replaces_only_its_own_files_and_only_when_asked(labels, exported, capsys):
    mine = [exported / "mine.txt", exported / "data/mine.bin"]
    for file in mine:
        file.write_text("keep")
    (exported / "data/train-00007.tar").write_text("of an earlier, larger export")
    command = ["export", str(labels), "--to", "hf", "--out", str(exported)]
    before = (exported / "data/train-00000.tar").read_bytes()
    assert cli.run(command) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert cli.run([*command, "--overwrite"]) == 0
    assert [file.read_text() for file in mine] == ["keep", "keep"]
    assert sorted(file.name for file in (exported / "data").iterdir()) == [
        "mine.bin",
        "train-00000.tar",
    ]
    assert (exported / "data/train-00000.tar").read_bytes() == before


@pytest.mark.parametrize("croissant", [None, b"{}", b'{"description": "photographs"}', b"\xff"])
def test_shards_that_no_export_wrote_stay(labels, tmp_path, capsys, croissant):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train-00007.tar").write_text("keep")
    if croissant is not None:
        (tmp_path / "croissant.json").write_bytes(croissant)
    command = ["export", str(labels), "--to", "hf", "--out", str(tmp_path), "--clips", "1"]
    assert cli.run(command) == 1
    assert "in it exists already" in capsys.readouterr().err
    assert cli.run([*command, "--overwrite"]) == 0
    assert (tmp_path / "data/train-00007.tar").read_text() == "keep"


def test_other_data_in_the_folder_are_no_export(labels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.bin").write_text("keep")
    assert cli.run(["export", str(labels), "--to", "hf", "--out", ".", "--clips", "1"]) == 0
    assert (tmp_path / "data/mine.bin").read_text() == "keep"
    assert (tmp_path / "data/train-00000.tar").exists()
