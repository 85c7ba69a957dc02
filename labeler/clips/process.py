"""Process: the decoding process of a worker, which can be killed, and a thread that asks it for the
next clip while teachers work on this one.

After the last clip of a unit, the next clip is the first one of the next unit, so teachers do not
wait between units either. A video or clip that crashes or hangs the process is tried a second time
in a new one, and then becomes a row: it costs its video, not the job. One whose storage does not
answer, or over which somebody kills the process, as a system without memory does, is tried three
times, beside the teachers' work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal

from labeler.clips.isolate import START_TIMEOUT_S, Isolated, Killed
from labeler.clips.making import OpenedVideo, UnlabelledClip
from labeler.clips.recipe import ClipRecipe
from labeler.io.closing import ClosedAtExit
from labeler.reasons import LeftOut
from labeler.sources import Source
from teachers import ConfigError, InstallationError, TapdistillError, TransientError, VideoError
from teachers.errors import OWN_FAULTS

HOSTED = "labeler.clips.making:VideoSource"
"""The class of the object in the process."""
TRIES = {"crash": 2, "timeout": 2, "unreachable": 3, "killed": 3}
"""How often a video or clip is tried that ends so."""
PAUSED = ("unreachable", "killed")
PAUSE_S = 1.0
"""Before one that ended so is tried again; twice that before the third time."""


@dataclass(frozen=True)
class VideoEnd:
    """The last item for each video, whatever became of it."""

    uri: str


Item = OpenedVideo | UnlabelledClip | LeftOut | VideoEnd


class DecodingProcess(ClosedAtExit):
    """Gives the clips of videos, one after another; close it when you are done."""

    def __init__(self, recipe: ClipRecipe, *, deadline_s: float, memory_gib: float | None) -> None:
        self._process = Isolated(HOSTED, recipe, memory_gib=memory_gib)
        self._thread = _Thread("decode-ahead")
        self._deadline_s = deadline_s
        self._now: _Fetch | None = None
        self._prefetched: _Fetch | None = None
        self._closed = False

    def check(self) -> None:
        """Decode the clip that comes with the installation, in the process; before the first call
        of `clips`.

        Raises:
            InstallationError: it cannot be decoded here, so no video could.
            TransientError: the process does not start.
        """
        about = "the clip that comes with the installation"
        try:
            self._process.call(
                "check", timeout_s=max(self._deadline_s, START_TIMEOUT_S), about=about
            )
        except VideoError as error:  # a crash, too little memory, or no end
            raise InstallationError(f"no video can be decoded here: {error}") from error
        except OWN_FAULTS as error:
            raise InstallationError(
                f"the decoding process cannot be started: {type(error).__name__}: {error}: install "
                "tapdistill again in an environment of its own."
            ) from error

    def clips(self, videos: Sequence[Source], then: Sequence[Source] = ()) -> Iterator[Item]:
        """Every video, then its clips, then its end, with a `LeftOut` in place of a video or clip
        that cannot be used.

        One clip is fetched ahead; after the last one, it is the first one of `then`, which are
        probably the videos of the next call. A call ends the one before.
        """
        if self._now is not None:
            self._now.cancel()
        if self._prefetched is not None and self._prefetched.videos == videos:
            self._now = self._prefetched
        else:
            if self._prefetched is not None:
                self._prefetched.cancel()
            self._now = self._fetch(videos)
        self._prefetched = self._fetch(then) if then else None
        return iter(self._now)

    def _fetch(self, videos: Sequence[Source]) -> _Fetch:
        return _Fetch(videos, self._clips(videos), self._thread)

    def _clips(self, videos: Sequence[Source]) -> Iterator[Item]:
        first_with: dict[str, str] = {}
        missed: list[LeftOut] | None = []  # until a video is reached
        for video in videos:
            opened = self._call("video", video, "open")
            if missed is not None:
                if isinstance(opened, LeftOut) and opened.reason == "unreachable":
                    missed.append(opened)
                    continue
                yield from _with_ends(missed)
                missed = None
            if isinstance(opened, OpenedVideo):
                first = first_with.setdefault(opened.sha256, video.uri)
                if first != video.uri:
                    detail = f"same bytes as {first}"
                    opened = LeftOut(
                        uri=video.uri, what="video", stage="open", reason="duplicate", detail=detail
                    )
            yield opened
            if isinstance(opened, OpenedVideo):
                for number in range(len(opened.clips)):
                    yield self._call("clip", video, "clip", number)
            yield VideoEnd(video.uri)
        if missed:
            if len(videos) > 1:  # then the network is away, or the storage of all of them
                raise TransientError(
                    f"none of {len(videos)} videos can be reached: {missed[0].detail}"
                )
            yield from _with_ends(missed)

    def _call(
        self, what: Literal["video", "clip"], video: Source, method: str, *args: int
    ) -> OpenedVideo | UnlabelledClip | LeftOut:
        attempt, uri = 1, video.uri
        while True:
            if self._closed:
                raise TransientError(f"{uri}: the decoding process was closed.")
            try:
                return self._process.call(
                    method, video, *args, timeout_s=self._deadline_s, about=uri
                )
            except (VideoError, Killed) as error:
                end = error.reason if isinstance(error, VideoError) else "killed"
                if attempt < TRIES.get(end, 1):
                    if end in PAUSED and not self._closed:
                        time.sleep(attempt * PAUSE_S)
                    attempt += 1
                    continue
                if isinstance(error, Killed):
                    self._raise_if_unwell(error)
                return LeftOut(
                    uri=uri,
                    what=what,
                    stage=method,
                    reason="memory" if end == "killed" else end,
                    detail=str(error),
                    attempts=attempt,
                )
            except ConfigError as error:  # of the job, but met in this video
                if uri in str(error):
                    raise
                raise ConfigError(f"{uri}: {error}") from error
            except (TapdistillError, OSError):  # of the job, or transient
                raise
            except MemoryError as error:  # of this process: that of the child is a VideoError
                raise TransientError(f"{uri}: the machine is out of memory.") from error
            # of an installation that is broken, or is being changed
            except ImportError as error:
                raise TransientError(
                    f"{uri}: the decoding process cannot be started: {error}"
                ) from error
            except OWN_FAULTS as error:
                raise InstallationError(
                    f"{uri}: {type(error).__name__}: {error}. That is a fault of tapdistill or of "
                    "a package, not of this video, which stays open. Please report it."
                ) from error
            # no decoder is known to raise anything else, but one bad video must not stop a job
            except Exception as error:
                return LeftOut(
                    uri=uri,
                    what=what,
                    stage=method,
                    reason="decode-error",
                    detail=f"{type(error).__name__}: {error}",
                )

    def _raise_if_unwell(self, error: Killed) -> None:
        """Raise `error` if nothing else can be decoded here either, so that it is not the video's
        fault."""
        try:
            self.check()
        except TapdistillError:
            raise error from None

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._closed = True
        for fetch in (self._now, self._prefetched):
            if fetch is not None:
                fetch.cancel()
        self._process.close()  # ends the request in flight, if there is one
        self._thread.close()
        self._process.close()


def _with_ends(rows: Sequence[LeftOut]) -> Iterator[Item]:
    """Each row of a video, and the video's end."""
    for row in rows:
        yield from (row, VideoEnd(row.uri))


