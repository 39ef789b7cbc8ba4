"""Sums of each experiment in; ``experiment_scores.parquet``, the worst first, and a sentence on them out.

An experiment is worth less the worse its held-out cells are explained *for
their depth*: a cell of more counts, in more genes, has the lower likelihood in
any case. What is expected is a regression over cells in which each experiment
counts as one, and one that does not fit counts less or not at all
(bisquare weights), so that few bad experiments do not hide themselves.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scvae_data.store import SRX_COLUMN, CellIndex
from scvae_data.store.files import names_in, read_bytes, write_atomic
from scvae_data.training.experiment_elbo import GENES, TYPICAL_LOG_COUNTS, ExperimentElbo
from scvae_data.wording import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SCORES_FILE", "Expectation", "Scored", "expectation_of", "qc_flags", "read_scores", "score_table",
    "scores_told", "write_scores",
]  # fmt: skip

SCORES_FILE = "experiment_scores.parquet"
METADATA = b"scvae_data"
QC_FILES = "experiments*.parquet"

LEAST_CELLS = 20
"""Fewer cells say little of an experiment: nothing is expected by it."""
LEAST_EXPERIMENTS = 4
"""Of fewer nobody knows which one is odd."""
FAR = 3.0
"""Spreads from what is expected that count."""
LEAST_SPREAD = 0.002
"""Of the ELBO, as a share of it: experiments that differ by less are alike, however well that can be told."""
BISQUARE, ROUNDS = 4.685, 50
TO_SIGMA = 1.4826
COMPARED = {
    "low_depth": ("mean_log10_counts", -1, 0.1),
    "high_mt": ("pct_counts_mt", 1, 1.0),
    "low_complexity": ("genes_for_depth", -1, 0.01),
    "high_complexity": ("genes_for_depth", 1, 0.01),
}
"""Reason, the column that gives it, the side that is odd, and the least spread that counts."""
PARTS = {"test": "test cells", "val": "validation cells", "predict": "all cells selected: none are held out"}


@dataclass(frozen=True)
class Expectation:
    """What ELBO a cell has by its depth, and how far experiments are from it."""

    coefficients: tuple[float, float, float, float]
    """Of 1, log counts, its square and genes, in the units of
    :class:`~scvae_data.training.experiment_elbo.ExperimentElbo`."""
    spread: float
    """Robust standard deviation of experiments, in nats per cell."""
    n_experiments: int


@dataclass(frozen=True, eq=False)
class Scored:
    """A file of scores."""

    table: pd.DataFrame
    part: str
    expectation: Expectation | None
    blocks: NDArray[np.float64]
    """Cells, and the sum of their ELBO, of each block of held-out cells; (n_blocks, 2)."""

    @property
    def n_cells(self) -> int:
        """Cells that were scored."""
        return int(self.table["n_cells"].sum())

    def mean(self, column: str, experiments: Collection[str] | None = None) -> float:
        """Mean over cells, of some experiments or all, of ``elbo`` or ``expected``, in nats."""
        table = self.table
        chosen = table if experiments is None else table[table["srx_accession"].isin(experiments)]
        return float(np.average(chosen[column], weights=chosen["n_cells"]))


def expectation_of(moments: NDArray[np.float64]) -> Expectation | None:
    """Regress the ELBO of cells on their depth, robustly over experiments; None where there are too few.

    Parameters
    ----------
    moments
        Of :class:`~scvae_data.training.experiment_elbo.ExperimentElbo`, (n_experiments, 5, 5).
    """
    chosen = moments[moments[:, 0, 0] >= LEAST_CELLS]
    if len(chosen) < LEAST_EXPERIMENTS:
        return None
    each = chosen / chosen[:, :1, :1]
    means = each[:, 0, :]
    # Within experiments first: how ELBO goes with depth there does not depend on how good each of them is.
    within = (each - means[:, :, None] * means[:, None, :]).mean(axis=0)
    slopes = np.linalg.lstsq(within[1:4, 1:4], within[1:4, 4], rcond=None)[0]
    coefficients = np.array([0.0, *slopes])
    coefficients[0] = np.median(means[:, 4] - means[:, :4] @ coefficients)
    least = LEAST_SPREAD * abs(float(np.median(means[:, 4])))
    for _ in range(ROUNDS):
        residuals = means[:, 4] - means[:, :4] @ coefficients
        far = residuals / (BISQUARE * _spread(residuals, least))
        weights = np.where(np.abs(far) < 1, (1 - far**2) ** 2, 0.0)
        total = np.tensordot(weights, each, axes=1)
        before, coefficients = coefficients, np.linalg.lstsq(total[:4, :4], total[:4, 4], rcond=None)[0]
        if np.allclose(before, coefficients, rtol=1e-9, atol=0):
            break
    spread = _spread(means[:, 4] - means[:, :4] @ coefficients, least)
    return Expectation(tuple(coefficients.tolist()), spread, len(chosen))


def score_table(scores: ExperimentElbo, expected: Expectation | None, flags: pd.Series[Any] | None) -> pd.DataFrame:
    """One row per experiment that has scored cells: how its ELBO is for its depth, and what is odd; the worst first.

    Parameters
    ----------
    scores
        Over all ranks.
    expected
        None where nothing is known to compare with: ``expected``, ``residual`` and ``z`` are missing then.
    flags
        Lists of flags of the directory's ``experiments.parquet``, by accession; None where there is none.
    """
    import pandas as pd  # here: training starts without it

    names = scores.index.categories(SRX_COLUMN)
    codes = np.flatnonzero(scores.moments[:-1, 0, 0])
    n_cells = scores.moments[codes, 0, 0]
    each = scores.moments[codes] / n_cells[:, None, None]
    means, elbo = each[:, 0, :4], each[:, 0, 4]
    mt = scores.mitochondrial[codes]
    table = pd.DataFrame(
        {
            "srx_accession": [names[code] for code in codes.tolist()],
            "n_cells": n_cells.astype(np.int64),
            "elbo": elbo,
            "elbo_sd": np.sqrt(np.maximum(each[:, 4, 4] - elbo**2, 0)),
            **_compared(each, n_cells, expected),
            "mean_log10_counts": means[:, 1] + TYPICAL_LOG_COUNTS,
            "mean_genes": means[:, 3] * GENES,
            "pct_counts_mt": np.divide(mt[:, 1], mt[:, 0], out=np.full(len(mt), np.nan), where=mt[:, 0] > 0),
        }
    )
    # Detected genes on the scale of counts, both logarithmic: what libraries of low complexity lack.
    table["genes_for_depth"] = np.log10(np.maximum(table["mean_genes"], 1)) / np.maximum(table["mean_log10_counts"], 1)
    table["flagged"] = table["z"] <= -FAR
    table["reasons"] = pd.Series(_reasons(table), table.index, dtype=object)
    table["qc_flags"] = None if flags is None else table["srx_accession"].map(flags)
    return table.sort_values(["z", "elbo"], kind="stable", ignore_index=True)


def write_scores(path: Path, scores: ExperimentElbo, expected: Expectation | None, table: pd.DataFrame) -> None:
    """Write the table, with what was expected by and the sums of blocks of cells beside it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.list_(pa.string())
    kinds = {"srx_accession": pa.string(), "n_cells": pa.int64(), "flagged": pa.bool_(), "reasons": texts}
    kinds["qc_flags"] = texts
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in table.columns])
    facts = {
        "part": scores.part,
        "expectation": None if expected is None else asdict(expected),
        "blocks": scores.blocks.tolist(),
    }
    content = pa.Table.from_pandas(table, schema, preserve_index=False)
    content = content.replace_schema_metadata({METADATA: json.dumps(facts)})
    sink = pa.BufferOutputStream()
    pq.write_table(content, sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())


