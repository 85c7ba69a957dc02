"""Metrics: how good a point tracker is, in the figures that papers print.

    score                one clip in our own units -> AJ, delta_avg, OA, ...; what the rest of the
                         project calls
    tapvid_metrics       the TAP-Vid figures (Doersch et al. 2022, arXiv 2211.03726, section 3),
                         equal to the official ones
    sample_queries       the TAP-Vid queries, "first" and "strided"
    survival_metrics     the figures of PIPs++ (Zheng et al. 2023, arXiv 2307.15055): thresholds,
                         survival, median error
    redetection_metrics  AJ_RD: Jaccard after a point has come back

The benchmark functions keep the benchmark's units: TAP-Vid arrays are px of a 256 x 256 raster
whose (0, 0) is the CORNER of the top-left pixel, and their queries are (t, y, x).
`to_tapvid_raster` leads there from our px (clip's own size, integers are pixel centres),
`from_tapvid_raster` back. A figure without anything to count is NaN, as in the official code. A
prediction that is NaN is never left out: it is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from labeler.labels.agreement import RASTER
from teachers.errors import ConfigError

THRESHOLDS_PX = (1, 2, 4, 8, 16)
DEATH_PX = 16
"""A track is lost at its first seen frame that is farther off than this (PIPs++, survival)."""

QueryMode = Literal["first", "strided"]


def to_tapvid_raster(xy: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """(x, y) [..., 2] in px of a clip of `size_hw` (pixel centres) -> the 256 x 256 raster with its
    origin at the corner."""
    height, width = size_hw
    return (np.asarray(xy, np.float64) + 0.5) * (RASTER / width, RASTER / height)


def from_tapvid_raster(xy: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The inverse of `to_tapvid_raster`."""
    height, width = size_hw
    return np.asarray(xy, np.float64) * (width / RASTER, height / RASTER) - 0.5


def score(
    queries: np.ndarray,  # [N, 3]    (t, x, y) px of the clip
    gt_xy: np.ndarray,  # [N, T, 2] px of the clip
    gt_visible: np.ndarray,  # [N, T]    bool
    xy: np.ndarray,  # [N, T, 2] px of the clip, NaN where there is no prediction
    visible: np.ndarray,  # [N, T]    bool, the tracker's own visible rule applied
    size_hw: tuple[int, int],
    query_mode: QueryMode = "first",
) -> dict[str, float]:
    """The figures of one clip; distances are px of the 256 x 256 raster, shares are in [0, 1].

    A missing prediction (NaN) is wrong in every figure: its position is infinitely far off and its
    flag is the opposite of the truth, so silence about a point that is truly occluded is not a
    correct "occluded".

    Returns:
        `AJ`, `delta_avg`, `OA`: the three figures of TAP-Vid; `pts_within_<d>`, `jaccard_<d>`:
        their parts. `median_error_px`: over all evaluated frames with a visible point; inf if most
        of those predictions are missing. `survival`: share of the frames from the query on before
        the track is lost (forwards, in both query modes); with all queries at frame 0 it is
        PIPs++'s.
    """
    gt_visible = np.asarray(gt_visible, bool)
    tracked = np.isfinite(xy).all(-1)
    visible = np.where(tracked, visible, ~gt_visible)
    gt_raster, raster = to_tapvid_raster(gt_xy, size_hw), to_tapvid_raster(xy, size_hw)

    official = tapvid_metrics(queries, ~gt_visible, gt_raster, ~visible, raster, query_mode)
    error = np.where(tracked, np.linalg.norm(raster - gt_raster, axis=-1), np.inf)
    counted = gt_visible & _evaluated(queries, gt_visible.shape[-1], query_mode)
    from_query = np.arange(gt_visible.shape[-1]) >= np.round(queries[:, :1])
    alive = _alive(error, gt_visible & from_query, axis=1)
    return {
        "AJ": float(official["average_jaccard"]),
        "delta_avg": float(official["average_pts_within_thresh"]),
        "OA": float(official["occlusion_accuracy"]),
        **{
            name: float(official[name])
            for d in THRESHOLDS_PX
            for name in (f"pts_within_{d}", f"jaccard_{d}")
        },
        "median_error_px": float(np.median(error[counted])) if counted.any() else float("nan"),
        "survival": float(_ratio(alive[from_query].sum(), from_query.sum())),
        "AJ_RD": redetection_metrics(
            *_by_time(raster, visible), *_by_time(gt_raster, gt_visible)
        ).figures["AJ_RD"],
    }


