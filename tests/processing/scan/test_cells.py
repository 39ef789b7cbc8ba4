from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.support.pipeline import position_counts

from scvae_data import open_index
from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.scan.cells import unique_names
from scvae_data.processing.settings.control import ControlSubset
from scvae_data.processing.settings.inputs import FileInput


def test_repeated_names_get_a_suffix_that_no_other_name_has() -> None:
    names = np.array(["a", "b", "a", "a-1", "a"], object)
    assert unique_names(names).tolist() == ["a", "b", "a-2", "a-1", "a-3"]
    assert names.tolist() == ["a", "b", "a", "a-1", "a"]


def test_unique_names_stay() -> None:
    names = np.array(["a", "b"], object)
    assert unique_names(names) is names


@pytest.mark.parametrize(
    "name", ["Total", "sum", "Column_Total", "mean", "unassigned", "Undetermined reads", "__no_feature"]
)
def test_a_sum_or_reads_of_no_cell_among_the_cells_are_refused(
    name: str, process: Callable[..., Any], tmp_path: Path
) -> None:
    rows = [f"{cell},{','.join(map(str, row))}" for cell, row in zip("ab", position_counts(2, 3), strict=True)]
    (tmp_path / "SRX1.csv").write_text("\n".join(["cell,MT-ND1,RPL3,RPS6", *rows, f"{name},3,4,5"]) + "\n")
    with pytest.raises(
        ScvaeDataError, match=rf"SRX1\.csv: '{name}' stands among the cells, in place 3, .* take it out"
    ):
        process([tmp_path / "SRX1.csv"])


@pytest.mark.parametrize("name", ["Total_1", "Summer", "meanie", "AAACTOTAL", "Sample sum 3"])
def test_cells_that_are_called_nearly_as_sums_are_cells(
    name: str, write_raw: Callable[..., Path], process: Callable[..., Any]
) -> None:
    path = write_raw("SRX1.h5ad", position_counts(2, 3), ["MT-ND1", "TP53", "ACTB"])
    adata = ad.read_h5ad(path)
    adata.obs_names = ["a", name]
    adata.write_h5ad(path)
    assert process([path]).n_obs == 2


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


def joining(process: Callable[..., Any], paths: list[Path], columns: dict[str, list[str]], **chosen: Any) -> Any:
    """Process files with some of their columns joined."""
    return process(paths, input=FileInput(paths=[str(path) for path in paths], join_columns=columns), **chosen)


def test_a_cell_has_the_value_of_the_column_that_has_one(
    write_raw: Callable[..., Path], process: Callable[..., Any], tmp_path: Path
) -> None:
    obs = {"dose": [1.0, np.nan, np.nan, 2.0], "Dose": [np.nan, 3.0, np.nan, 2.0], "x": [*"abcd"]}
    path = write_raw("SRX1.h5ad", position_counts(4, 3), ["MT-ND1", "TP53", "ACTB"], obs)
    joining(process, [path], {"mg": ["dose", "Dose"]})
    index = open_index(tmp_path / "out")
    assert index.obs_columns["mg"].dtype == "float64"
    assert not {"dose", "Dose"} & index.obs_columns.keys()
    np.testing.assert_array_equal(index.obs(["source_row", "mg"]).sort_values("source_row")["mg"], [1, 3, np.nan, 2])


def test_two_values_of_a_cell_are_refused(write_raw: Callable[..., Path], process: Callable[..., Any]) -> None:
    obs = {"cell_type": ["T", "T", "B", "B"], "celltype": pd.Categorical(["T", None, "NK", "B"])}
    path = write_raw("SRX1.h5ad", position_counts(4, 3), ["MT-ND1", "TP53", "ACTB"], obs)
    expected = r"row 2 has 'B' in cell_type and 'NK' in celltype, which are one column here, cell_type"
    with pytest.raises(ScvaeDataError, match=expected):
        joining(process, [path], {"cell_type": ["celltype"]})


def test_controls_are_told_by_a_joined_column(
    write_raw: Callable[..., Path], process: Callable[..., Any], tmp_path: Path
) -> None:
    columns = [{"guide": ["ctrl", "TP53", "ctrl", "x"]}, {"Guide": ["TP53", "ctrl", "x", "x"]}]
    genes = ["MT-ND1", "TP53", "ACTB"]
    paths = [write_raw(f"SRX{n}.h5ad", position_counts(4, 3), genes, obs) for n, obs in enumerate(columns)]
    joining(process, paths, {"guide": ["Guide"]}, control=ControlSubset(column="guide", values=["ctrl"]))
    obs = open_index(tmp_path / "out").obs(["SRX_accession", "source_row"])
    assert sorted(obs.itertuples(index=False, name=None)) == [("SRX0", 0), ("SRX0", 2), ("SRX1", 1)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"donor": ["doner"]}, r"input\.join_columns: no file has doner; there are: guide"),
        ({"total_counts": ["guide"]}, r"input\.join_columns: total_counts is a column that processing adds"),
        ({"sample": ["srx_accession"]}, r"input\.join_columns cannot make or take SRX_accession; say accessions in a"),
        ({"a": ["guide"], "b": ["guide"]}, r"input\.join_columns names guide twice"),
        ({"a": "guide"}, r"input\.join_columns\.a=guide must be a list of obs columns, \[guide\]"),
    ],
)
def test_what_cannot_be_joined_is_refused(
    write_raw: Callable[..., Path], process: Callable[..., Any], columns: dict[str, list[str]], message: str
) -> None:
    path = write_raw("SRX1.h5ad", position_counts(4, 3), ["MT-ND1", "TP53", "ACTB"], {"guide": [*"abcd"]})
    with pytest.raises(ConfigError, match=message):
        joining(process, [path], columns)
