"""Labels for other tools."""
