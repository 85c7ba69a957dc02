"""The report of a data set: one page with its numbers, a table of clips, and a player for each; it
loads nothing from the network.

If the players are small in total, they are in the page itself, which is then a single file. Above
`ONE_FILE_BYTES`, each is a script in a folder beside it (`index-clips/000017.js`), which the page
reads when the clip is opened.

The look, the charts, and the accounts are those of `pipelines.reports.page`, the player is that of
`labeler.show.player`. Texts from files are escaped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labeler.dataset import Clip, Dataset
from labeler.labels.agreement import VISIBLE, stack
from labeler.labels.disagreement import disagreement
from labeler.labels.labelled import Labelled, labelled
from labeler.labels.policies import Policy
from labeler.labels.trust import TrustConfig
from labeler.labels.verdict import mean_trust
from labeler.reasons import REASONS
from labeler.show import player
from labeler.show.player import Extra
from pipelines.reports.measures import DatasetMeasures, with_teachers
from pipelines.reports.page import (
    ROWS_SHOWN,
    Figure,
    ScoreTable,
    Statistics,
    account_bars,
    most_central,
    short,
    statistics_of,
    templates,
)
from pipelines.reports.thumbnail import thumbnail
from teachers import TransientError
from teachers.licences import licence_note

ONE_FILE_BYTES = 30_000_000
"""If the players have more bytes than this, they get files of their own."""
TITLES = {"used_share": "used", "hidden_share": "hidden", "query_share": "points", "trust": "trust"}
NAMES_APART = 0.14
"""The least distance between the names of two curves, as a share of the height of a chart."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written: how many clips, the bytes of the page and its players, and where the
    players are if not in the page."""

    clips: int
    size_bytes: int
    players_folder: Path | None


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    """A row of the table of clips."""

    number: int
    """The number of the clip in the report."""
    key: str
    uri: str
    frames: int
    size: str
    queries: int
    kept: float
    """Share of the queries that are kept."""
    support: float | None
    """Mean over the valid visible frames of kept queries."""
    trust: float | None
    """Mean of the verifier's probability for what it takes to be true; None if it has not judged
    the clip."""
    disagreement: float
    thumbnail: bytes
    """JPEG."""


def no_more(clip: Clip) -> Extra:
    """No trackers besides the teachers of the clip."""
    return {}


def write_report(
    index: Path,
    dataset: Dataset,
    clips: Iterable[Clip],
    teachers: Sequence[str],
    measures: DatasetMeasures | None,
    how: str,
    *,
    tables: Sequence[ScoreTable] = (),
    extra: Callable[[Clip], Extra] = no_more,
    policy: Policy | None = None,
    trust: TrustConfig | None = None,
) -> Written:
    """Write the page to `index`, and the players of the clips into it or beside it.

    Args:
        teachers: the teachers whose tracks are shown; clips that have none of them are left out.
        measures: what the charts show; None if there is no clip.
        how: how the clips were chosen, in a few words.
        tables: further tables, after that of the clips.
        extra: returns the trackers that a clip is shown with besides its teachers, such as a
            student: by name, their tracks of its queries, and the rule by which they see a point.
        policy: the label policy whose labels the players show, of the teachers named; None: the
            stored labels, by agreement of all teachers.
        trust: the policy's thresholds of the verifier.

    Raises:
        ConfigError: the policy does not fit the clips (`labeler.labels.labelled`).
        TransientError: the report cannot be written.
    """
    try:
        index.parent.mkdir(parents=True, exist_ok=True)
        players = Players(players_folder(index))
        rows = []
        for number, (clip, labels) in enumerate(_with_labels(clips, teachers, policy, trust)):
            more = extra(clip)
            tracks = {**clip.tracks, **{name: given for name, (given, _) in more.items()}}
            rules = {**clip.rules, **{name: rule for name, (_, rule) in more.items()}}
            statistics = statistics_of(clip, stack(tracks, rules, clip.size_hw))
            rows.append(_row(number, clip, most_central(statistics, clip.tracks)))
            players.add(number, _fragment(clip, labels, statistics, more))
        page = _page(dataset, rows, players, teachers, measures, how, tables)
        index.write_text(page, encoding="utf-8")
    except OSError as error:
        raise TransientError(f"could not write --out {index}: {error}.") from error
    size = len(page.encode()) + players.size_bytes * players.split
    return Written(
        clips=len(rows), size_bytes=size, players_folder=players.folder if players.split else None
    )


def _with_labels(
    clips: Iterable[Clip],
    teachers: Sequence[str],
    policy: Policy | None,
    trust: TrustConfig | None,
) -> Iterator[tuple[Clip, Labelled]]:
    """The clips with the tracks of these teachers, and their labels."""
    for whole in clips:
        for clip in with_teachers([whole], teachers):
            yield clip, labelled(whole if policy is None else clip, policy, trust)


def players_folder(index: Path) -> Path:
    """Where the players of a report lie that are not in its page."""
    return index.with_name(f"{index.stem}-clips")


class Players:
    """The players of a report: kept for the page if they are small in total, otherwise each in a
    file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inline: dict[int, str] = {}
        self.size_bytes = 0
        self.split = False
        for old in folder.glob("[0-9]*.js"):
            old.unlink()

    def add(self, number: int, fragment: str) -> None:
        self.inline[number] = fragment
        self.size_bytes += len(fragment)
        self.split = self.size_bytes > ONE_FILE_BYTES
        if self.split:
            self.folder.mkdir(exist_ok=True)
            for waiting, text in self.inline.items():
                (self.folder / Path(self.file(waiting)).name).write_text(
                    f"clip({waiting}, {json.dumps(text)});", encoding="utf-8"
                )
            self.inline.clear()

    def file(self, number: int) -> str:
        """Where the page finds the player, if it is not in it."""
        return f"{self.folder.name}/{number:06d}.js"


