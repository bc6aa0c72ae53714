"""TensorFlow's threads, as this process has them.

TensorFlow has one setting for the whole process: how many threads an operation uses.
With one, several operations run side by side instead, on parts of a batch, and no
thread waits for another at the end of each: up to twice as fast.
"""

from __future__ import annotations

import contextlib
import math
import os

import joblib

from skvae.architecture import Architecture
from skvae.cores import n_worker_cores
from skvae.network.backend import tf

# Smaller parts of a batch, in pixels, cost more in overhead than they gain.
_MIN_PART_PIXELS = 2**12

# What a layer gives for a part has at most so many bytes. An array of 2^25 or more gets
# new pages from the C library each time, which the operating system clears at their
# first use: three times as slow as the work itself.
_LAYER_BYTES = 2**24

# Each part is traced anew.
_MAX_PARTS = 8


def limit_worker() -> None:
    """Keep a worker process to the cores that are its own.

    joblib and Dask say in OMP_NUM_THREADS how many these are, which TensorFlow does not
    read: each of n workers would start threads for all cores. What the user has set for
    TensorFlow stands, and nothing changes once TensorFlow has started.
    """
    n_threads = n_worker_cores()
    if n_threads is None:
        return
    with contextlib.suppress(RuntimeError):  # TensorFlow has started.
        if not _n_threads("intra"):
            tf.config.threading.set_intra_op_parallelism_threads(1)
        if not _n_threads("inter"):
            tf.config.threading.set_inter_op_parallelism_threads(n_threads)


def n_parts(architecture: Architecture, batch_size: int) -> int:
    """How many parts of a batch to compute side by side."""
    at_once = max(1, _LAYER_BYTES // (4 * architecture.largest_layer))
    for_memory = math.ceil(batch_size / at_once)
    for_cores = 1
    if _n_threads("intra") == 1:
        batch_pixels = batch_size * architecture.n_pixels
        for_cores = max(1, min(_n_cores(), batch_pixels // _MIN_PART_PIXELS))
    return min(max(for_memory, for_cores), _MAX_PARTS)


def _n_cores() -> int:
    return _n_threads("inter") or joblib.cpu_count()


def _n_threads(kind: str) -> int:
    """Threads within an operation ("intra") or between them; 0 where none are set."""
    getter = getattr(tf.config.threading, f"get_{kind}_op_parallelism_threads")
    variable = os.environ.get(f"TF_NUM_{kind.upper()}OP_THREADS", "")
    return getter() or (int(variable) if variable.isdecimal() else 0)
