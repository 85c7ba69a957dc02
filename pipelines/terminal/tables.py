"""Tables that end a command."""

from __future__ import annotations

from rich.table import Table

from labeler.reasons import LEFT_OUT
from labeler.shards.tables import Accounts


def accounts_table(accounts: Accounts) -> Table:
    """What went in and what became of it, then the reasons."""
    table = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
    for name in ("", "in", "labelled", "left out", "failed", "open"):
        table.add_column(name, justify="left" if not name else "right")
    a = accounts
    table.add_row(
        "videos", *map(str, (a.videos, a.done, a.videos_left_out, a.videos_failed, a.open))
    )
    table.add_row("clips", *map(str, (a.clips, a.labelled, a.clips_left_out, a.clips_failed, "-")))
    for (what, reason), count in sorted(a.reasons.items()):
        left_out = reason in LEFT_OUT
        table.add_row(
            f"  {what}: {reason}",
            "",
            "",
            str(count) if left_out else "",
            "" if left_out else str(count),
            "",
            style="dim",
        )
    return table
