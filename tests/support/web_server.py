"""Web servers on this machine: one with the faults that real ones have, for one file, and one with
an answer for each path."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Fault:
    """What goes wrong in one answer."""

    status: int | None = None
    """Answer with this status and no file."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    hang_s: float = 0.0
    """Wait so long before the body."""


@dataclass
class Site:
    """The server's file, and what has been asked of it."""

    body: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    announces_length: bool = True
    obeys_if_range: bool = True
    faults: list[Fault] = field(default_factory=list)
    """Of the next answers, in order; then none."""
    asked: list[str | None] = field(default_factory=list)
    """The `Range` of every request."""
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        asked = self.headers.get("Range")
        site.asked.append(asked)
        fault = site.faults.pop(0) if site.faults else Fault()
        if fault.status:
            return self.send_error(fault.status)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and site.ranges else 0
        if site.obeys_if_range and self.headers.get("If-Range") != site.etag:
            first = 0
        if first and first >= len(site.body):
            return self.send_error(416)
        body = site.body[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header(
                "Content-Range", f"bytes {first}-{len(site.body) - 1}/{len(site.body)}"
            )
        if site.etag:
            self.send_header("ETag", site.etag)
        if site.announces_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        time.sleep(fault.hang_s)
        self.wfile.write(body[: fault.cut_after])

    def log_message(self, *arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *arguments: object) -> None:
        """A client that gave up waiting is no error of ours."""


@contextmanager
def _alive(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server that is alive inside the block."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """`site` with its `url`, alive inside the block."""
    with _alive(type("Handler", (_Handler,), {"site": site})) as address:
        site.url = f"{address}/weights.pth"
        yield site


Answer = Callable[[str, dict[str, str]], bytes | None]
"""The body for a path and the headers of a request; None is 404."""


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """The address of a server that answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer(self.path, dict(self.headers))
            if body is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with _alive(Handler) as address:
        yield address
