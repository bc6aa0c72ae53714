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

# Frames further out than this module are those of the caller of `fit`.
_OUTERMOST = "skvae.estimator"


class Interruption:
    """Request to stop training, by Ctrl-C or by another thread.

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
        # Raised once, so that no later Ctrl-C interrupts the clean-up.
        self._may_raise = True
        self._is_over = False

    def request(self) -> None:
        """Request to stop training and keep what was trained."""
        self.is_requested = True

    def discard(self) -> None:
        """Stop training and discard what was trained."""
        self.is_final = True

    @property
    def is_training_wanted(self) -> bool:
        """Whether training is to go on."""
        return not (self.is_requested or self.is_final)

    def check(self) -> None:
        """Check that what was trained is not to be discarded.

        Raises
        ------
        KeyboardInterrupt
            If it is.
        """
        if self.is_final:
            msg = "Training was interrupted. The estimator does not change."
            raise KeyboardInterrupt(msg)

    def close(self) -> None:
        """Check for the last time, before the estimator changes.

        Raises
        ------
        KeyboardInterrupt
            If what was trained is to be discarded.
        """
        self._may_raise = False
        self.check()

    def end(self) -> None:
        """Leave Ctrl-C to Python's own handler."""
        self._is_over = True

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle Ctrl-C."""
        if self._is_over:  # but the handler has not been removed yet
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.default_int_handler(number, frame)
        if not self.is_requested:
            self.request()
            return
        self.discard()
        if self._may_raise and not _is_in_tensorflow(frame):
            self._may_raise = False
            self.check()


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
    handle = interruption.handle  # one object, which `getsignal` returns
    is_main_thread = threading.current_thread() is threading.main_thread()
    try:
        try:
            current = signal.getsignal(signal.SIGINT)
            if is_main_thread and current is signal.default_int_handler:
                signal.signal(signal.SIGINT, handle)
            yield interruption
        except Exception as error:
            if interruption.is_requested:
                msg = "Training was interrupted."
                raise KeyboardInterrupt(msg) from error
            raise
        finally:
            interruption.end()
    finally:  # another one, because a signal handler may raise in the first
        if is_main_thread and signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_in_tensorflow(frame: FrameType | None) -> bool:
    """Return whether the fit is in a call of TensorFlow or Keras, or imports them."""
    while frame and frame.f_globals.get("__name__") != _OUTERMOST:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in _NOT_INTERRUPTED:
            return True
        frame = frame.f_back
    return False
