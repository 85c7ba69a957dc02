"""Connection: what one open page asks, and what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from labeler.clips.frames_process import IsolatedFrames
from labeler.show.draw import to_jpeg
from pipelines.live.session import LiveAnswer, Session
from pipelines.live.trackers import LiveTrackers
from teachers import ConfigError

HEAD = struct.Struct("<II")
"""The header before the pixels of a frame: its session and its number."""
LONGEST_SIDE_PX, SHORTEST_SIDE_PX = 1280, 16
"""Limits for the sides of a camera's frames."""
CAMERA_FPS = 30.0
JPEG_QUALITY = 85


class OpenPage(Protocol):
    """The page at the other end."""

    async def tell(self, message: Mapping[str, Any]) -> None: ...

    async def show(self, frame: bytes) -> None: ...


class Connection:
    """Answers a page, one message after another; close it when the page is gone.

    All tracking runs in `worker`, which has one thread for all pages.
    """

    def __init__(
        self,
        page: OpenPage,
        trackers: LiveTrackers,
        open_upload: Callable[[str], IsolatedFrames],
        worker: ThreadPoolExecutor,
    ) -> None:
        """`open_upload` opens the video that was uploaded under that id."""
        self._page, self._trackers, self._open_upload = page, trackers, open_upload
        self._worker = worker
        self._busy = asyncio.Lock()
        """Held while the session is used."""
        self.session: Session | None = None
        self.name = ""
        """The name of the source."""
        self._number = 0
        """The number of the session."""
        self._shown = 0
        """How many frames of a video have been sent."""
        self._video: IsolatedFrames | None = None
        self._playing: asyncio.Task[None] | None = None
        self._ended = False

    async def asked(self, message: Mapping[str, Any]) -> None:
        """Handle one message of the page.

        Raises:
            TapdistillError: it cannot be done; the message says why.
        """
        do = message.get("do")
        actions: dict[str, Callable[[Mapping[str, Any]], Awaitable[None]]] = {
            "camera": self._camera,
            "video": self._open_video,
            "trackers": self._change,
            "add": self._add,
            "remove": self._remove,
            "play": self._play,
            "pause": self._pause,
            "step": self._step,
        }
        if do not in actions:
            raise ConfigError(f"the page asks for {do!r}: there are {', '.join(actions)}.")
        await actions[do](message)

    async def frame(self, data: bytes) -> None:
        """Handle a frame of the camera."""
        async with self._busy:
            session = self.session
            if len(data) < HEAD.size or session is None or session.source != "camera":
                return
            number, _ = HEAD.unpack_from(data)
            if number != self._number:  # a frame of an earlier session
                return
            height, width = session.size
            if len(data) != HEAD.size + height * width * 4:
                raise ConfigError(f"a frame of {len(data)} bytes: not {width} x {height} px.")
            pixels = np.frombuffer(data, np.uint8, offset=HEAD.size).reshape(height, width, 4)
            answers = await self._run(self._push, session, np.ascontiguousarray(pixels[..., :3]))
            await self._answer(answers, taken=1)

    @staticmethod
    def _push(session: Session, frame: np.ndarray) -> list[LiveAnswer]:
        return session.push(frame, to_jpeg(frame, JPEG_QUALITY))

    async def close(self) -> None:
        """Stop, and free the decoder."""
        await self._stop_playing()
        if self._video is not None:
            self._video.close()
        self.session = self._video = None

    # --- what a page can ask

    async def _camera(self, message: Mapping[str, Any]) -> None:
        height, width = (_whole(message, side) for side in ("height", "width"))
        if not SHORTEST_SIDE_PX <= min(height, width) <= max(height, width) <= LONGEST_SIDE_PX:
            raise ConfigError(
                f"a camera of {width} x {height} px: sides must be {SHORTEST_SIDE_PX} to "
                f"{LONGEST_SIDE_PX} px."
            )
        await self.close()
        self.name = "camera"
        await self._begin((height, width), CAMERA_FPS, "camera", _titles(message))

    async def _open_video(self, message: Mapping[str, Any]) -> None:
        await self.close()
        upload, self.name = str(message.get("upload")), str(message.get("name", "video"))[:200]
        self._video = await asyncio.to_thread(self._open_upload, upload)
        await self._begin(self._video.size, self._video.fps, "video", _titles(message))
        await self._step({})

    async def _begin(
        self, size: tuple[int, int], fps: float, source: str, titles: list[str]
    ) -> None:
        loaded = await self._load(titles)
        self._number += 1
        self._shown, self._ended = 0, False
        self.session = Session(size, loaded, fps=fps, source=source)
        await self._page.tell(
            {
                "is": "ready",
                "session": self._number,
                "source": source,
                "name": self.name,
                "size": size,
                "fps": fps,
                "length": self._video.length if self._video else None,
                "trackers": titles,
            }
        )

    async def _load(self, titles: list[str]) -> dict[str, Any]:
        if not titles:
            raise ConfigError("choose at least one tracker.")
        loaded = {}
        for title in titles:
            await self._page.tell({"is": "loading", "tracker": title})
            loaded[title] = await self._run(self._trackers.load, title)
        return loaded

    async def _change(self, message: Mapping[str, Any]) -> None:
        titles = _titles(message)
        async with self._busy:
            if self.session is not None:
                loaded = await self._load(titles)
                await self._answer(await self._run(self.session.change_trackers, loaded))
            await self._page.tell({"is": "trackers", "trackers": titles})

    async def _add(self, message: Mapping[str, Any]) -> None:
        points = message.get("points")
        if not isinstance(points, list) or not all(_is_point(point) for point in points):
            raise ConfigError("points are pairs of numbers.")
        async with self._busy:
            session = self._open()
            answers = await self._run(session.add, _whole(message, "frame"), points)
            await self._tell_points()
            await self._answer(answers)

    async def _remove(self, message: Mapping[str, Any]) -> None:
        ids = message.get("ids", [])
        if not isinstance(ids, list) or not all(isinstance(each, int) for each in ids):
            raise ConfigError("ids are whole numbers.")
        async with self._busy:
            session = self._open()
            everything = message.get("all") is True
            await self._run(session.remove, list(session.points) if everything else ids)
            await self._tell_points()

    async def _play(self, message: Mapping[str, Any]) -> None:
        if self._video is None or (self._playing and not self._playing.done() and not self._ended):
            return
        await self._stop_playing()
        if self._ended:
            titles = self._open().titles
            await asyncio.to_thread(self._video.rewind)
            await self._begin(self._video.size, self._video.fps, "video", titles)
        self._playing = asyncio.create_task(self._play_on())

    async def _pause(self, message: Mapping[str, Any]) -> None:
        await self._stop_playing()

    async def _step(self, message: Mapping[str, Any]) -> None:
        await self._stop_playing()
        if self._video is not None and not self._ended:
            await self._next_frame()

    # --- how

    async def _play_on(self) -> None:
        """Send every frame of the video, not faster than it plays."""
        clock = asyncio.get_running_loop()
        try:
            while self._video is not None and not self._ended:
                due = clock.time() + 1 / self._video.fps
                await self._next_frame()
                await asyncio.sleep(max(0.0, due - clock.time()))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:  # a bad video must not end the page
            await self._page.tell({"is": "error", "text": str(error)})

    async def _next_frame(self) -> None:
        async with self._busy:
            video, session = self._video, self._open()
            if video is None:
                return
            frame = await asyncio.to_thread(video.read)
            if frame is None:
                self._ended = True
                await self._answer(await self._run(session.finish))
                await self._page.tell({"is": "ended"})
                return
            jpeg = await asyncio.to_thread(to_jpeg, frame, JPEG_QUALITY)
            await self._page.show(HEAD.pack(self._number, self._shown) + jpeg)
            self._shown += 1
            await self._answer(await self._run(session.push, frame, jpeg))

    async def _stop_playing(self) -> None:
        task, self._playing = self._playing, None
        if task is not None:
            async with self._busy:  # not in the middle of a frame
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await task

    async def _answer(self, answers: list[LiveAnswer], taken: int = 0) -> None:
        session = self._open()
        await self._page.tell(
            {
                "is": "answers",
                "session": self._number,
                "answers": [answer.to_json() for answer in answers],
                "taken": taken,
                "rate": session.rate(),
            }
        )

    async def _tell_points(self) -> None:
        points = [
            {"id": p.id, "frame": p.frame, "x": p.x, "y": p.y} for p in self._open().points.values()
        ]
        await self._page.tell({"is": "points", "points": points})

    def _open(self) -> Session:
        if self.session is None:
            raise ConfigError("open a video or a camera first.")
        return self.session

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *args)


def _whole(message: Mapping[str, Any], name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{name} = {value!r}: must be a whole number.")
    return value


def _titles(message: Mapping[str, Any]) -> list[str]:
    titles = message.get("trackers")
    if not isinstance(titles, list) or not all(isinstance(each, str) for each in titles):
        raise ConfigError("trackers are a list of names.")
    return list(dict.fromkeys(titles))


def _is_point(point: object) -> bool:
    return (
        isinstance(point, list)
        and len(point) == 2
        and all(isinstance(each, int | float) and abs(each) < 1e5 for each in point)
    )
