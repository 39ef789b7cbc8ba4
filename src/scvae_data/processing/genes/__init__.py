"""Names and sums of genes in, the columns of the directory out."""
