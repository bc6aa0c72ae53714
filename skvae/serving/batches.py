"""Work on rows in batches, side by side on all cores."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, TypeVar

import numpy as np

from skvae.cores import n_cores
from skvae.interrupts import Call, UninterruptedThreads
from skvae.storage import Selection, StoredImages, check_file

# What can be cut into batches.
Rows = np.ndarray | StoredImages | Selection

Item = TypeVar("Item")
Result = TypeVar("Result")


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

    def run_batch(start: int) -> list[np.ndarray]:
        return function(rows[start : start + size])

    # All cores have something to do, but for what takes less than to start threads.
    least = max(1, size // 4)
    if len(rows) > least:
        size = min(size, max(least, math.ceil(len(rows) / n_cores())))
    starts = range(0, len(rows), size)
    # Stored here, one after the other: not every storage can take two at a time.
    with closing(side_by_side(run_batch, starts)) as all_results:
        for start, results in zip(starts, all_results, strict=True):
            for result, output in zip(results, outputs, strict=True):
                check_file(output)
                output[start : start + len(result)] = result


def side_by_side(
    function: Callable[[Item], Result], items: Sequence[Item]
) -> Generator[Result, None, None]:
    """Call a function on items in several threads; give what it gives in their order.

    No more is computed than what is about to be taken. To be closed, if not all is.
    """

    def call(item: Item) -> Result:
        # What is not finite is found in the results; the host may have errors raised.
        with np.errstate(all="ignore"):
            return function(item)

    if len(items) == 1:
        yield call(items[0])
        return
    n_calls = min(n_cores(), len(items))
    under_way: deque[Call[Result]] = deque()
    with UninterruptedThreads(n_calls, is_brief=True) as pool:
        for item in items:
            under_way.append(pool.submit(call, item))
            if len(under_way) > n_calls:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
