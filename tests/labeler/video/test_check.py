"""The clip that comes with the installation: read before the first video, so that no video is
blamed for the installation."""

from __future__ import annotations

import av
import pytest

from labeler.video import check
from labeler.video.check import check_decoding
from teachers import InstallationError


@pytest.mark.parametrize("decoder", ["auto", "pyav", "decord"])
def test_this_installation_reads_it(decoder):
    check_decoding(decoder)


@pytest.mark.parametrize(
    "fault", [TypeError, AttributeError, ImportError, av.error.InvalidDataError]
)
def test_what_stops_the_reading_is_the_fault_of_the_installation(monkeypatch, fault):
    def failing(*args, **settings):
        raise fault(1, "metadata_errors")

    monkeypatch.setattr(av, "open", failing)
    with pytest.raises(InstallationError, match="no video was opened"):
        check_decoding("pyav")


def test_other_frames_than_it_has_are_the_fault_of_the_installation(monkeypatch):
    monkeypatch.setattr(check, "LEVELS", check.LEVELS + 10)
    with pytest.raises(InstallationError, match="to other frames than it has"):
        check_decoding("pyav")
