"""CoTracker3 online: the network of `cotracker3.py`, window by window, each starting from what the one before said.

Paper    Karaev et al. 2024, arXiv 2410.11831.
Weights  facebook/cotracker3, `scaled_online.pth` and `baseline_online.pth`, CC-BY-NC 4.0. Written from the paper; the parity tests
         show equal outputs.

A query whose frame no window has reached looks like nothing (zero features): its tracks there are the query's place plus noise, and
later windows replace them. What is handed over: positions, without gradient, and the logits of visibility and confidence, with it.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from teachers.cotracker3 import WEIGHTS_AT, CoTracker3Config, CoTracker3Network
from teachers.cotracker_teacher import Call
from teachers.interface import Mode, VisibleRule
from teachers.memory import DEFAULT_MEMORY, Memory
from teachers.refinements import Refinements
from teachers.window_teacher import WindowTeacher
from teachers.windows import WindowChain, WindowStart, windows

WINDOW = 16

PRESETS = {
    "official": lambda: replace(CoTracker3Config.official(), window=WINDOW),
    "mini": lambda: replace(CoTracker3Config.mini(), window=WINDOW),
}


class CoTracker3Online(CoTracker3Network):
    """The online model."""

    first_visibility = 0.0

    def forward(
        self,
        frames: Tensor,  # [B, T, 3, H, W] 0..255, any dtype
        queries: Tensor,  # [B, N, 3] (t, x, y), px of the frames; t is cut to an integer
        iterations: int = 4,
        memory: Memory = DEFAULT_MEMORY,
    ) -> list[Refinements]:
        """Tracks in every window; windows overlap by half, and where they do the later one counts. Sizes as for `encode`."""
        chain = WindowChain(self, queries, iterations, memory)
        return [chain.advance(part) for part in windows(self.encode(frames, memory), self.config.window)]

    def appearance(self, pyramid: list[Tensor], queries: Tensor) -> list[Tensor]:
        return self.query_windows(pyramid, queries)

    def refine_window(self, pyramid: list[Tensor], start: WindowStart, iterations: int, memory: Memory) -> Refinements:
        visibility, confidence = start.logits.unbind(-1)
        return self.refine(pyramid, start.appearance, start.xy, visibility, confidence, iterations, memory)


class CoTracker3OnlineTeacher(WindowTeacher):
    """CoTracker3 online, over a clip or a stream.

    Modes: "predictor" is the official online predictor (6 iterations at 384 x 512, forward only; its support grid is
    `support_grid=6`). "recipe" is forward only too, at the clip's own size, 4 iterations, with a 5 x 5 grid. "label" adds a pass
    over the reversed clip, so that frames before a query are tracked. Settings: see `CoTrackerTeacher`.
    """

    architecture = "CoTracker3 online"
    weights_at = WEIGHTS_AT
    presets = PRESETS
    network = CoTracker3Online

    def _published_call(self, mode: Mode, resolution: tuple[int, int]) -> Call:
        if mode == "predictor":
            return Call(iterations=6, resolution=resolution, support_grid=0)
        if mode == "benchmark":
            return Call(iterations=6, resolution=resolution, support_grid=5)
        label = mode == "label"
        return Call(iterations=4, resolution=None, support_grid=5, backward=label, support_moves=label)

    def _rule(self, mode: Mode) -> VisibleRule:
        return VisibleRule("v*c", 0.6) if mode in ("predictor", "benchmark") else VisibleRule("v", 0.9)
