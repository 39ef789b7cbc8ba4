"""The machine and the interpreter: cores, compiled code, imports, signals, hostile HDF5."""
