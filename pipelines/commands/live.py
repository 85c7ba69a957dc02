"""tapdistill live: serve a local page in which trackers follow points through a camera or a
video."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import ipaddress
import webbrowser
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labeler.video.container import VideoLimits
from pipelines.terminal.console import say
from teachers import ConfigError, Mode, TransientError
from teachers.info import Precision

if TYPE_CHECKING:
    from pipelines.live.server import LiveServer

NOT_INSTALLED = (
    "`tapdistill live` needs aiohttp, which is not installed: `pip install 'tapdistill[live]'`."
)


@dataclass(frozen=True, kw_only=True)
class LiveCommand:
    """Serve a page to the browser of this machine: drop a video or turn on the camera, click on
    points, and see several trackers follow them while it runs. Nothing leaves the machine. Ctrl-C
    ends it.
    """

    teacher: tuple[str, ...] = field(default=())
    """What can be chosen in the page: names, NAME=CHECKPOINT, or checkpoint files of trackers that
    stream; without it, all trackers that stream."""
    mode: Mode = "predictor"
    """How trackers are called, see docs/teachers.md; TAPIRs look at frames of 256 x 256 px."""
    device: str = "auto"
    """Where trackers run: auto, cpu, cuda."""
    precision: Precision = "auto"
    """How networks multiply: as for `track`."""
    compiled: bool = False
    """Hand the large parts of networks to torch.compile: as for `track`. Each tracker then stands
    still for a minute or more at its first frames."""
    port: int = 8765
    """The port of the page; 0 takes a free one."""
    host: str = "127.0.0.1"
    """The address to listen on. Another machine can use its camera only through a tunnel to this
    one, because browsers allow that only for https and localhost."""
    open: bool = False
    """Open the page in the browser."""
    short_side: int = 480
    """Shrink videos whose short side is longer than this many px."""
    max_gib: float = 4.0
    """The largest video that is accepted, in GiB."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"--port {self.port}: must be 0 to 65535.")
        if self.short_side < 16:
            raise ConfigError(f"--short-side {self.short_side}: must be at least 16.")
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError as error:
            raise ConfigError(f"--host {self.host}: must be an address of this machine.") from error
        if address.is_unspecified:
            raise ConfigError(
                f"--host {self.host}: name one address, as the page refuses all other names."
            )


def run(command: LiveCommand) -> int:
    """The command: serve the page until Ctrl-C."""
    if importlib.util.find_spec("aiohttp") is None:
        raise ConfigError(NOT_INSTALLED)
    from pipelines.live.server import LiveLimits, LiveServer
    from pipelines.live.trackers import LiveTrackers

    trackers = LiveTrackers(
        [name for text in command.teacher for name in text.split(",") if name],
        device=command.device,
        mode=command.mode,
        precision=command.precision,
        compiled=command.compiled,
    )
    limits = LiveLimits(video=VideoLimits(max_gib=command.max_gib), short_side=command.short_side)
    server = LiveServer(trackers, limits)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(server, command))
    finally:
        server.close()
    say("ended")
    return 0


async def serve(server: LiveServer, command: LiveCommand) -> None:
    """Listen, print the address, and wait for ever."""
    from aiohttp import web

    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, command.host, command.port)
        try:
            await site.start()
        except OSError as error:
            reason = "is taken" if error.errno == errno.EADDRINUSE else str(error.strerror)
            raise TransientError(
                f"--host {command.host} --port {command.port}: {reason}: take another, such as "
                "--port 0."
            ) from error
        address = server.serve_at(command.host, runner.addresses[0][1])
        say(f"open {address}")
        say("Ctrl-C ends it; nothing leaves this machine")
        if command.open:
            webbrowser.open(address)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
