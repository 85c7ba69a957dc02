"""S3: a real server process on loopback, and a proxy that fails requests: what is written is whole,
and nothing is lost."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest
from botocore.exceptions import EndpointConnectionError
from s3fs.core import S3File

from benchmarks.harness.jobs import config, write_moving
from benchmarks.harness.s3_server import Faults, proxy, s3_server
from labeler.dataset.dataset import open_dataset
from labeler.io import s3
from labeler.io.storage import Storage
from labeler.shards.verify import verify
from labeler.sources import list_sources
from labeler.video.container import VideoLimits
from labeler.video.decode import open_video
from labeler.video.fetch import local_file
from pipelines.cli import run
from pipelines.jobs.events import Note
from pipelines.jobs.labelling import label
from teachers import ConfigError, ShardError, TransientError, VideoError
from tests.labeler.sources.test_listing import write_tar
from tests.support.jobs import ROOT, contents

FLAKY = Faults(refuse=0.02, reset=0.02, lose=0.02, slow=0.02, seed=1)
SECRET = "not-to-be-shown"


@pytest.fixture(scope="module")
def server():
    """The port of an S3 server, with credentials in the environment as a user has them."""
    environment = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch, s3_server() as port:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield port


@pytest.fixture
def through(server, monkeypatch, tmp_path):
    """through(faults): a proxy that s3:// addresses go through, and an empty bucket behind it,
    named for the test."""
    opened = []

    def start(faults: Faults | None = None):
        context = proxy(server, faults)
        running = context.__enter__()
        opened.append(context)
        monkeypatch.setenv(s3.VARIABLE, "{}")
        monkeypatch.setitem(fsspec.config.conf, "s3", dict(fsspec.config.conf["s3"]))
        s3.use(endpoint=running.url)
        return running

    bucket = f"b{abs(hash(str(tmp_path))):x}"
    with proxy(server) as calm:
        fsspec.filesystem("s3", endpoint_url=calm.url).mkdir(bucket)
    start.bucket = f"s3://{bucket}"
    yield start
    fsspec.filesystem("s3").clear_instance_cache()
    for context in opened:
        context.__exit__(None, None, None)


def test_of_many_writers_of_one_name_one_wins(through):
    through()
    storage = Storage(f"{through.bucket}/data")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: storage.create("record.json", b"%d" % i), range(8)))
    assert sum(won) == 1
    assert storage.read("record.json") == b"%d" % won.index(True)


def test_a_file_is_visible_only_when_complete(through, tmp_path):
    through()
    storage = Storage(f"{through.bucket}/data")
    (tmp_path / "unit.tar").write_bytes(os.urandom(1 << 20))
    storage.publish(tmp_path / "unit.tar", "shards/unit.tar")
    assert storage.names("shards") == ["unit.tar"]
    assert (
        storage.read_range("shards/unit.tar", 1000, 24)
        == (tmp_path / "unit.tar").read_bytes()[1000:1024]
    )
    storage.remove("shards/unit.tar")
    storage.remove("shards/unit.tar")
    assert storage.names("shards") == []


@pytest.mark.slow
def test_a_failing_request_is_made_again(through):
    flaky = through(Faults(refuse=0.2, reset=0.1, slow=0.1, seed=3))
    storage = Storage(f"{through.bucket}/data")
    data = os.urandom(200_000)
    for i in range(12):
        storage.replace(f"{i}", data)
        assert storage.read(f"{i}") == data
    assert flaky.failed["refuse"]
    assert flaky.failed["reset"]


def test_a_storage_that_never_answers_is_transient_after_a_limited_number_of_requests(
    through,
):
    dead = through(Faults(refuse=1.0))
    settings = fsspec.config.conf["s3"]
    settings["config_kwargs"] = {"retries": {"mode": "standard", "total_max_attempts": 2}}
    with pytest.raises(TransientError, match=r"could not look at .*Nothing committed is lost"):
        Storage(f"{through.bucket}/data").size("record.json")
    assert sum(dead.requests.values()) <= 2 * 5


def test_an_error_says_what_helps(through, monkeypatch):
    """A bucket that is not there, credentials that are not there, a profile that is not there."""
    through()
    with pytest.raises(TransientError, match=r"could not write s3://no-such.*create the bucket"):
        Storage("s3://no-such-bucket/data").create("record.json", b"")
    with pytest.raises(ShardError, match=r"is not a data set: there is no such bucket"):
        open_dataset("s3://no-such-bucket/data")
    with pytest.raises(ShardError, match=r"is not a data set: there is no such folder"):
        open_dataset(f"{through.bucket}/none")
    s3.use(profile="nobody")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(TransientError, match=r"--s3-profile takes the name of a profile"):
        Storage(f"{through.bucket}/data").size("record.json")
    del fsspec.config.conf["s3"]["profile"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(TransientError, match=r"credentials come from AWS_ACCESS_KEY_ID and"):
        Storage(f"{through.bucket}/data").size("record.json")


def test_a_server_that_does_not_answer_is_named_by_the_flag_that_names_servers(monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "s3", {})
    error = EndpointConnectionError(endpoint_url="https://bucket.s3.amazonaws.com")
    assert "named by --s3-endpoint URL, or by AWS_ENDPOINT_URL_S3" in s3.advice(error)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert s3.advice(error).endswith("check --s3-endpoint")
    assert s3.advice(PermissionError("a local disk")) == ""


def test_what_is_not_used_in_a_bucket_is_named_as_the_user_would(through):
    through()
    storage, notes = Storage(f"{through.bucket}/videos"), list[str]()
    storage.replace("a.mp4", b"not yet looked at")
    storage.replace("notes.pdf", b"")
    list_sources((storage.url,), None, notes)
    assert notes == [
        "1 file is not used, because its ending is not that of a video, such as "
        f"'{storage.url}/notes.pdf'."
    ]


def mark(storage: Storage, folder: str) -> None:
    """What "Create folder" in the console of S3 writes: an object without bytes."""
    bucket, _, key = storage.path(f"{folder}/").partition("/")
    storage.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=b"")


def test_the_marker_of_a_folder_is_no_video(through):
    through()
    storage = Storage(f"{through.bucket}/videos")
    storage.replace("sub/a.mp4", b"not yet looked at")
    for folder in ("sub", "later"):
        mark(storage, folder)
    assert [file.name for file in storage.files("sub")] == ["a.mp4"]
    for given in (storage.url, f"{storage.url}/**", f"{storage.url}/*/*"):
        assert [source.uri for source in list_sources((given,))] == [f"{storage.url}/sub/a.mp4"]


def test_a_folder_of_pictures_with_a_marker_is_a_video(through):
    through()
    storage = Storage(f"{through.bucket}/videos")
    picture = cv2.imencode(".png", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    for name in ("walk/0.png", "walk/1.png"):
        storage.replace(name, picture)
    for folder in ("walk", "empty"):
        mark(storage, folder)
    (source,) = list_sources((storage.url,))
    assert source.uri == f"{storage.url}/walk/"
    with open_video(source.uri) as video:
        assert len(video) == 2
    with pytest.raises(VideoError, match="a folder without pictures"):
        open_video(f"{storage.url}/empty/")  # of a plan that was made before


@pytest.fixture
def fetched(monkeypatch) -> list[tuple[str, int]]:
    """(name of an object, bytes) of every part of one that is read."""
    seen: list[tuple[str, int]] = []
    fetch = S3File._fetch_range

    def watched(self, start, end):
        seen.append((self.path.rpartition("/")[2], end - start))
        return fetch(self, start, end)

    monkeypatch.setattr(S3File, "_fetch_range", watched)
    return seen


def test_of_a_tar_only_what_is_needed_is_read(through, tmp_path, fetched):
    through()
    storage = Storage(f"{through.bucket}/videos")
    large = {f"{i}.mp4": os.urandom(2 << 20) for i in range(3)}
    members = {"0.json": b'{"caption": "a dog"}', **large}
    storage.publish(write_tar(tmp_path / "in.tar", members), "in.tar")
    sources = list_sources((storage.url,))
    assert [source.uri for source in sources] == [f"{storage.url}/in.tar#{i}.mp4" for i in range(3)]
    assert sources[0].metadata == '{"caption": "a dog"}'
    assert sum(size for _, size in fetched) < 1 << 20
    fetched.clear()
    with contextlib.ExitStack() as stack:
        copy = local_file(sources[1].uri, VideoLimits(), stack, sources[1].span)
        assert copy.read_bytes() == large["1.mp4"]
    assert sum(size for _, size in fetched) == 2 << 20


def test_a_job_that_goes_on_opens_no_tar_and_no_metadata_that_did_not_change(
    through, tmp_path, fetched
):
    through()
    storage, out = Storage(f"{through.bucket}/videos"), tmp_path / "out"
    video = write_moving(tmp_path / "a.mp4", seed=1).read_bytes()
    storage.publish(write_tar(tmp_path / "in.tar", {"a.mp4": video}), "in.tar")
    storage.replace("b.mp4", write_moving(tmp_path / "b.mp4", seed=2).read_bytes())
    storage.replace("b.json", b'{"caption": "a dog"}')

    def notes() -> list[str]:
        events: list[object] = []
        label(config(storage.url, out), events.append)
        return [event.text for event in events if isinstance(event, Note)]

    notes()
    fetched.clear()
    assert notes() == []
    assert fetched == []
    members = {"a.mp4": video, "c.mp4": video}
    storage.publish(write_tar(tmp_path / "in.tar", members), "in.tar")
    (note,) = notes()
    assert "1 file came and 1 file changed" in note
    assert {name for name, _ in fetched} == {"in.tar"}


@pytest.fixture
def videos(tmp_path) -> Path:
    """A folder of four videos."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(4):
        write_moving(folder / f"{i}.mp4", seed=i)
    return folder


