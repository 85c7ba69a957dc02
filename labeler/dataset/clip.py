"""Clip: one clip of an opened data set, which is a `Sample` with methods for notebooks.

clip = dataset["<key>"]
clip.frames                       # uint8 [T, H, W, 3], decoded when first asked for
clip.queries, clip.labels         # [N, 3], and `Labels` of [N, T] arrays
clip.tracks["lk"].xy              # [N, T, 2]
clip.target("verified").xy        # [N, T, 2], the labels of a policy
clip.show()                       # plays in the notebook
clip.plot()                       # a matplotlib figure
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from labeler.labels import AgreementConfig, Policy, Sample, TrustConfig
from labeler.labels.labelled import labelled, target_of
from labeler.labels.policy import Target
from labeler.video import decode_clip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from labeler.show.player import Page


@dataclass(frozen=True, repr=False, eq=False)
class Clip(Sample):
    """One labelled clip, from one ranged read of its shard."""

    @classmethod
    def of(cls, sample: Sample) -> Clip:
        return cls(**vars(sample))

    @cached_property
    def frames(self) -> np.ndarray:
        """uint8 [T, H, W, 3] RGB: the pixels that the teachers saw. A ShardError if the stored clip
        is damaged."""
        return decode_clip(self.mp4, f"{self.key}.mp4")

    def target(
        self,
        policy: Policy,
        *,
        agreement: AgreementConfig | None = None,
        trust: TrustConfig | None = None,
        seed: int = 0,
    ) -> Target:
        """The labels of this clip by a label policy: for N queries in T frames, `xy` float32
        [N, T, 2] in px of the clip (pixel centres; NaN where there is no position), and `visible`,
        `used`, and `teacher`, all [N, T]: see `Target`. They are made of the stored tracks, so no
        teacher runs. The query's own frame is one of the T.

        Args:
            policy: a name of `labeler.labels.policies`, such as "verified" or "medoid", that of a
                policy of another package, or "module:Class".
            agreement: when teachers agree; None: as in the stored labels.
            trust: when the verifier is believed; None: the defaults of `TrustConfig`.
            seed: of what a policy draws; the draw depends on the clip's key, not on other clips.

        Raises:
            ConfigError: no such policy; one that needs exact tracks ("oracle"); or one that needs
                a verdict, and no verifier judged the clip.
        """
        return target_of(self, policy, agreement=agreement, trust=trust, seed=seed)

    def show(
        self,
        points: int = 200,
        *,
        policy: Policy | None = None,
        trust: TrustConfig | None = None,
    ) -> Page:
        """The clip as a player, for the last line of a notebook cell (elsewhere:
        `display(clip.show())`); `.save(file)` makes a page.

        Args:
            points: the most points that are drawn: some on which teachers are farthest apart, and
                others, evenly chosen in the order of the queries; the page says how many there are.
            policy: the label policy whose labels it shows; None: the stored ones, by agreement.
            trust: the policy's thresholds of the verifier.

        Raises:
            ConfigError: there is no such policy; it needs exact tracks; or it needs a verdict, and
                no verifier judged the clip.
        """
        from labeler.show import page_of

        return page_of(self, labels=labelled(self, policy, trust), points_shown=points)

    def plot(self) -> Figure:
        """A figure with support over time, and how far the teachers are from each other. A
        ConfigError without matplotlib."""
        from labeler.show.plots import plot_clip

        return plot_clip(self)

    def __repr__(self) -> str:
        height, width = self.size_hw
        n, t = self.labels.support.shape
        kept = int(self.labels.keep.sum())
        return (
            f"Clip({self.key!r}): {t} frames of {width} x {height} px, {n:,} queries of which "
            f"{kept:,} kept, {', '.join(self.tracks)}"
        )
