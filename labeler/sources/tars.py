"""Tars: the members of an archive by their places, every one that it holds, or a refusal.

`tarfile` takes what it cannot read for the end of an archive, and the mark of the end for the end
of the file: an archive that was cut is refused here, and one that was joined (`cat a.tar b.tar`) is
read to its last part.
"""

from __future__ import annotations

import tarfile
from typing import Any

from teachers import ConfigError

ZEROS_AT_ONCE = 1 << 20


def members(opened: Any, archive: str) -> dict[str, tarfile.TarInfo]:
    """The plain files of a tar by name; `offset_data` and `size` say where their bytes are.

    Raises:
        ConfigError: it is cut or broken, two members have one name, or it holds what no tar of
            videos needs: links, devices, names that point out of it.
    """
    found: dict[str, tarfile.TarInfo] = {}
    start: int | None = 0
    try:
        while start is not None:
            opened.seek(start)
            with tarfile.open(fileobj=opened, mode="r:") as tar:
                for member in tar:
                    _refuse_odd_member(member, archive)
                    if not member.isfile():
                        continue
                    if member.name in found:
                        raise ConfigError(
                            f"{archive} holds 2 members named {member.name!r}: nothing of it is "
                            "planned."
                        )
                    found[member.name] = member
                end = tar.offset
            _refuse_cut(opened, end)
            start = _behind_the_end(opened, end)
    except tarfile.TarError as error:
        raise ConfigError(
            f"{archive} is not a whole tar ({error}): nothing of it is planned."
        ) from error
    return found


def _refuse_odd_member(member: tarfile.TarInfo, archive: str) -> None:
    """ConfigError for what no tar of videos needs, and who unpacks one may be led astray by."""
    if not (member.isfile() or member.isdir()) or member.issparse():
        kind = (
            "a sparse file"
            if member.issparse()
            else "a link"
            if member.islnk() or member.issym()
            else "a device"
        )
        raise ConfigError(
            f"{archive} holds {member.name!r}, {kind}: refused. Write a tar of plain files."
        )
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise ConfigError(
            f"{archive} holds {member.name!r}, a name that points out of it: refused. Write a tar "
            "of plain names."
        )


def _refuse_cut(opened: Any, end: int) -> None:
    """TarError if no mark of its end stands at `end`, where its members do: `tarfile` takes what it
    can't read for the end."""
    opened.seek(end)
    if opened.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"its members end at byte {end:,}, and no mark of the end is there")


def _behind_the_end(opened: Any, end: int) -> int | None:
    """Where another archive begins behind the mark at `end`; None if only zeros are there."""
    opened.seek(end)
    place = end
    while block := opened.read(ZEROS_AT_ONCE):
        rest = block.lstrip(b"\0")
        if rest:
            place += len(block) - len(rest)
            return place - (place - end) % tarfile.BLOCKSIZE
        place += len(block)
    return None
