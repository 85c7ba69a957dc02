"""What every test has: a GPU test that is skipped although there is a GPU fails, and one Ray
cluster for the whole session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.harness.jobs import config, write_moving
from pipelines.jobs.labelling import LabelResult, label
from tests.support import browser

pytest_plugins = ["pytester"]


def gpu_is_here() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """A runner with a GPU must run the GPU tests: skipping one there would hide that they fail (as
    torchcodec does)."""
    report = yield
    if (
        report.skipped
        and not hasattr(report, "wasxfail")
        and item.get_closest_marker("gpu")
        and gpu_is_here()
    ):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid}: a test marked `gpu` was skipped on a machine with a GPU: "
            f"{call.excinfo and call.excinfo.value}"
        )
    return report


@pytest.fixture(scope="session")
def chromium() -> str:
    return browser.chromium() or pytest.skip("no Chromium on this machine")


@pytest.fixture(scope="session")
def ray_cluster():
    """A local Ray cluster of two CPUs."""
    from pipelines.engines import ray as engine_ray

    with engine_ray.connected(None, 2):
        yield


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """Five good videos: of one or two clips, in three units of two."""
    folder = tmp_path_factory.mktemp("videos")
    for i, frames in enumerate((16, 34, 20, 40, 18)):
        write_moving(folder / f"{i}.mp4", seed=i, frames=frames)
    return folder


@dataclass(frozen=True)
class Finished:
    """A finished job; not to be changed."""

    folder: Path
    result: LabelResult


@pytest.fixture(scope="session")
def dataset(videos, tmp_path_factory) -> Finished:
    """`videos` labelled by `Still` and `Near` without interruption on the local engine."""
    folder = tmp_path_factory.mktemp("labels")
    return Finished(folder, label(config(videos, folder)))


@pytest.fixture(scope="session")
def frames_and_queries() -> tuple[np.ndarray, np.ndarray]:
    """uint8 [8, 48, 64, 3] of a texture that moves by a pixel a frame, and three queries."""
    noise = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (48, 72, 3), np.uint8), (5, 5), 1.5
    )
    return np.stack([noise[:, i : i + 64] for i in range(8)]), np.array(
        [[0, 20, 20], [3, 30, 10], [7, 40, 30]], np.float32
    )
