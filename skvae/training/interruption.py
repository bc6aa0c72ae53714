"""Ctrl-C during `fit`: the first requests to stop training, a second one raises."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Python code that C++ code of TensorFlow calls may run in these packages. An exception
# there can end the process.
_NOT_INTERRUPTED = {"keras", "tensorflow"}

_MESSAGE = "Training was interrupted. The estimator does not change."


class Interruption:
    """Request to stop training.

    Attributes
    ----------
    is_requested : bool
        Whether to stop training and keep what was trained.
    is_final : bool
        Whether to discard what was trained.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self.is_final = False

    def check(self) -> None:
        """Check that the interruption is not final.

        Raises
        ------
        KeyboardInterrupt
            If it is.
        """
        if self.is_final:
            raise KeyboardInterrupt(_MESSAGE)


@contextmanager
def deferred_interrupt() -> Iterator[Interruption]:
    """Defer Ctrl-C: the first requests an interruption, a second one raises.

    Python's own handler raises KeyboardInterrupt wherever the main thread is, also
    where TensorFlow does not expect an exception and ends the process. It alone is
    replaced, and only in the main thread: a handler that the host has set stays. An
    error after Ctrl-C is raised as KeyboardInterrupt, because a search takes other
    errors for failed fits and goes on.
    """
    interruption = Interruption()
    is_raised = False

    def handle(_signal: int, frame: FrameType | None) -> None:
        nonlocal is_raised
        interruption.is_final = interruption.is_requested
        interruption.is_requested = True
        # Raised once, so that no later Ctrl-C interrupts the clean-up.
        if interruption.is_final and not is_raised and not _is_in_tensorflow(frame):
            is_raised = True
            raise KeyboardInterrupt(_MESSAGE)

    is_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    if is_main_thread and handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, handle)
    try:
        yield interruption
    except Exception as error:
        if interruption.is_requested:
            msg = "Training was interrupted."
            raise KeyboardInterrupt(msg) from error
        raise
    finally:
        if is_main_thread and signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_in_tensorflow(frame: FrameType | None) -> bool:
    """Return whether the fit is in a call of TensorFlow or Keras, or imports them."""
    while frame and frame.f_globals.get("__name__") != "skvae.estimator":
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in _NOT_INTERRUPTED:
            return True
        frame = frame.f_back
    return False
