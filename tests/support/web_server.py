"""A web server with the faults that real ones have, on this machine, for one file."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
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
def serving(site: Site) -> Iterator[Site]:
    """`site` with its `url`, alive inside the block."""
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/weights.pth"
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
