"""Calls in threads of their own.

The pools of `concurrent.futures` refuse work once the main thread has ended, although
other threads may go on to use an estimator. Threads and events of `threading` take
locks in Python code. An exception of a signal handler there would leave them locked, so
only functions in C are used.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from sklearn import config_context, get_config

T = TypeVar("T")


class Task(Generic[T]):
    """Call of a function in another thread, in this thread's context.

    scikit-learn's configuration and context variables, which are numpy's error state
    too, are those of the thread that makes the task. Only one thread may wait for it.

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
        self._decision = _thread.allocate_lock()
        self._is_over = False
        # Locked until then.
        self._end = _thread.allocate_lock()
        self._end.acquire()
        self._call = function, args
        self._context, self._config = copy_context(), get_config()

    def start(self) -> None:
        """Start the thread.

        A signal handler may raise within, and leave the thread started. Call it in a
        `try`, and `stop` in its clean-up.
        """
        _thread.start_new_thread(self._run, ())

    def stop(self) -> None:
        """Do not call the function, or wait until it has returned or raised.

        What a signal handler raises while it waits is raised afterwards.
        """
        if self._decision.acquire(blocking=False):
            self._is_over = True
        error = None
        while not self._is_over:
            try:
                self._wait()
            except BaseException as raised:  # noqa: BLE001  raised below
                error = raised
        if error is not None:
            raise error

    def result(self) -> T:
        """Wait for the function; return its result or raise its error."""
        self._wait()
        if self._error is not None:
            raise self._error
        return self._results[0]

    # A method, because a function stored here would refer to the task. Arguments would
    # then stay in memory until Python looks for cycles.
    def _run(self) -> None:
        function, args = self._call
        try:
            if self._decision.acquire(blocking=False):
                with config_context(**self._config):
                    self._results.append(self._context.run(function, *args))
        except BaseException as error:  # noqa: BLE001  raised by `result`
            self._error = error
        finally:
            self._is_over = True
            self._end.release()

    def _wait(self) -> None:
        # Checked, because a signal handler may have raised after an earlier wait.
        while not self._is_over:
            self._end.acquire()
