"""Names of JavaScript libraries in; their code, packed for a page, out.

Bundling Vega takes a second and a half, so the bundle is kept on disk where
Python keeps its own compiled code; ``scvae-data compile`` makes it ahead.
"""

from __future__ import annotations

import base64
import functools
import zlib
from contextlib import suppress
from importlib.metadata import distribution, version
from pathlib import Path

from scvae_data.store.files import write_atomic

__all__ = ["packed", "table_style", "tables", "vega"]

KEPT = Path(__file__).parent / "__pycache__"


def packed(text: str) -> str:
    """Text, deflated and in base64, for ``unpacked`` of page.js."""
    return base64.b64encode(zlib.compress(text.encode())).decode()


@functools.cache
def vega() -> str:
    """What draws charts: Vega, Vega-Lite and Vega-Embed."""
    path = KEPT / f"vega-{version('vl-convert-python')}.txt"
    with suppress(OSError, ValueError, zlib.error):
        text = path.read_text(encoding="ascii")
        zlib.decompress(base64.b64decode(text))
        return text
    import vl_convert

    made = packed(vl_convert.javascript_bundle())  # type: ignore[call-arg]  # without a snippet, which its stub wants
    with suppress(OSError):  # a package that cannot be written to
        KEPT.mkdir(exist_ok=True)
        write_atomic(path, made.encode())
    return made


@functools.cache
def tables() -> str:
    """What makes tables sortable: DataTables."""
    return packed(_of_itables("dt_bundle.js"))


def table_style() -> str:
    """The style sheet of :func:`tables`."""
    return _of_itables("dt_bundle.css")


def _of_itables(name: str) -> str:
    path = distribution("itables").locate_file(f"itables/html/{name}")
    return Path(str(path)).read_text(encoding="utf-8")
