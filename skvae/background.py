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
        # Thread.join takes the thread as over once a signal handler has raised in it
        # (before Python 3.13).
        self._is_over = threading.Event()
        context, config = copy_context(), get_config()

        def run() -> None:
            try:
                with config_context(**config):
                    self._results.append(context.run(function, *args))
            except BaseException as error:  # noqa: BLE001  raised by `result`
                self._error = error
            finally:
                self._is_over.set()

        threading.Thread(target=run).start()

    def wait(self) -> None:
        """Wait until the function has returned or raised."""
        self._is_over.wait()

    def result(self) -> T:
        """Wait for the function; return its result or raise its error."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._results[0]
