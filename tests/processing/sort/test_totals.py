"""Gene totals are whole numbers however large: float32 sums go wrong above 2**24."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scvae_data.processing.facts import SpooledRun
from scvae_data.processing.genes.hvg.kernels import sum_clipped, sum_values
from scvae_data.processing.scan import buffer as buffers
from scvae_data.processing.scan.buffer import RowBuffer
from scvae_data.processing.scan.metrics import add_columns
from scvae_data.processing.settings.genes import GeneRules, HvgRules
from scvae_data.processing.sort import totals
from scvae_data.processing.sort.gene_sums import save_sums
from scvae_data.processing.sort.packed import pack_rows, take_rows, total_rows
from scvae_data.processing.sort.sorted_run import SortedRun, SortedRunWriter
from scvae_data.processing.sort.totals import total_run
from scvae_data.processing.work import WorkFolder
from scvae_data.readers.base import CsrBlock
from scvae_data.store import Chunking

N_CELLS, COUNT, TOTAL = 3_000_000, 9, 27_000_000


@pytest.fixture(scope="module")
def one_gene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three million cells with nine counts of one gene: row starts, indices, data."""
    return np.arange(N_CELLS + 1), np.zeros(N_CELLS, np.int32), np.full(N_CELLS, COUNT, np.float32)


def test_float32_would_be_wrong(one_gene: tuple[np.ndarray, ...]) -> None:
    assert np.cumsum(one_gene[2], dtype=np.float32)[-1] != TOTAL


def test_the_scan_adds_up_three_million_cells(one_gene: tuple[np.ndarray, ...]) -> None:
    buffer = RowBuffer(np.zeros((1, 2), np.uint64), "file.h5ad")
    buffer.append(CsrBlock(0, *one_gene, 1), np.ones(N_CELLS, bool), np.zeros(1, np.int32))
    totals = np.zeros((2, 1), np.int64)
    add_columns(*one_gene, np.ones(N_CELLS, bool), totals)
    assert (buffer.cells.tolist(), totals.tolist()) == ([N_CELLS], [[0], [TOTAL]])


def test_ranking_adds_up_three_million_cells(one_gene: tuple[np.ndarray, ...]) -> None:
    starts, indices, data = one_gene
    batch, counts = np.zeros(N_CELLS, np.int64), data.astype(np.uint8)
    sums, squares = np.zeros((1, 1), np.int64), np.zeros((1, 1))
    sum_values(starts, indices, counts, batch, np.zeros(1, np.int32), sums, squares)
    assert (sums[0, 0], squares[0, 0]) == (TOTAL, 9 * TOTAL)
    numbers, above, above_squares = np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64), np.zeros((1, 1))
    limit = np.full((1, 1), 8.5)
    sum_clipped(starts, indices, counts, batch, np.zeros(1, np.int32), limit, numbers, above, above_squares)
    assert (numbers[0, 0], above[0, 0], above_squares[0, 0]) == (N_CELLS, TOTAL, 9 * TOTAL)


def test_a_row_total_passes_32_bits() -> None:
    sums, lengths, largest = np.zeros(1, np.int64), np.zeros(1, np.int32), np.zeros(1, np.uint32)
    data = np.full(3, 2**32 - 1, np.uint32)
    genes = np.arange(3, dtype=np.uint16)
    packed = pack_rows(np.array([0, 3]), genes, data)
    total_rows(*packed, np.ones(1, bool), np.ones(3, bool), sums, lengths, largest)
    assert (sums[0], lengths[0], largest[0]) == (3 * (2**32 - 1), 3, 2**32 - 1)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=st.sampled_from([0, 0, 1, 300])),
    st.data(),
)
@settings(deadline=None, max_examples=60)
def test_totals_are_over_the_kept_genes_whether_few_or_many_cells_have_the_others(
    dense: np.ndarray, data: st.DataObject
) -> None:
    copies, kept = (data.draw(hnp.arrays(np.bool_, n)) for n in dense.shape)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        few = data.draw(st.integers(1, 8))
        patch.setattr(buffers, "RARE_CELLS", few)
        patch.setattr(totals, "RARE_CELLS", few)
        patch.setattr(totals, "FAR_ROWS", data.draw(st.integers(1, 4)))
        work = WorkFolder(Path(folder))
        run = spool(work, dense, data.draw(st.permutations(range(len(dense)))), np.flatnonzero(copies))
        np.save(work.genes("kept"), kept)
        found = total_run(work, run, work.genes("kept"), {}, False)
        with SortedRun(work.path / run.path) as stored:
            rows = stored.obs().column("source_row").to_numpy()
            living = dense[rows][:, kept].astype(np.int64) * ~copies[rows, None]
            np.testing.assert_array_equal(stored.totals(), [living.sum(1), (living > 0).sum(1)])
    assert found.max_count == living.max(initial=0)
    assert found.totals == Counter(living.sum(1)[living.sum(1) > 0].tolist())


