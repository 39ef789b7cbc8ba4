"""Training: a config in, a run directory with checkpoints, latents, pictures and a log out."""
