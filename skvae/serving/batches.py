"""Computation on rows in batches, in parallel on all cores."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from skvae.background import Task
from skvae.cores import n_cores
from skvae.data.storage import Selection, StoredImages, check_file

# Arrays that can be split into batches.
Rows = np.ndarray | StoredImages | Selection


def in_batches(
    function: Callable[[np.ndarray], list[np.ndarray]],
    rows: Rows,
    outputs: list[Any],
    size: int,
) -> None:
    """Apply a function to batches of rows in parallel, and store its results.

    Parameters
    ----------
    function : callable
        Takes a batch, returns one array for each output. Called in several threads.
    rows : array-like of shape (n, ...)
    outputs : list of array-like of shape (n, ...)
        Arrays in which the results are stored.
    size : int
        Maximum number of rows in a batch.
    """
    # Use all cores, unless a batch would take less time than starting a thread.
    least = max(1, size // 4)
    if len(rows) > least:
        size = min(size, max(least, math.ceil(len(rows) / n_cores())))
    starts = deque(range(0, len(rows), size))
    writing = threading.Lock()  # some storages do not support concurrent writes

    def work() -> None:
        try:
            # Results are checked instead; the caller may have set numpy to raise.
            with np.errstate(all="ignore"):
                while True:
                    try:
                        start = starts.popleft()
                    except IndexError:
                        return
                    results = function(rows[start : start + size])
                    with writing:
                        for result, output in zip(results, outputs, strict=True):
                            check_file(output)
                            output[start : start + len(result)] = result
        finally:  # after an error, no thread starts another batch
            starts.clear()

    # Counting the cores takes as long as encoding one small image.
    n_others = min(n_cores(), len(starts)) - 1 if len(starts) > 1 else 0
    others = [Task(work) for _ in range(n_others)]
    try:
        for other in others:
            other.start()
        work()  # the calling thread works, too
        for other in others:
            other.result()
    finally:  # including KeyboardInterrupt
        starts.clear()
        for other in others:
            other.stop()
