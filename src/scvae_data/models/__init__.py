"""Models: batches in, losses and latents out."""
