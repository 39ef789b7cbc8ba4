"""TODO decide."""
