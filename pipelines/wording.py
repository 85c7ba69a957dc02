"""Wording: how numbers, spans of time, and names from files are written in a sentence."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """ "1 unit", "3,000 units"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time span in words: "45 s", "12 min", "7.5 h", "3.2 days"."""
    if seconds <= 90:
        return f"{seconds:.0f} s"
    if seconds <= 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds <= 48 * 3600 else f"{seconds / 86400:.1f} days"


def data_size(size_bytes: float) -> str:
    """Bytes in words: "850 kB", "1.4 MB", "26 GB"."""
    for unit, least in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= 0.9995 * least:
            digits = ",.3g" if size_bytes < 999.5 * least else ",.0f"
            return f"{size_bytes / least:{digits}} {unit}"
    return f"{size_bytes / 1e3:.0f} kB"


def harmless(text: str) -> str:
    """`text`, with '?' in place of control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)