def _row(number: int, clip: Clip, teacher: str) -> ClipRow:
    """The row of a clip, whose thumbnail shows the tracks of `teacher`."""
    labels = clip.labels
    label = labels.valid & labels.keep[:, None]
    counted = labels.support[label & (labels.state == VISIBLE)]
    height, width = clip.size_hw
    return ClipRow(
        number=number,
        key=clip.key,
        uri=clip.meta["uri"],
        frames=labels.support.shape[1],
        size=f"{width} × {height}",
        queries=len(clip.queries),
        kept=float(labels.keep.mean()) if len(clip.queries) else 0.0,
        support=float(counted.mean()) if counted.size else None,
        trust=mean_trust(clip.verdict),
        disagreement=disagreement(labels),
        thumbnail=thumbnail(clip, teacher),
    )


def _fragment(clip: Clip, labels: Labelled, statistics: Statistics, extra: Extra) -> str:
    """The clip as the page shows it when it is opened: player, charts, and metadata."""
    trackers = {
        **clip.meta["teachers"],
        **{name: {"visible_rule": str(rule)} for name, (_, rule) in extra.items()},
    }
    return (
        templates()
        .get_template("inspect_clip.html.j2")
        .render(
            player=player.payload_of(clip, labels=labels, extra=extra),
            mp4=clip.mp4,
            colour="support",
            key=clip.key,
            uri=clip.meta["uri"],
            statistics=statistics,
            facts={name: short(value) for name, value in clip.meta.items() if name != "teachers"},
            trackers=trackers,
        )
    )


def _page(
    dataset: Dataset,
    rows: Sequence[ClipRow],
    players: Players,
    teachers: Sequence[str],
    measures: DatasetMeasures | None,
    how: str,
    tables: Sequence[ScoreTable],
) -> str:
    accounts, failures = dataset.accounts, dataset.failures
    reason_counts = {
        kind: [
            (reason, count)
            for (what, reason), count in accounts.reasons.most_common()
            if what == kind
        ]
        for kind in ("video", "clip", "teacher")
    }
    return (
        templates()
        .get_template("inspect.html.j2")
        .render(
            title=dataset.storage.url.rstrip("/").rpartition("/")[2] or dataset.storage.url,
            url=dataset.storage.url,
            summary=dataset.summary,
            how=how,
            tables=[*policy_tables(measures), *tables],
            figures=_figures(dataset),
            rows=rows,
            players=players,
            teachers=teachers,
            all_teachers=dataset.teacher_infos,
            licence_note=licence_note(dataset.teacher_infos),
            measures=measures,
            curves=threshold_curves(measures) if measures else None,
            accounts=account_bars(accounts),
            reason_counts=reason_counts,
            reasons=REASONS,
            failures=list(failures.head(ROWS_SHOWN).itertuples()),
            failures_in_all=len(failures),
        )
    )


