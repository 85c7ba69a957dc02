"""Looking at labels: drawing, overlays, plots, and the player."""
