"""From a scanned video to its clips: shots, choice, queries, and the process that makes them."""
