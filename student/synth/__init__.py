"""Procedural video with exact tracks."""
