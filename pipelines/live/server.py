"""Server of the live page: the page, a websocket for each page that is open, uploads, downloads.

Who may ask. It listens on the loopback interface. Everything except the static files requires the
token in the address that the command prints, so other users of the machine cannot ask. A Host other
than this address, which a rebound name would send, and an Origin other than the page are refused,
so no other page in the same browser can ask. Uploads are decoded as in labelling: in a child
process, within its limits.

    page -> server   text     {"do": "camera" | "video" | "trackers" | "add" | "remove" | ..., ...}
                     bytes    a frame of the camera: uint32 session, uint32 number, then RGBA pixels
    server -> page   text     {"is": "ready" | "answers" | "points" | "error" | "ended" | ..., ...}
                     bytes    a frame of a video: uint32 session, uint32 number, then a JPEG
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import tempfile
import zipfile
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from labeler.clips.frames_process import IsolatedFrames
from labeler.io.scratch import prefix
from labeler.video.container import VideoLimits
from pipelines.live.connection import LONGEST_SIDE_PX, Connection
from pipelines.live.recent import Excerpt, save_overlay, save_tracks_of
from pipelines.live.session import Session
from pipelines.live.trackers import LiveTrackers
from teachers import ConfigError, TapdistillError, VideoError

PAGE = Path(__file__).parent / "page"
STATIC = {"/live.js": "text/javascript", "/live.css": "text/css"}
UPLOADS_KEPT = 3
MOST_PAGES = 4
LARGEST_MESSAGE = 4 * LONGEST_SIDE_PX**2 + 1024
CHUNK = 2**20


@dataclass(frozen=True, kw_only=True)
class LiveLimits:
    """Limits for uploads and for their decoding."""

    video: VideoLimits = field(default_factory=lambda: VideoLimits(max_gib=4.0))
    short_side: int = 480
    """px; larger videos are shrunk."""
    deadline_s: float = 60.0
    """The longest time until the decoder answers."""
    memory_gib: float = 8.0
    """The memory limit of the decoder."""


class LiveServer:
    """The server; `app` is the application that aiohttp runs. Close it when you are done."""

    def __init__(self, trackers: LiveTrackers, limits: LiveLimits | None = None) -> None:
        self.token = secrets.token_urlsafe(24)
        self._trackers, self._limits = trackers, limits or LiveLimits()
        self._hosts: frozenset[str] = frozenset()
        self._scratch = tempfile.TemporaryDirectory(prefix=prefix())
        self._uploads: dict[str, tuple[Path, str]] = {}
        """Uploads by id, oldest first: the file, and its original name."""
        self._connections: dict[str, Connection] = {}
        self._worker = ThreadPoolExecutor(1, "live-tracking")
        self.app = web.Application(middlewares=[self._guard], client_max_size=CHUNK)
        self.app.add_routes(
            [
                web.get("/", self._page),
                *(web.get(path, self._static) for path in STATIC),
                web.get("/trackers", self._list),
                web.get("/ws", self._socket),
                web.put("/upload", self._upload),
                web.get("/save/{what}", self._save),
            ]
        )
        self.app.on_shutdown.append(self._shut_down)

    def serve_at(self, host: str, port: int) -> str:
        """The address of the page; requests to any other host are refused."""
        shown = f"[{host}]" if ":" in host else host
        names = {shown, "localhost"} if host in ("127.0.0.1", "::1") else {shown}
        self._hosts = frozenset(f"{name}:{port}" for name in names)
        return f"http://{shown}:{port}/?token={self.token}"

    def close(self) -> None:
        """Delete the uploads."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._scratch.cleanup()

    # --- who may ask

    @web.middleware
    async def _guard(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        if request.headers.get("Host", "") not in self._hosts:
            raise web.HTTPForbidden(text="this address is not of this page.")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in self._hosts}:
            raise web.HTTPForbidden(text="another page may not ask.")
        if request.path not in STATIC and not hmac.compare_digest(
            request.query.get("token", "").encode(), self.token.encode()
        ):
            raise web.HTTPForbidden(text="take the whole address that the command printed.")
        response = await handler(request)
        if not response.prepared:
            host = request.headers["Host"]
            response.headers.update(
                {
                    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
                    f"style-src 'self'; img-src 'self' blob: data:; connect-src 'self' ws://{host};"
                    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
                    "Referrer-Policy": "no-referrer",
                    "X-Content-Type-Options": "nosniff",
                    "Cache-Control": "no-store",
                }
            )
        return response

    # --- the page

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=(PAGE / "live.html").read_text(), content_type="text/html")

    async def _static(self, request: web.Request) -> web.StreamResponse:
        text = (PAGE / request.path.lstrip("/")).read_text()
        return web.Response(text=text, content_type=STATIC[request.path])

    async def _list(self, request: web.Request) -> web.StreamResponse:
        return web.json_response([each.to_json() for each in self._trackers.offered.values()])

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if len(self._connections) >= MOST_PAGES:
            raise web.HTTPServiceUnavailable(text=f"{MOST_PAGES} pages are open: close one.")
        socket = web.WebSocketResponse(max_msg_size=LARGEST_MESSAGE, heartbeat=30)
        await socket.prepare(request)
        page, key = _Page(socket), secrets.token_urlsafe(12)
        connection = Connection(page, self._trackers, self._open_upload, self._worker)
        self._connections[key] = connection
        try:
            await page.tell({"is": "hello", "page": key})
            async for message in socket:
                try:
                    if message.type == WSMsgType.BINARY:
                        await connection.frame(message.data)
                    elif message.type == WSMsgType.TEXT:
                        await connection.asked(_object(message.data))
                except ConnectionResetError:
                    raise
                except (TapdistillError, OSError) as error:
                    if socket.closed:
                        break
                    await page.tell({"is": "error", "text": str(error)})
        except ConnectionResetError:
            pass  # the page was closed while it was told something
        finally:
            del self._connections[key]
            await connection.close()
        return socket

    async def _shut_down(self, app: web.Application) -> None:
        for connection in list(self._connections.values()):
            await connection.close()

    # --- uploads

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        most = int(self._limits.video.max_gib * 2**30)
        if (request.content_length or 0) > most:
            return _refused(413, f"more than {self._limits.video.max_gib:g} GiB (--max-gib).")
        key, size = secrets.token_urlsafe(12), 0
        path = Path(self._scratch.name) / key
        try:
            with path.open("wb") as file:
                async for chunk in request.content.iter_chunked(CHUNK):
                    size += len(chunk)
                    if size > most:
                        path.unlink()
                        gib = self._limits.video.max_gib
                        return _refused(413, f"more than {gib:g} GiB (--max-gib).")
                    await asyncio.to_thread(file.write, chunk)
        except OSError as error:
            path.unlink(missing_ok=True)
            return _refused(507, f"it cannot be stored here: {error.strerror}.")
        except BaseException:  # the page was closed in the middle of it
            path.unlink(missing_ok=True)
            raise
        self._uploads[key] = (path, request.query.get("name", "video")[:200])
        while len(self._uploads) > UPLOADS_KEPT:
            oldest = next(iter(self._uploads))
            self._uploads.pop(oldest)[0].unlink(missing_ok=True)
        return web.json_response({"upload": key})

    def _open_upload(self, key: str) -> IsolatedFrames:
        if key not in self._uploads:
            raise ConfigError("that video is not here any more: drop it again.")
        path, name = self._uploads[key]
        limits = self._limits
        try:
            return IsolatedFrames(
                path,
                name=name,
                short_side=limits.short_side,
                limits=limits.video,
                deadline_s=limits.deadline_s,
                memory_gib=limits.memory_gib,
            )
        except VideoError as error:  # its path would mean nothing to the person who uploaded it
            raise VideoError(error.reason, str(error).replace(str(path), name)) from error

    # --- downloads

    async def _save(self, request: web.Request) -> web.StreamResponse:
        connection = self._connections.get(request.query.get("page", ""))
        if connection is None or connection.session is None:
            return _refused(404, "there is nothing to save: open a video or a camera first.")
        session, name = connection.session, connection.name
        what = request.match_info["what"]
        if what not in ("overlay", "tracks"):
            return _refused(404, "overlay and tracks can be saved.")
        with tempfile.TemporaryDirectory(dir=self._scratch.name) as folder:
            try:
                excerpt = session.recent.excerpt()
                write = _write_overlay if what == "overlay" else _write_tracks
                path = await asyncio.to_thread(
                    write, excerpt, session, self._infos(excerpt, session, name), Path(folder)
                )
            except TapdistillError as error:
                return _refused(409, str(error))
            response = web.StreamResponse(
                headers={
                    "Content-Disposition": f'attachment; filename="{path.name}"',
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(path.stat().st_size),
                    "X-Content-Type-Options": "nosniff",
                }
            )
            await response.prepare(request)
            with path.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, CHUNK):
                    await response.write(chunk)
        return response

    def _infos(self, excerpt: Excerpt, session: Session, name: str) -> dict[str, dict[str, Any]]:
        clip = {
            "source": name,
            "start": excerpt.kept[0].frame,
            "stride": 1,
            "size_hw": session.size,
            "fps": excerpt.fps,
        }
        return {
            title: self._trackers.load(title).info.to_json() | {"clip": clip}
            for title in excerpt.tracks
        }


class _Page:
    """The page at the other end of a websocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def tell(self, message: Mapping[str, Any]) -> None:
        await self._socket.send_str(json.dumps(message))

    async def show(self, frame: bytes) -> None:
        await self._socket.send_bytes(frame)


def _write_overlay(
    excerpt: Excerpt, session: Session, infos: Mapping[str, Any], folder: Path
) -> Path:
    path = folder / "live.mp4"
    save_overlay(excerpt, session.size, path)
    return path


def _write_tracks(
    excerpt: Excerpt, session: Session, infos: Mapping[str, Any], folder: Path
) -> Path:
    """One npz, or a zip of one for each tracker."""
    paths = []
    for title, info in infos.items():
        paths.append(folder / ("live.npz" if len(infos) == 1 else f"live.{title}.npz"))
        save_tracks_of(excerpt, title, info, paths[-1])
    if len(paths) == 1:
        return paths[0]
    packed = folder / "live.tracks.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for path in paths:
            file.write(path, path.name)
    return packed


def _refused(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"the page sent something that is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ConfigError("the page sent no object.")
    return found
