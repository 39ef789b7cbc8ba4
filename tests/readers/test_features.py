"""Which features of a file are genes: by their types in any format, and by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from anndata.io import write_elem

from scvae_data.errors import InputError
from scvae_data.processing.genes.reference import BUILTIN
from scvae_data.readers.features import keep_gene_expression, kind_of_type, type_by_name
from scvae_data.readers.recognise import open_reader

GENES = [f"ENSG{number:011d}" for number in range(4)]
MIXED = ["Gene Expression"] * 4 + ["Antibody Capture"] * 2 + ["CRISPR Guide Capture"]
NAMES = [*GENES, "CD3", "CD4", "NTC-1"]
DROPPED = ("dropped 2 features of type Antibody Capture", "dropped 1 feature of type CRISPR Guide Capture")


def strings(values: list[Any]) -> np.ndarray:
    return np.array(values, dtype=object)


def var(types: Any, column: str = "feature_types", names: list[str] | None = None) -> pd.DataFrame:
    return pd.DataFrame({column: types}, index=pd.Index(names or NAMES, dtype=object))


@pytest.mark.parametrize(
    ("types", "kind"),
    [
        (["Gene Expression", "gene_expression", "RNA", "rna", "Gene"], "gene"),
        (["Antibody Capture", "ADT", "HTO", "protein", "Hashtag", "CRISPR Guide Capture", "Custom", "Peaks", "ATAC",
          "Chromatin Accessibility", "VDJ", "VDJ-T", "Multiplexing Capture", "Antigen Capture", "sgRNA"], "other"),
        (["protein_coding", "lncRNA", "Mt_rRNA", "TR_V_gene", "processed_pseudogene", "TEC"], "biotype"),
        (["GRCh38", "chr1", "", "synthetic"], "unknown"),
    ],
)  # fmt: skip
def test_types_are_understood_in_the_words_of_any_tool(types: list[str], kind: str) -> None:
    assert {text: kind_of_type(text) for text in types} == dict.fromkeys(types, kind)


@pytest.mark.parametrize("slot", ["X", "raw/X", "layers/counts"])
@pytest.mark.parametrize(
    "table",
    [
        pytest.param(var(MIXED), id="text"),
        pytest.param(var(pd.Categorical(MIXED)), id="categorical"),
        pytest.param(var(MIXED, "feature_type"), id="feature_type"),
        pytest.param(var(MIXED, "Type"), id="rowData_of_DropletUtils"),
        pytest.param(var(MIXED, "what it is"), id="a_name_of_its_own"),
        pytest.param(var(["gene" if "Gene" in kind else kind for kind in MIXED], "modality"), id="modality"),
        pytest.param(
            var(MIXED).assign(**{"feature_types-1": pd.Categorical([None] * 4 + MIXED[4:])}).rename(
                columns={"feature_types": "feature_types-0"}
            ),
            id="suffixes_of_joined_files",
        ),
    ],
)  # fmt: skip
def test_types_in_var_drop_what_is_no_gene(
    write_h5ad: Callable[..., Path], read_dense: Any, slot: str, table: pd.DataFrame
) -> None:
    counts = np.arange(1, 22).reshape(3, 7)
    path = write_h5ad({slot: counts}, var=table)
    if slot == "raw/X":  # the types stand in var alone, in another order
        with h5py.File(path, "r+") as file:
            del file["raw/var"], file["var"]
            write_elem(file["raw"], "var", pd.DataFrame(index=table.index))
            write_elem(file, "var", table.iloc[::-1])
    with open_reader(path) as reader:
        assert reader.genes(slot).names.tolist() == GENES
        assert reader.notes == DROPPED
        np.testing.assert_array_equal(read_dense(reader, slot), counts[:, :4])


def test_types_of_raw_var_come_before_those_of_var(write_h5ad: Callable[..., Path]) -> None:
    path = write_h5ad({"raw/X": np.ones((2, 7))}, var=var(["Gene Expression"] * 7))
    with h5py.File(path, "r+") as file:
        del file["raw/var"]
        write_elem(file["raw"], "var", var(MIXED))
    with open_reader(path) as reader:
        assert reader.genes("raw/X").names.tolist() == GENES


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(var(["protein_coding", "lncRNA", "synthetic", "misc_RNA"], "feature_type", GENES), id="biotypes"),
        pytest.param(var(["a", "b", "c", "d"], "type", GENES), id="a_type_of_something_else"),
        pytest.param(var(pd.Categorical([None] * 4), names=GENES), id="no_value"),
        pytest.param(var(["nan"] * 4, names=GENES), id="missing_as_text"),
        pytest.param(var(["Gene Expression", "", "Gene Expression", "NA"], names=list("ABCD")), id="some_without"),
    ],
)
def test_columns_that_tell_no_other_kind_drop_nothing(write_h5ad: Callable[..., Path], table: pd.DataFrame) -> None:
    with open_reader(write_h5ad({"X": np.ones((2, 4))}, var=table)) as reader:
        assert reader.genes("X").n_vars == 4
        assert reader.notes == ()


@pytest.mark.parametrize(
    ("table", "found"),
    [
        pytest.param(var(["Peaks"] * 4, names=GENES), r"Peaks \(4\)", id="peaks"),
        pytest.param(var(["Antibody Capture"] * 4, names=list("ABCD")), r"Antibody Capture \(4\)", id="antibodies"),
        pytest.param(var(["VDJ"] * 4, names=list("ABCD")), r"VDJ \(4\)", id="vdj"),
        pytest.param(var(["Multiplexing Capture"] * 4, names=list("ABCD")), "Multiplexing Capture", id="multiplexing"),
        pytest.param(var([1] * 4, "x", [f"chr1:{n}00-{n}99" for n in range(1, 5)]), r"Peaks \(4\)", id="peak_names"),
        pytest.param(var([1] * 4, "x", [f"CD{n}_TotalSeqB" for n in range(4)]), "Antibody Capture", id="totalseq"),
        pytest.param(var(["ADT", "ADT", "", ""], names=list("ABCD")), r"no type \(2\), ADT \(2\)", id="untyped"),
    ],
)
def test_files_without_genes_are_refused(write_h5ad: Callable[..., Path], table: pd.DataFrame, found: str) -> None:
    path = write_h5ad({"X": np.ones((2, 4))}, var=table)
    message = f"cells.h5ad: no feature of type Gene Expression, found {found}"
    with pytest.raises(InputError, match=message) as caught, open_reader(path) as reader:
        reader.genes("X")
    assert caught.value.reason == "no_counts"


@pytest.mark.parametrize(
    ("types", "names", "kept"),
    [
        pytest.param(["Gene Expression", "", "ADT", ""], [*GENES[:2], "CD3", "CD19"], [1, 1, 0, 0], id="ensembl"),
        pytest.param(["Gene Expression", "", "ADT", ""], ["TP53", "MYC", "CD3", "LYZ"], [1, 1, 0, 1], id="symbols"),
        pytest.param(["ADT", "", "", "ADT"], [GENES[0], *GENES[:2], "CD3"], [0, 1, 1, 0], id="only_others_typed"),
        pytest.param(None, [*GENES[:2], "chr1:100-200", "X-5-90"], [1, 1, 0, 0], id="peaks_by_name"),
        pytest.param(
            None, ["TP53", "chr1:1,000-2,000", "chrX_5_90", "chr2-7-8"], [1, 0, 0, 0], id="peaks_of_a_browser"
        ),
        pytest.param(None, ["adt-1", "CD3_ADT", "HTO_1", "Hashtag3"], [1, 0, 0, 0], id="antibodies_of_labs"),
        pytest.param(None, ["CD4", "CD4:SK3|CD4|AHS0032|pAbO", "HTO1"], [1, 0, 0], id="antibodies_of_BD"),
        pytest.param(None, ["CD4", "ADT-CD4", "IgG_TotalC", "anti-human CD4"], [1, 0, 0, 0], id="antibodies_of_seurat"),
        pytest.param(
            None, ["CD4", "A0034_CD3", "B0251-hashtag1", "CD3:UCHT1", "B0034.3"], [1, 0, 0, 0, 1], id="barcodes_clones"
        ),
        pytest.param(None, ["CD4", "anti-CD3", "CD3_prot", "prot_CD8"], [1, 0, 0, 0], id="antibodies_by_a_word"),
        pytest.param(None, ["CD4", "Mouse-IgG1", "IgG1_isotype", "isotype-ctrl"], [1, 0, 0, 0], id="isotype_controls"),
        pytest.param(None, ["LMO1", "CMO301", "SampleTag01_hs", "x|stAbO"], [1, 0, 0, 0], id="tags_of_samples"),
        pytest.param(None, ["SGK1", "TP53_sgRNA_2", "non-targeting_1", "gRNA_3"], [1, 0, 0, 0], id="guides"),
        pytest.param(None, ["sum-1", "Total", "Grand Total", "total_counts"], [1, 0, 0, 0], id="sums_over_genes"),
        pytest.param(None, ["PC-1", "*", "no_feature", "Unassigned_NoFeatures"], [1, 0, 0, 0], id="reads_of_no_gene"),
        pytest.param(None, ["AGER", "age", "nCount_RNA", "cell_type_id"], [1, 0, 0, 0], id="descriptions_of_cells"),
    ],
)
def test_features_without_a_type_are_told_by_how_genes_are_called(
    types: list[str] | None, names: list[str], kept: list[int]
) -> None:
    found = keep_gene_expression(Path("f"), None if types is None else strings(types), strings(names))
    assert found.keep.astype(int).tolist() == kept


def test_an_antibody_may_have_the_name_of_a_gene_beside_its_own() -> None:
    names, others = strings(["CD3D", "CD3", GENES[0]]), strings(["CD3D", "CD3_TotalSeqB", "age"])
    assert keep_gene_expression(Path("f"), None, names, others).keep.tolist() == [True, False, True]


def test_no_gene_of_the_reference_is_taken_for_something_else() -> None:
    genes = pq.read_table(BUILTIN, columns=["symbol", "previous", "aliases"])
    named = {name for column in genes.columns for text in column.unique().to_pylist() for name in text.split("|")}
    assert len(named) > 100_000
    assert [name for name in sorted(named) if type_by_name(name)] == []
