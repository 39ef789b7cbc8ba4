from __future__ import annotations

import os
import signal

import pytest

from scvae_data.system.stopping import exit_code_of, sigterm_exits


def test_sigterm_raises_and_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, sigterm_exits():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (ValueError(), 1),
        (SystemExit(143), 143),
        (SystemExit(), 0),
        (SystemExit("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error: BaseException | None, code: int) -> None:
    assert exit_code_of(error) == code
