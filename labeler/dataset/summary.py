"""The summary of a data set, as text and as HTML for a notebook: what went in, what was kept, by
which teachers, under which licences."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from labeler.shards.tables import Accounts
from teachers.licences import licence_note


def summary_rows(
    table: pd.DataFrame,
    accounts: Accounts,
    units: int,
    teachers: Mapping[str, Mapping[str, Any]],
) -> dict[str, str]:
    """What there is to say, by name; `table` is that of the records (see
    `labeler.shards.records.digest_of`), `units` are those planned."""
    clips, queries, kept, frames, size = (
        int(table[name].sum()) for name in ("clips", "queries", "kept", "frames", "size_bytes")
    )
    agreements = map(json.loads, table["agreement"].unique())
    a = accounts
    rows = {
        "clips": (
            f"{clips:,} with {frames:,} frames, {size / 1e6:,.1f} MB; {len(table):,} of "
            f"{units:,} units are written"
        ),
        "videos": (
            f"{a.videos:,} planned: {a.done:,} done, {a.videos_left_out:,} left out, "
            f"{a.videos_failed:,} failed, {a.open:,} open"
        ),
        "queries": f"{queries:,}, of which {kept:,} kept ({kept / max(queries, 1):.0%})",
        "agreement": "; ".join(sorted(set(map(_settings, agreements)))) or "nothing labelled yet",
        "teachers": ", ".join(teachers) or "none yet",
        "verifier": _verifiers(table),
    }
    if kept:
        rows["queries"] += f"; mean support {table['support'].sum() / kept:.2f}"
    if a.reasons:
        rows["reasons"] = ", ".join(
            f"{what} {reason} {count:,}" for (what, reason), count in a.reasons.most_common()
        )
    rows["licences"] = licence_note(teachers)
    return rows


def as_text(title: str, rows: Mapping[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows.items())])


def as_html(title: str, rows: Mapping[str, str]) -> str:
    cells = "".join(
        f'<tr><th style="text-align: left; vertical-align: top">{html.escape(name)}</th>'
        f'<td style="text-align: left">{html.escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    return (
        '<table><caption style="text-align: left; font-weight: '
        f'600">{html.escape(title)}</caption>{cells}</table>'
    )


def _verifiers(table: pd.DataFrame) -> str:
    """Which version judged how many clips, and how decided it is: the mean of `mean_trust`."""
    versions = table["verifier"].astype("object").fillna("")
    clips = Counter({str(of): int(n) for of, n in table["clips"].groupby(versions).sum().items()})
    trust, judged = float(table["trust"].sum()), int(table["judged"].sum())
    said = [
        f"version {version}: {count:,} clips"
        for version, count in sorted(clips.items())
        if version and count
    ]
    if clips[""]:
        said.append(f"{clips['']:,} clips not judged: `tapdistill relabel` does it")
    if len(said) > 1 and not clips[""]:
        said.append("`tapdistill relabel` makes them consistent")
    if judged:
        said.append(f"mean trust {trust / judged:.2f}")
    return "; ".join(said) or "nothing labelled yet"


def _settings(agreement: Mapping[str, Any]) -> str:
    tau_px, least, frames = (
        agreement["tau_px"],
        agreement["min_support"],
        agreement["min_visible_frames"],
    )
    moves = f", motion >= {agreement['min_motion_px']:g} px" if agreement["min_motion_px"] else ""
    return f"tau {tau_px:g} px, support >= {least:g}, at least {frames} visible frames{moves}"
