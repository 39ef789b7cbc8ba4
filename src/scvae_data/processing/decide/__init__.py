"""All scans in; what holds for the whole directory, once and for all, out."""
