"""Number of processor cores available to this process."""

from __future__ import annotations

import os
from multiprocessing import parent_process

import joblib


def n_worker_cores() -> int | None:
    """Number of cores assigned to a worker process of joblib or Dask, else None.

    joblib and Dask set it as OMP_NUM_THREADS.
    """
    n_threads = os.environ.get("OMP_NUM_THREADS", "")
    if parent_process() is None or not n_threads.isdecimal():
        return None
    return max(1, int(n_threads))


def n_cores() -> int:
    """Number of cores that this process may use."""
    return n_worker_cores() or joblib.cpu_count()
