"""All settings of a run, checked together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from scvae_data.errors import ConfigError
from scvae_data.processing.settings.control import ControlSubset
from scvae_data.processing.settings.dataset import DatasetInput
from scvae_data.processing.settings.genes import AnyGeneRules
from scvae_data.processing.settings.inputs import Inputs
from scvae_data.processing.settings.normalization import Normalization
from scvae_data.processing.settings.qc import QcRules
from scvae_data.store import Chunking

__all__ = ["KEEP", "Settings"]

KEEP = ("all", "first", "none")


@dataclass(frozen=True)
class Settings:
    """What a run shall do; not where, nor with which workers.

    Parameters
    ----------
    control
        None where all cells are wanted.
    seed
        Key of the shuffle.
    max_failed_fraction
        Share of files that may fail; above it nothing is written.
    keep_duplicates
        Of cells with equal counts keep ``"all"``, the ``"first"`` or ``"none"``.

    Raises
    ------
    ConfigError
        What no inputs can suit, with the key and what it may be.
    """

    input: Inputs
    qc: QcRules
    genes: AnyGeneRules
    normalization: Normalization
    chunking: Chunking
    control: ControlSubset | None = None
    seed: int = 0
    max_failed_fraction: float = 0.0
    keep_duplicates: str = "all"

    def __post_init__(self) -> None:
        if not 0 <= self.max_failed_fraction <= 1:
            raise ConfigError(f"max_failed_fraction={self.max_failed_fraction} must be a share from 0 to 1")
        if self.keep_duplicates not in KEEP:
            raise ConfigError(f"keep_duplicates={self.keep_duplicates!r} must be one of {', '.join(KEEP)}")
        if self.control is not None and not self.control.columns:
            raise ConfigError("control.column is an empty list; name the obs column that tells controls")
        if self.qc.doublets != "none" and not 0 <= self.seed < 1 << 32:
            raise ConfigError(f"seed={self.seed} must be from 0 to 2^32 - 1 for qc.doublets={self.qc.doublets}")
        if isinstance(self.input, DatasetInput):
            self._check_for_dataset(self.input)
        if self.qc.species != self.genes.species:
            raise ConfigError(f"qc.species={self.qc.species} follows genes.species={self.genes.species}; set that one")

    def _check_for_dataset(self, given: DatasetInput) -> None:
        """Refuse what needs the raw files of a directory."""
        needed = "needs all cells of an experiment at once, which chunks do not have; use thresholds, or the raw files"
        if self.qc.outlier_metrics:
            raise ConfigError(f"qc.nmads.{min(self.qc.outlier_metrics)} {needed}")
        if self.qc.doublets != "none":
            raise ConfigError(f"qc.doublets={self.qc.doublets} {needed}")
        if self.control is not None and given.where is not None:
            raise ConfigError("subset_to_control_cells=true and input.where: say both in input.where")

    def processing_id(self, genes: Mapping[str, Any], inputs: str) -> str:
        """Hash what the chunks depend on: settings and input content, not where, when or on how many cores.

        Every chunk holds it: a setting that is added to one of the parts, or
        comes in another order, changes the bytes of all directories.

        Parameters
        ----------
        genes
            The rules for genes as plain values, with the content of the files they name.
        inputs
            Hash of the inputs.
        """
        qc = asdict(self.qc)
        del qc["require_rules"]  # whether a run stops, not what it makes
        if self.qc.doublets == "none":  # not there, as in directories from before there was the key
            del qc["doublets"]
        if self.qc.species is None:
            del qc["species"], qc["min_pct_counts_species"]
        parts = [
            qc, genes, self.normalization, self.chunking, self.control,
            self.input.obs_columns, self.input.count_tolerance,
        ]  # fmt: skip
        parts += [self.input.of_content] if self.input.of_content else []
        plain = [asdict(part) if is_dataclass(part) and not isinstance(part, type) else part for part in parts]
        if self.input.counts is not None:  # not there when null, as in directories from before there was the key
            plain.append({"input.counts": self.input.counts})
        rules = json.dumps([self.seed, self.keep_duplicates, *plain], default=str)
        return hashlib.sha256((rules + inputs).encode()).hexdigest()[:32]
