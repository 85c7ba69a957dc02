"""The config of a labelling job."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from labeler.clips import ClipConfig, QueryConfig
from labeler.io.secrets import refuse_secrets
from labeler.io.storage import is_url
from labeler.labels import AgreementConfig
from labeler.labels.teacher_choice import checkpoints
from labeler.reasons import REASONS
from labeler.shards.manifest import Frozen
from labeler.sources import WordFilter
from labeler.video import EncodeConfig
from labeler.video.container import VideoLimits
from labeler.video.decode import Decoder
from pipelines.engines.common import DecodeLimits, TeacherSpec
from teachers import ConfigError
from teachers.info import Precision
from teachers.loading import refuse_compiled
from teachers.registry import own_name


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Label real videos with several teachers, and write WebDataset shards.

    Running the same command again continues where it stopped; with other --teachers, it adds those
    that are missing.
    """

    videos: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="VIDEOS", help_behavior_hint="(required)"),
    ]
    """Videos, folders of videos, globs in quotes, or URLs; lists of them (.txt, one per line),
    tables (.csv or .parquet, whose other columns are stored in the shards), and WebDataset tars of
    videos."""
    out: str
    """The data set: a folder or any fsspec URL, such as s3://bucket/labels."""
    column: str | None = None
    """Column of a table with the paths or URLs; without it, the first of uri, url, path, video, and
    file that the table has."""
    words: WordFilter = field(default_factory=WordFilter)
    teachers: tuple[str, ...] = ("lk", "flow", "match")
    """Names from `tapdistill teachers`. With only one, there is nothing to agree on, and every
    label is kept."""
    checkpoint: tuple[str, ...] = ()
    """Weights of a teacher, as NAME=FILE; may be given several times."""
    judge: Annotated[
        bool,
        tyro.conf.arg(
            help="Do not let the verifier judge the clips, which takes seconds for each; "
            "`tapdistill relabel` can do so later.",
            help_behavior_hint="",
        ),
    ] = True
    """Let the verifier judge every clip."""
    engine: Literal["ray", "local"] = "ray"
    """ray: all cores of this machine, or a cluster. local: this process, without Ray."""
    ray_address: str | None = None
    """Address of a running Ray cluster; without it, Ray is started on this machine for this job."""
    workers: int | None = None
    """Units that the ray engine works on at once; without it, one for each CPU."""
    device: str = "auto"
    """Where teachers run: auto, cpu, cuda."""
    precision: Precision = "auto"
    """How networks multiply. float32; tf32, on a GPU, many times faster; bf16, faster again, in the
    parts that can bear it. auto: tf32 on a GPU, float32 on a CPU."""
    compiled: bool = False
    """Hand the large parts of networks to torch.compile, which is meant for a GPU and many clips of
    one size. The first clip then takes a minute or more; nothing was measured on a GPU."""
    shards: str = "0/1"
    """i/N: do only every N-th unit, starting with unit i (0 to N - 1); for arrays of jobs that have
    no Ray cluster in common."""
    retry: str | None = None
    """Plan and label again the videos that have this reason in failures.parquet, such as
    timeout."""
    max_failed_fraction: float = 0.5
    """Stop once more than this share of the videos has failed, counted from the 20th on: something
    is then wrong with all of them."""
    metrics: Path | None = None
    """File to which a JSON line is written every ten seconds: clips/s, what teachers and decoders
    are doing, the clip that has been in flight for longest, and counts by reason."""
    videos_per_unit: int | None = None
    """Videos in one shard; without it, 16, or fewer if there are fewer than 512, so that every
    worker of a machine gets some."""
    decoder: Decoder = "auto"
    """auto: PyAV, which is right for every file and the cheapest; decord, for the files that a scan
    of the packets finds safe for it."""
    unsafe_decode: bool = False
    """Let a forced decord read files for which it is known to return wrong frames."""
    clips: ClipConfig = field(default_factory=ClipConfig)
    queries: QueryConfig = field(default_factory=QueryConfig)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    agreement: AgreementConfig = field(default_factory=AgreementConfig)
    limits: VideoLimits = field(default_factory=VideoLimits)
    decoding: DecodeLimits = field(default_factory=DecodeLimits)

    def __post_init__(self) -> None:
        for name in self.teachers:
            if "=" in name:
                raise ConfigError(
                    f"--teachers {name}: give the name here, and weights as --checkpoint {name}."
                )
            if "," in name:
                raise ConfigError(
                    f"--teachers {name}: put spaces between names: --teachers "
                    f"{' '.join(name.split(','))}."
                )
        if len(self.names()) != len(self.teachers) or not self.teachers:
            raise ConfigError(
                f"--teachers {' '.join(self.teachers)}: name at least one teacher, each once."
            )
        for address in (*self.checkpoint, self.ray_address or ""):
            refuse_secrets(address)
        specs = self.specs()
        if self.compiled:
            refuse_compiled([(spec.name, spec.checkpoint) for spec in specs])
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers {self.workers}: must be at least 1.")
        self.share()
        if self.retry is not None and self.retry not in REASONS:
            raise ConfigError(f"--retry {self.retry}: there are the reasons {', '.join(REASONS)}.")
        if self.retry == "unwanted":
            raise ConfigError(
                "--retry unwanted: the words of a data set are frozen; label with others into "
                "another --out."
            )
        if not 0 <= self.max_failed_fraction <= 1:
            raise ConfigError(
                f"--max-failed-fraction {self.max_failed_fraction:g}: must be from 0 to 1 (never "
                "stop)."
            )
        if self.videos_per_unit is not None and self.videos_per_unit < 1:
            raise ConfigError(f"--videos-per-unit {self.videos_per_unit}: must be at least 1.")
        if self.engine == "local" and (self.ray_address or self.workers not in (None, 1)):
            raise ConfigError(
                "--engine local is one process without Ray: leave --ray-address and --workers out, "
                "or use --engine ray."
            )

    def names(self) -> set[str]:
        """The names under which the teachers' tracks are stored."""
        return {own_name(name) for name in self.teachers}

    def share(self) -> tuple[int, int]:
        """(i, N) of --shards; a ConfigError if it is not of that form."""
        i, _, n = self.shards.partition("/")
        if not (i.isdecimal() and n.isdecimal() and int(i) < int(n)):
            raise ConfigError(
                f"--shards {self.shards}: write i/N with i from 0 to N - 1, such as 0/8."
            )
        return int(i), int(n)

    def frozen(self) -> Frozen:
        """The settings that decide which clips, pixels, and queries the data set has."""
        return Frozen(
            sources=tuple(
                os.path.abspath(video) if video and not is_url(video) else video
                for video in self.videos
            ),
            column=self.column,
            words=self.words,
            videos_per_unit=self.videos_per_unit,
            decoder=self.decoder,
            unsafe_decode=self.unsafe_decode,
            limits=self.limits,
            clips=self.clips,
            queries=self.queries,
            encode=self.encode,
        )

    def specs(self) -> list[TeacherSpec]:
        """How each teacher is made. A ConfigError for a --checkpoint that names none of them."""
        files = checkpoints(self.checkpoint, self.teachers)
        return [
            TeacherSpec(
                name=name,
                checkpoint=_everywhere(files.get(name)),
                device=self.device,
                precision=self.precision,
                compiled=self.compiled,
            )
            for name in self.teachers
        ]


def _everywhere(file: str | None) -> str | None:
    """A file by a name that is valid in processes with another current folder; other words stay."""
    return os.path.abspath(file) if file and os.path.exists(file) else file
