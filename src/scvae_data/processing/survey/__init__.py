"""TODO survey."""
