"""Which cells: filters, splits and choices of genes in, the selected rows of every chunk out; reads obs only."""
