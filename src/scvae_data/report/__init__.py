"""Pages and figures for people: facts in, self-contained HTML out, which asks nothing of any server."""
