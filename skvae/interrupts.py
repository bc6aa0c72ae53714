"""Calls that Ctrl-C leaves whole.

Python runs signal handlers in the main thread, wherever that is. If it is in code of
TensorFlow's that does not expect an exception, as where arrays become tensors, a
SystemError follows, or the process ends; in the locks of `concurrent.futures`, a
RuntimeError, or a wait for ever. Other threads are never interrupted. So `fit` calls
TensorFlow in these, and waits for them where an exception does no harm.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class Call(Generic[T]):
    """A call in another thread."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        # Its waits are in C, and give either an item or the exception.
        self._outcome: SimpleQueue[Callable[[], T]] = SimpleQueue()

    def run(self) -> None:
        """Make the call: for that thread."""
        try:
            value = self._function()
        except BaseException as error:  # noqa: BLE001 - for who waits for the result
            self._outcome.put(partial(_raise, error))
        else:
            self._outcome.put(lambda: value)

    def result(self) -> T:
        """Wait for what the call gives, or raises; once.

        Ctrl-C ends the wait, and not the call.
        """
        return self._outcome.get()()


class UninterruptedThreads:
    """Threads that make calls in the order in which they are submitted.

    On leaving the context, calls that are under way are waited for, and others are not
    made. Where an exception comes before that, threads may stay, idle, but nobody waits
    for them.
    """

    def __init__(self, n: int) -> None:
        self._calls: SimpleQueue[Call[Any] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=_make_calls, args=(self._calls,), daemon=True)
            for _ in range(n)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.end()
            raise

    def submit(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Call[T]:
        """Have a function called."""
        call = Call(partial(function, *args, **kwargs))
        self._calls.put(call)
        return call

    def end(self) -> None:
        """End the threads after what is under way, without waiting for it."""
        with contextlib.suppress(Empty):
            while True:
                self._calls.get_nowait()
        for _ in self._threads:
            self._calls.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for thread in self._threads:
            thread.join()


def _make_calls(calls: SimpleQueue[Call[Any] | None]) -> None:
    while (call := calls.get()) is not None:
        call.run()
        del call  # While it waits for the next one, nothing is kept.


def _raise(error: BaseException) -> Any:
    try:
        raise error
    finally:
        del error  # It refers to this frame.
