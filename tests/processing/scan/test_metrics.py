"""The share of a cell's counts in genes of one species equals what a loop over its entries finds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

from scvae_data.processing.genes.species import OTHER, UNTOLD, WANTED
from scvae_data.processing.scan.metrics import checked, species_share
from scvae_data.readers.base import CsrBlock


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8])
def test_shares_equal_those_of_a_loop(dtype: type) -> None:
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(0.6, (40, 12)) * (rng.random((40, 1)) > 0.1)).astype(dtype)
    codes = rng.choice(np.array([UNTOLD, WANTED, OTHER], np.uint8), 12)
    block = CsrBlock(7, counts.indptr.astype(np.int64), counts.indices, counts.data, 12)
    for row, share in enumerate(species_share(block, codes).tolist()):
        of = {code: sum(int(counts[row, column]) for column in range(12) if codes[column] == code) for code in range(3)}
        told = of[WANTED] + of[OTHER]
        assert share == 100.0 * (of[WANTED] / told) if told else np.isnan(share)


def test_tables_of_one_species_are_not_measured() -> None:
    block = CsrBlock(0, np.array([0, 1, 1]), np.array([0]), np.array([3]), 1)
    assert np.isnan(species_share(block, None)).tolist() == [True, True]


@pytest.mark.parametrize("counts", ["u1", "u2", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("columns", ["u2", "i4", "i8"])
def test_checked_counts_are_of_two_types_whatever_a_file_stores(counts: str, columns: str) -> None:
    values = np.array([0, 7, 255, 1], counts)
    if values.dtype.itemsize > 2:
        values[1] = 2**24
    strided = np.array([[3, 9], [0, 9], [2, 9], [1, 9]], columns)[:, 0]
    block = CsrBlock(0, np.array([0, 2, 4]), strided, values, 4)
    found = checked(block, SimpleNamespace(names=[*"abcd"]), tolerance=0.0)
    assert found.data.dtype == (np.float32 if counts == "f4" else np.uint32)
    assert found.indices.dtype == np.int32 and found.indices.flags.c_contiguous
    assert found.data.tolist() == values.tolist()
    assert found.indices.tolist() == strided.tolist()
