"""Isolate: an object that lives in a process of its own, so that a call that hangs or crashes costs
that call and nothing else.

    with Isolated("my.module:Reader", memory_gib=8) as reader:
        reader.submit("read", "clip.mp4", about="clip.mp4")  # runs while this process goes on
        frames = reader.result(timeout_s=60)

The child is `python -c ...`, connected by a socket, and not a `multiprocessing.Process`: daemonic
workers (Ray, pools) may not have children of that kind, and `spawn` imports the caller's main
module again, which in a notebook, pytest, or a console script is not ours.

The child never outlives its parent. It ends when the socket closes, and on Linux the kernel kills
it when the parent dies (PR_SET_PDEATHSIG), even inside a decoder that hangs. That signal is
actually sent when the THREAD that started the child ends, so one thread, which lives as long as the
process, starts all children.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NoReturn

from labeler.io.closing import ClosedAtExit
from labeler.io.scratch import is_full, prefix
from teachers.errors import ConfigError, TapdistillError, TransientError, VideoError

START_TIMEOUT_S = 120.0
"""The longest time until the child has made its object; imports are slow on a busy machine, which
is not the video's fault."""

INSTALLED_IN = str(Path(__file__).resolve().parents[2])
CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import teachers, labeler; "
    "del sys.path[0]; from labeler.clips.isolate import serve; serve(int(sys.argv[2]))"
)
"""The child finds this installation's packages first, and everything else where its parent does:
the parent's current folder may have a package `teachers` of its own."""

PR_SET_PDEATHSIG = 1


class Killed(TransientError):
    """Somebody ended the child, as a system without memory does; nothing else is known."""


def _new_spawner() -> None:
    global _spawner
    _spawner = ThreadPoolExecutor(1, thread_name_prefix="isolate")


_spawner: ThreadPoolExecutor
_new_spawner()
os.register_at_fork(after_in_child=_new_spawner)


class Isolated(ClosedAtExit):
    """An object of some class in a child process that can be killed, with one request in flight.
    The child starts with the first request."""

    def __init__(self, target: str, *args: Any, memory_gib: float | None = None) -> None:
        """`target` is "module:Class", made in the child as `Class(*args)`.

        `memory_gib` is what the child may allocate on top of its imports (address space, Linux
        only); None for no limit.
        """
        if target.count(":") != 1 or target.startswith("__main__:"):
            raise ConfigError(
                f"{target!r}: write 'module:Class', of a module that can be imported."
            )
        self._target, self._args, self._memory_gib = target, args, memory_gib
        self._child: _Child | None = None
        self._about: str | None = None
        """What the request in flight is about; None if there is none."""

    def submit(self, method: str, *args: Any, about: str = "") -> None:
        """Send a request; `result` gets its answer. `about` is what messages call it, such as the
        file's name."""
        if self._about is not None:
            raise RuntimeError("a request is in flight: take its result first")
        if self._child is None:
            self._child = _Child(self._target, self._args, self._memory_gib)
        self._about = about or f"{self._target}.{method}"
        with contextlib.suppress(OSError):  # the child has died: `result` says how
            _send(self._child.connection, (method, args))

    def result(self, timeout_s: float | None = None) -> Any:
        """The answer to the request in flight; waits at most `timeout_s` from now, or from when the
        child has made its object.

        Raises:
            VideoError: "timeout" (the child is killed), "memory" (above the limit), "crash" (a
                signal ended it).
            Killed: somebody else killed the child: the machine may be out of memory.
            TransientError: the child did not start, or an OSError kept it from making its object.
            Exception: what the method, or the making of the object, raised; TapdistillErrors as
                they are, others with the child's traceback as a note.
        """
        if self._about is None or self._child is None:
            raise RuntimeError("no request is in flight: submit one first")
        child, about, self._about = self._child, self._about, None
        try:
            if not child.ready:
                self._wait_for_object(child, about)
            if not child.connection.poll(timeout_s):
                self.close()
                raise VideoError(
                    "timeout", f"{about}: took longer than {timeout_s:g} s; its process was killed."
                )
            answer = _receive(child.connection)
        except (EOFError, OSError):
            self._died(child, about)
        except BaseException:  # half an answer may be left in the socket
            self.close()
            raise
        if answer.kind == "memory":
            self.close()
            limit = f" of {self._memory_gib:g} GiB" if self._memory_gib else ""
            raise VideoError("memory", f"{about}: needs more memory than its limit{limit}.")
        if answer.kind == "error":
            raise answer.value
        return answer.value

    def call(self, method: str, *args: Any, timeout_s: float | None = None, about: str = "") -> Any:
        """`submit`, then `result`."""
        self.submit(method, *args, about=about)
        return self.result(timeout_s)

    def close(self) -> None:
        """Kill the child, if there is one, and wait until it is gone. The next request starts
        another."""
        self._about = None
        if self._child is not None:
            child, self._child = self._child, None
            child.end(grace_s=0)

    def _wait_for_object(self, child: _Child, about: str) -> None:
        if not child.connection.poll(START_TIMEOUT_S):
            self.close()
            raise TransientError(
                f"{about}: its process did not start within {START_TIMEOUT_S:g} s: is the machine "
                "overloaded?"
            )
        made = _receive(child.connection)
        if made.kind != "value":
            self.close()
            if isinstance(made.value, OSError):
                raise TransientError(
                    f"{about}: {self._target} cannot be made: {made.value}."
                ) from made.value
            raise made.value or VideoError(
                "memory", f"{about}: {self._target} needs more memory than its limit."
            )
        child.ready = True

    def _died(self, child: _Child, about: str) -> NoReturn:
        self._child = None
        code, said = child.end(grace_s=5)  # a process closes its socket a moment before it is dead
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if not child.ready:
            raise TransientError(
                f"{about}: the process for it did not start ({name}{f': {said}' if said else ''})."
            )
        if name in ("SIGKILL", "SIGTERM"):
            raise Killed(
                f"{about}: somebody ended its process ({name}): the machine may be out of memory; "
                "try again later."
            )
        if "bad_alloc" in said:
            raise VideoError("memory", f"{about}: needs more memory than its limit ({name}).")
        raise VideoError(
            "crash", f"{about}: its process ended with {name}{f': {said}' if said else ''}."
        )


