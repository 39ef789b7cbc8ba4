"""The garbage collector rests during imports, and what is absent is not found; afterwards all is as before."""

from __future__ import annotations

import gc
import subprocess
import sys
from importlib import import_module

import pytest

from scvae_data.system.quick_import import absent, collector_paused


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


def test_an_absent_package_is_not_installed_for_a_while() -> None:
    sys.modules.pop("colorsys", None)
    with absent("colorsys"), pytest.raises(ModuleNotFoundError, match="colorsys"):
        import_module("colorsys")
    assert "colorsys" not in sys.modules
    import_module("colorsys")


def test_what_is_imported_already_stays() -> None:
    import colorsys

    with absent("colorsys"):
        assert import_module("colorsys") is colorsys


LEAVING = """
import atexit, gc
from scvae_data.system.quick_import import quick_exit
atexit.register(lambda: print(gc.get_freeze_count() > 0))
quick_exit()
atexit.register(lambda: print(gc.get_freeze_count() > 0))
"""


def test_a_program_that_ends_leaves_nothing_to_collect_once_all_have_tidied_up() -> None:
    assert subprocess.check_output([sys.executable, "-c", LEAVING], text=True).split() == ["False", "True"]