def tapvid_metrics(
    query_points: np.ndarray,  # [..., N, 3]    (t, y, x); only t is read, rounded half to even
    occluded: np.ndarray,  # [..., N, T]    bool, the truth
    target_points: np.ndarray,  # [..., N, T, 2] (x, y) px of the 256 raster, the truth
    pred_occluded: np.ndarray,  # [..., N, T]    bool
    pred_tracks: np.ndarray,  # [..., N, T, 2] (x, y) px of the 256 raster
    query_mode: QueryMode,
    per: Literal["video", "track"] = "video",
) -> dict[str, np.ndarray]:
    """The official TAP-Vid figures, under their official names, each [...] per video or [..., N]
    per track.

    The leading axes are videos (there may be none). Sums run over a whole video, or a whole track,
    before dividing; a benchmark is the mean over its videos. The figures: `occlusion_accuracy`,
    `pts_within_<d>` and `jaccard_<d>` for d = 1, 2, 4, 8, 16, and their means
    `average_pts_within_thresh` (delta-avg) and `average_jaccard` (AJ).
    """
    axes = {"video": (-2, -1), "track": (-1,)}.get(per)
    if axes is None:
        raise ConfigError(f"per = {per!r}: figures are taken per 'video' or per 'track'.")

    def total(mask: np.ndarray) -> np.ndarray:
        return (mask & counted).sum(axes)

    visible, pred_visible = ~np.asarray(occluded, bool), ~np.asarray(pred_occluded, bool)
    counted = _evaluated(query_points, visible.shape[-1], query_mode)
    squared_distance = np.square(np.asarray(pred_tracks) - target_points).sum(-1)

    figures = {"occlusion_accuracy": _ratio(total(visible == pred_visible), counted.sum(axes))}
    for d in THRESHOLDS_PX:
        within = squared_distance < d**2  # strict; NaN is not within
        hits = total(within & visible & pred_visible)
        false_alarms = total(pred_visible & ~(visible & within))
        figures[f"pts_within_{d}"] = _ratio(total(within & visible), total(visible))
        figures[f"jaccard_{d}"] = _ratio(hits, total(visible) + false_alarms)
    figures["average_jaccard"] = np.mean([figures[f"jaccard_{d}"] for d in THRESHOLDS_PX], axis=0)
    figures["average_pts_within_thresh"] = np.mean(
        [figures[f"pts_within_{d}"] for d in THRESHOLDS_PX], axis=0
    )
    return figures


@dataclass(frozen=True)
class SampledQueries:
    """The Q queries of one video, and the truth that belongs to each."""

    query_points: np.ndarray  # [Q, 3]    (t, y, x)
    target_points: np.ndarray  # [Q, T, 2] (x, y)
    occluded: np.ndarray  # [Q, T]    bool
    # [Q]       index of the query's track in the input ("trackgroup" in the official code)
    track: np.ndarray


def sample_queries(
    occluded: np.ndarray,  # [N, T]    bool
    points: np.ndarray,  # [N, T, 2] (x, y)
    mode: QueryMode,
    stride: int = 5,
) -> SampledQueries:
    """The queries of TAP-Vid for one video.

    "first": each track's first visible frame; tracks that are never visible are dropped. "strided":
    in the frames 0, stride, 2 x stride, ... in turn, every track that is visible there.
    """
    visible = ~np.asarray(occluded, bool)
    if mode == "first":
        track = np.flatnonzero(visible.any(1))
        frame = visible[track].argmax(1)
    elif mode == "strided":
        step, track = np.nonzero(visible[:, ::stride].T)
        frame = step * stride
    else:
        raise ConfigError(f"no query mode {mode!r}: there are 'first' and 'strided'.")
    x, y = points[track, frame].T
    return SampledQueries(np.stack([frame, y, x], 1), points[track], ~visible[track], track)


def survival_metrics(
    pred_tracks: np.ndarray,  # [T, N, 2] px of a raster of `pred_size_hw`
    gt_tracks: np.ndarray,  # [T, N, 2] px of a raster of `gt_size_hw`
    valid: np.ndarray,  # [T, N]    bool: the truth is known and the point is seen
    pred_size_hw: tuple[int, int],
    gt_size_hw: tuple[int, int],
) -> dict[str, float]:
    """The figures of the PIPs++ evaluation, all queries in frame 0; time comes before points, as
    there.

    Returns:
        `d_<px>` and their mean `d_avg`: percent of the valid frames after the first that are nearer
        than 1, 2, 4, 8, 16 px. `survival`: percent of all (track, frame) pairs before the track is
        lost, valid or not. `median_l2`: the mean over tracks of each track's median error over its
        valid frames. Px are those of 256 x 256.
    """
    valid = np.asarray(valid, bool)
    pred = np.asarray(pred_tracks, np.float64) * _to_256(pred_size_hw)
    gt = np.asarray(gt_tracks, np.float64) * _to_256(gt_size_hw)
    error = np.linalg.norm(pred - gt, axis=-1)
    error[np.isnan(error)] = np.inf

    after = valid[1:]
    figures = {
        f"d_{d}": 100 * float(_ratio((after & (error[1:] < d)).sum(), after.sum()))
        for d in THRESHOLDS_PX
    }
    figures["d_avg"] = float(np.mean([figures[f"d_{d}"] for d in THRESHOLDS_PX]))
    figures["survival"] = 100 * float(_alive(error, valid, axis=0).mean())
    medians = [
        np.median(e[v]) if v.any() else np.nan for e, v in zip(error.T, valid.T, strict=True)
    ]
    figures["median_l2"] = float(np.mean(medians))
    return figures


