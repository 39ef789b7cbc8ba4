"""Simulated experiments: settings in, H5AD files or count matrices out, without any download."""

from scvae_data.simulate.counts import simulate_counts
from scvae_data.simulate.files import simulate_files
from scvae_data.simulate.parameters import CellParameters

__all__ = ["CellParameters", "simulate_counts", "simulate_files"]
