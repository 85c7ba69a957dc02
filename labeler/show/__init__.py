"""Looking at labels: drawing, overlays, plots, and the player."""

from labeler.show.draw import draw_tracks, rainbow
from labeler.show.overlay import Overlay
from labeler.show.player import page_of

__all__ = ["Overlay", "draw_tracks", "page_of", "rainbow"]
