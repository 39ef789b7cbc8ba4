"""From a dataset directory to batches: select → plan → fetch → batch, which stream, loader and data module join."""
