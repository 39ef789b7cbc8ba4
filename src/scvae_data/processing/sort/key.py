"""Where a cell goes: accession, row and name in, two 64-bit keys out.

The keyed hash is a shuffle without state: the same for any input order,
worker count and chunk size, and later cells merge into it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["OrderKey"]

ROW_BITS = 40
# Two of 10,000 groups get the same rank, and are interleaved, once in 20,000 corpora.
GROUP_BITS = 40


@dataclass(frozen=True)
class OrderKey:
    """How cells are ordered in the directory.

    Parameters
    ----------
    seed
        Key of the hash.
    order
        ``"hash"``: a random order; ``"source"``: file by file, row by row;
        ``"group"``: the groups of a column one after the other, random inside.
    group_column
        Obs column behind ``"group"``: the accession, or one of the inputs'.
    """

    seed: int
    order: Literal["hash", "source", "group"] = "hash"
    group_column: str | None = None

    def hashes(
        self, accessions: NDArray[np.object_], rows: NDArray[np.int64], names: NDArray[np.object_]
    ) -> NDArray[np.uint64]:
        """Return h1 and h2 of each cell, uint64, shape (n, 2): the halves of a keyed BLAKE2b-128."""
        keyed = hashlib.blake2b(digest_size=16, key=str(self.seed).encode())
        digests = []
        for accession, row, name in zip(accessions.tolist(), rows.tolist(), names.tolist(), strict=True):
            cell = keyed.copy()  # takes less than to begin anew
            cell.update(f"{accession}\0{row}\0{name}".encode())
            digests.append(cell.digest())
        return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)

    def keys(
        self, hashes: NDArray[np.uint64], file_number: int, rows: NDArray[np.int64], groups: NDArray[np.object_]
    ) -> NDArray[np.uint64]:
        """Return the key that cells are sorted by, uint64, shape (n,); ``groups`` are their values of the column."""
        if self.order == "hash":
            return hashes[:, 0]
        if self.order == "source":
            return rows.astype(np.uint64) + (np.uint64(file_number) << np.uint64(ROW_BITS))
        codes, distinct = pd.factorize(groups)
        ranks = np.array(
            [
                int.from_bytes(hashlib.blake2b(str(name).encode(), digest_size=GROUP_BITS // 8).digest())
                for name in distinct
            ]
        )
        return ranks.astype(np.uint64)[codes] << np.uint64(64 - GROUP_BITS) | (hashes[:, 0] >> np.uint64(GROUP_BITS))
