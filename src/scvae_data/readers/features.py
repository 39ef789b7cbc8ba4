"""Which features of a 10x matrix are genes: feature types in, columns to keep out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.base import CsrBlock
from scvae_data.wording import counted

__all__ = ["GENE_EXPRESSION", "FeatureFilter", "empty_cell_table", "keep_gene_expression"]

GENE_EXPRESSION = "Gene Expression"


@dataclass(frozen=True)
class FeatureFilter:
    """Columns to keep of a matrix with several kinds of features."""

    keep: NDArray[np.bool_]
    """Shape (n_features,)."""
    notes: tuple[str, ...]
    """What is dropped, one line a kind."""

    def column_of(self) -> NDArray[np.int32] | None:
        """New column of each feature, −1 for dropped ones; None when all are kept."""
        if self.keep.all():
            return None
        return np.where(self.keep, np.cumsum(self.keep) - 1, -1).astype(np.int32)

    def apply(self, block: CsrBlock) -> CsrBlock:
        """The same rows with only the kept columns, renumbered."""
        column_of = self.column_of()
        if column_of is None:
            return block
        columns = column_of[block.indices]
        kept = columns >= 0
        n_kept_before = np.concatenate([[0], np.cumsum(kept)])
        return CsrBlock(
            first_row=block.first_row,
            indptr=n_kept_before[block.indptr],
            indices=columns[kept],
            data=block.data[kept],
            n_vars=int(self.keep.sum()),
        )


def keep_gene_expression(path: Path, types: NDArray[np.object_] | None, n_features: int) -> FeatureFilter:
    """Keep features of type "Gene Expression"; files without types hold genes only.

    Raises
    ------
    InputError
        ``no_counts`` if no feature is of that type.
    """
    if types is None:
        return FeatureFilter(np.ones(n_features, dtype=bool), ())
    keep = np.asarray(types == GENE_EXPRESSION, dtype=bool)
    counts = Counter(str(kind) for kind in types[~keep])
    if n_features and not keep.any():
        found = ", ".join(f"{kind} ({n:,})" for kind, n in sorted(counts.items()))
        raise InputError(path, "no_counts", f"no feature of type {GENE_EXPRESSION}, found {found}; leave the file out")
    notes = tuple(f"dropped {counted(n, 'feature')} of type {kind or '(none)'}" for kind, n in sorted(counts.items()))
    return FeatureFilter(keep, notes)


def empty_cell_table(path: Path, n_obs: int, columns: Sequence[str] | None) -> pd.DataFrame:
    """Cell table of a format that has none: rows without columns.

    Raises
    ------
    InputError
        ``missing_column`` if a column is asked for.
    """
    if columns:
        raise InputError(path, "missing_column", f"10x files have no cell table, so no column {columns[0]!r}")
    return pd.DataFrame(index=pd.RangeIndex(n_obs))
