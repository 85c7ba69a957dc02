"""Makes agreement.webp and thresholds.webp: three teachers of three families on procedural video,
where the truth is known; prints the numbers of the second.

python docs/images/make_agreement.py
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

import teachers
from labeler.labels.agreement import (
    DISPUTED,
    OCCLUDED,
    RASTER,
    VISIBLE,
    AgreementConfig,
    Labels,
    Stack,
    judge,
    medoids,
    stack,
)
from student.synth.scene import SynthClip, SynthConfig, generate

CLIPS, FRAMES, POINTS = 6, 32, 200
NAMES = ("flow", "match", "tapir-mini")
COLOURS = ("#E69F00", "#0072B2", "#009E73")
STATE_NAMES = {"visible": VISIBLE, "occluded": OCCLUDED, "disputed": DISPUTED}
STATES, VALID = {VISIBLE: "#56B4E9", OCCLUDED: "#BBBBBB", DISPUTED: "#CC79A7"}, "#333333"
WRONG_PX = 4.0
"""A visible label is wrong where the point is hidden, or farther away than this."""
CROP_PX = 28
TAUS_PX = (0.25, 0.5, 1, 2, 4, 8, 16)
SUPPORTS = (0.3, 0.6, 0.9)
"""Least support with which one, two, or all three of three teachers must agree."""


@dataclass(frozen=True)
class Tracked:
    """A clip of 256 x 256 px, so that its px are those of the raster, and what the teachers say of
    it."""

    clip: SynthClip
    stack: Stack
    medoid: np.ndarray  # [N, T] int
    distance: np.ndarray  # [K, N, T] px

    def labels(self, config: AgreementConfig) -> Labels:
        return judge(
            self.stack.xy,
            self.stack.sees,
            self.clip.queries[:, 0].astype(int),
            self.medoid,
            self.distance,
            config,
            self.stack.families,
        )

    def centre(self) -> np.ndarray:  # [N, T, 2]
        """The medoid's place."""
        return np.take_along_axis(
            self.stack.xy, np.maximum(self.medoid, 0)[None, ..., None], axis=0
        )[0]


def tracked(seed: int) -> Tracked:
    config = SynthConfig(
        frames=FRAMES,
        height=RASTER,
        width=RASTER,
        points=POINTS,
        cutouts=(4, 6),
        motion=1.2,
        query_frame="random",
    )
    clip = generate(seed, config)
    made = {name: teachers.load(name, mode="label") for name in NAMES}
    tracks = {name: teacher.track(clip.frames, clip.queries) for name, teacher in made.items()}
    rules = {name: teacher.info.rule for name, teacher in made.items()}
    evidence = {name: teacher.info.evidence for name, teacher in made.items()}
    stacked = stack(tracks, rules, (RASTER, RASTER), evidence)
    return Tracked(clip, stacked, *medoids(stacked.xy, stacked.sees, stacked.families))


@dataclass(frozen=True)
class Story:
    """A query that shows one thing that may happen, and the frame to look at."""

    what: str
    one: Tracked
    labels: Labels
    query: int
    frame: int


def stories(clips: list[Tracked], config: AgreementConfig) -> list[Story]:
    """One story for each rule of agreement, from the clip in which it shows best."""
    per_clip = [told_by(one, one.labels(config)) for one in clips]
    return [max(same, key=lambda scored: scored[0])[1] for same in zip(*per_clip, strict=True)]


