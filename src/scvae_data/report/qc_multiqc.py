"""Facts of a directory in, tables that MultiQC finds by their names out."""

from __future__ import annotations

from typing import Any

import pandas as pd

from scvae_data.report.qc_facts import QcFacts

__all__ = ["multiqc"]

COLUMNS = {
    "n_obs": "cells in",
    "n_kept": "cells kept",
    "median_counts": "median counts",
    "median_genes": "median genes",
}


def multiqc(facts: QcFacts) -> dict[str, dict[str, Any]]:
    """Return the content of each file: a bar graph of cells, and a table of experiments.

    The keys are MultiQC's for custom content. An experiment of several files has a row for each.
    """
    table = facts.experiments
    if not len(table):
        return {}
    twice = table["srx_accession"].duplicated(keep=False)
    names = table["srx_accession"].where(~twice, table["srx_accession"] + " " + table["source_file"]).tolist()
    lost = [name for name in table.columns if name.startswith("lost_")]
    rows = table.to_dict("records")
    bars = {
        name: {"kept": int(row["n_kept"]), **{rule.removeprefix("lost_"): whole(row[rule]) for rule in lost}}
        for name, row in zip(names, rows, strict=True)
    }
    cells = {
        name: {key: known(row[key]) for key in COLUMNS} | {"flags": ", ".join(row["flags"])}
        for name, row in zip(names, rows, strict=True)
    }
    return {
        "qc_attrition_mqc.json": {
            "id": "scvae_data_attrition", "section_name": "Cells kept", "plot_type": "bargraph", "data": bars,
            "description": "Cells of each experiment that are kept, or lost by the first rule that they fail.",
            "pconfig": {"id": "scvae_data_attrition_plot", "title": "scvae-data: cells kept", "ylab": "cells"},
        },
        "qc_experiments_mqc.json": {
            "id": "scvae_data_experiments", "section_name": "Experiments", "plot_type": "table", "data": cells,
            "description": "Medians over kept cells, and what is odd.",
            "headers": {key: {"title": title, "format": "{:,.0f}"} for key, title in COLUMNS.items()}
            | {"flags": {"title": "flags"}},
            "pconfig": {"id": "scvae_data_experiments_table", "title": "scvae-data: experiments"},
        },
    }  # fmt: skip


def whole(value: Any) -> int:
    """Return a number of cells; none where a generation had no such rule."""
    return 0 if pd.isna(value) else int(value)


def known(value: Any) -> float | None:
    """Return a number, or None where it is missing."""
    return None if pd.isna(value) else float(value)
