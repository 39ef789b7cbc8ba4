"""The configuration, as a package of its own: ``pkg://scvae_data.conf`` where the package is installed."""
