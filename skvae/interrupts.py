"""Calls that Ctrl-C leaves whole.

Python runs signal handlers in the main thread, wherever that is. If it is in code of
TensorFlow's that does not expect an exception, as where arrays become tensors, a
SystemError follows, or the process ends; in the locks of `concurrent.futures` and of
`threading.Thread.start`, a RuntimeError, or a wait for ever. Other threads are never
interrupted. So `fit` calls TensorFlow in these, but for what several processes of a
strategy exchange, and waits for them where an exception does no harm.
"""

from __future__ import annotations

import _thread
import contextlib
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

# What a function gives, or raises.
_Outcome = tuple[Any, BaseException | None]

# A function, and where its outcome goes.
_Work = tuple[Callable[[], Any], SimpleQueue[_Outcome]]


class Call(Generic[T]):
    """A call in another thread."""

    def __init__(self, outcome: SimpleQueue[_Outcome]) -> None:
        self._outcome = outcome

    def result(self) -> T:
        """Wait for what the call gives or raises, and give or raise it.

        It can be had once. Ctrl-C ends the wait, and not the call.
        """
        value: T
        value, error = self._outcome.get()
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # Its traceback refers to this frame.


class UninterruptedThreads:
    """Threads that make calls in the order in which they are submitted.

    Where the context is left, calls that are under way are waited for, but not after
    Ctrl-C, which may be to end that wait, unless they are brief. Others are not made.

    Parameters
    ----------
    n : int
        Number of threads.
    is_brief : bool
        Whether no call takes long. A process must not end while one is under way.
    """

    def __init__(self, n: int, *, is_brief: bool = False) -> None:
        self._n = n
        self._is_brief = is_brief
        self._has_ended = False
        # All waits are for queues: they are in C, and give an item or the exception.
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._ended: SimpleQueue[None] = SimpleQueue()
        for _ in range(n):
            # It does not wait for the thread, as those of `threading` do.
            _thread.start_new_thread(_make_calls, (self._work, self._ended))

    def submit(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Call[T]:
        """Have a function called."""
        if self._has_ended:
            msg = "These threads have ended."
            raise RuntimeError(msg)
        outcome: SimpleQueue[_Outcome] = SimpleQueue()
        self._work.put((partial(function, *args, **kwargs), outcome))
        return Call(outcome)

    def end(self) -> None:
        """End the threads after what is under way, without waiting for it."""
        self._has_ended = True
        with contextlib.suppress(Empty):
            while True:
                self._work.get_nowait()
        for _ in range(self._n):
            self._work.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        self.end()
        is_interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        if self._is_brief or not is_interrupted:
            for _ in range(self._n):
                self._ended.get()


def _make_calls(work: SimpleQueue[_Work | None], ended: SimpleQueue[None]) -> None:
    while (newest := work.get()) is not None:
        function, outcome = newest
        try:
            outcome.put((function(), None))
        except BaseException as error:  # noqa: BLE001 - for who waits for the result
            outcome.put((None, error))
        # While it waits nothing is kept. A traceback refers to this frame, too.
        del newest, function, outcome
    ended.put(None)
