"""Every file in, decoded once; its kept rows in sorted runs, and an account of each cell, out."""