class _Thread:
    """Runs jobs one after another. The process does not wait for it at its end, as it would for the
    thread of an executor: Ray ends a worker in the middle of a unit, and nobody closes what it has.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[], None]) -> Future[None]:
        job = Future[None]()
        self._jobs.put((job, run))
        return job

    def close(self) -> None:
        """Wait until the jobs that are not cancelled are done."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (next_one := self._jobs.get()) is not None:
            job, run = next_one
            if not job.set_running_or_notify_cancel():
                continue
            try:
                run()
            except BaseException as error:  # for whoever asks for the job's result
                job.set_exception(error)
            else:
                job.set_result(None)


class _Fetch:
    """The items of `videos`, fetched in `thread`, which waits after each clip until that clip is
    taken. Iterate over it once."""

    def __init__(self, videos: Sequence[Source], items: Iterator[Item], thread: _Thread) -> None:
        self.videos = videos
        self._items: SimpleQueue[Item | None] = SimpleQueue()
        """The items that are fetched; None is the end."""
        self._clip_taken = threading.Semaphore(0)
        self._cancelled = False
        self._job = thread.submit(lambda: self._run(items))

    def _run(self, items: Iterator[Item]) -> None:
        try:
            for item in items:
                self._items.put(item)
                if isinstance(item, UnlabelledClip):
                    self._clip_taken.acquire()
                if self._cancelled:
                    return
        finally:
            self._items.put(None)

    def __iter__(self) -> Iterator[Item]:
        while (item := self._items.get()) is not None:
            if isinstance(item, UnlabelledClip):
                self._clip_taken.release()
            yield item
        if not self._job.cancelled():
            self._job.result()  # raises what the job raised

    def cancel(self) -> None:
        """Stop fetching after the item that is being fetched."""
        self._cancelled = True
        if self._job.cancel():  # it had not begun
            self._items.put(None)
        self._clip_taken.release()
