"""tapdistill: the command line.

Each command is a module with a config dataclass and `run(config) -> exit code`, which is imported
only when the command is called, so that `--help` is quick. Flags, their help, and `--config FILE`
(TOML) come from the dataclass.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from dataclasses import dataclass
from importlib.metadata import version

from pipelines.terminal.console import complain, say
from teachers.errors import TapdistillError


@dataclass(frozen=True)
class Command:
    """One command of the command line."""

    module: str
    config: str
    """Name of the config dataclass in the module; its docstring is the help."""
    function: str
    """Name of the function in the module that takes the config and returns the exit code."""
    summary: str


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "pipelines.commands.demo",
        "DemoConfig",
        "run",
        "run the whole flow on real clips that come with the installation",
    ),
    "teachers": Command(
        "pipelines.commands.teachers",
        "TeachersConfig",
        "run",
        "list teachers and their licences; pull and check their weights",
    ),
    "track": Command(
        "pipelines.commands.track",
        "TrackCommand",
        "run",
        "run any teacher or student on a video, a folder of frames, or a camera",
    ),
    "live": Command(
        "pipelines.commands.live",
        "LiveCommand",
        "run",
        "a page in which trackers follow your points through a camera or a video",
    ),
    "label": Command(
        "pipelines.commands.label",
        "LabelCommand",
        "run",
        "label videos: videos -> labelled shards, here or on a Ray cluster",
    ),
    "relabel": Command(
        "pipelines.commands.relabel",
        "RelabelConfig",
        "run",
        "make the labels anew from the stored raw tracks",
    ),
    "scan": Command(
        "pipelines.commands.scan",
        "ScanConfig",
        "run",
        "find exact duplicates among videos, by their content",
    ),
    "status": Command(
        "pipelines.commands.status",
        "StatusConfig",
        "run",
        "show how much of a data set is done, and which jobs work on it",
    ),
    "verify": Command(
        "pipelines.commands.verify",
        "VerifyConfig",
        "run_verify",
        "compare every shard with its commit record",
    ),
    "gc": Command(
        "pipelines.commands.verify", "GcConfig", "run_gc", "remove old revisions and leftovers"
    ),
    "inspect": Command(
        "pipelines.commands.inspect",
        "InspectConfig",
        "run",
        "look at the labels: a summary, and an HTML report with players",
    ),
    "export": Command(
        "pipelines.commands.export",
        "ExportConfig",
        "run",
        "write labels for other tools: TAP-Vid, parquet, Hugging Face, Rerun",
    ),
    "train": Command(
        "pipelines.commands.train",
        "TrainCommand",
        "run",
        "train a student on labelled shards, procedural video, or both",
    ),
    "eval": Command(
        "pipelines.commands.eval",
        "EvalCommand",
        "run",
        "compare trackers, or labels, on clips with exact tracks",
    ),
    "synth": Command(
        "pipelines.commands.synth", "SynthCommand", "run", "make procedural video with exact tracks"
    ),
    "doctor": Command(
        "pipelines.commands.doctor",
        "DoctorConfig",
        "run",
        "say what is installed, what works here, and what does not",
    ),
}

USAGE_ERROR = 2
BROKEN_PIPE = 128 + 13
"""The exit code that a shell reports for a process that SIGPIPE ended."""
INTERRUPTED = 128 + 2
TERMINATED = 128 + 15
STORAGE_HELP = (
    "Each takes --s3-endpoint URL, --s3-profile NAME, and --s3-anon for s3:// addresses; "
    "credentials come from the environment."
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script; exits with 0, 1 (it can't be done), 2 (wrong usage), 130
    (interrupted), or 143 (terminated, as schedulers do)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    on_term = signal.signal(signal.SIGTERM, _terminate)
    # torch reads this when it loads: threads that spin make a busy machine 20 times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        # the names of files may hold letters that the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            code = run(arguments)
        finally:
            signal.signal(signal.SIGTERM, on_term)
            sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(overview())
        return 0
    if arguments[0] in ("--version", "-V"):
        say(version("tapdistill"))
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        complain(
            f"there is no command {name!r}: there are {', '.join(COMMANDS)}. `tapdistill --help` "
            "says what they do."
        )
        return USAGE_ERROR
    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    from pipelines.terminal.flags import parse, take_storage_flags  # here, because it imports tyro

    try:
        config = parse(
            getattr(module, command.config), f"tapdistill {name}", take_storage_flags(rest)
        )
        return getattr(module, command.function)(config)
    except TapdistillError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain("interrupted. `label` and `train` continue from here with the same command.")
        return TERMINATED if _terminated else INTERRUPTED


_terminated: list[int] = []
"""The SIGTERMs that came; Ray replaces a `KeyboardInterrupt` by one of its own."""


def _terminate(number: int, frame: object) -> None:
    """SIGTERM, with which schedulers take a machine away, ends a command as Ctrl-C does."""
    _terminated.append(number)
    raise KeyboardInterrupt


def overview() -> str:
    """The text of `tapdistill --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "tapdistill: labels real video with several point trackers, estimates where each is "
            "right, and trains a better one.",
            "",
            *lines,
            "",
            "`tapdistill COMMAND --help` lists a command's flags; each takes --config FILE (TOML) "
            "too.",
            STORAGE_HELP,
        ]
    )


if __name__ == "__main__":
    main()
