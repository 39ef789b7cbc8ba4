"""What is known of each gene comes back as it was, in few bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scvae_data.processing.sort.gene_sums import load_sums, save_sums


@pytest.mark.parametrize("n_genes", [0, 1, 5_000])
def test_sums_come_back(tmp_path: Path, n_genes: int) -> None:
    cells = np.arange(n_genes) % 7
    totals = cells * 2**40
    save_sums(tmp_path / "genes.feather", cells=cells, totals=totals)
    for found, wanted in zip(load_sums(tmp_path / "genes.feather", "totals", "cells"), (totals, cells), strict=True):
        np.testing.assert_array_equal(found, wanted)
        found += 1  # whoever loads them may write to them
    if n_genes > 1:
        assert (tmp_path / "genes.feather").stat().st_size < cells.nbytes
