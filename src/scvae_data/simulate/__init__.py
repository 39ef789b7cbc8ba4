"""Simulated experiments: a size and a seed in, H5AD files out, without any download.

The numbers in the modules are typical of fourteen public 10x data sets of
human and mouse cells (225 to 5,000 cells each, chemistries v1 to v3), as
deposited, before cell filters; the range over these is given beside them.
"""

from scvae_data.simulate.files import simulate_files

__all__ = ["simulate_files"]
