"""Tars: all the members of an archive, with their offsets, or a refusal.

`tarfile` takes anything that it cannot read for the end of an archive, and the end mark for the end
of the file. Here, an archive that was cut short is refused, and concatenated archives (`cat a.tar
b.tar`) are all read.
"""

from __future__ import annotations

import tarfile
from typing import Any

from teachers import ConfigError

ZEROS_AT_ONCE = 1 << 20


def members(opened: Any, archive: str) -> dict[str, tarfile.TarInfo]:
    """The plain files of a tar by name; `offset_data` and `size` say where their bytes are.

    Raises:
        ConfigError: it is cut short or broken, two members have the same name, or it holds
            something that no tar of videos needs: links, devices, names that point outside it.
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
                            f"{archive} holds 2 members named {member.name!r}: nothing in it is "
                            "planned."
                        )
                    found[member.name] = member
                end = tar.offset
            _refuse_cut(opened, end)
            start = _behind_the_end(opened, end)
    except tarfile.TarError as error:
        raise ConfigError(
            f"{archive} is not a whole tar ({error}): nothing in it is planned."
        ) from error
    return found


def _refuse_odd_member(member: tarfile.TarInfo, archive: str) -> None:
    """Raise a ConfigError for members that no tar of videos needs, and that may be harmful when
    unpacked."""
    if not (member.isfile() or member.isdir()) or member.issparse():
        kind = (
            "a sparse file"
            if member.issparse()
            else "a link"
            if member.islnk() or member.issym()
            else "a device"
            if member.isdev()
            else "a member of an unknown kind"
        )
        raise ConfigError(
            f"{archive} holds {member.name!r}, {kind}: refused. Write a tar of plain files."
        )
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise ConfigError(
            f"{archive} holds {member.name!r}, a name that points outside it: refused. Write a tar "
            "of plain names."
        )


def _refuse_cut(opened: Any, end: int) -> None:
    """Raise a TarError if there is no end mark at `end`, where its members end: `tarfile` takes
    anything that it cannot read for the end."""
    opened.seek(end)
    if opened.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"its members end at byte {end:,}, without an end mark after them")


def _behind_the_end(opened: Any, end: int) -> int | None:
    """Where another archive begins after the mark at `end`; None if there are only zeros."""
    opened.seek(end)
    at = end
    while block := opened.read(ZEROS_AT_ONCE):
        rest = block.lstrip(b"\0")
        if rest:
            at += len(block) - len(rest)
            return at - (at - end) % tarfile.BLOCKSIZE
        at += len(block)
    return None
