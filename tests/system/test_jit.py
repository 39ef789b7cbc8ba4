from __future__ import annotations

import numba
import numpy as np
import pytest

from scvae_data.system.jit import compiled


def double(values: np.ndarray) -> int:
    total = 0
    for j in range(values.size):
        total += 2 * values[j]
    return total


def test_compiled_functions_give_what_python_gives() -> None:
    values = np.arange(7)
    assert compiled(double)(values) == double(values) == 42


def test_without_a_place_for_the_cache_each_process_compiles_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = numba.njit

    def nowhere(**options: bool) -> object:
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function 'double': no locator available for file 'double.py'")
        return whole(**options)

    monkeypatch.setattr(numba, "njit", nowhere)
    made = compiled(double)
    assert made(np.arange(7)) == 42
    assert made.targetoptions["nogil"]
