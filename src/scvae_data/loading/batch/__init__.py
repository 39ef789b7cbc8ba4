"""Making batches: decoded rows in, tensors out."""
