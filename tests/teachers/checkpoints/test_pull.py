"""Pulling a checkpoint: over a network that fails, from a file, and what the cache holds
afterwards."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import teachers
from pipelines import cli
from teachers import CheckpointError, ConfigError, TransientError, registry
from teachers.checkpoints.cache import cached_checkpoint, weights_folder
from teachers.checkpoints.download import RetryPolicy, download
from teachers.checkpoints.pull import pull
from teachers.pips.pips import Pips, PipsConfig
from tests.support.web_server import Fault, Site, serving

HURRY = RetryPolicy(attempts=3, pause_s=0.0, timeout_s=0.5)
BODY = bytes(range(256)) * 64
"""16 KiB in which every place is known by its neighbours."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache, empty, and no proxy on the way to the server."""
    monkeypatch.setenv("TAPDISTILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "home" / "weights"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(BODY)) as served:
        yield served


@pytest.fixture(scope="module")
def weights() -> bytes:
    """A checkpoint of `pips`, preset mini."""
    file = io.BytesIO()
    torch.save({"model_state_dict": Pips(PipsConfig.mini()).state_dict()}, file)
    return file.getvalue()


def publish(monkeypatch: pytest.MonkeyPatch, **fields: object) -> None:
    """Make the table say something else of the file of `pips`."""
    table = [
        replace(entry, file=replace(entry.file, **fields))
        if entry.name == "pips" and entry.file
        else entry  # type: ignore[arg-type]
        for entry in registry.TABLE
    ]
    monkeypatch.setattr(registry, "TABLE", tuple(table))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- over the network


@pytest.mark.parametrize("etag", ['"one"', None])
@pytest.mark.parametrize("announces_length", [True, False])
def test_a_whole_file_arrives_and_nothing_else_is_left(site, tmp_path, etag, announces_length):
    site.etag, site.announces_length = etag, announces_length
    seen: list[tuple[int, int | None]] = []
    download(site.url, tmp_path / "file", lambda done, total: seen.append((done, total)), HURRY)
    assert (tmp_path / "file").read_bytes() == BODY
    assert names(tmp_path) == ["file"]
    assert seen[-1] == (len(BODY), len(BODY) if announces_length else None)


def test_a_cut_download_goes_on_where_it_stopped(site, tmp_path):
    site.faults = [Fault(cut_after=5000), Fault(cut_after=3000)]
    download(site.url, tmp_path / "file", retries=HURRY)
    assert (tmp_path / "file").read_bytes() == BODY
    assert site.asked == [None, "bytes=5000-", "bytes=8000-"]


def test_a_later_process_goes_on_where_an_earlier_one_gave_up(site, tmp_path):
    site.faults = [Fault(cut_after=5000), *[Fault(status=503)] * 3]
    with pytest.raises(
        TransientError,
        match=r"503 Service Unavailable, 3 times in a row\. 5000 bytes are kept: the same command",
    ):
        download(site.url, tmp_path / "file", retries=HURRY)
    assert not (tmp_path / "file").exists()
    download(site.url, tmp_path / "file", retries=HURRY)
    assert (tmp_path / "file").read_bytes() == BODY
    assert site.asked[-1] == "bytes=5000-"


def test_a_file_that_changed_in_between_starts_anew(site, tmp_path):
    site.faults = [Fault(cut_after=5000), *[Fault(status=503)] * 3]
    with pytest.raises(TransientError):
        download(site.url, tmp_path / "file", retries=HURRY)
    site.body, site.etag = BODY[::-1], '"two"'
    download(site.url, tmp_path / "file", retries=HURRY)
    assert (tmp_path / "file").read_bytes() == BODY[::-1]


def test_parts_of_two_versions_are_never_joined_even_where_the_server_would(site, tmp_path):
    site.faults = [Fault(cut_after=5000), *[Fault(status=503)] * 3]
    with pytest.raises(TransientError):
        download(site.url, tmp_path / "file", retries=HURRY)
    site.body, site.etag, site.obeys_if_range = BODY[::-1], '"two"', False
    download(site.url, tmp_path / "file", retries=HURRY)
    assert (tmp_path / "file").read_bytes() == BODY[::-1]


@pytest.mark.parametrize(
    "change", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}], ids=str
)
def test_a_server_that_cannot_go_on_sends_the_whole_again(site, tmp_path, change):
    for name, value in change.items():
        setattr(site, name, value)
    site.faults = [Fault(cut_after=5000)]
    download(site.url, tmp_path / "file", retries=HURRY)
    assert (tmp_path / "file").read_bytes() == BODY


