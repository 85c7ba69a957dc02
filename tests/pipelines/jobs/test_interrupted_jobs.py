"""Jobs that are killed, interrupted, or let down by disk and network: nothing is lost, and the same
command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.harness.jobs import NEAR, STILL, config, tars
from benchmarks.harness.processes import children_of, start_driver, still_running
from labeler.shards.record import record_name
from pipelines.engines.common import DecodeLimits, UnitOpen
from pipelines.jobs.labelling import label
from teachers import FullStorageError, TransientError
from tests.support.jobs import SLOW, findings, wait_for

MOMENTS = {
    "as soon as the plan is there": lambda out: (out / "plan.0000.parquet").exists(),
    "in the first unit": lambda out: (
        (out / "shards").exists()
        or ((out / "plan.0000.parquet").exists() and time.sleep(1.5) is None)
    ),
    "after the first commit": lambda out: (out / record_name(0, 0)).exists(),
    "after the second commit": lambda out: (out / record_name(1, 0)).exists(),
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_driver_killed_and_started_again_ends_with_the_same_bytes(videos, tmp_path, moment):
    teachers = (STILL, NEAR, SLOW)
    label(config(videos, tmp_path / "calm", teachers))
    out = tmp_path / "killed"
    driver = start_driver(videos, out, teachers)
    wait_for(lambda: MOMENTS[moment](out), driver)
    below = children_of(driver.pid)
    driver.send_signal(signal.SIGKILL)
    said, _ = driver.communicate()
    assert driver.returncode == -signal.SIGKILL, f"it had ended before: {said}"
    assert still_running(below, within_s=15) == []
    label(config(videos, out, teachers))
    assert tars(out) == tars(tmp_path / "calm")
    assert findings(out) == []
    assert [name for name in os.listdir(out / "shards") if name.startswith(".")] == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_driver_says_so_and_goes_on(videos, tmp_path, number, code):
    """By Ctrl-C, or by SIGTERM, as a scheduler does it: without a trace of Ray's."""
    driver = start_driver(videos, tmp_path, (STILL, SLOW))
    wait_for(lambda: (tmp_path / record_name(0, 0)).exists(), driver)
    driver.send_signal(number)
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == code, said
    assert "SIGTERM received" not in said
    assert "continue from here with the same command" in said
    assert "Traceback" not in said
    assert label(config(videos, tmp_path, (STILL, SLOW))).accounts.labelled == 7


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_temporary_disk_stops_the_job_once_and_nothing_is_lost(
    videos, tmp_path, monkeypatch
):
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(full)],
        capture_output=True,
        check=False,
    ).returncode:
        pytest.skip("may not mount here")
    seen: list = []
    try:
        with monkeypatch.context() as patch:
            patch.setattr("tempfile.tempdir", str(full))
            with pytest.raises(FullStorageError, match=r"No space left.*TMPDIR"):
                label(config(videos, tmp_path / "out"), seen.append)
    finally:
        # lazily: the error's traceback holds files there
        subprocess.run(["umount", "--lazy", str(full)], check=True)
    assert not any(isinstance(event, UnitOpen) for event in seen)
    assert tars(tmp_path / "out") == {}
    assert label(config(videos, tmp_path / "out")).accounts.done == 5


@pytest.mark.slow
def test_the_local_engine_leaves_a_unit_open_when_transient_errors_go_on(
    videos, tmp_path, monkeypatch
):
    def fail(*_: object) -> None:
        raise TransientError("the disk is gone.")

    monkeypatch.setattr("labeler.unit.commit", fail)
    seen: list = []
    result = label(config(videos, tmp_path, decoding=DecodeLimits(deadline_s=60)), seen.append)
    assert result.troubles == [UnitOpen(unit, "the disk is gone.") for unit in range(3)]
    assert (result.accounts.open, result.accounts.done) == (5, 0)
    assert sum(isinstance(event, UnitOpen) for event in seen) == 3
