"""``python -m scvae_data.training.rank``: a rank that the first one has started; it says nothing but errors."""

from __future__ import annotations

import os
import sys
import threading
import time

from scvae_data.errors import ScvaeDataError

__all__ = ["main"]


def main() -> None:
    """Train along until the first rank has ended."""
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    from scvae_data.training.ranks import GRACE_SECONDS
    from scvae_data.training.run import train_along

    try:
        train_along()
    except ScvaeDataError as error:
        sys.exit(f"error: rank {os.environ['RANK']}: {error}")
    except RuntimeError:
        # Mostly the end of the first rank, which ends this one in a moment.
        time.sleep(2 * GRACE_SECONDS)
        raise


def end_with(parent: int) -> None:
    """End this process when its parent has, however it has."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
