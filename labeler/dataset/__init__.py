"""A labelled data set, opened for reading."""

from labeler.dataset.clip import Clip
from labeler.dataset.dataset import Dataset, open_dataset

__all__ = ["Clip", "Dataset", "open_dataset"]
