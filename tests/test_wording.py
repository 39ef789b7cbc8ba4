"""Numbers and the nouns they count."""

from __future__ import annotations

import pytest

from scvae_data.wording import counted


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [(0, "file", "0 files"), (1, "batch", "1 batch"), (2, "batch", "2 batches"), (1200, "cell", "1,200 cells")],
)
def test_singular_and_plural(n: int, noun: str, text: str) -> None:
    assert counted(n, noun) == text
