"""The older system's loaders, under their older names."""