def test_what_came_from_another_address_is_not_gone_on_with(site, tmp_path):
    site.faults = [Fault(cut_after=5000), *[Fault(status=503)] * 3]
    with pytest.raises(TransientError):
        download(site.url + "?mirror", tmp_path / "file", retries=HURRY)
    download(site.url, tmp_path / "file", retries=HURRY)
    assert (tmp_path / "file").read_bytes() == BODY
    assert site.asked[-1] is None


def test_a_download_that_was_killed_when_all_bytes_were_there_ends_well(site, tmp_path):
    (tmp_path / "file.part").write_bytes(BODY)
    (tmp_path / "file.part.json").write_text(json.dumps({"url": site.url, "version": site.etag}))
    download(site.url, tmp_path / "file", retries=HURRY)
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_server_that_always_cuts_is_given_up(site, tmp_path):
    site.faults, site.ranges = [Fault(cut_after=5000)] * 9, False
    with pytest.raises(
        TransientError, match=r"the connection ended after 5000 of 16384 bytes, 3 times in a row"
    ):
        download(site.url, tmp_path / "file", retries=HURRY)


def test_a_server_that_hangs_is_given_up(site, tmp_path):
    site.faults = [Fault(hang_s=0.5)] * 2
    with pytest.raises(TransientError, match=r"no byte came for 0\.1 s, 2 times in a row"):
        download(
            site.url, tmp_path / "file", retries=RetryPolicy(attempts=2, pause_s=0.0, timeout_s=0.1)
        )


def test_a_busy_server_is_asked_again(site, tmp_path):
    site.faults = [Fault(status=503), Fault(status=429)]
    download(site.url, tmp_path / "file", retries=HURRY)
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "Not Found"), (403, "Forbidden"), (401, "Unauthorized"), (410, "Gone")],
)
def test_a_file_that_is_not_there_or_not_for_us_is_asked_for_once(site, tmp_path, status, reason):
    site.faults = [Fault(status=status)] * 2
    with pytest.raises(
        CheckpointError,
        match=(
            rf"weights\.pth: the server answers {status} {reason}: the file is not there, or not "
            r"for us"
        ),
    ):
        download(site.url + "?signature=secret", tmp_path / "file", retries=HURRY)
    assert len(site.asked) == 1


def test_two_processes_do_not_write_one_file(site, tmp_path):
    with (
        FileLock(tmp_path / "file.part.lock"),
        pytest.raises(TransientError, match=r"file\.part: another process downloads it already"),
    ):
        download(site.url, tmp_path / "file", retries=HURRY)
    download(site.url, tmp_path / "file", retries=HURRY)
    assert names(tmp_path) == ["file"]


# --- into the cache


def test_a_pulled_checkpoint_is_checked_and_found(site, cache, weights):
    site.body = weights
    pulled = pull("pips", url=site.url, retries=HURRY)
    assert pulled.path == cache / "pips.pth" == cached_checkpoint("pips")
    assert pulled.path.read_bytes() == weights
    assert pulled.checked.sha256 == hashlib.sha256(weights).hexdigest()
    assert pulled.checked.preset == "mini"
    assert names(cache) == ["pips.json", "pips.pth"]
    receipt = json.loads((cache / "pips.json").read_text())
    assert (receipt["source"], receipt["sha256"]) == (site.url, pulled.checked.sha256)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b"<!DOCTYPE html><html>please log in</html>",
            r"weights\.pth: not a checkpoint .*: it is a web page",
        ),
        (b"", r"weights\.pth: not a checkpoint .*: it is empty"),
        (BODY, r"weights\.pth: not a checkpoint "),
    ],
    ids=["web page", "empty", "noise"],
)
def test_what_is_no_checkpoint_does_not_replace_one(site, cache, weights, tmp_path, body, message):
    (tmp_path / "good.pth").write_bytes(weights)
    pull("pips", from_file=tmp_path / "good.pth")
    site.body = body
    with pytest.raises(CheckpointError, match=message):
        pull("pips", url=site.url, retries=HURRY)
    assert (cache / "pips.pth").read_bytes() == weights
    assert names(cache) == ["pips.json", "pips.pth"]


