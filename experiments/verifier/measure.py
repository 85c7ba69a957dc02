"""What the verifier is worth: calibration, and labels against the truth of a world that it never
saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from experiments.verifier.clips import TrackedClip, read_clip
from experiments.verifier.examples import Example
from labeler.labels.agreement import AgreementConfig
from labeler.labels.evidence import SHARED
from labeler.labels.hidden import is_hidden
from labeler.labels.policies import Policy
from labeler.labels.trust import TrustConfig
from labeler.labels.verdict import ClipVerdict
from labeler.labels.verifier import Verifier
from student.evaluation.labels import LabelScore, labels_of, score_policy

ROWS = 1500
"""Positions of an example that trees learn from, at most."""
Judge = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""own, shared, placed -> logits of right [K, N, T] and of hidden [N, T]."""

POLICIES: tuple[Policy, ...] = ("random", "random-agreeing", "medoid", "oracle")
THRESHOLDS = (0.9, 0.7, 0.5, 0.3)
BINS = 10
Figures = Mapping[str, float]
"""By the names of `student.evaluation.labels.LABEL_FIGURES`."""
COLUMNS = {
    "used": "used, %",
    "delta_avg": "delta-avg, %",
    "wrongly_visible": "wrongly visible, %",
    "off_4px": "off by more than 4 px, %",
}


