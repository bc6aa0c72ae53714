"""Where TensorFlow is called in `fit`, so that Ctrl-C does no harm.

Python runs signal handlers in the main thread, wherever that is. If it is in code of
TensorFlow's that does not expect an exception, as where arrays become tensors, a
SystemError follows, or the process ends. Other threads are never interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def uninterrupted_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread for one call after the other; at the end it is waited for.

    Ctrl-C ends the wait for a result, and not the call.
    """
    with ThreadPoolExecutor(1) as thread:
        # An executor does not wait for a thread that has not quite started.
        thread.submit(int).result()
        yield thread
