"""``python -m scvae_data``: the same as ``scvae-data``."""

from scvae_data.cli import main

if __name__ == "__main__":  # worker processes import this module too
    main()