class _Child:
    """The process, the parent's end of the socket, and a folder for its temporary files, which a
    killed process leaves behind."""

    def __init__(self, target: str, args: tuple[Any, ...], memory_gib: float | None) -> None:
        self.ready = False
        self._folder = tempfile.TemporaryDirectory(prefix=prefix())
        self._stderr = Path(self._folder.name) / "stderr"
        path = json.dumps([INSTALLED_IN, *sys.path])
        here, there = socket.socketpair()
        with there, self._stderr.open("wb") as stderr:
            self._process = _spawner.submit(
                subprocess.Popen,
                [sys.executable, "-P", "-c", CHILD, path, str(there.fileno())],
                pass_fds=(there.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, "TMPDIR": self._folder.name},
            ).result()
        self.connection = Connection(here.detach())
        # it has died already: whoever waits for its answer will find out
        with contextlib.suppress(OSError):
            _send(self.connection, (target, args, memory_gib))

    def end(self, grace_s: float) -> tuple[int, str]:
        """Wait up to `grace_s` for its end, then kill it. Returns the exit code (negative: the
        signal), and the end of what it wrote to stderr."""
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self._process.kill()
        code = self._process.wait()
        last = self._stderr.read_bytes()[-500:] if self._stderr.exists() else b""  # ended before
        said = " ".join(last.decode(errors="replace").split())
        self._folder.cleanup()
        return code, said


@dataclass(frozen=True)
class _Answer:
    kind: Literal["value", "error", "memory"]
    value: Any = None


def _send(connection: Connection, message: Any) -> None:
    """Pickle protocol 5; arrays go as they lie in memory, after the pickle, without a copy."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    connection.send((head, [view.nbytes for view in raw]))
    for view in raw:
        while view:
            view = view[os.write(connection.fileno(), view) :]


def _receive(connection: Connection) -> Any:
    head, sizes = connection.recv()
    buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        view = memoryview(buffer)
        while view:
            received = os.readv(connection.fileno(), [view])
            if not received:
                raise EOFError
            view = view[received:]
    return pickle.loads(head, buffers=buffers)


# --- in the child


def serve(descriptor: int) -> None:
    """Make the object, then answer requests until the parent closes its end of the socket."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        target, args, memory_gib = _receive(connection)
        hosted: list[Any] = []
        _answer(connection, lambda: hosted.append(_make(target, args, memory_gib)))
        while hosted:
            method, args = _receive(connection)
            _answer(connection, lambda: getattr(hosted[0], method)(*args))  # noqa: B023, called at once


def _make(target: str, args: tuple[Any, ...], memory_gib: float | None) -> Any:
    module, _, name = target.partition(":")
    make = getattr(importlib.import_module(module), name)
    if memory_gib is not None and sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + int(memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return make(*args)


def _answer(connection: Connection, call: Callable[[], Any]) -> None:
    try:
        answer = _Answer("value", call())
    except MemoryError:
        answer = _Answer("memory")
    except TapdistillError as error:
        answer = _Answer("error", error)
    except OSError as error:  # an exception of a library may be one that cannot be pickled
        full = OSError(error.errno, error.strerror, error.filename) if is_full(error) else error
        answer = _Answer("error", full)
    except Exception as error:
        error.add_note(f"In the isolated process:\n{traceback.format_exc()}")
        answer = _Answer("error", error)
    try:
        pickle.loads(pickle.dumps(answer)) if answer.kind == "error" else None
        _send(connection, answer)
    except (EOFError, OSError):
        raise
    except Exception as error:
        what = (
            f"{type(answer.value).__name__} cannot leave the isolated process ({error}): "
            f"{answer.value}"
        )
        _send(connection, _Answer("error", RuntimeError(what)))
