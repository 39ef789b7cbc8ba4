"""Independent pieces of work in, their outcomes out, on one process, many, or a cluster."""
