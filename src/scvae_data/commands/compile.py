"""``scvae-data compile``: nothing in, the machine code that default runs call, on disk, out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module

from scvae_data.commands.arguments import Parser
from scvae_data.report import libraries

__all__ = ["main"]

# Between them they import everything that default runs call and that is compiled.
MODULES = (
    "scvae_data.simulate.counts",
    "scvae_data.processing.pipeline",
    "scvae_data.loading.batch.kernels",
    "scvae_data.models.fused",
)


def main(arguments: Sequence[str]) -> None:
    """Compile what is not on disk yet, with a bar."""
    Parser("compile", "Compile ahead what the first runs of process and train would.").parse_args(arguments)
    from scvae_data.system.jit import compile_ahead

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in MODULES:
        import_module(name)
    compile_ahead("process", "train")
    libraries.vega()  # bundled once as well, for the pages that runs end with
