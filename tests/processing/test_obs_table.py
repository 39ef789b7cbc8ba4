"""A table of cells joins what it says to the cells it names, and says what it could not join."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.support.pipeline import position_counts

from scvae_data import ConfigError, open_index
from scvae_data.errors import ScvaeDataError
from scvae_data.processing.engine.base import SerialEngine
from scvae_data.processing.settings.control import ControlSubset
from scvae_data.processing.settings.inputs import FileInput
from scvae_data.processing.settings.run import Settings
from scvae_data.processing.survey.dry_run import dry_run
from scvae_data.store import Chunking

GENES = list("ABC")


@pytest.fixture
def join(write_raw: Callable[..., Path], process: Callable[..., Any], tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Return a function from a table, as text or as a frame, to the obs of two files of three cells, in their order."""

    def run(table: str | pd.DataFrame, *, own: dict[str, Any] | None = None, **chosen: Any) -> pd.DataFrame:
        for number in (1, 2):
            write_raw(f"SRX{number}.h5ad", position_counts(3, 3, offset=9 * number), GENES, own)
        path = tmp_path / ("cells.csv" if isinstance(table, str) else "cells.parquet")
        path.write_text(table) if isinstance(table, str) else table.to_parquet(path)
        how = {name: chosen.pop(name) for name in ("control", "chunking", "resume", "overwrite") if name in chosen}
        paths = chosen.pop("paths", str(tmp_path / "raw" / "*.h5ad"))
        process([], input=FileInput(paths=paths, obs_table=str(path), **chosen), **how)
        obs = open_index(tmp_path / "out").obs().sort_values(["source_file", "source_row"])
        return obs.drop(columns=[name for name in obs if name.startswith("pct_")])

    return run


def values(column: pd.Series) -> list[Any]:
    return [None if pd.isna(value) else value for value in column]


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        ("srx_accession", ["SRX1", "SRX2"]),
        ("SRX_accession", ["SRX1", "SRX2"]),
        ("file", ["SRX1.h5ad", "SRX2.h5ad"]),
        ("file", ["raw/SRX1.h5ad", "raw/SRX2.h5ad"]),
    ],
)
def test_rows_join_their_cells(join: Callable[..., pd.DataFrame], column: str, keys: list[str]) -> None:
    rows = [(keys[file], f"cell{cell}", f"{file}.{cell}") for file in (1, 0) for cell in (2, 0, 1)]
    obs = join(f"{column}, barcode, type\n" + "\n".join(", ".join(row) for row in rows))
    assert values(obs["type"]) == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]


