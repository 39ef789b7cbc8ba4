"""A directory of chunk files in, a trained model out: ``python train.py --help``."""

if __name__ == "__main__":  # worker processes import this file again and need none of it
    from scvae_data.cli import start

    start("train")
