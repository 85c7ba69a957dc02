"""The short suite on every Python that is installed here, with the newest packages that pip gives.

    python tests/matrix.py [--folder .matrix] [--torch]      `make test-matrix` runs it

For each Python that `requires-python` promises and that is found (on PATH, or in pyenv): an
environment with the newest versions of the dependencies, the project installed in it as a wheel,
the tests of `SHORT`, and a video labelled with the command that was installed. Without --torch the
teachers are those that need none, because torch for a new Python may be a download of gigabytes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
SHORT = (
    "tests/labeler/video/test_check.py",
    "tests/labeler/video/test_decode.py",
    "tests/labeler/video/test_fetch.py",
    "tests/labeler/video/test_frames.py",
    "tests/labeler/sources",
    "tests/labeler/io/test_storage.py",
    "tests/labeler/clips/test_isolate.py",
    "tests/labeler/clips/test_process.py",
    "tests/pipelines/jobs/test_own_faults.py",
)
"""What meets other packages' code most, and needs no torch."""
OF_TORCH = ("torch", "tensorboard")
TESTS = ("pytest", "pytest-timeout")


def found() -> dict[str, str]:
    """Version -> interpreter."""
    places = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for python in PYTHONS:
        in_pyenv = sorted(pyenv.glob(f"{python}.*/bin/python"))
        place = shutil.which(f"python{python}")
        works = place and subprocess.run([place, "-c", ""], capture_output=True).returncode == 0
        if works or in_pyenv:
            places[python] = str(place if works else in_pyenv[-1])
    return places


def dependencies(with_torch: bool) -> list[str]:
    """Those of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [(re.split(r"[^\w-]", line, maxsplit=1)[0], line) for line in project["dependencies"]]
    return [line for name, line in named if with_torch or name not in OF_TORCH]


def run(interpreter: str, environment: Path, with_torch: bool) -> str:
    """Make the environment, if it is not there, and test in it; what failed, or ""."""
    python = str(environment / "bin" / "python")
    uv = shutil.which("uv")
    install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    steps = {
        "newest packages": [*install, "--quiet", *dependencies(with_torch), *TESTS],
        "the project": [python, "-m", "pip", "install", "--quiet", "--no-deps", str(ROOT)],
        "the short suite": [python, "-m", "pytest", "-q", "-m", "not slow", *SHORT],
    }
    if not environment.exists():
        steps = {"environment": [interpreter, "-m", "venv", str(environment)], **steps}
    clean = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    for step, command in steps.items():
        if subprocess.run(command, cwd=ROOT, env=clean).returncode:
            return step
    # of a texture that moves, written by benchmarks.harness.jobs.write_moving(seed=3)
    video = environment.resolve() / "moving.mp4"
    shutil.copy(ROOT / "tests" / "data" / "moving.mp4", video)
    out = environment.resolve() / "labels"
    shutil.rmtree(out, ignore_errors=True)
    label = [str(environment / "bin" / "tapdistill"), "label", str(video), "--out", str(out)]
    few = ["--teachers", "lk", "match", "--queries.count", "8", "--clips.frames", "8"]
    for engine in ("local", "ray"):
        shutil.rmtree(out, ignore_errors=True)
        command = [os.path.abspath(label[0]), *label[1:], *few, "--engine", engine]
        if subprocess.run(command, cwd=environment, env=clean).returncode:
            return f"a video labelled with the {engine} engine"
    return ""


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--folder", type=Path, default=ROOT / ".matrix")
    arguments.add_argument("--torch", action="store_true")
    arguments.add_argument("--python", nargs="+", default=PYTHONS)
    given = arguments.parse_args()
    given.folder.mkdir(exist_ok=True)
    results = {
        python: run(interpreter, given.folder / python, given.torch)
        for python, interpreter in found().items()
        if python in given.python
    }
    for python, failed in results.items():
        sys.stdout.write(f"Python {python}: {f'FAILED at {failed}' if failed else 'passed'}\n")
    if not results:
        sys.stdout.write(f"none of Python {', '.join(given.python)} is installed here\n")
    return 1 if any(results.values()) or not results else 0


if __name__ == "__main__":
    sys.exit(main())