def test_files_named_by_whole_paths(join: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    obs = join(f"file,barcode,type\n{tmp_path}/raw/SRX2.h5ad,cell1,T\n")
    assert values(obs["type"]) == [None, None, None, None, "T", None]


def test_text_is_text_and_parquet_keeps_its_types(join: Callable[..., pd.DataFrame]) -> None:
    table = pd.DataFrame(
        {
            "srx_accession": pd.Categorical(["SRX1", "SRX1", "SRX2"]),
            "barcode": ["cell0", "cell1", "cell2"],
            "id": pd.array([2**60 + 1, None, 3], dtype="Int64"),
            "flag": [True, False, True],
            "score": [0.5, 1.0, np.nan],
            "day": pd.to_datetime(["2024-01-02"] * 3),
            "type": pd.Categorical(["None", "NA", "x"]),
        }
    )
    obs = join(table)
    assert values(obs["id"]) == [2**60 + 1, None, None, None, None, 3]
    assert values(obs["flag"]) == [True, False, None, None, None, True]
    assert values(obs["score"]) == [0.5, 1.0, None, None, None, None]
    assert values(obs["day"]) == ["2024-01-02 00:00:00"] * 2 + [None] * 3 + ["2024-01-02 00:00:00"]
    assert values(obs["type"]) == ["None", "NA", None, None, None, "x"]
    text = "srx_accession;barcode;age;plate\nSRX1;cell0;7;007\nSRX2;cell2;;1E2\n"
    obs = join(text, numeric_columns=["age"], overwrite=True)
    assert values(obs["age"]) == [7, None, None, None, None, None]
    assert values(obs["plate"]) == ["007", None, None, None, None, "1E2"]


def test_what_does_not_match_is_counted_per_file(
    join: Callable[..., pd.DataFrame], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    join("srx_accession,barcode,type\nSRX1,cell0,a\nSRX1,cell1-1,a\nSRX9,cell0,b\nSRX1,cell2,c\n")
    path = tmp_path / "cells.csv"
    assert [line for line in caplog.messages if "cells.csv" in line or "obs_table" in line] == [
        f"{path}: 1 row of accessions that no input has, e.g. SRX9 (row 3)",
        "input.obs_table: SRX1.h5ad: 1 of 3 cells without a row, 1 row without a cell, e.g. cell cell1, "
        "e.g. row cell1-1",
        "input.obs_table: SRX2.h5ad: 3 of 3 cells without a row, 0 rows without a cell, e.g. cell cell0",
    ]
    assert json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["obs_table"] == {
        "source_file": ["SRX1.h5ad", "SRX2.h5ad"],
        "cells_without_row": [1, 3],
        "rows_without_cell": [1, 0],
    }


def test_names_that_files_have_too_are_kept_aside(join: Callable[..., pd.DataFrame]) -> None:
    obs = join(
        "srx_accession,barcode,donor,total_counts\nSRX1,cell0,A,9\n",
        own={"donor": ["x", "y", "z"]},
        obs_columns=["donor"],
    )
    assert values(obs["donor"]) == ["A"] + [None] * 5
    assert values(obs["orig_donor"]) == ["x", "y", "z"] * 2
    assert "orig_total_counts" not in obs


def test_controls_and_groups_by_a_column_of_the_table(join: Callable[..., pd.DataFrame]) -> None:
    table = "srx_accession,barcode,guide\nSRX1,cell0,NT\nSRX1,cell1,TP53\nSRX2,cell2,NT\n"
    obs = join(
        table,
        control=ControlSubset("guide", ["NT"]),
        chunking=Chunking(chunk_size=4, order="group", group_column="guide"),
    )
    assert list(zip(obs["source_file"], obs["source_row"], strict=True)) == [("SRX1.h5ad", 0), ("SRX2.h5ad", 2)]


def test_accessions_of_cells_tell_equal_barcodes_apart(
    write_raw: Callable[..., Path], process: Callable[..., Any], tmp_path: Path
) -> None:
    path = write_raw("a.h5ad", position_counts(4, 3), GENES, {"srx_accession": ["SRX1", "SRX1", "SRX2", "SRX2"]})
    table = tmp_path / "cells.csv"
    table.write_text("srx_accession,barcode,type\nSRX2,cell2,x\nSRX1,cell3,y\n")
    process([], input=FileInput(paths=str(path), obs_table=str(table)))
    obs = open_index(tmp_path / "out").obs(["source_row", "type"]).sort_values("source_row")
    assert values(obs["type"]) == [None, None, "x", None]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param("srx_accession,type\nSRX1,a\n", "no column 'barcode' among srx_accession, type", id="no barcode"),
        pytest.param("barcode,type\ncell0,a\n", "needs 'barcode', and either 'srx_accession' or 'file'", id="no key"),
        pytest.param("file,srx_accession,barcode\na,b,c\n", "either 'srx_accession' or 'file'", id="two keys"),
        pytest.param("srx_accession,barcode\nSRX1,a\n,b\n", "row 2 has no srx_accession; every row is of", id="gap"),
        pytest.param(
            "srx_accession,barcode\nSRX1,a\nSRX2,a\nSRX1,a\nSRX1,a\n",
            "rows 1 and 3 are both of barcode a of srx_accession SRX1; remove one; 1 more row repeat others",
            id="twice",
        ),
        pytest.param("srx_accession,barcode\nSRX8,a\n", r"all rows are of accessions that no input has", id="others"),
        pytest.param("file,barcode\nx.h5ad,a\n", "all rows are of files that no input has", id="other files"),
        pytest.param("srx_accession,barcode,key\nSRX1,a,1\n", "must not be called key", id="key"),
        pytest.param(
            "srx_accession,barcode,age\nSRX1,a,1\nSRX1,b,old\n",
            "obs column age, row 2: 'old' is not a number",
            id="age",
        ),
        pytest.param(pd.DataFrame({"file": ["a"], "barcode": ["b"], "x": [[1]]}), "holds lists", id="nested"),
    ],
)
def test_refused(join: Callable[..., pd.DataFrame], tmp_path: Path, table: Any, message: str) -> None:
    with pytest.raises(ScvaeDataError, match=message) as caught:
        join(table, numeric_columns=["age"] if "age" in table else [])
    assert str(caught.value).startswith(str(tmp_path / "cells"))
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there(process: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"input\.obs_table: .*none\.csv does not exist; give a CSV, TSV or Parquet file"
    ):
        process([], input=FileInput(paths=str(tmp_path), obs_table=str(tmp_path / "none.csv")))