def spool(work: WorkFolder, dense: np.ndarray, order: list[int], copies: np.ndarray) -> SpooledRun:
    """Leave what the scan of a file and the search for copies do, the rows in some order."""
    (n_rows, n_genes), folder = dense.shape, work.scan(0)
    folder.path.mkdir(parents=True)
    buffer = RowBuffer(np.zeros((n_genes, 2), np.uint64), "file.h5ad")
    matrix = sp.csr_matrix(dense)
    block = CsrBlock(0, matrix.indptr.astype(np.int64), matrix.indices, matrix.data, n_genes)
    buffer.append(block, np.ones(n_rows, bool), np.arange(n_genes, dtype=np.int32))
    save_sums(folder.gene_sums(without_copies=False), cells=buffer.cells.astype(np.int64))
    np.save(folder.rare, buffer.rare_rows())
    np.save(folder.copies, np.column_stack([copies, copies]))
    rows = np.array(order)
    obs = pa.table({"source_row": rows, "file_number": np.zeros(n_rows, np.int32)})
    writer = SortedRunWriter(folder.sorted_run(0), obs.schema, n_genes)
    keys = np.column_stack([np.arange(n_rows), rows]).astype(np.uint64)
    writer.append(keys, *take_rows(*buffer.packed(), rows), obs, sums=buffer.row_sums()[rows])
    writer.close()
    return SpooledRun("scan/000000/run0000", 0, has_copies=True)


def large_counts(write_raw: Callable[..., Path]) -> list[Path]:
    """Two files whose totals of gene ``odd`` are odd numbers above 2**24; their sum is 27,000,001."""
    counts = np.array([[9_000_000, 1, 5], [4_500_001, 0, 5]])
    genes = ["odd", "one", "five"]
    return [
        write_raw("SRX1.h5ad", counts, genes),
        write_raw("SRX2.h5ad", np.array([[9_000_000, 0, 5], [4_500_000, 0, 5]]), genes),
    ]


@pytest.mark.parametrize(("least", "kept"), [(TOTAL + 1, ["odd"]), (20, ["five", "odd"])])
def test_a_threshold_meets_the_exact_total(
    least: int, kept: list[str], write_raw: Callable[..., Path], process: Callable[..., Any], tmp_path: Path
) -> None:
    process(large_counts(write_raw), genes=GeneRules(min_cells=None, min_counts=least), chunking=Chunking())
    chunk = ad.read_h5ad(tmp_path / "out" / "chunk_0000.h5")
    assert chunk.var_names.tolist() == kept
    assert chunk[:, "odd"].X.astype(np.int64).sum() == TOTAL + 1


def test_totals_are_reported_to_the_last_count(
    write_raw: Callable[..., Path], process: Callable[..., Any], tmp_path: Path
) -> None:
    process(large_counts(write_raw), genes=HvgRules(min_cells=1, n_top_genes=1), chunking=Chunking())
    table = pd.read_parquet(tmp_path / "out" / "gene_statistics.parquet").set_index("gene")
    assert table["total_counts"].to_dict() == {"five": 20, "odd": TOTAL + 1, "one": 1}
    dropped = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["dropped_genes"]
    assert dict(zip(dropped["gene"], dropped["total_counts"], strict=True))["one"] == 1
