"""TODO genes."""