def test_an_accession_of_several_files_is_refused(join: Callable[..., pd.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"accession SRX1 is that of SRX1\.h5ad and x_SRX1\.h5ad; name the files"):
        (tmp_path / "raw").mkdir()
        join("srx_accession,barcode,type\nSRX1,cell0,a\n", merge_same_accession=True, paths=[
            str(tmp_path / "raw" / "*.h5ad"), str(copy_of_first(tmp_path)),
        ])  # fmt: skip


def copy_of_first(folder: Path) -> Path:
    import anndata as ad

    path = folder / "raw" / "x_SRX1.h5ad"
    ad.AnnData(position_counts(3, 3, offset=99).astype(np.float32), var=pd.DataFrame(index=GENES)).write_h5ad(path)
    return path


def test_barcodes_that_recur_in_a_file(
    write_raw: Callable[..., Path], process: Callable[..., Any], tmp_path: Path
) -> None:
    import anndata as ad

    path = write_raw("SRX1.h5ad", position_counts(3, 3), GENES)
    adata = ad.read_h5ad(path)
    adata.obs_names = ["a", "b", "a"]
    with pytest.warns(UserWarning, match="not unique"):
        adata.write_h5ad(path)
        adata = ad.read_h5ad(path)
    table = tmp_path / "cells.csv"
    table.write_text("srx_accession,barcode,type\nSRX1,b,x\n")
    process([], input=FileInput(paths=str(path), obs_table=str(table)))
    table.write_text("srx_accession,barcode,type\nSRX1,a,x\n")
    with pytest.raises(ScvaeDataError, match=r"rows 0 and 2 have one barcode, a, and input\.obs_table a row for it"):
        process([], tmp_path / "other", input=FileInput(paths=str(path), obs_table=str(table)))


def test_another_table_makes_another_directory(join: Callable[..., pd.DataFrame]) -> None:
    text = "srx_accession,barcode,type\nSRX1,cell0,a\n"
    join(text)
    join(text, resume=True)
    with pytest.raises(ScvaeDataError, match="finished dataset made with other settings"):
        join(text.replace(",a", ",b"), resume=True)


def test_a_dry_run_says_what_would_stop(write_raw: Callable[..., Path], tmp_path: Path) -> None:
    from tests.support.pipeline import settings_for

    path = write_raw("SRX1.h5ad", position_counts(3, 3), GENES)
    table = tmp_path / "cells.csv"
    table.write_text("srx_accession,barcode\nSRX8,a\n")
    settings: Settings = settings_for([], input=FileInput(paths=str(path), obs_table=str(table)))
    assert "all rows are of accessions that no input has" in dry_run(settings, SerialEngine(), tmp_path / "out").stops
