"""Spooled counts in, highly variable genes out: scanpy's numbers, in streaming passes."""
