"""Lazy sequence: its items are made when they are accessed, so that a data set of millions of clips
is not in memory as Python objects."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self, TypeVar, overload

import numpy as np

Item = TypeVar("Item")


class LazySequence(Sequence[Item]):
    """A sequence that makes each item when it is accessed. A slice is a sequence of the same kind;
    two sequences are equal if their items are."""

    @abstractmethod
    def take(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The items with these indices, none of them negative, in that order."""

    @abstractmethod
    def _item(self, index: int) -> Item:
        """The item with this index, from 0 to len - 1."""

    @overload
    def __getitem__(self, which: int) -> Item: ...

    @overload
    def __getitem__(self, which: slice) -> Self: ...

    def __getitem__(self, which: int | slice) -> Item | Self:
        """An item by its index, or several by slice; IndexError if there is none."""
        indices = range(len(self))[which]
        return self.take(indices) if isinstance(indices, range) else self._item(indices)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)
