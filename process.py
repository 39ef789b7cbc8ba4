"""Raw count files in, a directory of chunk files out: ``python process.py --help``."""

if __name__ == "__main__":  # worker processes import this file again and need none of it
    from scvae_data.cli import start

    start("process")
