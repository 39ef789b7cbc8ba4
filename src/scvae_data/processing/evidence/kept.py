"""The scan of one file and its sorted runs in; what its kept cells say of each of its experiments out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from scvae_data.processing.evidence.alike import Sketch, hash_texts
from scvae_data.processing.evidence.ambient import ambient_share
from scvae_data.processing.facts import FileScan
from scvae_data.processing.genes.sums import sums_of
from scvae_data.processing.scan.chemistry import sequences
from scvae_data.processing.sort.gene_sums import load_sums
from scvae_data.processing.sort.sorted_run import SortedRun
from scvae_data.processing.sort.totals import copies_in
from scvae_data.processing.work import WorkFolder
from scvae_data.store import SRX_COLUMN

__all__ = ["KeptFacts", "kept_facts"]

COLUMNS = [SRX_COLUMN, "obs_name", "source_row", "total_counts", "n_genes_by_counts", "pct_counts_mt"]


@dataclass(frozen=True)
class KeptFacts:
    """What the kept cells of an experiment say.

    Parameters
    ----------
    facts
        Values of its row, by column.
    by_counts, by_barcodes
        Sketches of its cells; of all that passed quality control.
    """

    facts: dict[str, Any]
    by_counts: Sketch
    by_barcodes: Sketch


def kept_facts(work: WorkFolder, scan: FileScan) -> list[KeptFacts]:
    """Look at the kept cells of each experiment of a file, in order of the accessions.

    Parameters
    ----------
    scan
        Of the file, whose sorted runs have their totals.
    """
    cells = read_cells(work, scan)
    hashes = np.load(work.scan(scan.number).hashes)
    cells["hash_row"] = pd.Index(hashes[:, 2].astype(np.int64)).get_indexer(cells["source_row"].astype(np.int64))
    groups = cells.groupby(SRX_COLUMN, sort=False, observed=True).indices
    found = []
    for experiment in scan.experiments:
        own = cells.iloc[groups.get(experiment["accession"], [])]
        facts = facts_of(own)
        if experiment["raw_droplets"] and len(scan.experiments) == 1:
            facts["ambient_share"] = ambient_of(work, scan)
        deep = own[own["hash_row"] >= 0]
        texts = sequences([name.split(":", 1)[1] for name in own["obs_name"]])
        named = texts != ""
        counts = own["total_counts"].to_numpy()
        found.append(
            KeptFacts(
                facts,
                Sketch.of(hashes[deep["hash_row"].astype(int), 0], deep["total_counts"].to_numpy()),
                Sketch.of(hash_texts(texts[named]), counts[named]),
            )
        )
    return found


def read_cells(work: WorkFolder, scan: FileScan) -> pd.DataFrame:
    """Read the cells of a file that its scan kept: which stay, and their total over the directory's genes."""
    parts = []
    for spooled in scan.sorted_runs:
        with SortedRun(work.path / spooled.path) as run:
            obs = run.obs()
            part = obs.select(COLUMNS).append_column("in_columns", pa.array(run.totals()[0]))
            parts.append(part.append_column("copy", pa.array(copies_in(work, spooled, obs))))
    cells: pd.DataFrame
    if parts:
        cells = pa.concat_tables(parts).to_pandas()
    else:
        cells = pd.DataFrame({name: [] for name in [*COLUMNS, "in_columns", "copy"]})
    return cells


def facts_of(cells: pd.DataFrame) -> dict[str, Any]:
    """Sum up the cells of an experiment that its scan kept; a median is exact, and None without a cell."""
    copies = cells["copy"].astype(bool)
    kept = cells[cells["in_columns"] > 0]
    measured = kept["pct_counts_mt"].dropna()
    umis = int(kept["total_counts"].sum())
    return {
        "n_kept": len(kept),
        "n_copies": int(copies.sum()),
        "n_late": len(cells) - len(kept) - int(copies.sum()),
        "median_counts": float(kept["total_counts"].median()) if len(kept) else None,
        "median_genes": float(kept["n_genes_by_counts"].median()) if len(kept) else None,
        "median_pct_counts_mt": float(measured.median()) if len(measured) else None,
        "share_in_columns": int(kept["in_columns"].sum()) / umis if umis else None,
    }


def ambient_of(work: WorkFolder, scan: FileScan) -> float | None:
    """Return the share of ambient counts in a file of one experiment; None where it has no empty droplets."""
    path = work.scan(scan.number).empty
    if not path.exists():
        return None
    (totals,), (in_empty,) = load_sums(sums_of(work, scan), "totals"), load_sums(path, "counts")
    return ambient_share(totals, in_empty)