def measure(judges: Mapping[str, Judge], tests: Sequence[tuple[Path, Example]]) -> list[Table]:
    """Tables of labels by policy and by each judge, and of what each calls hidden."""
    clips = [read_clip(path) for path, _ in tests]
    table = Table(
        title=f"labels, {len(clips)} clips of the unseen world",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for title in ("policy", *COLUMNS.values(), "either, %"):
        table.add_column(title, justify="left" if title == "policy" else "right")
    by_policy = scores_by_policy(clips)
    for policy, figures in by_policy.items():
        table.add_row(policy, *_cells(figures))
    called = Table(title="what is called hidden", title_justify="left", box=None, pad_edge=False)
    for title in ("by", "of hidden frames, %", "truly hidden, %"):
        called.add_column(title, justify="left" if title == "by" else "right")
    called.add_row(
        "more than half of the teachers", *_hidden_cells(clips, [_majority(clip) for clip in clips])
    )
    ruled = [
        is_hidden(clip.tracks, clip.rules, clip.queries, clip.frames.shape[1:3]) for clip in clips
    ]
    called.add_row("rules, without a verifier", *_hidden_cells(clips, ruled))
    for name, judge in judges.items():
        verdicts = [verdict_of(judge, example) for _, example in tests]
        for threshold in THRESHOLDS:
            table.add_row(f"{name}, p > {threshold}", *_cells(verified(verdicts, clips, threshold)))
        for what, threshold in (
            ("at the coverage of random", _covering(verdicts, clips, by_policy["random"])),
            (
                "as precise as random-agreeing",
                _precise(verdicts, clips, by_policy["random-agreeing"]),
            ),
        ):
            figures = verified(verdicts, clips, threshold)
            table.add_row(f"{name}, p > {threshold:.3f}: {what}", *_cells(figures))
        for threshold in (0.5, 0.7, TrustConfig.min_hidden):
            cells = _hidden_cells(clips, [verdict.hidden > threshold for verdict in verdicts])
            called.add_row(f"{name}, p > {threshold}", *cells)
    return [table, called]


def wrong(figures: Figures) -> float:
    """Of the frames that are labelled visible, those truly hidden or more than 4 px off."""
    hidden = figures["wrongly_visible"]
    return hidden + (1 - hidden) * figures["off_4px"]


def _cells(figures: Figures) -> list[str]:
    shares = [*(figures[name] for name in COLUMNS), wrong(figures)]
    return [f"{100 * share:.1f}" for share in shares]


def scores_by_policy(clips: Sequence[TrackedClip]) -> dict[Policy, Figures]:
    """Labels by `POLICIES`, of clips that the same teachers tracked."""
    tracks = {name: [clip.tracks[name] for clip in clips] for name in clips[0].tracks}
    known = [clip.known for clip in clips]
    rules, evidence = clips[0].rules, clips[0].evidence
    return {
        policy: score_policy(policy, tracks, rules, known, AgreementConfig(), evidence=evidence)
        for policy in POLICIES
    }


def verified(
    verdicts: Sequence[ClipVerdict], clips: Sequence[TrackedClip], threshold: float
) -> Figures:
    """The labels of policy `verified`, used where the probability of the most trusted position is
    at least `threshold`."""
    score, trust = LabelScore(), TrustConfig(min_right=threshold)
    for verdict, clip in zip(verdicts, clips, strict=True):
        given = clip.tracks, clip.rules, clip.known, np.random.default_rng(0), AgreementConfig()
        score.add(labels_of("verified", *given, verdict, trust), clip.known)
    return score.figures()


def reliability(title: str, verifier: Verifier, examples: Sequence[Example]) -> Table:
    """How often what is said with probability p is so."""
    table = Table(title=f"reliability, {title}", title_justify="left", box=None, pad_edge=False)
    for column in (
        "said, %",
        "right: mean said",
        "so",
        "positions",
        "hidden: mean said",
        "so",
        "frames",
    ):
        table.add_column(column, justify="right")
    columns = []
    for what in ("right", "hidden"):
        logits, truth = logits_of(verifier.logits, examples, what)
        said = 1 / (1 + np.exp(-logits))
        cells = []
        for low in np.arange(BINS) / BINS:
            inside = (said >= low) & (said < low + 1 / BINS)
            mean = [
                f"{100 * value[inside].mean():.1f}" if inside.any() else "-"
                for value in (said, truth)
            ]
            cells.append([*mean, f"{inside.sum():,}"])
        columns.append(cells)
    for i, (right, hidden) in enumerate(zip(*columns, strict=True)):
        table.add_row(f"{100 * i // BINS}-{100 * (i + 1) // BINS}", *right, *hidden)
    return table


def logits_of(
    judge: Judge, examples: Sequence[Example], what: str
) -> tuple[np.ndarray, np.ndarray]:
    """All logits of "right" or "hidden" in a row, and the truth beside them; the queries' own
    frames are left out."""
    logits, truth = [], []
    for example in examples:
        right, hidden = judge(
            example.own.astype(np.float32), example.shared.astype(np.float32), example.placed
        )
        others = example.shared[..., SHARED.index("in query frame")] == 0
        where = example.placed & others if what == "right" else others
        logits.append((right if what == "right" else hidden)[where])
        truth.append((example.right if what == "right" else example.hidden)[where])
    return np.concatenate(logits), np.concatenate(truth)


def trees(examples: Sequence[Example]) -> Judge:
    """Boosted trees on the same evidence, each position by itself: what the network is compared
    with."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(0)
    x, y, pooled_x, pooled_y = [], [], [], []
    for example in examples:
        flat = _flat(example.own, example.shared)[example.placed]
        some = rng.permutation(len(flat))[:ROWS]
        x.append(flat[some].astype(np.float32))
        y.append(example.right[example.placed][some])
        pooled = _pooled(example.own, example.shared, example.placed).reshape(
            -1, 2 * example.own.shape[-1] + example.shared.shape[-1]
        )
        some = rng.permutation(len(pooled))[: ROWS // 3]
        pooled_x.append(pooled[some])
        pooled_y.append(example.hidden.ravel()[some])
    settings = {"max_iter": 200, "learning_rate": 0.08, "l2_regularization": 1.0}
    of_right = HistGradientBoostingClassifier(**settings).fit(np.concatenate(x), np.concatenate(y))
    of_hidden = HistGradientBoostingClassifier(**settings).fit(
        np.concatenate(pooled_x), np.concatenate(pooled_y)
    )

    def judge(
        own: np.ndarray, shared: np.ndarray, placed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        right = of_right.decision_function(
            _flat(own, shared).reshape(-1, own.shape[-1] + shared.shape[-1])
        )
        pooled = _pooled(own, shared, placed)
        hidden = of_hidden.decision_function(pooled.reshape(-1, pooled.shape[-1]))
        return right.reshape(placed.shape), hidden.reshape(shared.shape[:2])

    return judge


def _flat(own: np.ndarray, shared: np.ndarray) -> np.ndarray:
    return np.concatenate([own, np.broadcast_to(shared, (len(own), *shared.shape))], -1)


def _pooled(own: np.ndarray, shared: np.ndarray, placed: np.ndarray) -> np.ndarray:
    own = own.astype(np.float32)
    mean = own.sum(0) / np.maximum(placed.sum(0), 1)[..., None]
    return np.concatenate([mean, own.max(0), shared], -1).astype(np.float32)


def verdict_of(judge: Judge, example: Example) -> ClipVerdict:
    """What a judge says of all teachers of an example."""
    right, hidden = judge(
        example.own.astype(np.float32), example.shared.astype(np.float32), example.placed
    )
    right = np.where(example.placed, 1 / (1 + np.exp(-right)), 0).astype(np.float32)
    hidden = (1 / (1 + np.exp(-hidden))).astype(np.float32)
    return ClipVerdict(example.teachers, right, hidden, "on trial")


def _majority(clip: TrackedClip) -> np.ndarray:
    sees = np.stack([clip.rules[name](clip.tracks[name]) for name in clip.tracks])
    return 2 * sees.sum(0) < len(sees)


def _hidden_cells(clips: Sequence[TrackedClip], called: Sequence[np.ndarray]) -> list[str]:
    """Of the hidden frames, how many are called so; of those called so, how many are."""
    both = sum(
        int((said & ~clip.truth.visible).sum()) for said, clip in zip(called, clips, strict=True)
    )
    hidden = sum(int((~clip.truth.visible).sum()) for clip in clips)
    said = sum(int(each.sum()) for each in called)
    return [f"{100 * both / max(hidden, 1):.1f}", f"{100 * both / max(said, 1):.1f}"]


def _covering(
    verdicts: Sequence[ClipVerdict], clips: Sequence[TrackedClip], wanted: Figures
) -> float:
    """The threshold at which the verifier's labels cover as much."""
    return _threshold(lambda p: verified(verdicts, clips, p)["used"] < wanted["used"])


def _precise(
    verdicts: Sequence[ClipVerdict], clips: Sequence[TrackedClip], wanted: Figures
) -> float:
    """The threshold at which the verifier's labels have the same delta-avg."""
    least = wanted["delta_avg"]
    return _threshold(lambda p: verified(verdicts, clips, p)["delta_avg"] >= least)


def _threshold(enough: Callable[[float], bool]) -> float:
    """The lowest threshold that is `enough`, which higher ones are too."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
