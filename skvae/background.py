"""Calls in threads of their own.

The pools of `concurrent.futures` refuse work once the main thread has ended, although
other threads may go on to use an estimator.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from sklearn import config_context, get_config

T = TypeVar("T")


class Task(Generic[T]):
    """Call of a function in another thread, in this thread's context.

    scikit-learn's configuration and context variables, which are numpy's error state
    too, are those of the thread that starts the task.

    Parameters
    ----------
    function : callable
    *args : object
        Arguments of the function.
    """

    def __init__(self, function: Callable[..., T], *args: Any) -> None:
        self._results: list[T] = []
        self._error: BaseException | None = None
        # Acquired by the thread that decides whether the function is called.
        self._decision = threading.Lock()
        # Thread.join takes the thread as over once a signal handler has raised in it
        # (before Python 3.13).
        self._is_over = threading.Event()
        context, config = copy_context(), get_config()

        def run() -> None:
            if not self._decision.acquire(blocking=False):
                return
            try:
                with config_context(**config):
                    self._results.append(context.run(function, *args))
            except BaseException as error:  # noqa: BLE001  raised by `result`
                self._error = error
            finally:
                self._is_over.set()

        self._thread = threading.Thread(target=run)

    def start(self) -> None:
        """Start the thread.

        A signal handler may raise within, and leave the thread started. Call it in a
        `try`, and `stop` in its clean-up.
        """
        self._thread.start()

    def stop(self) -> None:
        """Do not call the function, or wait until it has returned or raised."""
        if self._decision.acquire(blocking=False):
            self._is_over.set()
        self._is_over.wait()

    def result(self) -> T:
        """Wait for the function; return its result or raise its error."""
        self._is_over.wait()
        if self._error is not None:
            raise self._error
        return self._results[0]
