"""The external sort: kept rows in any order in, rows of all files in order of their keys out."""
