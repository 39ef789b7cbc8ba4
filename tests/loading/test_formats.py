"""What a batch holds in each format of ``x``, and with a choice of genes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tests.loading import conftest
from tests.loading.conftest import Directory

from scvae_data import ChunkedDataModule
from scvae_data.errors import ConfigError, SelectionError
from scvae_data.loading.batch.sparse import SparseRows, make_dense, scatter_on_device

FORMATS = ["dense", "csr", "compact"]

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")


module_of = partial(conftest.module_of, batch_size=32, seed=3, split=None, normalized=True)


def epoch(module: ChunkedDataModule) -> dict[str, torch.Tensor]:
    batches = [module.on_after_batch_transfer(batch, 0) for batch in module.train_dataloader()]
    keys = [key for key in batches[0] if key != "obs"]
    return {key: torch.cat([batch[key] for batch in batches]) for key in keys}


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("genes", [None, [17, 0, 5]])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_format_gives_the_same_dense_batches(hashed: Directory, normalized, genes, num_workers) -> None:
    if num_workers and not (normalized and genes):
        pytest.skip("one combination stands for all with workers")
    made = {
        kind: epoch(
            module_of(hashed, x_format=kind, normalized=normalized, counts=True, genes=genes, num_workers=num_workers)
        )
        for kind in FORMATS
    }
    chosen = slice(None) if genes is None else genes
    rows = made["dense"]["index"].numpy()
    np.testing.assert_array_equal(made["dense"]["counts"], hashed.counts[rows][:, chosen])
    np.testing.assert_array_equal(made["dense"]["library_size"], hashed.counts[rows].sum(axis=1))
    for kind in FORMATS:
        assert set(made[kind]) == set(made["dense"])
        for key, values in made["dense"].items():
            torch.testing.assert_close(made[kind][key], values, rtol=1e-6, atol=0, msg=f"{kind} {key}")


def test_compact_rows_are_as_narrow_as_the_counts_allow(hashed: Directory) -> None:
    rows = next(iter(module_of(hashed, x_format="compact", normalized=False).train_dataloader()))["x"]
    assert isinstance(rows, SparseRows)
    assert (rows.indices.dtype, rows.data.dtype, rows.n_columns) == (torch.uint16, torch.uint16, 20)
    rows = next(iter(module_of(hashed, x_format="csr", normalized=True).train_dataloader()))["x"]
    assert (rows.indices.dtype, rows.data.dtype) == (torch.int32, torch.float32)


def test_rows_as_torch_sparse_csr(hashed: Directory) -> None:
    for kind in ("csr", "compact"):
        rows = next(iter(module_of(hashed, x_format=kind, normalized=False).train_dataloader()))["x"]
        sparse = rows.to_sparse_csr()
        assert sparse.layout == torch.sparse_csr
        torch.testing.assert_close(sparse.to_dense(), rows.to_dense())


@pytest.mark.parametrize("kind", ["csr", "compact"])
@pytest.mark.parametrize("normalized", [False, True])
def test_the_way_to_dense_on_a_device_gives_the_same(hashed: Directory, kind: Any, normalized: bool) -> None:
    batch = next(iter(module_of(hashed, x_format=kind, normalized=normalized).train_dataloader()))
    size_factor = batch["size_factor"] if normalized and kind == "compact" else None
    expected = make_dense(batch, normalized)["x"]
    torch.testing.assert_close(scatter_on_device(batch["x"], size_factor), expected, rtol=1e-6, atol=0)


def test_sixteen_bits_are_used_in_full() -> None:
    high = torch.from_numpy(np.array([65_535, 40_000], np.uint16))
    rows = SparseRows(torch.tensor([0, 2]), torch.from_numpy(np.array([0, 60_000], np.uint16)), high, 65_000)
    for dense in (scatter_on_device(rows, None), rows.to_dense(), rows.to_sparse_csr().to_dense()):
        assert dense[0, [0, 60_000]].tolist() == [65_535, 40_000] and dense.sum() == 105_535


def test_batches_a_consumer_keeps_do_not_change(hashed: Directory) -> None:
    for kind in FORMATS:
        kept = list(module_of(hashed, x_format=kind, normalized=False).train_dataloader())
        for batch in kept:
            x = make_dense(batch, False)["x"]
            np.testing.assert_array_equal(x, hashed.counts[batch["index"]])


def test_counts_beside_counts_are_one_tensor(hashed: Directory) -> None:
    for kind in FORMATS:
        batch = next(iter(module_of(hashed, x_format=kind, normalized=False, counts=True).train_dataloader()))
        dense = make_dense(batch, False)
        assert dense["counts"] is dense["x"]


@pytest.mark.parametrize("column", ["names", "symbols"])
def test_genes_by_name(hashed: Directory, column: str) -> None:
    known = getattr(module_of(hashed).index.genes, column)
    module = module_of(hashed, genes=[known[9], known[2]], normalized=False)
    assert module.n_vars == 2
    assert module.var_names == [str(module.index.genes.names[9]), str(module.index.genes.names[2])]
    assert module.gene_mask([0]).shape == (1, 2)
    made = epoch(module)
    np.testing.assert_array_equal(made["x"], hashed.counts[made["index"].numpy()][:, [9, 2]])


@pytest.mark.parametrize(
    ("genes", "error", "message"),
    [
        ("GENE1", ConfigError, "must be a list"),
        ([], ConfigError, "at least one"),
        (["GENE1", 2], ConfigError, "all names or all column numbers"),
        ([3, 3], ConfigError, "names 3 twice"),
        ([20], SelectionError, "genes 20 not in"),
        (["GENE1", "GENA2"], SelectionError, r"genes GENA2 not in .*; did you mean GENE2"),
        (["GENE1", "ENSG00000000001"], SelectionError, "one gene .* in two ways"),
    ],
)
def test_impossible_genes(hashed: Directory, genes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        module_of(hashed, genes=genes)
    assert "\n" not in str(caught.value)


def test_an_unknown_format(hashed: Directory) -> None:
    with pytest.raises(ConfigError, match="x_format='coo' must be one of dense, csr, compact"):
        ChunkedDataModule(hashed.path, x_format="coo")  # type: ignore[arg-type]