def told_by(one: Tracked, labels: Labels) -> list[tuple[float, Story]]:
    """The best story of each kind in a clip, and how good it is."""
    steps = np.arange(FRAMES)
    moved = np.linalg.norm(np.ptp(one.clip.xy, axis=1), axis=-1)
    always = labels.keep & (labels.valid & (labels.state == VISIBLE)).all(-1)
    agreed = np.where(always, (labels.support > 0.9).sum(-1) + moved / RASTER, -1)

    shown = labels.valid & (labels.state == VISIBLE)
    first, last = shown.argmax(-1), FRAMES - 1 - shown[:, ::-1].argmax(-1)
    between = (steps > first[:, None]) & (steps < last[:, None])
    gap = labels.valid & (labels.state == OCCLUDED) & between
    truly_hidden = np.where(one.clip.visible, -4, 1)
    hidden = np.where(labels.keep, (gap * truly_hidden).sum(-1), -1)

    # first frame after the run
    after = np.where(~labels.valid & (steps > one.clip.queries[:, :1]), steps, FRAMES).min(-1)
    ended = np.where(labels.keep & (after < FRAMES - 6) & (first < after - 12), moved, -1)

    a, h, e = (int(np.argmax(score)) for score in (agreed, hidden, ended))
    middle = int(np.median(steps[gap[h]])) if gap[h].any() else 0
    return [
        (agreed[a], Story("two or all three agree in every frame", one, labels, a, FRAMES - 1)),
        (hidden[h], Story("an agreed gap does not cut a track", one, labels, h, middle)),
        (
            ended[e],
            Story(
                "a dispute ends it, and the part before is kept",
                one,
                labels,
                e,
                min(int(after[e]), FRAMES - 1),
            ),
        ),
    ]


def draw_stories(clips: list[Tracked], config: AgreementConfig) -> None:
    chosen = stories(clips, config)
    figure, axes = plt.subplots(
        len(chosen), 2, figsize=(9, 2.3 * len(chosen)), width_ratios=(1, 3), layout="constrained"
    )
    for (left, right), story in zip(axes, chosen, strict=True):
        draw_place(left, story.one, story, config)
        draw_time(right, story.one, story.labels, story, config)
        right.set_title(story.what, loc="left", fontsize=10)
    axes[-1][1].set_xlabel("frame")
    lines = [
        Line2D([], [], color=colour, marker=".", label=name)
        for name, colour in zip(NAMES, COLOURS, strict=True)
    ]
    lines.append(Line2D([], [], color="black", ls=":", label=f"tau = {config.tau_px:g} px"))
    bars = [
        Patch(color=STATES[state], label=f"state: {name}") for name, state in STATE_NAMES.items()
    ]
    bars.append(Patch(color=VALID, label="valid"))
    query = Line2D([], [], color="white", marker="v", mec="black", ls="", label="query")
    figure.legend(
        handles=[*lines, *bars, query],
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize=8,
    )
    save(figure, "agreement.webp")


def draw_place(axes: Axes, one: Tracked, story: Story, config: AgreementConfig) -> None:
    """Where each teacher puts the point: filled if it sees it, hollow if it says hidden; the truth
    is a cross."""
    i, t = story.query, story.frame
    axes.imshow(one.clip.frames[t])
    for k, colour in enumerate(COLOURS):
        axes.plot(
            *one.stack.xy[k, i, t],
            "o",
            ms=8,
            mec=colour,
            mew=2,
            mfc=colour if one.stack.sees[k, i, t] else "none",
        )
    if one.medoid[i, t] >= 0:
        axes.add_patch(
            plt.Circle(tuple(one.centre()[i, t]), config.tau_px, fill=False, ec="white", lw=1.5)
        )
    axes.plot(*one.clip.xy[i, t], "x", ms=9, mew=2, color="white")
    places = np.array([*one.stack.xy[:, i, t], one.clip.xy[i, t]])
    middle = np.nanmean(places, axis=0)
    reach = min(max(CROP_PX, 1.3 * float(np.nanmax(np.abs(places - middle)))), RASTER / 2)
    x, y = np.clip(middle, reach, RASTER - reach)
    axes.set(xlim=(x - reach, x + reach), ylim=(y + reach, y - reach), xticks=[], yticks=[])
    axes.set_title(f"frame {t}", loc="left", fontsize=10)


