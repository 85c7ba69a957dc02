"""tapdistill export: write labels for other tools, as a TAP-Vid pickle or npz, a parquet table of
tracks, a folder for Hugging Face, or a Rerun recording."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.progress import track

from labeler.dataset import Clip, Dataset, open_dataset
from labeler.io import Storage
from labeler.io.storage import is_url
from labeler.labels import TrustConfig
from labeler.labels.policies import find, names, without_truth
from labeler.labels.policy import NOT_JUDGED
from labeler.shards.manifest import NAME as MANIFEST
from pipelines.exports.hugging_face import FILES, SHARDS, HubWriter, is_export
from pipelines.exports.parquet import TracksWriter
from pipelines.exports.rerun import RerunWriter
from pipelines.exports.tapvid import NPZ, labels_as_truth, write_npz, write_pickle
from pipelines.terminal.console import console, say
from pipelines.terminal.upload import parent_and_name, there, uploaded
from pipelines.wording import counted, data_size
from student.clip import TestClip
from teachers import ConfigError, ShardError, TransientError
from teachers.licences import licence_note

Format = Literal["tapvid-pkl", "tapvid-npz", "parquet", "hf", "rerun"]
FOLDERS: dict[Format, tuple[str, ...]] = {"tapvid-npz": (NPZ,), "hf": FILES}
"""Formats that are a folder, and patterns of the files that an export puts into it."""
DEFAULT_POLICY = "medoid"
MEMORY_SHARE = 0.5
"""The frames of a pickle may fill this share of the machine's memory."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write labels for other tools.

    tapvid-pkl: one pickle, as TAP-Vid's test sets are. tapvid-npz: a folder with an npz per clip,
    as `tapdistill eval --dataset npz` reads. parquet: every teacher's raw tracks and their labels,
    a row per point and frame. hf: a folder for Hugging Face, with shards that `datasets` streams, a
    dataset card, and a Croissant description. rerun: a recording for the Rerun viewer.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="URL")]
    """The data set: a folder or an fsspec URL."""
    to: Format
    """The format."""
    out: Annotated[str, tyro.conf.arg(metavar="PATH")]
    """The file, or for tapvid-npz and hf the folder, to write: on this machine, or an fsspec
    URL."""
    policy: str | None = None
    """tapvid only: whose tracks become the truth. medoid (the default), verified, random-verified,
    random-agreeing, random, mean, median, a policy of another package, or the name of a teacher:
    see docs/commands/export.md."""
    trust: TrustConfig = field(default_factory=TrustConfig)
    clips: int | None = None
    """How many clips to export, drawn by --seed; None: all."""
    seed: int = 0
    """Seed for drawing clips, and for policies that draw."""
    overwrite: bool = False
    """Replace an export that exists already."""

    def __post_init__(self) -> None:
        if not self.out:
            raise ConfigError("--out: is empty. Name a file or a folder.")
        if self.clips is not None and self.clips < 1:
            raise ConfigError(f"--clips {self.clips}: must be at least 1.")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed}: must be 0 or more.")
        if self.policy is not None and not self.to.startswith("tapvid"):
            raise ConfigError(
                f"--policy {self.policy}: belongs to tapvid; {self.to} holds the raw tracks of "
                "every teacher."
            )


