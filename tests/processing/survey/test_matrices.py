"""Which matrix of an H5AD file holds its counts: by values and genes, or as the settings say."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.support.pipeline import position_counts, settings_for

from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.processing.settings.inputs import FileInput

Process = Callable[..., Any]
N_OBS, N_VARS = 5, 6
ALL = position_counts(N_OBS, N_VARS)
GENES = list("ABCDEF")
LOGGED = np.log1p(ALL)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(x: Any, raw: Any = None, n_genes: int = N_VARS, **layers: Any) -> Path:
        obs = pd.DataFrame(index=[f"c{number}" for number in range(N_OBS)])
        var = pd.DataFrame(index=GENES[:n_genes])
        adata = ad.AnnData(None if x is None else x.astype(np.float32), obs=obs, var=var)
        for name, layer in layers.items():
            adata.layers[name] = layer.astype(np.float32)
        if raw is not None:
            adata.raw = ad.AnnData(raw.astype(np.float32), obs=obs, var=pd.DataFrame(index=GENES[: raw.shape[1]]))
        adata.write_h5ad(tmp_path / "SRX1.h5ad")
        return tmp_path / "SRX1.h5ad"

    return write


@pytest.fixture
def slot_of(process: Process, tmp_path: Path) -> Callable[..., str]:
    """Process a file, and return the slot that was taken."""

    def slot_of(path: Path, **inputs: Any) -> str:
        process([], input=FileInput(paths=str(path), **inputs))
        slot: str = json.loads((tmp_path / "out" / "chunk_summary.json").read_text())["attrition"]["slot"][0]
        return slot

    return slot_of


def few(x: Any) -> Any:
    return x[:, :3]


@pytest.mark.parametrize(
    ("parts", "slot"),
    [
        pytest.param({"x": few(LOGGED), "raw": ALL, "counts": few(ALL)}, "raw/X", id="layer_of_chosen_genes"),
        pytest.param({"x": few(ALL), "raw": ALL}, "raw/X", id="x_of_chosen_genes"),
        pytest.param({"x": LOGGED, "raw": few(ALL)}, "raw/X", id="only_few_are_counts"),
        pytest.param({"x": ALL, "raw": few(ALL)}, "X", id="raw_of_chosen_genes"),
        pytest.param({"x": few(LOGGED), "raw": LOGGED, "counts": few(ALL)}, "layers/counts", id="raw_is_logged"),
        pytest.param({"x": LOGGED, "raw": ALL, "counts": ALL}, "layers/counts", id="all_of_all_genes"),
        pytest.param({"x": ALL, "spliced": ALL // 2, "unspliced": ALL // 3}, "X", id="layers_beside"),
    ],
)
def test_counts_of_most_genes_are_taken(
    write: Callable[..., Path], slot_of: Callable[..., str], parts: dict[str, Any], slot: str
) -> None:
    n_genes = parts["x"].shape[1]
    assert slot_of(write(**parts, n_genes=n_genes)) == slot


def test_what_has_fewer_genes_is_named(
    write: Callable[..., Path], slot_of: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slot_of(write(few(LOGGED), raw=ALL, counts=few(ALL), n_genes=3))
    text = "counts are those of raw/X with 6 genes; layers/counts has 3, 3 of them the same"
    assert f"SRX1.h5ad: {text}" in caplog.messages


@pytest.mark.parametrize(
    ("layers", "level", "text"),
    [
        pytest.param(
            {"mature": ALL, "nascent": 3 * ALL, "ambiguous": ALL // 2},
            logging.WARNING,
            "X equals layers/mature; counts are left out that stand in layers/ambiguous (3,020 counts), layers/nascent "
            "(18,150 counts); X has 6,050 counts; input.counts=sum:ambiguous+mature+nascent takes them",
            id="kb",
        ),
        pytest.param(
            {"spliced": ALL // 100, "unspliced": ALL // 200},
            logging.INFO,
            "counts are left out that stand in layers/spliced (60 counts), layers/unspliced",
            id="velocyto",
        ),
        pytest.param({"counts_all": 2 * ALL}, logging.WARNING, "input.counts=layers/counts_all takes them", id="one"),
    ],
)
def test_counts_that_are_left_out_are_named(
    write: Callable[..., Path],
    slot_of: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
    layers: dict[str, Any],
    level: int,
    text: str,
) -> None:
    caplog.set_level(logging.INFO)
    slot_of(write(ALL, **layers))
    (record,) = [record for record in caplog.records if "left out" in record.getMessage()]
    assert record.levelno == level
    assert text in record.getMessage()


@pytest.mark.parametrize("layers", [{}, {"scaled": LOGGED}, {"copy": ALL}, {"counts": ALL}])
def test_copies_and_other_values_are_not_worth_a_word(
    write: Callable[..., Path], slot_of: Callable[..., str], caplog: pytest.LogCaptureFixture, layers: dict[str, Any]
) -> None:
    caplog.set_level(logging.INFO)
    slot_of(write(ALL, **layers))
    assert "left out" not in caplog.text


@pytest.mark.parametrize("layout", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ("X", ALL),
        ("raw", 2 * ALL),
        ("layers/other", 3 * ALL),
        ("sum:other+more", 3 * ALL + 40_000 * (ALL % 2)),
        ("sum:X+more", ALL + 40_000 * (ALL % 2)),
    ],
)
def test_settings_say_which_matrix_it_is(
    write: Callable[..., Path],
    slot_of: Callable[..., str],
    tmp_path: Path,
    layout: Callable[[Any], Any],
    counts: str,
    expected: np.ndarray,
) -> None:
    more = layout(40_000 * (ALL % 2))
    path = write(layout(ALL), raw=layout(2 * ALL), other=layout(3 * ALL), more=more)
    assert slot_of(path, counts=counts) == {"raw": "raw/X"}.get(counts, counts)
    chunks = [ad.read_h5ad(chunk) for chunk in sorted((tmp_path / "out").glob("chunk_*.h5"))]
    cells = ad.concat(chunks)
    np.testing.assert_array_equal(cells.X.toarray()[np.argsort(cells.obs["source_row"])], expected)


def test_the_setting_is_part_of_what_a_directory_depends_on_where_it_is_set() -> None:
    ids = [
        settings_for([], input=FileInput(paths=["a"], counts=counts)).processing_id({}, "")
        for counts in (None, "X", "raw", "sum:a+b")
    ]
    assert len(set(ids)) == 4


@pytest.mark.parametrize("counts", ["counts", "layers/", "sum:spliced", "sum:a+", "raw/X", ""])
def test_a_setting_that_names_no_matrix_is_refused(counts: str) -> None:
    with pytest.raises(ConfigError, match="must be X, raw, layers/NAME or sum:NAME"):
        FileInput(paths=["a"], counts=counts)


@pytest.mark.parametrize(
    ("parts", "inputs", "message"),
    [
        pytest.param(
            {"x": ALL, "spliced": ALL},
            {"counts": "layers/splced"},
            "there is no layers/splced; the file has X, layers/spliced",
            id="no_such_layer",
        ),
        pytest.param(
            {"x": ALL, "a": ALL, "b": LOGGED},
            {"counts": "sum:a+b"},
            "layers/b holds 4.62497 in row 0, column 1, which is no count",
            id="sum_of_fractions",
        ),
        pytest.param(
            {"x": ALL, "a": ALL, "b": -ALL}, {"counts": "sum:a+b"}, "layers/b holds -101 in row 0", id="negative"
        ),
        pytest.param({"x": LOGGED}, {"counts": "X"}, "no raw counts: X: fractional value 4.62497 in row 0", id="named"),
        pytest.param(
            {"x": LOGGED, "raw": -ALL, "spliced": ALL, "unspliced": ALL, "z": LOGGED},
            {},
            r"no raw counts: raw/X: negative value -101 in row 0, column 1 \(B\); X: fractional value 4.62497 in row "
            r"0, column 1 \(B\); there are layers/spliced \(6,050 counts\), layers/unspliced \(6,050 counts\), "
            r"layers/z \(no counts\); say with input.counts=sum:spliced\+unspliced",
            id="none",
        ),
        pytest.param(
            {"x": None, "spliced": ALL},
            {},
            "neither X nor raw.X nor a layer named counts or raw_counts or count \\(layers: spliced\\); say with",
            id="layers_only",
        ),
    ],
)
def test_files_without_counts_are_refused_with_what_there_is(
    write: Callable[..., Path], slot_of: Callable[..., str], parts: dict[str, Any], inputs: dict[str, str], message: str
) -> None:
    with pytest.raises(ScvaeDataError, match=message) as caught:
        slot_of(write(**parts), **inputs)
    assert "\n" not in str(caught.value)


def test_formats_with_one_matrix_take_it_whatever_is_named(
    slot_of: Callable[..., str], write_raw: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "SRX1"
    folder.mkdir()
    (folder / "matrix.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n2 1 1\n1 1 3\n")
    (folder / "barcodes.tsv").write_text("c\n")
    (folder / "features.tsv").write_text("A\nB\n")
    assert slot_of(folder, counts="layers/spliced") == "matrix"


def test_a_matrix_without_genes_is_passed_over(
    write: Callable[..., Path], slot_of: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = write(ALL)
    adata = ad.read_h5ad(path)
    adata.raw = adata
    adata.var_names = [f"chr1:{number}00-{number}99" for number in range(1, N_VARS + 1)]
    adata.write_h5ad(path)
    assert slot_of(path) == "raw/X"
    assert "X is left out: no feature of type Gene Expression, found Peaks (6)" in caplog.text


def test_a_matrix_without_genes_is_refused(write: Callable[..., Path], process: Process) -> None:
    path = write(ALL[:, :0], n_genes=0)
    with pytest.raises(ScvaeDataError, match=r"SRX1\.h5ad: X has no gene; leave it out"):
        process([], input=FileInput(paths=str(path)))


BARCODES = [f"AAACCTGAG{first}{second}-1" for first in "ACGT" for second in "ACGT"]
IDS = [f"ENSG{number:011d}" for number in range(len(BARCODES))]
SYMBOLS = [f"RPL{number}" for number in range(len(BARCODES))]


@pytest.mark.parametrize(
    ("cells", "genes"),
    [
        pytest.param(IDS, BARCODES, id="ids and barcodes"),
        pytest.param(SYMBOLS, BARCODES, id="symbols and barcodes"),
        pytest.param(IDS, [f"A{n}" for n in range(16)], id="ids and wells"),
        pytest.param(SYMBOLS, [f"A{n}" for n in range(16)], id="symbols and wells"),
    ],
)
def test_a_matrix_of_genes_by_cells_is_refused(
    cells: list[str], genes: list[str], process: Process, tmp_path: Path
) -> None:
    frame = pd.DataFrame(np.eye(16, dtype=np.float32), cells, genes)
    ad.AnnData(frame).write_h5ad(tmp_path / "SRX1.h5ad")
    ad.AnnData(frame.T).write_h5ad(tmp_path / "SRX2.h5ad")
    with pytest.raises(
        ScvaeDataError, match=f"X has cells for columns .{genes[0]}, .* and genes for rows .{cells[0]},"
    ):
        process([], input=FileInput(paths=str(tmp_path / "SRX1.h5ad")))
    assert process([], input=FileInput(paths=str(tmp_path / "SRX2.h5ad")), overwrite=True).n_obs == 16


def test_a_cell_without_an_accession_is_refused(write: Callable[..., Path], process: Process) -> None:
    path = write(ALL)
    adata = ad.read_h5ad(path)
    adata.obs["SRX_accession"] = ["SRX1"] * (N_OBS - 1) + [None]
    adata.write_h5ad(path)
    with pytest.raises(ScvaeDataError, match="has no value in row 4; write one, or name the file in a manifest"):
        process([], input=FileInput(paths=str(path)))


def test_a_table_without_counts_is_not_asked_for_layers(process: Process, tmp_path: Path) -> None:
    table = pd.DataFrame(LOGGED, [f"c{number}" for number in range(N_OBS)], GENES)
    table.to_csv(tmp_path / "SRX1.csv", index_label="cell")
    with pytest.raises(ScvaeDataError, match=r"no raw counts: matrix: fractional value .*Give a file with raw counts$"):
        process([], input=FileInput(paths=str(tmp_path / "SRX1.csv"), table_rows="cells"))
