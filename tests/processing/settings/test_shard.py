"""The shares of all shards are all there is, each once."""

from __future__ import annotations

import pytest

from scvae_data.errors import ConfigError
from scvae_data.processing.settings.shard import Shard


@pytest.mark.parametrize("n", [0, 1, 7, 12])
def test_every_number_is_of_one_shard(n: int) -> None:
    shares = [shard.share(n) for shard in Shard(3, 5).from_own()]
    assert sorted(number for share in shares for number in share) == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_its_own_share_comes_first() -> None:
    assert [str(shard) for shard in Shard.parse("3/4").from_own()] == ["3/4", "4/4", "1/4", "2/4"]


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "a/b", "1/0", "-1/4", ""])
def test_what_names_no_shard(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"shard={text} must be I/N with I from 1 to N"):
        Shard.parse(text)
