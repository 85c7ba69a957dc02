"""`tapdistill doctor` finds what is wrong, and nothing else."""

from __future__ import annotations

import fsspec

from benchmarks.harness.s3_server import proxy, s3_server
from pipelines import cli
from pipelines.commands import doctor
from pipelines.commands.doctor import Checkup, DoctorConfig, checks


def problems(config: DoctorConfig) -> list[Checkup]:
    return [found for found in checks(config) if found.state == "PROBLEM"]


def test_a_sound_installation_has_no_problem(tmp_path, capsys):
    url = str(tmp_path / "here")
    assert cli.run(["doctor", "--no-ray", "--storage", url]) == 0
    said = capsys.readouterr().out
    for about in ("Python", "torch", "decord", "PyAV", "tapir-mini", url):
        assert about in said
    assert said.rstrip().endswith("nothing is wrong.")
    assert not any((tmp_path / "here").iterdir())


def test_a_version_that_is_ruled_out_is_a_problem(monkeypatch):
    needs = ["numpy>=99", "no-such-package", "pandas ; extra == 'other'"]
    monkeypatch.setattr(doctor, "requires", lambda name: needs)
    texts = [found.text for found in problems(DoctorConfig(ray=False))]
    assert len(texts) == 2
    assert "numpy>=99 is needed" in " ".join(texts)
    assert "no-such-package is not installed" in " ".join(texts)


def test_a_folder_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TAPDISTILL_HOME", str(tmp_path / "file"))
    found = problems(DoctorConfig(ray=False))
    assert [found.about for found in found] == ["weights"]
    assert "TAPDISTILL_HOME" in found[0].text


def test_a_decoder_that_returns_other_frames_is_a_problem(monkeypatch):
    from labeler.video import decode

    read = decode.VideoReader.read
    monkeypatch.setattr(
        decode.VideoReader,
        "read",
        lambda self, indices, **size: 255 - read(self, list(indices), **size),
    )
    found = problems(DoctorConfig(ray=False))
    assert [found.about for found in found] == ["PyAV", "decord"]
    assert all("other frames" in found.text for found in found)


def test_a_bucket_is_written_and_read(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with s3_server() as port, proxy(port) as server:
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": server.url})
        fsspec.filesystem("s3").mkdir("doctor")
        assert problems(DoctorConfig(ray=False, storage="s3://doctor/labels")) == []
        assert fsspec.filesystem("s3").ls("s3://doctor", refresh=True) == []


def test_a_storage_that_is_not_there_is_a_problem_and_the_exit_code_says_so(capsys):
    assert cli.run(["doctor", "--no-ray", "--storage", "s4://bucket"]) == 1
    assert "PROBLEM  storage" in capsys.readouterr().out
