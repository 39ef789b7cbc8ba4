"""Raw count files in, a dataset directory out: scan every file, decide once, write the chunks."""
