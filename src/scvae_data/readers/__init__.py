"""One input file, whatever its format, in; its cells, genes and counts, block by block, out."""