@pytest.mark.slow
def test_a_job_through_a_failing_proxy_gives_the_bytes_of_a_calm_one(through, tmp_path, videos):
    calm = label(config(videos, tmp_path / "calm"))

    flaky = through(FLAKY)
    url = f"{through.bucket}/labels"
    for video in videos.iterdir():
        Storage(f"{through.bucket}/videos").publish(video, video.name)
    result = label(config(f"{through.bucket}/videos", url))
    assert not result.open_units
    assert (result.accounts.done, result.accounts.labelled) == (
        calm.accounts.done,
        calm.accounts.labelled,
    )
    assert [finding for finding in verify(Storage(url)) if not finding.harmless] == []
    assert flaky.failed.total()

    keys = {sample.key for sample in open_dataset(url)}
    for key in keys:
        here, there = open_dataset(url)[key], open_dataset(str(tmp_path / "calm"))[key]
        assert here.mp4 == there.mp4
        assert all((here.tracks[name].xy == there.tracks[name].xy).all() for name in there.tracks)


@pytest.mark.slow
def test_two_writers_of_one_data_set_give_each_shard_once(through, tmp_path, videos):
    alone = tmp_path / "alone"
    label(config(videos, alone))

    through(FLAKY)
    url = f"{through.bucket}/labels"
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: label(config(videos, url)), range(2)))
    assert all(not result.open_units for result in results)
    assert contents(url) == contents(alone)
    assert [finding for finding in verify(Storage(url)) if not finding.harmless] == []


