"""Numbers of row groups in the order asked for in, the hits of a cache of them out, before anything is read."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["ReuseModel"]


class ReuseModel:
    """Predicts from the numbers of row groups alone which requests a cache of ``capacity`` row groups serves."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.hits = 0
        self._recent: OrderedDict[int, None] = OrderedDict()

    def request(self, group: int) -> None:
        """Record that ``group`` is asked for: a hit if it is among the last ``capacity`` distinct row groups."""
        self.hits += group in self._recent
        self._recent[group] = None
        self._recent.move_to_end(group)
        if len(self._recent) > self.capacity:
            self._recent.popitem(last=False)
