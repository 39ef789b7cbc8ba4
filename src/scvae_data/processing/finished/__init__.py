"""A finished directory: whether it is what a run would make, mended where it is damaged, compared with its inputs."""
