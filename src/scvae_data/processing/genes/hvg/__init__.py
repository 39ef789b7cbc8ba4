"""TODO hvg."""
