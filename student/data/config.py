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
    """Least share of the opinions that must agree on a visible point; teachers whose evidence is of
    one kind have one opinion together."""
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
    """What a student learns from. Frames, crop, queries, and batch are by default as large as in
    CoTracker3's online training on pseudo-labels; policy, strides, flip, and query_part are not as
    published. For the published training take a recipe: docs/recipe.md."""

    data: tuple[str, ...] = ()
    """Data sets that `tapdistill label` wrote: folders or URLs."""
    data_weights: tuple[float, ...] = ()
    """Shares of the data sets among the stored clips, in the order of `data`; without them, every
    clip is drawn equally often."""
    policy: Policy = "verified"
    """Whose track is the label. verified: in each frame, the position that the verifier trusts
    most, if it trusts one, moved to the middle of those around it. random-verified: for each query,
    one of the teachers that it trusts, in the frames in which it does. random, as published: one
    teacher's, drawn anew each time a clip is read. random-agreeing: for each query, one of the
    teachers that agree, in the frames in which it agrees. medoid, mean, median: ablations.
    mean-all, median-all: of all teachers in every frame, as in the paper's table. Or a policy of
    another package, by its name or as module:Class."""
    agreement: AgreementOverride = AS_STORED
    trust: TrustConfig = field(default_factory=TrustConfig)
    weigh: bool = False
    """Let each frame count in the loss by the verifier's probability that its label is right, with
    any policy."""
    use_teachers: tuple[str, ...] = ()
    """Names of the stored teachers that count, with any policy; none named: all."""
    samplers: tuple[Literal["sift", "motion", "uniform", "grid"], ...] = ()
    """Which stored queries count, by what chose them; none named: all."""
    review: str | None = None
    """A csv with the columns key, point, verdict, as the players of `inspect` write it: points that
    it calls wrong are not learnt from."""
    reviewed_only: bool = False
    """Learn only from points that the review calls right."""
    most_clips: int | None = None
    """Take at most this many stored clips, drawn once; a smaller number takes a part of what a
    larger one takes."""
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
    """The length of the clips is drawn between this and `frames`; None: always `frames`. The
    offline recipe has 40 to 79."""
    length_of: Literal["step", "clip"] = "step"
    """Whether a length is drawn for each step, or for each clip, which then goes through the
    network alone."""
    strides: tuple[int, ...] = (1,)
    """Steps through the frames of the video, one of which is drawn each time a clip is read, of
    those for which it is long enough. A clip that was stored at stride 2 gives 2, 4, ...; if none
    of these is named, it is taken as it is stored."""
    scale: tuple[float, float] = (1.0, 1.0)
    """By how much a clip is resized before it is cropped, at least and at most. It is drawn each
    time, and is never less than what holds the crop."""
    squeeze: float = 1.0
    """By how much the longer side of a clip is shrunk more than the shorter one, at most, and never
    below it: a network that takes square frames sees videos so. It is drawn each time."""
    query_part: float | None = None
    """Part of what the student sees, from its start, in which queries should lie: those stored
    there come first, then others, moved to it along their tracks, the nearest first. None: queries
    lie anywhere."""
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
    """Half of the stored clips are mirrored, unless this is given."""
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
        if self.reviewed_only and self.review is None:
            raise ConfigError("reviewed_only needs a review: give --review FILE.")
        if self.most_clips is not None and self.most_clips < 1:
            raise ConfigError(f"most_clips = {self.most_clips}: must be at least 1.")
        self._check_views()
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

    def _check_views(self) -> None:
        if not self.strides or min(self.strides) < 1:
            raise ConfigError(
                f"strides = {self.strides}: give one or more whole numbers from 1 on; CoTracker3 "
                "draws from 1, 2, 3."
            )
        if not 1 <= self.squeeze <= 4:
            raise ConfigError(f"squeeze = {self.squeeze}: from 1, which keeps the aspect, to 4.")
        if not 0 < self.scale[0] <= self.scale[1] <= 2:
            raise ConfigError(
                f"scale = {self.scale}: the least and the most, in (0, 2]; 1 1 keeps the size."
            )
        if self.query_part is not None and not 0 <= self.query_part <= 1:
            raise ConfigError(
                f"query_part = {self.query_part:g}: a part in [0, 1]; CoTracker3 has 0.25."
            )
        if self.length_of == "clip" and self.at_once > 1:
            raise ConfigError(
                f"length_of = 'clip' with at_once = {self.at_once}: clips that go through the "
                "network together have one length. Set at_once to 1, or length_of to 'step'."
            )

    def steps_of(self, stored_stride: int) -> tuple[int, ...]:
        """Steps through the frames of a clip that was stored at that stride."""
        steps = [s // stored_stride for s in self.strides if s % stored_stride == 0]
        return tuple(sorted(steps)) or (1,)

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
