"""Inputs in, what their headers say out: no count is read but the first few."""
