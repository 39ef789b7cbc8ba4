from __future__ import annotations

import os
import signal

import pytest

from scvae_data.system.stopping import Stopped, exit_code_of, going_on, interruptible, stoppable


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_raises_and_the_handler_is_put_back(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(Stopped) as caught, stoppable(signum):
        os.kill(os.getpid(), signum)
    assert caught.value.code == 128 + signum
    assert caught.value.signum is signum
    assert signal.getsignal(signum) is before


def test_a_signal_that_is_awaited_is_noted_and_a_second_one_raises() -> None:
    with pytest.raises(Stopped), stoppable(signal.SIGTERM) as request:
        request.awaited = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signum == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (ValueError(), 1),
        (SystemExit(143), 143),
        (Stopped(signal.SIGUSR1), 138),
        (SystemExit(), 0),
        (SystemExit("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error: BaseException | None, code: int) -> None:
    assert exit_code_of(error) == code


def test_an_interruption_that_nobody_speaks_of_is_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, interruptible():
        raise KeyboardInterrupt
    assert (caught.value.code, capsys.readouterr().err) == (130, "interrupted\n")
    with pytest.raises(SystemExit) as caught, interruptible(), going_on():
        raise KeyboardInterrupt
    told = "interrupted; the same command goes on with what is done\n"
    assert (caught.value.code, capsys.readouterr().err) == (130, told)
