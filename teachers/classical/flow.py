"""Dense flow: follow the flow of whole frames, as long as flow forwards and flow back agree.

Flow     DIS (Kroeger et al. 2016; OpenCV) between all neighbouring frames, both ways, to full
         resolution; sampled bilinearly.
Check    the flow there and the flow back must cancel, up to a share of their length (Sundaram et
         al. 2010, equation 5). Where they don't, something covers the point. Flow is smooth, so now
         and then it carries a point along with what covers it.
Lost     a lost point stays lost: the flow cannot know it again. It goes on with the flow where that
         is consistent, else with its last velocity, damped, and may wander out of the frame.
Limits   turning and growing scenes make it drift, by about a tenth of a pixel a frame. The check is
         of the flow, not of the picture: where nothing has texture, flow is 0 both ways and every
         point is visible.
Memory   2 (T - 1) flows in float16: 165 MB for 80 frames of 384 x 680.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from teachers.classical.bidirectional import (
    VELOCITY_KEPT,
    ClassicalTeacher,
    from_query_frame,
)
from teachers.classical.patches import sample
from teachers.classical.settings import ClassicalSettings
from teachers.classical.visibility import graded, in_frame
from teachers.tracks import Tracks

LEAST_SIDE_PX = 32
"""DIS refuses frames with smaller sides; they are extended to this size by their border."""


@dataclass(frozen=True, kw_only=True)
class FlowSettings(ClassicalSettings):
    """How dense flow is computed, and when it is trusted.

    Attributes:
        patch_stride_px: distance between the patches that DIS matches.
        descent_steps: gradient descent steps for each patch and level.
        error_share, error_px2: the squared forward-backward error that is allowed, as a share of
            the squared lengths of the two flows, plus a constant.
    """

    patch_stride_px: int = 3
    descent_steps: int = 12
    error_share: float = 0.01
    error_px2: float = 0.5


class FlowTeacher(ClassicalTeacher):
    """The teacher `flow`. Visibility is 1 where the flow back cancels the flow there, 1/2 at the
    largest error allowed."""

    architecture = "chained dense flow (DIS), forward-backward occlusion"
    evidence = "flow"
    settings_type = FlowSettings
    settings: FlowSettings

    def _track(self, frames: np.ndarray, queries: np.ndarray, seed: int) -> Tracks:
        n, (t, height, width, _) = len(queries), frames.shape
        flow = self._flows(np.ascontiguousarray(frames))
        query_t, everyone = queries[:, 0].astype(int), np.arange(n)
        xy, velocity, visibility = np.zeros((n, t, 2)), np.zeros((n, t, 2)), np.zeros((n, t))
        xy[everyone, query_t], visibility[everyone, query_t] = queries[:, 1:], 1

        for before, now, rows in from_query_frame(query_t, t):
            start, speed = xy[rows, before], velocity[rows, before]
            seen = visibility[rows, before] > 0.5
            there = sample(flow(before, now), start)
            back = sample(flow(now, before), start + there)
            error2 = np.square(there + back).sum(1)
            allowed2 = (
                self.settings.error_share * (np.square(there).sum(1) + np.square(back).sum(1))
                + self.settings.error_px2
            )
            consistent = graded(np.sqrt(error2), np.sqrt(allowed2)) * in_frame(
                start + there, height, width
            )

            step = np.where((consistent > 0.5)[:, None], there, speed)
            xy[rows, now] = start + step
            visibility[rows, now] = np.where(seen, consistent, 0)
            velocity[rows, now] = np.where(
                (seen & (consistent > 0.5))[:, None], step, speed * VELOCITY_KEPT
            )
        return Tracks(xy, visibility, np.full((n, t), np.nan))

    def _flows(self, frames: np.ndarray) -> Callable[[int, int], np.ndarray]:
        """A function that takes the indices of two neighbouring frames and returns the flow between
        them, float32 [H, W, 2] in px."""
        height, width = frames.shape[1:3]
        below, right = max(0, LEAST_SIDE_PX - height), max(0, LEAST_SIDE_PX - width)
        grey = [
            cv2.copyMakeBorder(
                cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 0, below, 0, right, cv2.BORDER_REPLICATE
            )
            for frame in frames
        ]
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        dis.setFinestScale(0)
        dis.setPatchStride(self.settings.patch_stride_px)
        dis.setGradientDescentIterations(self.settings.descent_steps)

        def between(a: int, b: int) -> np.ndarray:
            flow = dis.calc(grey[a], grey[b], None)  # type: ignore[call-overload]  # the stubs don't know that it may be None
            return flow[:height, :width].astype(np.float16)

        forward = [between(i, i + 1) for i in range(len(frames) - 1)]
        backward = [between(i + 1, i) for i in range(len(frames) - 1)]
        return lambda a, b: (forward[a] if a < b else backward[b]).astype(np.float32)
