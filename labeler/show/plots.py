"""Plots of one clip, as matplotlib figures; matplotlib is part of `tapdistill[notebook]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labeler.labels import Sample
from labeler.labels.agreement import medoids, stack
from labeler.labels.disagreement import mean_support, teacher_distances
from labeler.show.player import tracker_colour
from teachers import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAME = 18
"""The most letters of a teacher's name in a plot."""
TICKS_PX = (0, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256)


def plot_clip(sample: Sample) -> Figure:
    """A figure with support over time, each teacher's distance to the medoid over time, and the
    distances between teachers.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ConfigError("plots need matplotlib: pip install 'tapdistill[notebook]'.") from error
    figure, (support, distance, pairs) = pyplot.subplots(
        1, 3, figsize=(13, 3.6), width_ratios=(1.2, 1.2, 1), layout="constrained"
    )
    _support(support, sample)
    _distances(distance, sample)
    _pairs(pairs, sample)
    figure.suptitle(sample.key, fontsize=10, parse_math=False)
    pyplot.close(figure)  # so that the notebook shows only what is returned
    return figure


def _support(axes: Axes, sample: Sample) -> None:
    labels = sample.labels
    axes.plot(mean_support(labels), color="#2463c9", label="mean support, where seen")
    axes.plot(
        (labels.valid & labels.keep[:, None]).sum(0) / max(len(labels.keep), 1),
        "--",
        color="#b4690e",
        label="share of points that are labels",
    )
    axes.set(title="support over time", xlabel="frame", ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _distances(axes: Axes, sample: Sample) -> None:
    stacked = stack(sample.tracks, sample.rules, sample.size_hw, sample.evidence)
    _, distance = medoids(stacked.xy, stacked.sees, stacked.families)
    seen = np.ma.masked_invalid(np.where(stacked.sees, distance, np.nan))
    for k, name in enumerate(stacked.names):
        axes.plot(seen[k].mean(0).filled(np.nan), color=tracker_colour(k), label=_short(name))
    tau = sample.labels.settings.get("tau_px")
    if tau is not None:
        axes.axhline(tau, color="#888", linewidth=0.8, linestyle=":")
        axes.annotate(f"tau {tau:g} px", (0, tau), fontsize=7, color="#888", va="bottom")
    axes.set(title="mean distance to the medoid, where seen", xlabel="frame", ylabel="px of 256")
    axes.set_yscale("symlog", linthresh=1)
    top = axes.get_ylim()[1]
    axes.set_ylim(0, top)
    axes.set_yticks([tick for tick in TICKS_PX if tick <= top])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _pairs(axes: Axes, sample: Sample) -> None:
    table = teacher_distances([sample])
    names = [_short(str(name)) for name in table]
    axes.imshow(
        np.log1p(table.to_numpy()),
        cmap="Blues",
        vmin=0,
        vmax=max(1.0, float(np.nanmax(np.log1p(table.to_numpy()))) * 1.4),
    )
    for (i, j), value in np.ndenumerate(table.to_numpy()):
        axes.text(
            j, i, "–" if np.isnan(value) else f"{value:.2f}", ha="center", va="center", fontsize=8
        )
    ticks: dict[str, Any] = {"fontsize": 8, "parse_math": False}
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", **ticks)
    axes.set_yticks(range(len(names)), names, **ticks)
    axes.spines[:].set_visible(False)
    axes.set_title("median px apart where both see")


def _short(name: str) -> str:
    return name if len(name) <= MOST_NAME else name[: MOST_NAME - 1] + "…"
