"""Folders of Matrix Market files with a matrix for each state of splicing, and what else counters leave beside one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from numpy.typing import NDArray

from scvae_data.errors import InputError
from scvae_data.readers.base import LayeredReader
from scvae_data.readers.recognise import open_reader

N_OBS, N_VARS = 7, 11
IDS = [f"ENSG{j:011d}" for j in range(N_VARS)]
SYMBOLS = [f"SYM{j}" for j in range(N_VARS)]
CELLS = [f"AAAC{i}" for i in range(N_OBS)]
Counts = NDArray[np.int64]


@pytest.fixture
def states(counts: Counts) -> dict[str, Counts]:
    """Three matrices that add up to the counts."""
    rows = np.arange(N_OBS)[:, None]
    return {
        "spliced": np.where(rows % 3 == 0, counts, 0) + np.where(rows % 3 == 2, 1, 0) * (counts > 0),
        "unspliced": np.where(rows % 3 == 1, counts, 0),
        "ambiguous": np.where(rows % 3 == 2, counts - (counts > 0), 0),
    }


def put(path: Path, names: list[str]) -> None:
    path.write_text("".join(f"{name}\n" for name in names))


def put_matrix(path: Path, matrix: Any) -> None:
    scipy.io.mmwrite(path, sp.coo_matrix(matrix), field="integer")


def velocyto(folder: Path, states: dict[str, Counts]) -> Path:
    """As STARsolo writes Solo.out/Velocyto/filtered."""
    for name, matrix in states.items():
        put_matrix(folder / f"{name}.mtx", matrix.T)
    put(folder / "barcodes.tsv", CELLS)
    put(
        folder / "features.tsv",
        [f"{gene}\t{symbol}\tGene Expression" for gene, symbol in zip(IDS, SYMBOLS, strict=True)],
    )
    return folder


def nac(folder: Path, states: dict[str, Counts]) -> Path:
    """As kb count writes counts_unfiltered with its workflow nac."""
    for name, state in (("mature", "spliced"), ("nascent", "unspliced"), ("ambiguous", "ambiguous")):
        put_matrix(folder / f"cells_x_genes.{name}.mtx", states[state])
    put(folder / "cells_x_genes.barcodes.txt", CELLS)
    put(folder / "cells_x_genes.genes.txt", IDS)
    put(folder / "cells_x_genes.genes.names.txt", SYMBOLS)
    return folder


def usa(folder: Path, states: dict[str, Counts]) -> Path:
    """As alevin-fry writes alevin/ in its USA mode: spliced, unspliced and ambiguous molecules side by side."""
    put_matrix(folder / "quants_mat.mtx", np.hstack(list(states.values())))
    put(folder / "quants_mat_rows.txt", CELLS)
    put(folder / "quants_mat_cols.txt", [*IDS, *(f"{gene}-U" for gene in IDS), *(f"{gene}-A" for gene in IDS)])
    return folder


WRITERS = {
    "STARsolo": (velocyto, "spliced", "unspliced"),
    "kb": (nac, "mature", "nascent"),
    "alevin-fry": (usa, "spliced", "unspliced"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_states_of_splicing_are_layers_that_must_be_named(
    tmp_path: Path, counts: Counts, states: dict[str, Counts], read_dense: Any, writer: str
) -> None:
    write, spliced, unspliced = WRITERS[writer]
    with open_reader(write(tmp_path, states)) as reader:
        assert isinstance(reader, LayeredReader)
        assert reader.n_obs == N_OBS and reader.barcodes().tolist() == CELLS
        with pytest.raises(InputError, match=rf"none of them has all; say .* sum:{spliced}\+ambiguous for cells"):
            reader.slots  # noqa: B018
        whole = reader.find_slot(f"sum:{spliced}+{unspliced}+ambiguous")
        assert reader.genes(whole).ids.tolist() == IDS
        for size in (1, 10, 10**6):
            parts = [
                sp.csr_matrix((block.data, block.indices, block.indptr), (block.n_rows, N_VARS)).toarray()
                for block in reader.blocks(whole, max_elements=size)
            ]
            np.testing.assert_array_equal(np.vstack(parts), counts)
        layer = reader.find_slot(f"layers/{unspliced}")
        np.testing.assert_array_equal(read_dense(reader, layer, N_VARS), states["unspliced"])
        assert reader.sample(layer).total == states["unspliced"].sum()
        with pytest.raises(InputError, match=r"input.counts=X: there is no X; the file has layers/"):
            reader.find_slot("X")


def test_matrices_with_cells_of_their_own_are_refused(tmp_path: Path, states: dict[str, Counts]) -> None:
    for name in ("spliced", "unspliced"):
        put_matrix(tmp_path / f"{name}.mtx", states[name])
        put(tmp_path / f"{name}.barcodes.txt", [f"{name}{i}" for i in range(N_OBS)])
        put(tmp_path / f"{name}.genes.txt", IDS)
    with pytest.raises(InputError, match="spliced and unspliced have cells or genes of their own; give one"):
        open_reader(tmp_path).__enter__()


def test_alevin_fry_without_states_has_one_matrix(tmp_path: Path, counts: Counts, read_dense: Any) -> None:
    put_matrix(tmp_path / "quants_mat.mtx", counts)
    put(tmp_path / "quants_mat_rows.txt", CELLS)
    put(tmp_path / "quants_mat_cols.txt", IDS)
    for path in (tmp_path, tmp_path / "quants_mat.mtx"):
        with open_reader(path) as reader:
            np.testing.assert_array_equal(read_dense(reader, "matrix"), counts)
            assert reader.genes("matrix").ids.tolist() == IDS


def test_symbols_of_kallisto_stand_in_a_file_of_their_own(tmp_path: Path, counts: Counts) -> None:
    put_matrix(tmp_path / "cells_x_genes.mtx", counts)
    put(tmp_path / "cells_x_genes.barcodes.txt", CELLS)
    put(tmp_path / "cells_x_genes.genes.txt", IDS)
    put(tmp_path / "cells_x_genes.genes.names.txt", ["", *SYMBOLS[1:]])
    with open_reader(tmp_path) as reader:
        assert reader.genes("matrix").symbols.tolist() == [IDS[0], *SYMBOLS[1:]]
    put(tmp_path / "cells_x_genes.genes.names.txt", SYMBOLS[1:])
    with pytest.raises(InputError, match=r"names.txt has 10 lines and cells_x_genes.genes.txt 11; take both"):
        open_reader(tmp_path).__enter__()


def test_matrices_of_reads_that_map_twice_are_named_and_left_out(
    tmp_path: Path, counts: Counts, read_dense: Any
) -> None:
    folder = velocyto(tmp_path, {})
    put_matrix(folder / "matrix.mtx", counts.T)
    put_matrix(folder / "UniqueAndMult-EM.mtx", 2 * counts.T)
    with open_reader(folder) as reader:
        np.testing.assert_array_equal(read_dense(reader, "matrix"), counts)
        assert reader.notes == ("UniqueAndMult-EM.mtx beside matrix.mtx left out",)
    with open_reader(folder / "UniqueAndMult-EM.mtx") as reader:
        np.testing.assert_array_equal(read_dense(reader, "matrix"), 2 * counts)
