"""In which order: selected rows in, the rows of every batch of every epoch out; integers only, no counts are read."""
