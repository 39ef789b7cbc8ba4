from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.loading.conftest import Directory

from scvae_data import ChunkedDataModule
from scvae_data.errors import ConfigError, ScvaeDataError
from scvae_data.filter import check_filter
from scvae_data.loading.select.filter import filter_mask
from scvae_data.store import open_index


def mask_of(directory: Directory, given: Any) -> np.ndarray:
    """Cells of the whole directory that a filter keeps."""
    index = open_index(directory.path)
    return np.concatenate([filter_mask(index, chunk_id, given) for chunk_id in range(len(index.chunks))])


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ('SRX_accession == "SRX2"', 'SRX_accession == "SRX2"'),
        ('"SRX2" != SRX_accession', 'SRX_accession != "SRX2"'),
        ('cell_type in ["type0", "type2"]', 'cell_type in ["type0", "type2"]'),
        ('cell_type not in ["type0"]', 'cell_type.notna() and cell_type != "type0"'),
        ("total_counts > 9000", "total_counts > 9000"),
        ("9000 <= total_counts < 12000.5", "total_counts >= 9000 and total_counts < 12000.5"),
        ("donor_age in [3, 4] or donor_age == 80", "donor_age in [3, 4, 80]"),
        ("not (donor_age > 5) and source_row != 3", "donor_age <= 5 and source_row != 3"),
        ("total_counts > -1", "total_counts > -1"),
        ("pct_counts_hb >= 0", "pct_counts_hb >= 0"),
        ("pct_counts_hb != 0", "pct_counts_hb != pct_counts_hb and pct_counts_hb == 0"),
    ],
)
def test_texts_mean_what_a_pandas_query_means(hashed: Directory, text: str, query: str) -> None:
    found = mask_of(hashed, text)
    expected = hashed.obs.index.isin(hashed.obs.query(query, engine="python").index)
    np.testing.assert_array_equal(found, expected)


def test_mappings_keep_cells_with_any_of_the_values_of_every_column(hashed: Directory) -> None:
    given = check_filter({"SRX_accession": ["SRX1", "SRX3"], "cell_type": "type1", "donor_age": range(50)})
    assert given is not None
    expected = hashed.obs.query('SRX_accession in ["SRX1", "SRX3"] and cell_type == "type1" and donor_age < 50')
    assert hashed.obs.index[mask_of(hashed, given)].tolist() == expected.index.tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("total_counts >", "cannot be read"),
        ("__import__('os').system('true') == 1", "not understood"),
        ("total_counts.size == 1", "not understood"),
        ("total_counts == donor_age", "'donor_age' is not understood"),
        ("total_counts + 1 > 2", "not understood"),
        ("total_counts is None", "not understood"),
        ("[x for x in ()] == 1", "not understood"),
        ("total_count > 1", "no obs column 'total_count' .* did you mean total_counts"),
        ('cell_type == "TYPE2"', r"cell_type has no value 'TYPE2'; did you mean type2\?"),
        ('cell_type == "type9"', "cell_type has no value 'type9'; did you mean type"),
        ('cell_type > "type1"', "categorical; compare it with =="),
        ('total_counts > "many"', "holds numbers and is compared with 'many'"),
        ({}, "must map obs columns"),
        (7, "must map obs columns"),
        ({"cell_type": ["type9"]}, "has no value"),
        ("total_counts < 0", "no cell is left"),
    ],
)
def test_filters_that_make_no_sense(hashed: Directory, given: Any, message: str) -> None:
    with pytest.raises(ScvaeDataError, match=message) as caught:
        ChunkedDataModule(hashed.path, filter=given).setup()
    assert "\n" not in str(caught.value)


def test_a_text_is_parsed_before_anything_is_opened() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        ChunkedDataModule("nowhere", filter="(")


def test_the_data_module_serves_what_all_filters_keep(hashed: Directory) -> None:
    module = ChunkedDataModule(
        hashed.path,
        batch_size=4,
        split=None,
        normalized=False,
        include_srx_accessions=["SRX1", "SRX2"],
        filter="donor_age < 60 and cell_type == 'type1'",
    )
    module.setup()
    rows = np.concatenate([batch["index"].numpy() for batch in module.predict_dataloader()])
    expected = hashed.obs.query('SRX_accession != "SRX3" and donor_age < 60 and cell_type == "type1"')
    assert hashed.obs.index[rows].tolist() == expected.index.tolist()
