"""All that worker processes need, imported once by the process that they are forks of."""

import gc

from scvae_data.system.quick_import import collector_paused

__all__: list[str] = []

with collector_paused():
    from scvae_data.processing import pipeline as pipeline
    from scvae_data.system.jit import make_ready

    make_ready()
    gc.freeze()  # what was imported stays: no collection need look at it, and copy its pages
