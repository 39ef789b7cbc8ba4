"""From a dataset directory to batches: select → plan → fetch → batch, which stream, loader and data module join."""

from scvae_data.loading.plan.sampler import ListedEpoch, Sampler, Segment, TrainingCells

__all__ = ["ListedEpoch", "Sampler", "Segment", "TrainingCells"]
