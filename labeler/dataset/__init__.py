"""A labelled data set, opened for reading."""
