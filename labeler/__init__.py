"""video -> labelled clip."""
