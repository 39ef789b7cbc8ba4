"""The programs: config in, one stage of the work called, errors as one line."""
