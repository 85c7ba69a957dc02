"""The decoding of a worker: one killable process, and a thread that asks it for the next clip while teachers work on this one.

What crashes or hangs the process is tried a second time in a fresh one, and is then a row: it costs its video, not the job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

from labeler.accounts import Row
from labeler.isolate import Isolated
from labeler.manifest import Frozen
from labeler.source import Clip, OpenedVideo
from labeler.sources import Source
from teachers import SurroundingsError, TapdistillError, VideoError

T = TypeVar("T")


@dataclass(frozen=True)
class VideoEnd:
    """The last item of a video, whatever became of it."""

    uri: str


Item = OpenedVideo | Clip | Row | VideoEnd


class DecodingProcess:
    """Gives the clips of videos, one after another; close it when done."""

    def __init__(self, frozen: Frozen, *, deadline_s: float, memory_gib: float | None) -> None:
        self._process = Isolated("labeler.source:VideoSource", frozen, memory_gib=memory_gib)
        self._thread = ThreadPoolExecutor(1, "decode-ahead")
        self._deadline_s = deadline_s
        self._closed = False

    def clips(self, videos: Sequence[Source]) -> Iterator[Item]:
        """Every video, then its clips, then its end; a `Row` in place of what cannot be had. One item is fetched ahead."""
        return _fetched_ahead(self._clips(videos), self._thread)

    def _clips(self, videos: Sequence[Source]) -> Iterator[Item]:
        first_with: dict[str, str] = {}
        for video in videos:
            opened = self._call("video", video, "open")
            if isinstance(opened, OpenedVideo):
                first = first_with.setdefault(opened.sha256, video.uri)
                if first != video.uri:
                    detail = f"same bytes as {first}"
                    opened = Row(uri=video.uri, what="video", stage="open", reason="duplicate", detail=detail)
            yield opened
            if isinstance(opened, OpenedVideo):
                for number in range(len(opened.clips)):
                    yield self._call("clip", video, "clip", number)
            yield VideoEnd(video.uri)

    def _call(self, what: Literal["video", "clip"], video: Source, method: str, *args: int) -> OpenedVideo | Clip | Row:
        attempt, uri = 1, video.uri
        while True:
            if self._closed:
                raise SurroundingsError(f"{uri}: the decoding process was closed.")
            try:
                return self._process.call(method, video, *args, timeout_s=self._deadline_s, about=uri)
            except VideoError as error:
                if error.reason in ("crash", "timeout") and attempt == 1:
                    attempt = 2
                    continue
                return Row(uri=uri, what=what, stage=method, reason=error.reason, detail=str(error), attempts=attempt)
            except (TapdistillError, OSError):  # of the job or the surroundings
                raise
            except MemoryError as error:  # of this process: that of the child is a VideoError
                raise SurroundingsError(f"{uri}: the machine is out of memory.") from error
            except Exception as error:  # what no decoder is known to raise: one bad video must not stop a job
                return Row(uri=uri, what=what, stage=method, reason="decode-error", detail=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._closed = True
        self._process.close()  # ends the request in flight, if there is one
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._process.close()

    def __enter__(self) -> DecodingProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _fetched_ahead(items: Iterator[T], thread: ThreadPoolExecutor) -> Iterator[T]:
    """The same items; the next one is being fetched in `thread` while the caller works on this one."""
    end = object()
    coming = thread.submit(next, items, end)
    while (item := coming.result()) is not end:
        coming = thread.submit(next, items, end)
        yield item  # type: ignore[misc]
