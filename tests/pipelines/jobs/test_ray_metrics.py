"""Ray's metrics: what `status` shows of a running job, at a node's Prometheus endpoint."""

from __future__ import annotations

import dataclasses
import time
import urllib.request

import pytest
import ray

from pipelines.jobs.progress import JobProgress, Snapshot
from pipelines.jobs.ray_metrics import NUMBERS, RayMetrics

TELLS_WHO = {"host", "pid", "started", "now", "oldest", "ended", "ready"}
"""Fields of a snapshot that are no measure."""
PATIENCE_S = 60.0


def test_every_measure_of_a_snapshot_is_a_gauge():
    assert set(NUMBERS) | {"reasons"} | TELLS_WHO == {
        field.name for field in dataclasses.fields(Snapshot)
    }


@pytest.mark.slow
def test_a_snapshot_reaches_the_endpoint_of_its_node():
    pytest.importorskip(
        "opentelemetry.sdk.metrics", reason="Ray serves metrics with ray[default] only"
    )
    if ray.is_initialized():
        pytest.skip("this process is connected to another cluster: run this file alone")
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with JobProgress(5) as progress:
            snapshot = dataclasses.replace(
                progress.snapshot(), clips=3, teachers_busy=0.75, reasons={"static": 2}
            )
        RayMetrics("s3://bucket/labels")(snapshot)
        wanted = ["tapdistill_clips", "tapdistill_teachers_busy", "tapdistill_rows"]
        deadline, lines = time.monotonic() + PATIENCE_S, []
        while len(lines) < len(wanted) and time.monotonic() < deadline:
            time.sleep(1)
            lines = [
                line
                for line in served().splitlines()
                if any(line.startswith(f"ray_{name}{{") for name in wanted)
            ]
    finally:
        ray.shutdown()
    assert all('dataset="s3://bucket/labels"' in line for line in lines)
    assert sorted(float(line.rsplit(maxsplit=1)[-1]) for line in lines) == [0.75, 2.0, 3.0]
    assert any('reason="static"' in line for line in lines)


def served() -> str:
    node = ray.nodes()[0]
    with urllib.request.urlopen(
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10
    ) as answer:
        return answer.read().decode()
