"""A real S3 server process (moto) on loopback, and a proxy before it that fails requests on
purpose.

The proxy draws a fault for a request from its seed: an answer 503 SlowDown, a connection that is
reset in the middle of a body, a slow body, or a write that is done but whose answer is lost.
`Faults()` fails nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_DOWN = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request '
    b"rate.</Message></Error>"
)


@dataclass(frozen=True)
class Faults:
    """The share of requests that fail in each way: refused with 503 SlowDown, nothing done; reset
    after half of the answer's body; done, but lost behind a 503; slow, with the body in eight
    pieces and a pause of `pause_s` before each."""

    refuse: float = 0.0
    reset: float = 0.0
    lose: float = 0.0
    slow: float = 0.0
    pause_s: float = 0.02
    seed: int = 0


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the server at `port`, or fails them."""

    daemon_threads = True

    def __init__(self, port: int, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.faults = port, faults
        self.requests: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._random, self._lock = random.Random(faults.seed), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def draw(self, method: str) -> str:
        """What becomes of the next request: "" or the name of a fault."""
        with self._lock:
            self.requests[method] += 1
            drawn = self._random.random()
            for name in ("refuse", "reset", "lose", "slow"):
                drawn -= getattr(self.faults, name)
                if drawn < 0:
                    self.failed[name] += 1
                    return name
            return ""

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _pass_on(self) -> None:
        body = self._body()
        fault = self.server.draw(self.command)
        if fault == "refuse":
            self._answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() != "transfer-encoding"
        }
        connection.request(
            self.command, self.path, body or None, {**headers, "Content-Length": str(len(body))}
        )
        response = connection.getresponse()
        data = response.read()
        connection.close()
        if fault == "lose":
            self._answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
            return
        self._answer(response.status, dict(response.getheaders()), data, fault)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, fault: str = "") -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = (
            headers.get("Content-Length", str(len(data)))
            if self.command == "HEAD"
            else str(len(data))
        )
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "reset" and data:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault == "slow":
            step = max(1, len(data) // 8)
            for start in range(0, len(data), step):
                time.sleep(self.server.faults.pause_s)
                self.wfile.write(data[start : start + step])
        else:
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on


@contextlib.contextmanager
def s3_server() -> Iterator[int]:
    """The port of a running S3 server with nothing in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the S3 server did not start") from None
                time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def proxy(port: int, faults: Faults | None = None) -> Iterator[Proxy]:
    """A running proxy before the server at `port`."""
    server = Proxy(port, faults or Faults())
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
