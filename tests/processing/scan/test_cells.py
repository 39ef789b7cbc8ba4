from __future__ import annotations

import numpy as np

from scvae_data.processing.scan.cells import unique_names


def test_repeated_names_get_a_suffix_that_no_other_name_has() -> None:
    names = np.array(["a", "b", "a", "a-1", "a"], object)
    assert unique_names(names).tolist() == ["a", "b", "a-2", "a-1", "a-3"]
    assert names.tolist() == ["a", "b", "a", "a-1", "a"]


def test_unique_names_stay() -> None:
    names = np.array(["a", "b"], object)
    assert unique_names(names) is names
