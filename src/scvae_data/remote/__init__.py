"""Stores beside this machine's disks: addresses of objects, reading and writing them, a bounded folder of copies."""
