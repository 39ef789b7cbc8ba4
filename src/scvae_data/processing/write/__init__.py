"""A plan in, the files of the directory out, the index last."""