def draw_time(
    axes: Axes, one: Tracked, labels: Labels, story: Story, config: AgreementConfig
) -> None:
    """The distance to the medoid of each teacher that sees the point; below, each frame's state,
    and whether it is valid."""
    i, steps = story.query, np.arange(FRAMES)
    for k, colour in enumerate(COLOURS):
        axes.plot(
            steps,
            np.where(one.stack.sees[k, i], np.maximum(one.distance[k, i], 0.05), np.nan),
            ".-",
            color=colour,
        )
    axes.axhline(config.tau_px, color="black", lw=1, ls=":")
    axes.bar(steps, 0.0135, 1, bottom=0.015, color=[STATES[state] for state in labels.state[i]])
    axes.bar(steps[labels.valid[i]], 0.007, 1, bottom=0.0075, color=VALID)
    axes.axvline(story.frame, color="black", lw=0.8, alpha=0.4)
    axes.plot(one.clip.queries[i, 0], 0.0102, "v", color="white", ms=5)
    axes.set(
        yscale="log",
        ylim=(0.007, 200),
        xlim=(-0.6, FRAMES - 0.4),
        ylabel="px to medoid",
        yticks=(0.1, 1, 10, 100),
    )
    axes.set_yticklabels(["0.1", "1", "10", "100"])
    axes.spines[["top", "right"]].set_visible(False)


def draw_thresholds(clips: list[Tracked]) -> None:
    """What each pair of thresholds labels, and how much of that is wrong; printed too."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    print(
        f"{len(clips)} clips, {len(clips) * POINTS} queries; % of truly visible point-frames "
        "labelled, % of visible labels wrong"
    )
    for least, colour in zip(SUPPORTS, ("#D55E00", "#0072B2", "#333333"), strict=True):
        rows = [measure(clips, AgreementConfig(tau_px=tau, min_support=least)) for tau in TAUS_PX]
        for tau, (labelled, wrong) in zip(TAUS_PX, rows, strict=True):
            print(
                f"  min_support {least:g}  tau {tau:5g} px  labelled {labelled:5.1f}  wrong "
                f"{wrong:5.2f}"
            )
        for axes, values in zip((left, right), zip(*rows, strict=True), strict=True):
            axes.plot(TAUS_PX, values, "o-", color=colour, label=f"min_support {least:g}")
    for axes, what in (
        (left, "% of visible point-frames labelled"),
        (right, f"% of labels wrong by over {WRONG_PX:g} px"),
    ):
        axes.axvline(AgreementConfig().tau_px, color="black", lw=1, ls=":")
        axes.set(xscale="log", xticks=TAUS_PX, xlabel="tau, px of the 256 raster", ylim=(0, None))
        axes.set_xticklabels([f"{tau:g}" for tau in TAUS_PX])
        axes.minorticks_off()
        axes.set_title(what, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    save(figure, "thresholds.webp")


def measure(clips: list[Tracked], config: AgreementConfig) -> tuple[float, float]:
    """(% of truly visible point-frames that are a visible label of a kept query, % of those labels
    that are wrong)."""
    visible = labelled = given = wrong = 0
    for one in clips:
        labels = one.labels(config)
        shown = labels.valid & (labels.state == VISIBLE) & labels.keep[:, None]
        away = np.linalg.norm(one.centre() - one.clip.xy, axis=-1) > WRONG_PX
        visible += int(one.clip.visible.sum())
        labelled += int((shown & one.clip.visible).sum())
        given += int(shown.sum())
        wrong += int((shown & (away | ~one.clip.visible)).sum())
    return 100 * labelled / visible, 100 * wrong / max(given, 1)


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(Path(__file__).with_name(name), dpi=110, pil_kwargs={"quality": 85, "method": 6})


def main() -> None:
    mpl.use("Agg")
    clips = [tracked(seed) for seed in range(CLIPS)]
    draw_stories(clips, AgreementConfig())
    draw_thresholds(clips)


if __name__ == "__main__":
    main()