def run(config: ExportConfig) -> int:
    """The command: write the export, and say what it holds."""
    dataset = open_dataset(config.data)
    _check(config, dataset)
    numbers = (
        range(len(dataset)) if config.clips is None else dataset.drawn(config.clips, config.seed)
    )
    say(
        f"{len(numbers):,} of {len(dataset):,} clips of {dataset.storage.url} -> {config.to} in "
        f"{config.out}"
    )
    once = _Once()
    clips = once.each(
        track(
            dataset.read(numbers),
            "exporting",
            total=len(numbers),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
    )
    if config.to == "tapvid-pkl":
        _refuse_too_large(dataset, numbers)
    with _new(config) as part:
        said = WRITERS[config.to](clips, part, config, dataset)
        files = part.rglob("*") if part.is_dir() else [part]
        size = sum(file.stat().st_size for file in files if file.is_file())
    if once.repeated:
        said += f"; {counted(once.repeated, 'clip')} of equal files left out"
    say(f"{said}; {data_size(size)}.")
    say(f"licences: {licence_note(dataset.teacher_infos)}.")
    return 0


def _tapvid_pickle(
    clips: Iterable[Clip], part: Path, config: ExportConfig, dataset: Dataset
) -> str:
    count = _Count(config)
    write_pickle(count.with_labels(clips), part)
    return count.said()


def _tapvid_npz(clips: Iterable[Clip], part: Path, config: ExportConfig, dataset: Dataset) -> str:
    count = _Count(config)
    part.mkdir()
    for clip in count.with_labels(clips):
        write_npz(clip, part)
    return count.said()


def _parquet(clips: Iterable[Clip], part: Path, config: ExportConfig, dataset: Dataset) -> str:
    written = rows = 0
    with TracksWriter(part) as writer:
        for clip in clips:
            writer.write(clip)
            written, rows = written + 1, rows + len(clip.tracks) * clip.labels.support.size
    return f"{written:,} clips, {rows:,} rows"


def _rerun(clips: Iterable[Clip], part: Path, config: ExportConfig, dataset: Dataset) -> str:
    written = 0
    with RerunWriter(part) as writer:
        for clip in clips:
            writer.write(clip)
            written += 1
    shown = "a copy of it" if is_url(config.out) else config.out
    return f"{written:,} clips; `rerun` shows them: give it {shown}"


def _hugging_face(clips: Iterable[Clip], part: Path, config: ExportConfig, dataset: Dataset) -> str:
    writer = HubWriter(part, dataset)
    for clip in clips:
        writer.write(clip)
    writer.finish()
    return f"{len(writer.rows):,} clips; name the licence of the videos in README.md"


WRITERS = {
    "tapvid-pkl": _tapvid_pickle,
    "tapvid-npz": _tapvid_npz,
    "parquet": _parquet,
    "hf": _hugging_face,
    "rerun": _rerun,
}


class _Once:
    """Of clips with one key, which equal files in several units have, the first."""

    def __init__(self) -> None:
        self.repeated = 0
        """Clips that were left out so far."""

    def each(self, clips: Iterable[Clip]) -> Iterator[Clip]:
        seen: set[str] = set()
        for clip in clips:
            if clip.key in seen:
                self.repeated += 1
            else:
                seen.add(clip.key)
                yield clip


class _Count:
    """Clips as TAP-Vid has them, and counts of what they hold."""

    def __init__(self, config: ExportConfig) -> None:
        self.policy, self.seed = config.policy or DEFAULT_POLICY, config.seed
        self.trust = config.trust
        self.clips = self.points = self.beyond = self.queries = self.empty = 0

    def with_labels(self, clips: Iterable[Clip]) -> Iterator[TestClip]:
        """The clips in which the policy labels any point as visible."""
        for clip in clips:
            labelled = labels_as_truth(clip, self.policy, self.seed, self.trust)
            self.queries += len(clip.queries)
            if len(labelled.xy):
                self.clips, self.points = self.clips + 1, self.points + len(labelled.xy)
                others = np.arange(len(labelled.frames)) != labelled.queries[:, :1]
                self.beyond += int((labelled.visible & others).any(1).sum())
                yield labelled
            else:
                self.empty += 1
        if not self.clips:
            raise ShardError(
                f"none of {self.empty:,} clips has a label by --policy {self.policy}: nothing to "
                "export."
            )

    def said(self) -> str:
        left_out = f"; {self.empty:,} clips without any are left out" if self.empty else ""
        return (
            f"{self.clips:,} clips, {self.points:,} of {self.queries:,} queries, {self.beyond:,} "
            f"with a visible label by {self.policy} in a frame other than their own{left_out}"
        )


def _check(config: ExportConfig, dataset: Dataset) -> None:
    if not len(dataset):
        a, url = dataset.accounts, dataset.storage.url
        raise ShardError(
            f"{url} has no labelled clip: of {a.videos:,} videos {a.open:,} are open and "
            f"{a.videos_failed:,} failed. `tapdistill status {url}` says more."
        )
    if config.policy is not None and config.policy not in dataset.teachers:
        _check_policy(config.policy, dataset)
    _refuse_its_own_folder(config, dataset)
    folder = config.to in FOLDERS
    is_file, is_folder = _there_now(config)
    if is_folder and Storage(config.out).size(MANIFEST) is not None:
        raise ConfigError(f"--out {config.out}: is a data set of labels. Name another place.")
    if (is_folder and not folder) or (is_file and folder):
        raise ConfigError(
            f"--out {config.out}: is a {'file' if folder else 'folder'}; {config.to} is a "
            f"{'folder' if folder else 'file'}."
        )
    files = there(Storage(config.out), FOLDERS[config.to]) if folder else iter(())
    taken = "" if is_file else next((f"{name} in it " for name in files), None)
    if taken is not None and not config.overwrite:
        raise ConfigError(
            f"--out {config.out}: {taken}exists already. Choose another name, or replace it with "
            "--overwrite."
        )


def _refuse_its_own_folder(config: ExportConfig, dataset: Dataset) -> None:
    """A ConfigError if --out lies in the data set: --overwrite replaces exports, not labels."""
    if is_url(config.out):
        source, out = dataset.storage.url.rstrip("/"), config.out.rstrip("/")
    else:
        source, out = (os.path.realpath(path) for path in (dataset.storage.url, config.out))
    if f"{out}/".startswith(f"{source}/"):
        raise ConfigError(
            f"--out {config.out}: lies in the data set {dataset.storage.url}, which an export "
            "would damage. Name another place."
        )


def _check_policy(policy: str, dataset: Dataset) -> None:
    if (":" not in policy and policy not in names()) or find(policy).needs_truth:
        raise ConfigError(
            f"--policy {policy}: there are the policies {', '.join(without_truth())} and the "
            f"teachers {', '.join(dataset.teachers)}."
        )
    if find(policy).needs_verdict and dataset.unjudged:
        raise ConfigError(f"--policy {policy}: {NOT_JUDGED}")


def _refuse_too_large(dataset: Dataset, numbers: Iterable[int]) -> None:
    sizes = dataset.clips.iloc[list(numbers)]
    needed = int((sizes["frames"] * sizes["height"] * sizes["width"] * 3).sum())
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > MEMORY_SHARE * there:
        raise ConfigError(
            f"a pickle is written at once, and the frames of these clips take {needed / 1e9:.1f} "
            f"GB, more than {MEMORY_SHARE:.0%} of this machine's memory: take fewer with --clips, "
            "or --to tapvid-npz, which writes clip by clip."
        )


def _there_now(config: ExportConfig) -> tuple[bool, bool]:
    """Whether --out is a file, and whether it is a folder."""
    if not is_url(config.out):
        is_folder = os.path.isdir(config.out)
        return os.path.lexists(config.out) and not is_folder, is_folder
    parent_and_name(config.out)
    place = Storage(config.out)
    is_file = place.is_file()
    return is_file, not is_file and next(place.files(), None) is not None


def _outdated(config: ExportConfig) -> tuple[str, ...]:
    """Patterns of the files in --out that go unless the new export has them too: shards only of an
    earlier export, because data sets of others name theirs so, too."""
    patterns = FOLDERS.get(config.to, ())
    if SHARDS not in patterns:
        return patterns
    place = Storage(config.out)
    ours = place.size("croissant.json") is not None and is_export(place.read("croissant.json"))
    return patterns if ours else tuple(one for one in patterns if one != SHARDS)


@contextmanager
def _new(config: ExportConfig) -> Iterator[Path]:
    """A path to write to; it takes the place of --out only when it is complete."""
    outdated = _outdated(config)
    if is_url(config.out):
        with uploaded(config.out, folder=config.to in FOLDERS, replaced=outdated) as part:
            try:
                yield part
            except OSError as error:
                raise TransientError(f"could not write {part}: {error}.") from error
        return
    out = Path(os.path.abspath(config.out))
    part = out.parent / f".{out.name}.{os.getpid()}.part"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if part.is_dir():
            _move(part, out, outdated)
        else:
            part.replace(out)
    except OSError as error:
        raise TransientError(f"could not write --out {out}: {error}.") from error
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        with suppress(OSError):  # the error says why
            part.unlink(missing_ok=True)


def _move(part: Path, out: Path, outdated: tuple[str, ...]) -> None:
    """Move the files of a new folder into `out`, and remove those that match `outdated` and are not
    among them."""
    made = {file.relative_to(part).as_posix() for file in part.rglob("*") if file.is_file()}
    for name in sorted(made):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).replace(out / name)
    for name in set(there(Storage(str(out)), outdated)) - made:
        (out / name).unlink(missing_ok=True)
