"""Thread settings of TensorFlow in this process.

TensorFlow has one setting per process for the number of threads in an operation. With
one thread, several operations run in parallel on parts of a batch, and threads do not
wait for each other after each operation: up to twice as fast.
"""

from __future__ import annotations

import contextlib
import math
import os

import joblib

from skvae.architecture import Architecture
from skvae.cores import n_worker_cores
from skvae.network.backend import tf

# Minimum size of a part of a batch, in pixels. Smaller ones cost more than they gain.
_MIN_PART_PIXELS = 2**12

# Maximum size of a layer's output for a part. For arrays of 2^25 bytes or more, the C
# library allocates new pages each time, which the operating system clears on first use.
# This takes three times as long as the computation.
_LAYER_BYTES = 2**24

# Limits the time of tracing, because each part is traced.
_MAX_PARTS = 8


def limit_worker() -> None:
    """Limit a worker process of joblib or Dask to the cores assigned to it.

    joblib and Dask set OMP_NUM_THREADS, which TensorFlow does not read: each of n
    workers would start threads for all cores. The user's settings for TensorFlow take
    precedence. Once TensorFlow has started, settings cannot be changed.
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
    """Number of parts of a batch to compute in parallel."""
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
    """Number of threads within ("intra") or between ("inter") operations, or 0."""
    getter = getattr(tf.config.threading, f"get_{kind}_op_parallelism_threads")
    variable = os.environ.get(f"TF_NUM_{kind.upper()}OP_THREADS", "")
    return getter() or (int(variable) if variable.isdecimal() else 0)
