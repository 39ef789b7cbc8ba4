"""What holds for the whole directory, as one record in; files that every worker reads it from out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
from numpy.typing import NDArray

from scvae_data.processing.settings.normalization import Normalization
from scvae_data.processing.sort.obs_schema import ObsSchema
from scvae_data.processing.work import WorkFolder
from scvae_data.store.files import read_json, write_atomic, write_json

__all__ = ["Decision", "describe", "load_decision", "load_var", "save_frame", "save_var"]


@dataclass(frozen=True)
class Decision:
    """What the writers of all chunks share.

    Parameters
    ----------
    gene_map
        Column of each gene of the universe, -1 for those left out, int32.
    gene_set
        Per file number the code of its measured-gene mask, int32; -1 for files left out.
    files
        ``source_file`` by file number.
    target_sum
        The recorded one, never None.
    max_count
        Largest count of a kept gene.
    n_vars
        Number of columns; more than the genes that have one where a list names genes that no file has.
    """

    gene_map: NDArray[np.int32]
    gene_set: NDArray[np.int32]
    files: list[str]
    schema: ObsSchema
    normalization: Normalization
    target_sum: float
    max_count: int
    processing_id: str
    n_vars: int
    runs: list[str] = field(default_factory=list)

    @property
    def n_universe(self) -> int:
        """Number of genes of the universe."""
        return len(self.gene_map)

    @property
    def reorders(self) -> bool:
        """Whether the columns come in another order than the universe's."""
        columns = self.gene_map[self.gene_map >= 0]
        return bool((np.diff(columns) < 0).any())

    def save(self, work: WorkFolder) -> str:
        """Write the decision for the workers, not synced; return the hash of its content."""
        plain = {
            "files": self.files,
            "schema": asdict(self.schema),
            "normalization": asdict(self.normalization),
            "target_sum": self.target_sum,
            "max_count": self.max_count,
            "processing_id": self.processing_id,
            "n_vars": self.n_vars,
            "runs": self.runs,
        }
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
        digest.update(self.gene_map.tobytes() + self.gene_set.tobytes())
        name = digest.hexdigest()[:16]
        np.savez(work.decision(name, ".npz"), gene_map=self.gene_map, gene_set=self.gene_set)
        write_json(work.decision(name, ".json"), plain, synced=False)
        return name


@lru_cache(maxsize=1)
def load_decision(work: WorkFolder, digest: str) -> Decision:
    """Read a decision back, once per process."""
    plain = read_json(work.decision(digest, ".json"))
    with np.load(work.decision(digest, ".npz")) as arrays:
        schema = plain["schema"]
        return Decision(
            gene_map=arrays["gene_map"],
            gene_set=arrays["gene_set"],
            files=plain["files"],
            schema=ObsSchema(tuple(schema["metrics"]), schema["kinds"], schema["categories"]),
            normalization=Normalization(**plain["normalization"]),
            target_sum=plain["target_sum"],
            max_count=plain["max_count"],
            processing_id=plain["processing_id"],
            n_vars=plain["n_vars"],
            runs=plain["runs"],
        )


def describe(decision: Decision) -> dict[str, Any]:
    """Return what a directory's index says about normalisation."""
    return {
        "method": decision.normalization.method,
        "target_sum": decision.target_sum,
        "size_factor_genes": decision.normalization.size_factor_genes,
    }


@lru_cache(maxsize=1)
def load_var(work: WorkFolder, digest: str) -> pd.DataFrame:
    """Read the var table of the directory, once per process."""
    frame = feather.read_feather(work.var(digest))
    var: pd.DataFrame = frame.set_index(frame.columns[0]).rename_axis(None)
    return var


def save_var(work: WorkFolder, digest: str, var: pd.DataFrame) -> None:
    """Write the var table for the workers."""
    save_frame(work.var(digest), var.reset_index(names="gene"))


def save_frame(path: Path, frame: pd.DataFrame) -> str:
    """Write a table whole or not at all, for later stages of the run; return the hash of its bytes.

    It is not synced: that would wait for all that the scans have written.
    """
    sink = pa.BufferOutputStream()
    feather.write_feather(pa.Table.from_pandas(frame, preserve_index=False), sink, compression="lz4")
    content = sink.getvalue().to_pybytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content, synced=False)
    return hashlib.sha256(content).hexdigest()
