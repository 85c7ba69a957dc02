"""The source distribution and the wheel: built, checked, and installed outside the clone.

    python tests/dist.py [--torch "torch==2.13.0"] [--demo]      `make dist` runs it

Both are built into dist/ and checked by twine. The wheel is built from the source distribution, so
that what is missing in one is missing in the other; it must hold every data file of the packages,
and nothing of tests, benchmarks, or experiments. It is then installed into a bare environment in a
temporary folder, by pip and, where it is installed, by uv; there `tapdistill doctor` must find
nothing wrong, and with --demo the demo must run. It needs the packages `build` and `twine`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("labeler", "pipelines", "student", "teachers")
SOURCE = (".py", ".pyc")


def built() -> Path:
    """The wheel; the source distribution lies beside it."""
    out = ROOT / "dist"
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)], check=True)
    files = sorted(map(str, out.iterdir()))
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def wrong_files(wheel: Path) -> list[str]:
    """What a wheel lacks of the packages' files in git, and what does not belong into one."""
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True
    )
    wanted = set(listed.stdout.splitlines()) | {"tapdistill.py"}
    with zipfile.ZipFile(wheel) as opened:
        here = {name for name in opened.namelist() if ".dist-info/" not in name}
    missing = (f"{name} is missing" for name in wanted - here)
    return sorted([*missing, *(f"{name} does not belong there" for name in here - wanted)])


def tried(installer: str, wheel: Path, torch: str, demo: bool) -> str:
    """Install the wheel into a new environment, and use it there; what failed, or ""."""
    with tempfile.TemporaryDirectory(prefix="tapdistill-dist-") as folder:
        venv.create(f"{folder}/bare", with_pip=installer == "pip")
        python = f"{folder}/bare/bin/python"
        install = {
            "pip": [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"],
            "uv": ["uv", "pip", "install", "--quiet", "--python", python],
        }[installer]
        command = f"{folder}/bare/bin/tapdistill"
        steps = {
            "torch": [*install, torch],
            "the wheel": [*install, f"{wheel}[demo]"],
            "doctor": [command, "doctor", "--no-ray"],
        }
        if demo:
            steps["demo"] = [command, "demo", "--out", f"{folder}/demo"]
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        for step, arguments in steps.items():
            if subprocess.run(arguments, cwd=folder, env=clean).returncode:
                return step
    return ""


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--torch", default="torch")
    arguments.add_argument("--demo", action="store_true")
    given = arguments.parse_args()
    wheel = built()
    wrong = wrong_files(wheel)
    for line in wrong:
        sys.stdout.write(f"{wheel.name}: {line}\n")
    failed = {}
    for installer in ("pip", "uv"):
        if installer == "uv" and not shutil.which("uv"):
            sys.stdout.write("uv is not installed here: not tried\n")
            continue
        failed[installer] = tried(installer, wheel, given.torch, given.demo)
        said = f"FAILED at {failed[installer]}" if failed[installer] else "passed"
        sys.stdout.write(f"installed by {installer}: {said}\n")
    return 1 if wrong or any(failed.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
