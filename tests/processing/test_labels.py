"""One label is one text, and nothing of it is lost, however the files store it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.support.pipeline import position_counts
from tests.support.stores import write_zarr

from scvae_data import ConfigError, open_index
from scvae_data.errors import ScvaeDataError
from scvae_data.processing.labels import as_label, label
from scvae_data.processing.settings.control import ControlSubset
from scvae_data.processing.settings.dataset import DatasetInput
from scvae_data.processing.settings.genes import HvgRules
from scvae_data.processing.settings.inputs import FileInput, ManifestInput
from scvae_data.store import Chunking, read_json

Process = Callable[..., Any]
Write = Callable[..., Path]
BIG = 2**60 + 1


@pytest.fixture
def labels(write_raw: Write, process: Process, tmp_path: Path) -> Callable[..., list[Any]]:
    """Return a function from the columns of files, four cells each, to the column of the directory, in their order."""

    def run(*columns: Any, **chosen: Any) -> list[Any]:
        paths = [
            write_raw(f"SRX{number}.h5ad", position_counts(4, 3, offset=9 * number), list("ABC"), {"donor": column})
            for number, column in enumerate(columns)
        ]
        process(paths, **chosen)
        obs = open_index(tmp_path / "out").obs(["source_file", "source_row", "donor"])
        donor = obs.sort_values(["source_file", "source_row"])["donor"]
        return [None if pd.isna(value) else value for value in donor]

    return run


TEXT = ["1", "2", "2", "1"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([1, 2, 2, 1], id="int"),
        pytest.param([1.0, 2.0, 2.0, 1.0], id="float"),
        pytest.param(np.array([1, 2, 2, 1], np.uint8), id="uint8"),
        pytest.param(np.array([1, 2, 2, 1], np.float32), id="float32"),
        pytest.param(pd.array([1, 2, 2, 1], dtype="Int64"), id="Int64"),
        pytest.param(pd.Categorical([1, 2, 2, 1]), id="categories of int"),
        pytest.param(pd.Categorical([1.0, 2.0, 2.0, 1.0]), id="categories of float"),
        pytest.param(pd.Categorical(["1", "2", "2", "1"]), id="categories of text"),
        pytest.param(["1.0", "2.0", "2.0", "1.0"], id="floats as text"),
    ],
)
def test_a_donor_is_one_however_it_is_stored(labels: Callable[..., list[Any]], other: Any) -> None:
    assert labels(TEXT, other, [1, 2, 2, 1]) == TEXT * 3


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        pytest.param([[1.0, 2.0, np.nan, 1.5], TEXT], ["1", "2", None, "1.5", *TEXT], id="a gap made floats"),
        pytest.param(
            [["1.10", "1.1", "007", "1E2"], [1.1] * 4], ["1.10", "1.1", "007", "1E2"] + ["1.1"] * 4, id="text"
        ),
        pytest.param([["1.0", "1", "x", "x"], ["2.0"] * 4], ["1.0", "1", "x", "x"] + ["2.0"] * 4, id="text alone"),
        pytest.param([["TRUE", "false"] * 2, [True, False] * 2], ["True", "False"] * 4, id="booleans and text"),
        pytest.param(
            [[True, False] * 2, [1, 0] * 2], ["True", "False"] * 2 + ["1", "0"] * 2, id="booleans and numbers"
        ),
        pytest.param([np.array([0.1] * 4, np.float32), ["0.1"] * 4], ["0.1"] * 8, id="float32"),
        pytest.param([[1, 2, 3, 4], [0.5, 1, 2, 3]], [1, 2, 3, 4, 0.5, 1, 2, 3], id="numbers stay numbers"),
        pytest.param(
            [[BIG] * 4, [7.0, np.nan, 7.5, 7.0]], [str(BIG)] * 4 + ["7", None, "7.5", "7"], id="beyond floats"
        ),
        pytest.param([[BIG] * 4, [1, 2, 3, 4]], [BIG] * 4 + [1, 2, 3, 4], id="beyond floats beside int"),
        pytest.param([[-BIG] * 4, ["x"] * 4], [str(-BIG)] * 4 + ["x"] * 4, id="beyond floats beside text"),
        pytest.param(
            [pd.array([BIG, None, 3, 4], dtype="Int64"), pd.array([None] * 4, dtype="Int64")],
            [BIG, None, 3, 4] + [None] * 4,
            id="beyond floats with gaps",
        ),
        pytest.param(
            [np.array([2**64 - 1] * 4, np.uint64), [1.0, 2.0, 3.0, np.nan]],
            [str(2**64 - 1)] * 4 + ["1", "2", "3", None],
            id="beyond 64 bits",
        ),
        pytest.param([[np.nan] * 4, TEXT], [None] * 4 + TEXT, id="no value"),
    ],
)
def test_columns_of_several_types(labels: Callable[..., list[Any]], columns: list[Any], expected: list[Any]) -> None:
    assert labels(*columns) == expected


def test_what_became_text_is_told_once(labels: Callable[..., list[Any]], caplog: pytest.LogCaptureFixture) -> None:
    labels([BIG] * 4, [0.5] * 4, [1] * 4)
    assert (
        caplog.messages.count(
            "obs column donor is float and int and int beyond 2^53 in different files; it is stored as text"
        )
        == 1
    )


def test_types_in_conflict_rank_genes_and_merge_as_one(
    labels: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("scvae_data.processing.decide.merge.MAX_RUNS", 2)
    rules = HvgRules(flavor="seurat", n_top_genes=2, batch_key="donor", min_cells=1)
    assert labels(TEXT, [1, 2, 2, 1], [1.0, 2.0, 2.0, 1.0], genes=rules) == TEXT * 3


def test_groups_do_not_depend_on_the_type(labels: Callable[..., list[Any]], tmp_path: Path) -> None:
    labels([1, 1, 2, 2], [1.0, 1.0, 2.0, 2.0], chunking=Chunking(chunk_size=4, order="group", group_column="donor"))
    index = open_index(tmp_path / "out")
    assert [set(index.obs(["donor"], rows=range(start, start + 4))["donor"]) for start in (0, 4)] in (
        [{1}, {2}],
        [{2}, {1}],
    )


def test_an_accession_that_is_a_number(write_raw: Write, process: Process, tmp_path: Path) -> None:
    for name, column in {"a": [1.0, 2.0], "b": [3, 4]}.items():
        write_raw(f"{name}.h5ad", position_counts(2, 3), list("ABC"), {"srx_accession": column})
    process([], input=FileInput(paths=str(tmp_path / "raw" / "*.h5ad")))
    assert sorted(open_index(tmp_path / "out").obs(["SRX_accession"])["SRX_accession"]) == ["1", "2", "3", "4"]


def test_the_words_of_a_manifest_reach_the_cells(write_raw: Write, process: Process, tmp_path: Path) -> None:
    words = {"treatment": ["None", "IFNb"], "region": ["NA", ""], "donor": ["1.1", "1.10"], "well": ["1E2", "007"]}
    lines = [", ".join(["path", "srx_accession", *words])]
    for number in range(2):
        write_raw(f"f{number}.h5ad", position_counts(2, 3, offset=9 * number), list("ABC"))
        lines.append(", ".join([f"raw/f{number}.h5ad", f"SRX{number}", *(word[number] for word in words.values())]))
    (tmp_path / "m.csv").write_bytes("\r\n".join(lines).encode("utf-16"))
    process([], input=ManifestInput(manifest=str(tmp_path / "m.csv")))
    index = open_index(tmp_path / "out")
    chunk = ad.read_h5ad(tmp_path / "out" / index.chunks[0].file).obs
    for obs in (index.obs(), chunk):
        for name, (first, second) in words.items():
            found = {
                (srx, None if pd.isna(word) else word)
                for srx, word in zip(obs["SRX_accession"], obs[name], strict=True)
            }
            assert found == {("SRX0", first), ("SRX1", second or None)}


# --- controls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[1], [1.0], ["1"], ["1.0"], [" 1 "]], ids=str)
@pytest.mark.parametrize("column", [[0, 1], [0.0, 1.0], ["0", "1"], ["0.0", "1.0 "], pd.Categorical([0, 1])], ids=str)
def test_controls_marked_with_numbers(column: Any, values: list[Any]) -> None:
    assert ControlSubset("is_ctrl", values).mask(pd.Series(column).astype(object)).tolist() == [False, True]


@pytest.mark.parametrize("values", [[True], ["true"], ["True"], ["TRUE"]], ids=str)
@pytest.mark.parametrize(
    "column",
    [[False, True], ["FALSE", "true"], pd.array([False, True], dtype="boolean")],
    ids=["bool", "text", "nullable"],
)
@pytest.mark.parametrize("ignore_case", [True, False])
def test_controls_marked_with_booleans(column: Any, values: list[Any], ignore_case: bool) -> None:
    control = ControlSubset("nt", values, ignore_case=ignore_case)
    assert control.mask(pd.Series(column).astype(object)).tolist() == [False, True]


def test_controls_are_found_in_files_that_mark_them_differently(labels: Callable[..., list[Any]]) -> None:
    control = ControlSubset("donor", [1])
    assert labels([0, 1, 0, 1], ["0", "1", "x", "0"], [0.0, 1.0, np.nan, 0.0], control=control) == ["1"] * 4


def test_a_missing_value_is_no_control() -> None:
    labels = pd.Series([None, np.nan, pd.NA, "nan", "ctrl"], dtype=object)
    assert ControlSubset("c").mask(labels).tolist() == [False, False, False, False, True]


def test_text_of_controls_stays_as_it_is() -> None:
    control = ControlSubset("c", ["1.10"])
    assert control.mask(pd.Series(["1.1", "1.10", 1.1], dtype=object)).tolist() == [False, True, False]


@pytest.mark.parametrize("value", [None, [1], {"a": 1}], ids=str)
def test_control_values_of_no_type(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"control\.values holds .*; each must be a text, a number, true or false"):
        ControlSubset("c", [value])


@pytest.mark.parametrize(
    ("value", "text"),
    [(np.int8(-3), "-3"), (1e15, "1000000000000000"), (-0.0, "0"), (1e300, "1e+300"), (np.inf, "inf"), (b"x", "x")],
    ids=str,
)
def test_label(value: Any, text: str) -> None:
    assert label(value) == as_label(value) == text


# --- columns that are wanted as numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        pytest.param([["1", "02", "", "4"], [1, 2, 3, 4]], [1, 2, None, 4, 1, 2, 3, 4], id="integers"),
        pytest.param([["1", "2.50", "3", "4"], [1, 2, 3, 4]], [1, 2.5, 3, 4, 1, 2, 3, 4], id="fractions"),
        pytest.param([pd.Categorical([1, 2, None, 4])], [1, 2, None, 4], id="categories"),
        pytest.param([[str(BIG), "1", "2", "3"]], [BIG, 1, 2, 3], id="beyond floats"),
    ],
)
def test_text_that_is_wanted_as_numbers(
    labels: Callable[..., list[Any]], tmp_path: Path, columns: list[Any], expected: list[Any]
) -> None:
    paths = str(tmp_path / "raw" / "*.h5ad")
    assert labels(*columns, input=FileInput(paths=paths, numeric_columns=["donor"])) == expected
    assert open_index(tmp_path / "out").obs_columns["donor"].dtype in ("int64", "Int64", "float64")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        pytest.param(["1", "x", "2", "x"], "row 1: 'x' is not a number", id="text"),
        pytest.param(["1", "2", "3", "nan"], "row 3: 'nan' is not a number", id="nan"),
        pytest.param([True, False, True, True], "row 0: 'True' is not a number", id="booleans"),
        pytest.param(["0.5", "1", str(BIG), "2"], f"row 2: {BIG} cannot stay exact beside fractions", id="mixture"),
        pytest.param(np.array([2**64 - 1] * 4, np.uint64), f"row 0: '{2**64 - 1}' is larger than 64 bits", id="uint64"),
    ],
)
def test_what_is_no_number(labels: Callable[..., list[Any]], tmp_path: Path, column: Any, message: str) -> None:
    chosen = FileInput(paths=str(tmp_path / "raw" / "*.h5ad"), numeric_columns=["donor"])
    with pytest.raises(ScvaeDataError, match=rf"SRX0\.h5ad: obs column donor, {message}.*; correct it, or leave"):
        labels(column, input=chosen)


def test_numeric_columns_that_no_file_has(labels: Callable[..., list[Any]], tmp_path: Path) -> None:
    chosen = FileInput(paths=str(tmp_path / "raw" / "*.h5ad"), numeric_columns=["age"])
    with pytest.raises(ConfigError, match=r"input\.numeric_columns: no file has age; there are: donor"):
        labels(TEXT, input=chosen)


# --- texts that mean a missing value --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "kept", "rows"),
    [
        pytest.param(
            [], ["nan", "T", "nan", "NA", "T", "unknown", "nan", "T"],
            [("labels", '"nan" in donor (3 cells), "NA" in donor (1 cell) stay labels; if they mean a missing value: '
                        """'input.missing_labels=["nan",NA]'""")],
            id="as they are",
        ),
        pytest.param(
            ["nan"], [None, "T", None, "NA", "T", "unknown", None, "T"],
            [("missing", '"nan" in donor (3 cells) mean a missing value (input.missing_labels)'),
             ("labels", '"NA" in donor (1 cell) stay labels; if they mean a missing value: '
                        """'input.missing_labels=["nan",NA]'""")],
            id="nan",
        ),
        pytest.param(
            ["nan", "unknown", "NA"], [None, "T", None, None, "T", None, None, "T"],
            [("missing", '"nan" in donor (3 cells), "NA" in donor (1 cell), "unknown" in donor (1 cell) mean a missing '
                         "value (input.missing_labels)")],
            id="words too",
        ),
    ],
)  # fmt: skip
def test_what_means_a_missing_value_is_told(
    write_raw: Write, process: Process, tmp_path: Path, missing: list[str], kept: list[Any], rows: list[Any]
) -> None:
    columns = [["nan", "T", "nan", "NA"], pd.Categorical(["T", "unknown", "nan", "T"])]
    paths = [
        write_raw(f"SRX{number}.h5ad", position_counts(4, 3, offset=9 * number), list("ABC"), {"donor": column})
        for number, column in enumerate(columns)
    ]
    summary = process(paths, input=FileInput(paths=[*map(str, paths)], missing_labels=missing))
    assert summary.overview == rows
    index = open_index(tmp_path / "out")
    obs = index.obs(["source_file", "source_row", "donor"]).sort_values(["source_file", "source_row"])
    assert [None if pd.isna(value) else value for value in obs["donor"]] == kept
    assert index.obs_columns["donor"].categories == tuple(sorted({value for value in kept if value}))
    counts = read_json(tmp_path / "out" / "chunk_summary.json")["written_missing"]["donor"]
    assert (counts["nan"], counts["NA"], counts.get("unknown", 0)) == (3, 1, 1 if "unknown" in missing else 0)


def test_a_directory_is_freed_of_them_without_its_files(
    labels: Callable[..., list[Any]], process: Process, tmp_path: Path
) -> None:
    assert labels(["nan", "T", "B", "T"]) == ["nan", "T", "B", "T"]
    again = DatasetInput(paths=[str(tmp_path / "out")], missing_labels=["nan"])
    process([], tmp_path / "again", input=again)
    assert open_index(tmp_path / "again").obs_columns["donor"].categories == ("B", "T")


def test_numbers_beside_them_are_numbers(labels: Callable[..., list[Any]], tmp_path: Path) -> None:
    chosen = FileInput(paths=str(tmp_path / "raw" / "*.h5ad"), numeric_columns=["donor"], missing_labels=["nan", "N/A"])
    assert labels(["1", "nan", "2.5", "N/A"], input=chosen) == [1, None, 2.5, None]


def test_manifests_and_tables_of_cells_may_write_them(write_raw: Write, process: Process, tmp_path: Path) -> None:
    write_raw("SRX1.h5ad", position_counts(4, 3), list("ABC"))
    manifest, cells = tmp_path / "samples.csv", tmp_path / "cells.csv"
    manifest.write_text("path,donor,age\nraw/SRX1.h5ad,NA,NA\n")
    rows = [f"SRX1,cell{number},{text},{text}\n" for number, text in enumerate(["1", "NA", "2", "3"])]
    cells.write_text("srx_accession,barcode,type,dose\n" + "".join(rows))
    chosen = ManifestInput(
        manifest=str(manifest), obs_table=str(cells), numeric_columns=["age", "dose"], missing_labels=["NA"]
    )
    process([], input=chosen)
    obs = open_index(tmp_path / "out").obs(["source_row", "donor", "age", "type", "dose"]).sort_values("source_row")
    assert obs[["donor", "age"]].isna().all(axis=None)
    assert [None if pd.isna(value) else value for value in obs["type"]] == ["1", None, "2", "3"]
    np.testing.assert_array_equal(obs["dose"].astype(float), [1, np.nan, 2, 3])


@pytest.mark.parametrize(
    ("given", "message"), [("nan", r"must be a list, \[nan\]"), ([float("nan")], "is no text; quote it")]
)
def test_missing_labels_are_texts(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"input\.missing_labels.*{message}"):
        FileInput(missing_labels=given)


@pytest.mark.parametrize(
    ("cells", "genes", "donor", "message"),
    [
        ("a\0b", "g", "d", r"names of cells hold the character NUL, in 'a\\x00b'"),
        ("a", "g\0", "d", r"names of genes of X hold the character NUL, in 'g\\x00'"),
        ("a", "g", "d\0e", r"values of obs column donor hold the character NUL, in 'd\\x00e'"),
    ],
)
def test_a_text_that_cannot_be_written_is_refused_before_anything_is(
    cells: str, genes: str, donor: str, message: str, process: Process, tmp_path: Path
) -> None:
    obs = pd.DataFrame({"donor": [donor]}, index=[cells])
    path = write_zarr(ad.AnnData(np.ones((1, 1)), obs=obs, var=pd.DataFrame(index=[genes])), tmp_path / "SRX1.zarr", 2)
    with pytest.raises(ScvaeDataError, match=f"SRX1.zarr: {message}; write them without"):
        process([path])


def test_labels_that_look_alike_stay_apart_and_are_told(
    labels: Callable[..., list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    written = ["D1", "d1", " D1", "D2"], ["D1 ", "M\u00fcller", "Mu\u0308ller", "D-2"]
    assert labels(*written) == [*written[0], *written[1]]
    (line,) = [text for text in caplog.messages if "alone are labels of their own" in text]
    assert "donor has ' D1' and 'D1' and 'D1 ' and 'd1'; correct them in the inputs if they are one" in line
    caplog.clear()
    labels(["D1", "D2", "D1", "D2"], ["D3"] * 4, overwrite=True)
    assert "labels of their own" not in caplog.text
