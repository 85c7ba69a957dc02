"""Ray metrics: the snapshots of a job as gauges, which Ray serves to Prometheus at each node as
`ray_tapdistill_...`.

Ray's agent does so where `ray[default]` is installed (`tapdistill[cluster]`); elsewhere, they go
nowhere, and do no harm.
"""

from __future__ import annotations

from ray.util.metrics import Gauge

from pipelines.jobs.progress import Snapshot

NUMBERS = {
    "videos": "Videos that the job has to do.",
    "videos_done": "Videos that are done, whatever became of them.",
    "clips": "Clips labelled.",
    "clips_per_s": "Clips labelled per second, since the job began.",
    "tracks_per_s": "Queries times teachers per second, since the job began.",
    "teachers_busy": "Share of the unit workers' time in which teachers work.",
    "waiting_for_frames": "Share of the unit workers' time in which they wait for the decoder.",
    "median_s": "How long the teachers take for a clip, the median of the latest.",
    "oldest_s": "How long the oldest clip in flight has taken so far.",
}
"""Fields of a `Snapshot`."""


class RayMetrics:
    """Receives the snapshots of a job that is connected to Ray."""

    def __init__(self, dataset: str) -> None:
        """`dataset` is the tag of every gauge: jobs on one cluster are told apart by it."""
        self._gauges = {
            name: Gauge(f"tapdistill_{name}", text, ("dataset",)) for name, text in NUMBERS.items()
        }
        self._rows = Gauge(
            "tapdistill_rows",
            "Videos, clips, and teachers' parts of clips that gave no label.",
            ("dataset", "reason"),
        )
        self._tags = {"dataset": dataset}

    def __call__(self, snapshot: Snapshot) -> None:
        for name, gauge in self._gauges.items():
            value = getattr(snapshot, name)
            if value is not None:
                gauge.set(value, self._tags)
        for reason, count in snapshot.reasons.items():
            self._rows.set(count, {**self._tags, "reason": reason})