def read_scores(path: Path) -> Scored:
    """Read a file of scores."""
    import pyarrow.parquet as pq

    found = pq.read_table(path)
    facts = json.loads(found.schema.metadata[METADATA])
    known = facts["expectation"]
    expected = None if known is None else Expectation(tuple(known.pop("coefficients")), **known)
    return Scored(found.to_pandas(), facts["part"], expected, np.array(facts["blocks"]))


def qc_flags(index: CellIndex) -> pd.Series[Any] | None:
    """What processing found odd about experiments, lists by accession; None where no directory has such a file."""
    paths = [path / name for path in index.paths for name in sorted(names_in(path)) if fnmatch(name, QC_FILES)]
    if not paths:
        return None
    import pandas as pd

    files = [io.BytesIO(read_bytes(path)) for path in paths]
    rows = pd.concat([pd.read_parquet(file, columns=["srx_accession", "flags"]) for file in files])
    return rows.groupby("srx_accession")["flags"].agg(lambda lists: list(dict.fromkeys(itertools.chain(*lists))))


def scores_told(scored: Scored) -> str:
    """Say whose cells were scored, what they are compared with, and how many experiments are flagged."""
    if scored.expectation is None:
        few = f"fewer than {LEAST_EXPERIMENTS} of them have {LEAST_CELLS} cells or more"
        how = f"What to expect of their depth is not known: {few}, so none is flagged."
    else:
        n_flagged = int(scored.table["flagged"].sum())
        how = "What is expected is of cells of their depth, and a z of 1 the spread of experiments around it. "
        how += f"Flagged, at {FAR:g} spreads or more below: {n_flagged:,} of {len(scored.table):,}."
    return f"ELBO per cell of {counted(len(scored.table), 'experiment')}, over {PARTS[scored.part]}. {how}"


def _compared(
    each: NDArray[np.float64], n_cells: NDArray[np.float64], expected: Expectation | None
) -> dict[str, NDArray[np.float64]]:
    if expected is None:
        return {name: np.full(len(each), np.nan) for name in ("expected", "residual", "z")}
    contrast = np.array([*(-np.array(expected.coefficients)), 1.0])
    residual = each[:, 0] @ contrast
    # Of single cells, which makes the mean of few of them uncertain.
    variance = np.maximum(np.einsum("i,nij,j->n", contrast, each, contrast) - residual**2, 0)
    z = residual / np.sqrt(expected.spread**2 + variance / n_cells)
    return {"expected": each[:, 0, 4] - residual, "residual": residual, "z": z}


def _reasons(table: pd.DataFrame) -> list[list[str]]:
    known = table["n_cells"].to_numpy() >= LEAST_CELLS
    odd = {"low_elbo": table["flagged"].to_numpy(), "few_cells": ~known}
    for name, (column, side, least) in COMPARED.items():
        values = table[column].to_numpy(np.float64)
        compared = values[known & ~np.isnan(values)]
        odd[name] = np.zeros(len(values), bool)
        if len(compared) >= LEAST_EXPERIMENTS:
            odd[name] = side * (values - np.median(compared)) / _spread(compared, least) >= FAR
    masks = np.column_stack(list(odd.values()))
    names = np.array(list(odd), object)
    return [names[row].tolist() for row in masks]


def _spread(values: NDArray[np.float64], least: float) -> float:
    """Robust standard deviation around the median, at least so much."""
    return max(TO_SIGMA * float(np.median(np.abs(values - np.median(values)))), least)
