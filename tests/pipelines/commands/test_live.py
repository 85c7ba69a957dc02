"""`tapdistill live`, the command: its flags, and what it needs."""

from __future__ import annotations

import importlib.util
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from pipelines import cli
from pipelines.commands.live import LiveCommand
from teachers import ConfigError


def test_it_prints_where_the_page_is_and_ends_with_ctrl_c():
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "pipelines.cli", "live", "--port", "0", "--teacher", "lk"],
        stdout=subprocess.PIPE,
        text=True,
        # a suite that a shell began in the background ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            address = re.match(
                r"open (http://127\.0\.0\.1:\d+/\?token=\S+)", process.stdout.readline()
            )[1]
            with urllib.request.urlopen(address) as page:
                assert "tapdistill" in page.read().decode()
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(address.partition("?")[0])
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60)[0].endswith("ended\n")
            assert process.returncode == 0
        finally:
            process.kill()


def test_a_port_that_is_taken_is_said(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.run(["live", "--teacher", "lk", "--port", port]) == 1
    assert f"--port {port}: is taken: take another" in capsys.readouterr().err


def test_without_aiohttp_it_says_what_to_install(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "aiohttp" else find(name)
    )
    assert cli.run(["live"]) == 1
    assert "pip install 'tapdistill[live]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"port": 70000}, "0 to 65535"),
        ({"host": "0.0.0.0"}, "name one address"),
        ({"host": "::"}, "name one address"),
        ({"host": "my-machine"}, "an address of this machine"),
        ({"short_side": 3}, "at least 16"),
    ],
)
def test_flags_that_cannot_be(values, why):
    with pytest.raises(ConfigError, match=why):
        LiveCommand(**values)


def test_it_listens_on_loopback_unless_it_is_told():
    assert LiveCommand().host == "127.0.0.1"
