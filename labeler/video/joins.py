"""Joins: which packets that libav calls incomplete may be whole.

Where another recording was joined to one, as in `cat a.ts b.ts` or in the parts of an HLS stream
that were put into one file, libav sees a gap and calls one of the last packets before it
incomplete. So it does where bytes were lost, and only decoding tells these apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av

AHEAD = 2
"""How many packets before the end of a recording libav may call one incomplete if another recording
follows."""


@dataclass(frozen=True)
class Join:
    """A key frame, and the packets shortly before it that libav calls incomplete."""

    key_pts: int
    pts: list[int | None]
    """pts of these packets."""
    damage: str
    """What they are if they are incomplete."""


class Incomplete:
    """Goes through the packets of a stream in the order of the file."""

    def __init__(self) -> None:
        self.joins: list[Join] = []
        self._damage = self._last = ""
        self._pending: list[int | None] = []
        """pts of the last packets that are incomplete, if a key frame may follow."""
        self._since = 0
        """How many packets followed the last one of these."""

    def has(self, packet: av.Packet[Any], number: int) -> bool:
        """Whether libav calls this packet, the next one, which has that number, incomplete."""
        if self._pending and packet.is_keyframe and packet.pts is not None:
            self.joins.append(Join(packet.pts, self._pending, self._last))
            self._pending = []
        elif self._since >= AHEAD:
            self._damage = self.damage()
            self._pending = []
        self._since += 1
        if not packet.is_corrupt:
            return False
        self._last = self._last if self._pending else f"packet {number} is incomplete"
        self._pending.append(packet.pts)
        self._since = 0
        return True

    def damage(self) -> str:
        """The first packet that is incomplete, and not before a join; "" if there is none."""
        return self._damage or (self._last if self._pending else "")