def policy_tables(measures: DatasetMeasures | None) -> list[ScoreTable]:
    """What label policies would take from the clips that were measured."""
    if measures is None:
        return []
    made = [
        (
            "What each label policy would take",
            "policy",
            measures.policies,
            f"From {measures.clips:,} clips. used: of all points and frames, those labelled "
            "visible; hidden: those called hidden; points: those with any visible label; trust: "
            "the verifier's mean probability that a visible label is right; all in %.",
        )
    ]
    if measures.trusted is not None:
        frame = measures.trusted.drop(columns="min_hidden").set_index("min_right")
        made.append(
            (
                "What the verifier trusts",
                "at least",
                frame,
                "The same of the policy verified, with other thresholds (--trust.min-right).",
            )
        )
    tables = []
    for title, index, frame, note in made:
        shown = (100 * frame).rename(columns=lambda name: TITLES[name])
        shown.insert(0, index, [str(name) for name in frame.index])
        tables.append(ScoreTable(title=title, frame=shown, note=note))
    return tables


def _figures(dataset: Dataset) -> tuple[Figure, ...]:
    """The numbers at the top, which are about the whole data set."""
    clips = dataset.clips
    queries, kept = int(clips["queries"].sum()), int(clips["kept"].sum())
    support = (clips["mean_support"].astype(float) * clips["kept"]).sum() / kept if kept else None
    return (
        Figure(value=f"{dataset.accounts.videos:,}", label="videos"),
        Figure(value=f"{len(clips):,}", label="clips labelled"),
        Figure(value=f"{int(clips['frames'].sum()):,}", label="frames"),
        Figure(value=f"{queries:,}", label="points"),
        Figure(value=f"{kept / queries:.0%}" if queries else "–", label="kept by agreement"),
        Figure(value="–" if support is None else f"{support:.2f}", label="mean support"),
    )


@dataclass(frozen=True, kw_only=True)
class ThresholdCurve:
    """A curve: the share of points that are kept, by tau; positions are shares of the chart's width
    and height."""

    supports: str
    """The values of min_support that give this curve."""
    places: list[tuple[float, float]]
    name_y: float
    """The height of the curve's name, kept apart from those above it."""


@dataclass(frozen=True, kw_only=True)
class ThresholdCurves:
    """What other thresholds would keep, as a chart."""

    curves: list[ThresholdCurve]
    """The curves, the highest first."""
    ticks: list[tuple[float, str]]
    here: tuple[float, float]
    """Where the stored labels are in the chart."""
    settings: str


def threshold_curves(measures: DatasetMeasures) -> ThresholdCurves:
    """The thresholds as a chart has them: tau on a logarithmic axis, equal curves drawn once."""
    table, base = measures.thresholds, measures.agreement
    taus = sorted(set(table["tau_px"]))
    low, high = math.log(taus[0]), math.log(taus[-1])
    x_of = {tau: (math.log(tau) - low) / (high - low) for tau in taus}
    supports: dict[tuple[float, ...], list[str]] = {}
    for least, group in table.groupby("min_support"):
        supports.setdefault(tuple(group.sort_values("tau_px")["share"]), []).append(f"{least:g}")
    curves: list[ThresholdCurve] = []
    for shares in sorted(supports, key=lambda shares: -shares[-1]):
        name_y = min(shares[-1], curves[-1].name_y - NAMES_APART) if curves else shares[-1]
        places = list(zip(x_of.values(), shares, strict=True))
        curves.append(
            ThresholdCurve(supports=", ".join(supports[shares]), places=places, name_y=name_y)
        )
    stored = table[(table["tau_px"] == base.tau_px) & (table["min_support"] == base.min_support)]
    return ThresholdCurves(
        curves=curves,
        ticks=[(x, f"{tau:g}") for tau, x in x_of.items()],
        here=(x_of[base.tau_px], float(stored["share"].iloc[0])),
        settings=f"tau {base.tau_px:g} px, support ≥ {base.min_support:g}",
    )
