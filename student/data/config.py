"""Settings of what a student learns from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from labeler.labels.agreement import AgreementConfig
from labeler.labels.policies import Policy, find, without_truth
from labeler.labels.trust import TrustConfig
from student.synth.scene import SynthConfig
from teachers.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AgreementOverride:
    """Thresholds of the policies that need agreement. They are applied to the stored raw tracks, so
    nothing is labelled again; None takes what the stored labels were made with."""

    tau_px: float | None = None
    """Teachers within this distance of their medoid agree; px of the 256 x 256 raster."""
    min_support: float | None = None
    """Least share of the teachers that must agree on a visible point."""
    min_visible_frames: int | None = None
    """A query is kept with at least this many valid, visible frames."""
    min_motion_px: float | None = None
    """A query is kept if its track moves at least this far; px of the 256 x 256 raster."""

    def __post_init__(self) -> None:
        self.over(AgreementConfig())

    def over(self, stored: AgreementConfig) -> AgreementConfig:
        """`stored` with the thresholds that are given here."""
        return replace(
            stored, **{name: value for name, value in vars(self).items() if value is not None}
        )


AS_STORED = AgreementOverride()


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What a student learns from. The defaults are CoTracker3's pseudo-label training, with the
    labels that the verifier trusts; the paper draws one teacher instead (`policy = "random"`)."""

    data: tuple[str, ...] = ()
    """Data sets that `tapdistill label` wrote: folders or URLs."""
    data_weights: tuple[float, ...] = ()
    """Shares of the data sets among the stored clips, in the order of `data`; without them, every
    clip is drawn equally often."""
    policy: Policy = "verified"
    """Whose track is the label. verified: in each frame, the position that the verifier trusts
    most, if it trusts one. random-verified: for each query, one of the teachers that it trusts, in
    the frames in which it does. random, as published: one teacher's, drawn anew each time a clip is
    read. random-agreeing: for each query, one of the teachers that agree, in the frames in which it
    agrees. medoid, mean, median: ablations. Or a policy of another package, by its name or as
    module:Class."""
    agreement: AgreementOverride = AS_STORED
    trust: TrustConfig = field(default_factory=TrustConfig)
    weigh: bool = False
    """Let each frame count in the loss by the verifier's probability that its label is right, with
    any policy."""
    labels: Literal["stored", "inline"] = "stored"
    """stored: those in the shards. inline: a teacher runs in the training step, on exactly the part
    of the clip that the student sees, as in the published script; this is for comparison, as its
    cost is paid again in every step."""
    teachers: tuple[str, ...] = ()
    """For inline labels: names of teachers, one of which is drawn for each clip."""
    checkpoint: tuple[str, ...] = ()
    """For inline labels: weights of a teacher, as NAME=FILE."""
    procedural: float = 0.0
    """Share of procedural clips, in [0, 1]."""
    kubric: str | None = None
    """Folder or URL of CoTracker3's Kubric release."""
    kubric_share: float = 0.0
    """Share of its clips, in [0, 1]."""
    frames: int = 64
    """Frames of a clip; shorter clips are extended by their reverse."""
    least_frames: int | None = None
    """The length of the clips of a step is drawn between this and `frames`; None: always `frames`.
    The offline recipe has 40 to 80."""
    height: int = 384
    """Px of the crop."""
    width: int = 512
    """Px of the crop."""
    queries: int = 384
    """Points of a clip."""
    batch: int = 32
    """Clips of a step, over all processes together."""
    at_once: int = 1
    """Clips that go through the network together on one device; gradients are accumulated over the
    rest."""
    flip: bool = True
    """Mirror half of the stored clips."""
    photometric: float = 0.0
    """How strongly colours, sharpness, noise, and patches of the student's frames are changed: 0 is
    not at all, 1 is usual. Labels come from the clean frames."""
    shards_at_once: int = 16
    """Clips are shuffled within this many shards, which are themselves in random order, so that
    reads stay close to each other."""
    readers: int = 0
    """Processes that read and decode; with 0, the trainer's own does. This changes no batch. A
    script that uses them needs the usual `if __name__ == "__main__":`."""

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width", "queries", "batch", "at_once", "shards_at_once"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1.")
        if self.readers < 0:
            raise ConfigError(f"readers = {self.readers}: must be 0 (none) or more.")
        if self.least_frames is not None and not 1 <= self.least_frames <= self.frames:
            raise ConfigError(
                f"least_frames = {self.least_frames}: must be between 1 and frames = {self.frames}."
            )
        if self.batch % self.at_once:
            raise ConfigError(
                f"batch = {self.batch} cannot be taken at_once = {self.at_once} clips at a time: "
                "it must be a multiple."
            )
        if find(self.policy).needs_truth:
            raise ConfigError(
                f"policy = {self.policy!r} needs exact tracks, which stored clips do not have: "
                f"there are {', '.join(without_truth())}."
            )
        if not 0 <= self.photometric <= 2:
            raise ConfigError(
                f"photometric = {self.photometric:g}: a strength in [0, 2]; 0 is none, 1 is usual."
            )
        self._check_sources()
        self._check_inline()

    def _check_sources(self) -> None:
        for name in ("procedural", "kubric_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} = {getattr(self, name):g}: is the share of such clips, in [0, 1]."
                )
        if self.synthetic > 1:
            raise ConfigError(
                f"procedural = {self.procedural:g} and kubric_share = {self.kubric_share:g}: "
                "together at most 1."
            )
        if (self.kubric is None) != (self.kubric_share == 0):
            raise ConfigError(
                f"kubric = {self.kubric!r} with kubric_share = {self.kubric_share:g}: give both, "
                "or neither."
            )
        if self.data_weights and (
            len(self.data_weights) != len(self.data) or min(self.data_weights) <= 0
        ):
            raise ConfigError(
                f"data_weights = {self.data_weights}: one above 0 for each of the {len(self.data)} "
                "data sets, or none."
            )
        if self.procedural > 0:
            self.synth(self.frames)

    def _check_inline(self) -> None:
        if (self.labels == "inline") != bool(self.teachers) or (
            self.checkpoint and not self.teachers
        ):
            raise ConfigError(
                f"labels = {self.labels!r} with teachers = {self.teachers}: inline labels need "
                "teachers, stored ones take none."
            )
        if self.labels == "inline" and self.weigh:
            raise ConfigError(
                "inline labels with weigh: no verifier judges them. Leave weigh out, or use stored "
                "labels."
            )
        if self.labels == "inline" and self.photometric:
            raise ConfigError(
                "inline labels with photometric > 0: the teacher would see the changed frames. Set "
                "photometric to 0, or use stored labels."
            )

    def check_complete(self) -> None:
        """ConfigError where there is nothing to learn from. A recipe may leave the data sets to the
        command line, so only reading asks."""
        if not self.data and self.synthetic < 1:
            raise ConfigError(
                f"procedural = {self.procedural:g} and no data: name a data set of `tapdistill "
                "label`, or train on procedural video alone with procedural = 1."
            )

    @property
    def synthetic(self) -> float:
        """Share of clips with exact tracks."""
        return self.procedural + self.kubric_share

    def synth(self, frames: int) -> SynthConfig:
        """What procedural clips of that length are like."""
        return SynthConfig(
            frames=frames,
            height=self.height,
            width=self.width,
            points=self.queries,
            query_frame="random",
            split="train",
        )
