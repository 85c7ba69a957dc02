"""Files with weights: reading, cache, download, and which teacher they are for."""
