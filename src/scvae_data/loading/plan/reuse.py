"""Numbers of row groups in the order asked for in, the hits of a cache of them out, before anything is read."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["ReuseModel"]


class ReuseModel:
    """Predicts from the numbers of row groups alone which requests a cache of ``capacity`` row groups serves."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.requests = 0
        self.hits = 0
        self._recent: OrderedDict[int, None] = OrderedDict()

    def request(self, group: int) -> bool:
        """Record that ``group`` is asked for; true if it is among the last ``capacity`` distinct row groups."""
        hit = group in self._recent
        self._recent[group] = None
        self._recent.move_to_end(group)
        if len(self._recent) > self.capacity:
            self._recent.popitem(last=False)
        self.requests += 1
        self.hits += hit
        return hit

    @property
    def hit_rate(self) -> float:
        """Predicted hits per request so far; 0 before the first request."""
        return self.hits / self.requests if self.requests else 0.0
