"""Work on rows in batches, side by side on all cores."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from skvae.cores import n_cores
from skvae.data.storage import Selection, StoredImages, check_file

# What can be cut into batches.
Rows = np.ndarray | StoredImages | Selection


def in_batches(
    function: Callable[[np.ndarray], list[np.ndarray]],
    rows: Rows,
    outputs: list[Any],
    size: int,
) -> None:
    """Put what a function gives for batches of rows into arrays, one for each result.

    Parameters
    ----------
    function : callable
        Gives one array for each output; called in several threads.
    rows : (n, ...)
    outputs : list of array-likes (n, ...)
    size : int
        Rows in a batch, at most.
    """
    # All cores have something to do, but for what takes less than to start threads.
    least = max(1, size // 4)
    if len(rows) > least:
        size = min(size, max(least, math.ceil(len(rows) / n_cores())))
    starts = deque(range(0, len(rows), size))
    writing = threading.Lock()  # not every storage can take two batches at a time

    def work() -> None:
        # What is not finite is found in the results; the host may have errors raised.
        with np.errstate(all="ignore"):
            while starts:
                try:
                    start = starts.popleft()
                except IndexError:  # another thread has taken the last one
                    return
                results = function(rows[start : start + size])
                with writing:
                    for result, output in zip(results, outputs, strict=True):
                        check_file(output)
                        output[start : start + len(result)] = result

    def work_in_thread() -> None:
        try:
            work()
        finally:  # after an error no thread takes another batch
            starts.clear()

    n_others = min(n_cores(), len(starts)) - 1
    if n_others < 1:
        work()
        return
    with ThreadPoolExecutor(n_others) as pool:
        try:
            others = [pool.submit(work_in_thread) for _ in range(n_others)]
            work_in_thread()  # this thread is one of them: fewer are started
        finally:  # Ctrl-C
            starts.clear()
        for other in others:
            other.result()
