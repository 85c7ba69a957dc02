"""XFeat, matched in every frame."""
