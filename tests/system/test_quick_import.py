"""The garbage collector rests during imports, and works as before afterwards."""

from __future__ import annotations

import gc
from importlib import import_module

import pytest

from scvae_data.system.quick_import import collector_paused


def test_no_collection_while_paused() -> None:
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_import_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(ModuleNotFoundError), collector_paused():
        import_module("no_such_module")
    assert gc.isenabled()


def test_who_has_switched_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