def test_a_missing_and_a_forbidden_video_are_the_videos_own_fault(through):
    through()
    with pytest.raises(VideoError, match="there is no such file"):
        open_video(f"{through.bucket}/gone.mp4")


def test_credentials_are_neither_stored_nor_shown(through, tmp_path, capsys):
    running = through()
    write_moving(tmp_path / "a.mp4", seed=0)
    url = f"{through.bucket}/labels"
    job = ["label", str(tmp_path / "a.mp4"), "--out", url]
    quick = ["--engine", "local", "--teachers", "lk"]
    assert run([*job, *quick, "--s3-endpoint", running.url]) == 0
    assert run([*job, "--s3-endpoint", f"http://user:{SECRET}@127.0.0.1"]) == 1
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    fs = fsspec.filesystem("s3")
    assert all(SECRET.encode() not in fs.cat_file(name) for name in fs.find(url))


@pytest.mark.parametrize(
    "flags", [["--s3-endpoint"], ["--s3-endpoint", "storage.example"], ["--s3-profile="]]
)
def test_flags_of_s3_that_cannot_be_are_refused(flags, capsys):
    assert run(["status", "s3://bucket/labels", *flags]) == 1
    assert "--s3-" in capsys.readouterr().err


def test_variables_for_other_machines_hold_no_credentials(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setitem(
        fsspec.config.conf,
        "s3",
        {"key": "me", "secret": SECRET, "endpoint_url": "http://127.0.0.1:9000"},
    )
    variables = s3.variables()
    assert variables["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert variables[s3.VARIABLE] == '{"endpoint_url": "http://127.0.0.1:9000"}'
    assert SECRET not in str(variables)


def test_endpoint_and_anonymous_access_reach_child_processes(monkeypatch):
    monkeypatch.setenv(s3.VARIABLE, "{}")
    monkeypatch.setitem(fsspec.config.conf, "s3", {})
    s3.use(endpoint="http://127.0.0.1:9000")
    s3.use(anon=True)
    there: dict = {}
    fsspec.config.set_conf_env(there)
    assert there["s3"] == {"endpoint_url": "http://127.0.0.1:9000", "anon": True}
    with pytest.raises(ConfigError, match="must not hold"):
        Storage("s3://user:password@bucket/labels")


def test_an_export_and_a_report_are_written_to_a_bucket(through, capsys):
    through()
    folder = str(ROOT / "tests" / "data" / "dataset_schema1")
    out = f"{through.bucket}/out"
    assert run(["export", folder, "--to", "parquet", "--clips", "1", "--out", f"{out}/t.pq"]) == 0
    assert run(["inspect", folder, "--clips", "1", "--out", f"{out}/report"]) == 0
    assert Storage(out).size("t.pq")
    assert Storage(out).read("report/index.html").startswith(b"<!")
    assert f"the report is {out}/report/index.html" in capsys.readouterr().out
    assert run(["export", folder, "--to", "hf", "--out", "s3://no-such-bucket/out"]) == 1
    assert "create the bucket" in capsys.readouterr().err
