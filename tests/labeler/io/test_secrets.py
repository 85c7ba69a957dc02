"""Addresses with a password or a signature are refused, wherever it stands in them, and shown
without it."""

from __future__ import annotations

import pytest

from benchmarks.harness.jobs import NEAR, STILL
from labeler.io.secrets import refuse_secrets, without_secrets
from pipelines.cli import run
from teachers import ConfigError

WITH_SECRETS = [
    "s3://key:topsecret@bucket/a.mp4",
    "s3://KEY:top/topsecret@bucket/a.mp4",
    "https://user:p?topsecret@host/a.mp4",
    "https://user:p#topsecret@host/a.mp4",
    "https://user:p@topsecret@host/a.mp4",
    "https://topsecret@host:8080/a.mp4",
    "simplecache::https://user:topsecret@host/a.mp4",
    "zip://a.mp4::https://user:topsecret@host/a.zip",
    "https://host/a.mp4?X-Amz-Signature=topsecret",
    "https://host/a.mp4?n=1&X-Amz-Security-Token=topsecret",
    "https://host/a.mp4?sig=topsecret&se=2030",
    "HTTPS://host/a.mp4?TOKEN=topsecret",
    "https://host/a.mp4?%74oken=topsecret",
    "https://host/a.mp4?a=1;password=topsecret",
    "https://host/a.mp4?api_key=topsecret",
    "https://host/a.mp4#access_token=topsecret",
    "https://host/a.mp4?client_secret=topsecret",
]
WITHOUT = [
    "/videos/a@b/c.mp4",
    "/videos/user:name@x/c.mp4?token=no-address",
    "s3://bucket/a@b.mp4",
    "videos",
    "memory://x/y",
    "http://localhost:8080/a@b.mp4",
    "http://[::1]:9000/a@b.mp4",
    "http://[2001:db8::1]:80/a@b.mp4",
    "https://host/a.mp4?author=b&design=c&keyword=d&version=2#t=10",
    "zip://a.mp4::https://host/b@c.zip",
    "file:///C:/a@b.mp4",
    "file://C:/a@b.mp4",
]


@pytest.mark.parametrize("address", WITH_SECRETS)
def test_an_address_that_holds_a_secret_is_refused_and_not_repeated(address):
    assert "topsecret" not in without_secrets(address)
    assert "topsecret" not in without_secrets(f'could not open "{address}", it says')
    with pytest.raises(ConfigError) as caught:
        refuse_secrets(address)
    assert "topsecret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"list\.txt, entry 7: ") as caught:
        refuse_secrets(address, "list.txt, entry 7")
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize("address", WITHOUT)
def test_an_address_without_one_is_as_it_was(address):
    refuse_secrets(address)
    assert without_secrets(address) == address
    assert without_secrets(f"see {address} there") == f"see {address} there"


@pytest.mark.parametrize(
    "flags",
    [
        ("--checkpoint", f"{NEAR}=https://user:topsecret@host/a.pt"),
        ("--ray-address", "ray://user:topsecret@host:10001"),
        ("--out", "memory://set?token=topsecret"),
    ],
)
def test_no_flag_of_a_job_repeats_a_secret(tmp_path, flags, capsys):
    assert (
        run(
            [
                "label",
                str(tmp_path),
                "--out",
                str(tmp_path / "out"),
                "--teachers",
                STILL,
                NEAR,
                *flags,
            ]
        )
        == 1
    )
    shown = capsys.readouterr()
    assert "topsecret" not in shown.out + shown.err
    assert "***" in shown.err


@pytest.mark.parametrize("command", ["status", "verify", "gc", "relabel"])
def test_no_command_repeats_the_secret_of_its_data_set(command, capsys):
    for url in ("s3://key:top/topsecret@bucket/set", "https://host/set?token=topsecret"):
        assert run([command, url]) == 1
        shown = capsys.readouterr()
        assert "topsecret" not in shown.out + shown.err
        assert shown.err.count("\n") == 1
