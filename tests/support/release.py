"""A small release laid out as scBaseCount is: files, a table of experiments, a table of cells."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

TECHNIQUES = ("3_prime_gex", "5_prime_gex", "vdj", None)


def genes_of(n_vars: int) -> pd.DataFrame:
    """Ensembl ids with symbols."""
    return pd.DataFrame(
        {"gene_symbols": [f"GENE{j}" for j in range(n_vars)]}, index=[f"ENSG{j:011d}" for j in range(n_vars)]
    )


def make_release(root: Path, n_files: int, n_obs: int = 6, n_vars: int = 12, organism: str = "Homo_sapiens") -> Path:
    """Write a release; experiment ``SRX1000i`` has cells ``AAi``, and technique ``i % 4`` of `TECHNIQUES`."""
    feature = Path("GeneFull_Ex50pAS") / organism
    counts, metadata = root / "h5ad" / feature, root / "metadata" / feature
    counts.mkdir(parents=True)
    metadata.mkdir(parents=True)
    samples, cells = [], []
    for number in range(n_files):
        accession = f"{'NRX' if number % 50 == 49 else 'SRX'}{10_000 + number}"
        rows, columns = np.ogrid[:n_obs, :n_vars]
        x = sp.csr_matrix(((rows + columns + number) % 5 * (1 + columns)).astype(np.float32))
        barcodes = [f"AA{row}" for row in range(n_obs)]
        umis = np.asarray(x.sum(axis=1)).ravel()
        term = "cell_ontology_term_id" if number % 2 else "cell_type_ontology_term_id"
        obs = pd.DataFrame(
            {"umi_count_Unique": umis, "SRX_accession": accession, term: [f"CL:{row % 2}" for row in range(n_obs)]},
            index=barcodes,
        )
        layers = {"UniqueAndMult-EM": x * 1.25}
        ad.AnnData(x, obs=obs, var=genes_of(n_vars), layers=layers).write_h5ad(counts / f"{accession}.h5ad")
        samples.append(
            {
                "entrez_id": 7 * number,
                "srx_accession": accession,
                "file_path": f"gs://somewhere/{accession}.h5ad",
                "obs_count": 100 * number,
                "tech_10x": TECHNIQUES[number % 4],
                "tissue": f"tissue {number % 3}",
            }
        )
        cells.append(
            pd.DataFrame(
                {
                    "SRX_accession": accession,
                    "cell_barcode": barcodes[::-1],
                    "cell_type": [f"type {row % 2}" for row in reversed(range(n_obs))],
                    "umi_count_Unique": -1.0,
                }
            )
        )
    pd.DataFrame(samples).to_parquet(metadata / "sample_metadata.parquet")
    pd.concat(cells).to_parquet(metadata / "obs_metadata.parquet", row_group_size=5 * n_obs, index=False)
    return root
