"""The text that names a shard in, its number and how many there are out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scvae_data.errors import ConfigError

__all__ = ["Shard"]


@dataclass(frozen=True)
class Shard:
    """One of several processes that share the work of a run.

    Parameters
    ----------
    number
        From 1.
    of
        How many there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read a text such as ``"3/40"``.

        Raises
        ------
        ConfigError
            It is none.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= shard.number <= shard.of:
            raise ConfigError(f"shard={text} must be I/N with I from 1 to N, e.g. shard=3/40")
        return shard

    def __str__(self) -> str:
        """Return the text that names it."""
        return f"{self.number}/{self.of}"

    def share(self, n: int) -> range:
        """Return its share of the numbers below ``n``: every number is of one shard."""
        return range(self.number - 1, n, self.of)

    def from_own(self) -> list[Shard]:
        """Return all shards, itself first."""
        return [Shard((self.number - 1 + step) % self.of + 1, self.of) for step in range(self.of)]
