"""CoTracker 2.1 and CoTracker3, offline and online."""
