"""Judging the tracks of several teachers with a network that was made for it."""

from labeler.verifier.published import Judged, judge, majority

__all__ = ["Judged", "judge", "majority"]
