from __future__ import annotations

import numpy as np
import pytest

from scvae_data.errors import ConfigError
from scvae_data.store import Chunking, codec_of


def test_defaults_and_codec():
    chunking = Chunking(25_000)
    assert (chunking.chunk_size, chunking.compression_level, chunking.block_elements) == (25_000, 4, 131_072)
    assert Chunking(10, "lz4", 9).codec == codec_of("lz4", 9)
    assert Chunking(np.int64(7)).chunk_size == 7
    assert Chunking(7, order="group", group_column="donor").group_column == "donor"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"chunk_size": 0}, "chunk_size=0 is out of range", id="zero"),
        pytest.param({"chunk_size": -5}, "chunk_size=-5 is out of range", id="negative"),
        pytest.param({"chunk_size": "25k"}, "chunk_size='25k' is not a whole number of cells", id="text"),
        pytest.param({"chunk_size": 2.5e4}, "chunk_size=25000.0 is not a whole number", id="float"),
        pytest.param({"chunk_size": True}, "chunk_size=True is not a whole number", id="bool"),
        pytest.param({"block_elements": 0}, "block_elements=0 is out of range", id="block"),
        pytest.param({"block_elements": 1 << 30}, "block_elements=1073741824 is out of range", id="large block"),
        pytest.param({"compression": "zstd"}, "compression='zstd' is not one of", id="codec"),
        pytest.param(
            {"compression": "no_such.Codec"}, "compression='no_such.Codec' cannot be imported", id="no module"
        ),
        pytest.param({"compression": "os.path.Codec"}, "compression='os.path.Codec' cannot be imported", id="no name"),
        pytest.param({"compression": "os.path"}, "compression='os.path' is no subclass of Codec", id="no codec"),
        pytest.param({"compression_level": 99}, "compression_level=99 does not fit", id="level"),
        pytest.param({"order": "random"}, "chunking.order='random' is not one of hash, source, group", id="order"),
        pytest.param({"order": "group"}, "order=group needs a group_column", id="group without column"),
        pytest.param({"group_column": "donor"}, "the other orders take none", id="column without group"),
    ],
)
def test_impossible_settings_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Chunking(**settings)
    assert "\n" not in str(caught.value)
