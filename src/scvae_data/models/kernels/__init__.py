"""Compiled loops of a training step on a CPU: rows of logits and counts in, densities and gradients out."""
