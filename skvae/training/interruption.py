"""Ctrl-C during `fit`: the first requests to stop training, a second one raises."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Request to stop training."""

    def __init__(self) -> None:
        self.is_requested = False


@contextmanager
def deferred_interrupt() -> Iterator[Interruption]:
    """Defer Ctrl-C: the first requests an interruption, a second one raises.

    Python's own handler raises KeyboardInterrupt wherever the main thread is, also
    where TensorFlow does not expect an exception and ends the process. It alone is
    replaced, and only in the main thread: a handler that the host has set stays.
    """
    interruption = Interruption()
    is_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    if not is_main_thread or handler is not signal.default_int_handler:
        yield interruption
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if interruption.is_requested:
            raise KeyboardInterrupt
        interruption.is_requested = True

    signal.signal(signal.SIGINT, handle)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
