"""Reading ahead: wanted rows in, decoded rows out, from disk or from a cache, by threads."""
