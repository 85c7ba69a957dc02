"""Fingerprint: what the bytes of a shard depend on; and one thread per library, so that the same
work gives the same bytes wherever it runs."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version

import cv2
from threadpoolctl import threadpool_limits

from teachers.info import TeacherInfo

PINNED = ("av", "decord", "numpy", "opencv-python-headless", "torch")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A context in which OpenCV, BLAS, and torch (if it is loaded) use one thread."""
    torch = sys.modules.get("torch")
    before = cv2.getNumThreads(), torch.get_num_threads() if torch else 1
    cv2.setNumThreads(1)
    if torch:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        cv2.setNumThreads(before[0])
        if torch:
            torch.set_num_threads(before[1])


def fingerprint(infos: Mapping[str, TeacherInfo] | None = None) -> dict[str, str]:
    """What the bytes of a shard depend on besides its inputs: the machine, Python, and versions;
    for teachers on GPUs, also the GPU, and how they multiply. The number of threads is always
    one."""
    on_gpu = {
        f"device of {name}": f"{info.device}, {info.precision or 'float32'}"
        for name, info in sorted((infos or {}).items())
        if info.device
    }
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        # x264 and OpenCV choose their code by it, which changes some bits
        "processor": cv2.getCPUFeaturesLine(),
        "threads": "1",
        **{name: version(name) for name in PINNED if _installed(name)},
        **on_gpu,
    }


def _installed(name: str) -> bool:
    try:
        version(name)
    except ModuleNotFoundError:
        return False
    return True
