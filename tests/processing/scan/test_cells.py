from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from tests.support.pipeline import position_counts

from scvae_data import open_index
from scvae_data.processing.scan.cells import unique_names


def test_repeated_names_get_a_suffix_that_no_other_name_has() -> None:
    names = np.array(["a", "b", "a", "a-1", "a"], object)
    assert unique_names(names).tolist() == ["a", "b", "a-2", "a-1", "a-3"]
    assert names.tolist() == ["a", "b", "a", "a-1", "a"]


def test_unique_names_stay() -> None:
    names = np.array(["a", "b"], object)
    assert unique_names(names) is names


def test_cells_of_one_name_are_told(
    write_raw: Callable[..., Path], process: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [write_raw(f"SRX{n}.h5ad", position_counts(4, 3), ["MT-ND1", "TP53", "ACTB"]) for n in (1, 2, 3)]
    for path in paths[:2]:
        adata = ad.read_h5ad(path)
        adata.obs_names = ["a", "b", "a", "a"]
        adata.write_h5ad(path)
    process(paths)
    told = "SRX1.h5ad and 1 more file: 2 of 4 cells have the name of an earlier one; they are called with -1, -2, … "
    assert [text.startswith(told) for text in caplog.messages if "of an earlier one" in text] == [True]
    names = sorted(open_index(tmp_path / "out").obs([]).index)
    assert [name for name in names if name.startswith("SRX1:")] == ["SRX1:a", "SRX1:a-1", "SRX1:a-2", "SRX1:b"]