def test_the_published_size_and_hash_are_held_to(site, cache, weights, monkeypatch):
    site.body = weights
    publish(monkeypatch, url=site.url, size=len(weights), sha256="0" * 64)
    with pytest.raises(
        CheckpointError,
        match=rf"{site.url}: its sha256 is \w+, but that of the published file is 0000",
    ):
        pull("pips", retries=HURRY)
    publish(monkeypatch, size=7)
    with pytest.raises(
        CheckpointError, match=rf"has {len(weights)} bytes, but the published file has 7"
    ):
        pull("pips", retries=HURRY)
    assert cached_checkpoint("pips") is None
    publish(monkeypatch, size=len(weights), sha256=hashlib.sha256(weights).hexdigest())
    assert pull("pips", retries=HURRY).hash_known == "as published"


def test_what_is_there_already_is_not_pulled_again_unless_it_is_broken(
    site, cache, weights, monkeypatch
):
    site.body = weights
    publish(monkeypatch, url=site.url)
    pull("pips", retries=HURRY)
    assert pull("pips", retries=HURRY).source is None
    assert len(site.asked) == 1
    (cache / "pips.pth").write_bytes(weights[:1000])
    pull("pips", retries=HURRY)
    assert (cache / "pips.pth").read_bytes() == weights


def test_without_a_network_it_says_which_file_to_put_where(cache, monkeypatch):
    publish(monkeypatch, url="http://127.0.0.1:9/reference_model.pth")
    with pytest.raises(
        TransientError,
        match=(
            r"cannot be reached \(.*refused\).* By hand: get reference_model\.pth from "
            r"http://127\.0\.0\.1:9/reference_model\.pth on any machine, then `tapdistill teachers "
            rf"pull pips --from FILE` here, or put it at {cache}/pips\.pth"
        ),
    ):
        pull("pips", retries=HURRY)


def test_a_file_without_a_known_address_is_got_by_hand(cache):
    with pytest.raises(
        CheckpointError,
        match=r"'pips2': no direct address of its file is known\. By hand: .*aharley/pips2",
    ):
        pull("pips2")


def test_a_file_got_by_hand_replaces_one_of_another_format(cache, weights, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "a.pth").write_bytes(weights)
    save_file(Pips(PipsConfig.mini()).state_dict(), tmp_path / "b.bin")
    pull("pips", from_file=tmp_path / "a.pth")
    assert pull("pips", from_file=tmp_path / "b.bin").path == cache / "pips.safetensors"
    assert names(cache) == ["pips.json", "pips.safetensors"]
    assert (tmp_path / "b.bin").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "lk"}, ConfigError, r"'lk': there is nothing to pull \(none needed\)"),
        ({"name": "nobody"}, ConfigError, r"no teacher 'nobody': there are lk, "),
        (
            {"name": "pips", "url": "ftp://x/y.pth"},
            ConfigError,
            r"ftp://x/y\.pth: not a web address",
        ),
        (
            {"name": "pips", "from_file": "nowhere.pth"},
            CheckpointError,
            r"nowhere\.pth: no such checkpoint file",
        ),
    ],
)
def test_what_cannot_be_pulled_is_said(arguments, error, message):
    with pytest.raises(error, match=message):
        pull(**arguments)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, weights):
    (tmp_path / "a.pth").write_bytes(weights)
    (tmp_path / "in-the-way").write_bytes(b"")
    monkeypatch.setenv("TAPDISTILL_HOME", str(tmp_path / "in-the-way"))
    with pytest.raises(
        TransientError, match=r"in-the-way/weights: cannot be written: Not a directory"
    ):
        pull("pips", from_file=tmp_path / "a.pth")


