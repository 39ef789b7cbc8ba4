"""Scans, sorted runs and decisions in; a row on each experiment, with what is odd about it, out."""