@dataclass(frozen=True)
class Redetections:
    """AJ_RD, and the E events it is made of."""

    figures: dict[str, float]
    """`AJ_RD`, `AJ_RD_dmin<m>`, `AJ_RD_D<d>_dmin<m>`; NaN where there is no event."""
    index: np.ndarray  # [E, 3] (video, frame of the reappearance, point)
    duration: np.ndarray  # [E]    unseen frames just before it
    jaccard: np.ndarray  # [E, D] float32, one column a threshold


def redetection_metrics(
    pred_tracks: np.ndarray,  # [B, T, N, 2] px of the 256 raster
    pred_visible: np.ndarray,  # [B, T, N]    bool
    gt_tracks: np.ndarray,  # [B, T, N, 2]
    gt_visible: np.ndarray,  # [B, T, N]    bool
    min_durations: tuple[int, ...] = (1, 4, 16, 64, 256),
    thresholds_px: tuple[int, ...] = THRESHOLDS_PX,
) -> Redetections:
    """Jaccard from the frame on in which a point comes back; time comes before points, unlike the
    TAP-Vid arrays.

    A point comes back where it is visible and was not in the frame before (a track that starts
    unseen: at its first sight). An event counts if its gap is longer than every earlier gap of that
    track. Unlike TAP-Vid's, distances may equal the threshold. `AJ_RD_D<d>_dmin<m>` is the mean
    over the events with a gap of at least m frames, `AJ_RD_dmin<m>` the mean over thresholds,
    `AJ_RD` the mean over m; NaN is left out of all three. Scores are float32, as published.
    """
    gt_visible, pred_visible = np.asarray(gt_visible, bool), np.asarray(pred_visible, bool)
    difference = np.asarray(pred_tracks, np.float32) - np.asarray(gt_tracks, np.float32)
    # [B, T, N, D]
    within = np.linalg.norm(difference, axis=-1)[..., None] <= np.asarray(thresholds_px)
    seen, claimed = gt_visible[..., None], pred_visible[..., None]
    hits = _sum_to_end(within & seen & claimed)
    false_alarms = _sum_to_end(claimed & ~(seen & within))
    jaccard = _ratio(hits, _sum_to_end(seen) + false_alarms).astype(np.float32)

    gap = _record_gaps(gt_visible)
    index = np.argwhere(gap > 0)
    event = tuple(index.T)
    duration, scores = gap[event], jaccard[event]

    figures: dict[str, float] = {}
    for m in min_durations:
        means = [_nanmean(column) for column in scores[duration >= m].T]
        figures |= {
            f"AJ_RD_D{d}_dmin{m}": mean for d, mean in zip(thresholds_px, means, strict=True)
        }
        figures[f"AJ_RD_dmin{m}"] = _nanmean(np.array(means))
    figures["AJ_RD"] = _nanmean(np.array([figures[f"AJ_RD_dmin{m}"] for m in min_durations]))
    return Redetections(figures, index, duration, scores)


def _evaluated(query_points: np.ndarray, frames: int, query_mode: QueryMode) -> np.ndarray:
    """bool [..., N, T]: the frames that count, after the query ("first") or all but the query's
    ("strided")."""
    query_frame = np.round(query_points[..., :1])
    frame = np.arange(frames)
    if query_mode == "first":
        return frame > query_frame
    if query_mode == "strided":
        return frame != query_frame
    raise ConfigError(f"no query mode {query_mode!r}: there are 'first' and 'strided'.")


def _alive(error_px: np.ndarray, seen: np.ndarray, axis: int) -> np.ndarray:
    """bool, like `seen`: until the first seen frame along `axis` that is farther off than
    `DEATH_PX`."""
    return ~np.logical_or.accumulate(seen & (error_px > DEATH_PX), axis=axis)


def _record_gaps(visible: np.ndarray) -> np.ndarray:
    """int [B, T, N]: where a point comes back after its longest gap so far, the unseen frames just
    before; 0 elsewhere."""
    gaps = np.zeros(visible.shape, np.int64)
    unseen = longest = np.zeros(visible[:, 0].shape, np.int64)
    for t in range(visible.shape[1]):
        ends = visible[:, t]
        gaps[:, t] = np.where(ends & (unseen > longest), unseen, 0)
        longest = np.maximum(longest, gaps[:, t])
        unseen = np.where(ends, 0, unseen + 1)
    return gaps


def _sum_to_end(mask: np.ndarray) -> np.ndarray:
    """The sum over the frames t, t + 1, ... for every t; frames are axis 1."""
    return mask[:, ::-1].cumsum(1)[:, ::-1]


def _by_time(xy: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, T, 2], [N, T] -> [1, T, N, 2], [1, T, N], as `redetection_metrics` takes them."""
    return xy.swapaxes(0, 1)[None], visible.swapaxes(0, 1)[None]


def _to_256(size_hw: tuple[int, int]) -> np.ndarray:
    height, width = size_hw
    return np.array([RASTER / width, RASTER / height])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and NaN for 0 / 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(part) / whole


def _nanmean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN if there is nothing."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