# --- where it is, and who finds it


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    assert weights_folder() == tmp_path / "home" / "weights"
    monkeypatch.delenv("TAPDISTILL_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert weights_folder() == Path("/somewhere/tapdistill/weights")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights_folder() == Path.home() / ".cache/tapdistill/weights"


@pytest.mark.parametrize("name", [entry.name for entry in registry.TABLE if entry.file])
def test_a_teacher_without_weights_says_how_to_pull_them_and_where_they_go(name, cache):
    with pytest.raises(
        CheckpointError,
        match=(
            rf"'{name}' has no weights: .*`tapdistill teachers pull {name}`, or put it at "
            rf"{cache}/{name}\."
        ),
    ):
        teachers.load(name, device="cpu")


def test_a_teacher_takes_the_pulled_checkpoint(cache):
    cache.mkdir(parents=True)
    torch.save(Pips(PipsConfig()).state_dict(), cache / "pips.pth")
    teacher = teachers.load("pips", device="cpu")
    assert (
        teacher.info.checkpoint_sha256
        == hashlib.sha256((cache / "pips.pth").read_bytes()).hexdigest()
    )


def test_pulled_weights_are_not_given_to_another_preset_or_a_class_of_that_name(cache):
    cache.mkdir(parents=True)
    for name in ("pips", "still"):
        (cache / f"{name}.pth").write_bytes(b"must not be opened")
    with pytest.raises(CheckpointError, match="'pips' has no weights"):
        teachers.load("pips", device="cpu", preset="mini")
    assert teachers.load("benchmarks.harness.teachers:Still").info.checkpoint_sha256 is None


# --- the command


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli.run(["teachers", *arguments])
    out, err = capsys.readouterr()
    return code, out + err


def test_the_command_pulls_and_then_lists_it_as_here(site, cache, weights, capsys):
    site.body = weights
    code, text = said(capsys, "pull", "pips", "--url", site.url)
    assert code == 0
    assert f"{cache}/pips.pth" in text
    assert "preset mini" in text
    assert f"take it with `--checkpoint {cache}/pips.pth --setting preset=mini`" in text
    assert f"sha256 {hashlib.sha256(weights).hexdigest()} (none is published: not checked)" in text
    code, text = said(capsys, "list", "--json")
    rows = {row["name"]: row for row in json.loads(text)}
    assert rows["pips"]["cached"] == f"{cache}/pips.pth"
    assert rows["tapir"]["cached"] is None
    assert (
        rows["tapir"]["file"]["url"]
        == "https://storage.googleapis.com/dm-tapnet/tapir_checkpoint_panning.pt"
    )


def test_the_command_checks_a_file_and_its_exit_code_says_the_result(weights, tmp_path, capsys):
    (tmp_path / "a.pth").write_bytes(weights)
    code, text = said(capsys, "check", "pips", str(tmp_path / "a.pth"))
    assert code == 0
    assert f"sha256 {hashlib.sha256(weights).hexdigest()}" in text
    code, text = said(capsys, "check", "tapir", str(tmp_path / "a.pth"))
    assert code == 1
    assert text.startswith(f"tapdistill: {tmp_path}/a.pth: not a checkpoint of 'tapir'")
    assert "It looks like a file of 'pips' (preset 'mini')" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull",), "write `tapdistill teachers pull NAME`"),
        (("check", "pips"), "write `tapdistill teachers check NAME FILE`"),
        (("list", "pips"), "write `tapdistill teachers list`"),
        (
            ("list", "--url", "https://x"),
            "--from and --url belong to `tapdistill teachers pull NAME`",
        ),
        (("pull", "pips", "--url", "https://x", "--from", "y"), "--from or --url, not both"),
        (("pull", "pips", "--json"), "--json belongs to `tapdistill teachers list`"),
        (("check", "lk", "a.pth"), "'lk' has no weights that can be checked"),
    ],
)
def test_the_command_says_what_it_needs(capsys, arguments, message):
    code, text = said(capsys, *arguments)
    assert code == 1
    assert message in text
