"""How many processor cores are this process's."""

from __future__ import annotations

import os
from multiprocessing import parent_process

import joblib


def n_worker_cores() -> int | None:
    """Cores of a worker process, as joblib and Dask say; None in other processes.

    They say it in OMP_NUM_THREADS.
    """
    n_threads = os.environ.get("OMP_NUM_THREADS", "")
    if parent_process() is None or not n_threads.isdecimal():
        return None
    return max(1, int(n_threads))


def n_cores() -> int:
    """Cores that this process may use."""
    return n_worker_cores() or joblib.cpu_count()
