"""Test sets, and the figures of trackers on them."""
