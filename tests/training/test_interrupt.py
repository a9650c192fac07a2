from __future__ import annotations

import signal
import threading

import pytest

from seedpo.training.interrupt import STOP_SIGNALS, stop_on_signal


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_is_noted_and_the_second_acts(number: signal.Signals) -> None:
    received: list[int] = []
    previous = signal.signal(number, lambda received_number, frame: received.append(received_number))
    try:
        with stop_on_signal() as stop:
            assert not stop.requested
            signal.raise_signal(number)
            assert stop.requested
            assert received == []
            signal.raise_signal(number)
            assert received == [number]
        signal.raise_signal(number)
        assert received == [number, number]
    finally:
        signal.signal(number, previous)


def test_handlers_are_put_back_after_an_error() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with pytest.raises(ZeroDivisionError), stop_on_signal():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_other_threads_go_without() -> None:
    results: list[bool] = []

    def run() -> None:
        with stop_on_signal() as stop:
            results.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert results == [False]


def test_what_was_asked_outside_is_known_inside() -> None:
    with stop_on_signal() as outer:
        signal.raise_signal(signal.SIGINT)
        with stop_on_signal() as inner:
            assert inner.requested
    with stop_on_signal() as later:
        assert outer.requested
        assert not later.requested


def test_torchrun_may_repeat_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster sends it to all processes, and torchrun passes it on."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "any")
    with stop_on_signal() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
