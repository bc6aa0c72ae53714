"""Thread settings of TensorFlow in this process.

TensorFlow has one setting per process for the number of threads in an operation. With
one thread, several operations run in parallel on parts of a batch, and threads do not
wait for each other after each operation: up to twice as fast.
"""

from __future__ import annotations

import contextlib
import math
import os
from numbers import Integral
from typing import Any

import joblib
from sklearn.utils import check_scalar

from skvae.architecture import Architecture
from skvae.cores import n_cores, n_worker_cores

# Minimum size of a part of a batch, in pixels. Smaller ones cost more than they gain.
_MIN_PART_PIXELS = 2**12

# Maximum size of a layer's output for a part. For arrays of 2^25 bytes or more, the C
# library allocates new pages each time, which the operating system clears on first use.
# This takes three times as long as the computation.
_LAYER_BYTES = 2**24

# Limits the time of tracing, because each part is traced.
_MAX_PARTS = 8


def configure_threads(n_threads: int | None = None) -> None:
    """Give each operation of TensorFlow one thread, and run operations side by side.

    TensorFlow splits each operation among all cores by default, and they wait for each
    other at its end. With one thread per operation, `fit` computes parts of a batch
    side by side, which is faster for most networks. `python -m skvae` and worker
    processes of joblib and Dask do so without this call.

    Call it at the beginning of a script or notebook. It holds for all that TensorFlow
    computes in this process. Other networks may become slower, because each of their
    operations uses one core.

    Parameters
    ----------
    n_threads : int, default=None
        Number of operations that are computed at the same time. None takes the number
        of cores that this process may use.

    Raises
    ------
    ValueError, TypeError
        If `n_threads` is no integer of at least 1.
    RuntimeError
        If TensorFlow has started with other settings. It starts when it first computes
        something, for example in `fit`.

    Examples
    --------
    >>> import skvae
    >>> skvae.configure_threads()  # doctest: +SKIP
    >>> vae = skvae.ConvVAE().fit(X)  # doctest: +SKIP
    """
    if n_threads is None:
        n_threads = n_cores()
    check_scalar(n_threads, "n_threads", Integral, min_val=1)
    try:
        _settings().set_intra_op_parallelism_threads(1)
        _settings().set_inter_op_parallelism_threads(int(n_threads))
    except RuntimeError as error:
        msg = (
            "TensorFlow has started, and its threads can no longer be configured. "
            "Restart Python and call skvae.configure_threads before the first fit."
        )
        raise RuntimeError(msg) from error


def prefer_threads(n_threads: int) -> None:
    """Configure threads that neither the user has set nor TensorFlow has started."""
    with contextlib.suppress(RuntimeError):
        if not _n_threads("intra"):
            _settings().set_intra_op_parallelism_threads(1)
        if not _n_threads("inter"):
            _settings().set_inter_op_parallelism_threads(n_threads)


def limit_worker() -> None:
    """Limit a worker process of joblib or Dask to the cores assigned to it.

    joblib and Dask set OMP_NUM_THREADS, which TensorFlow does not read: each of n
    workers would start threads for all cores.
    """
    n_threads = n_worker_cores()
    if n_threads is not None:
        prefer_threads(n_threads)


def n_parts(architecture: Architecture, batch_size: int) -> int:
    """Number of parts of a batch to compute in parallel."""
    at_once = max(1, _LAYER_BYTES // (4 * architecture.largest_layer))
    for_memory = math.ceil(batch_size / at_once)
    for_cores = 1
    if _n_threads("intra") == 1:
        batch_pixels = batch_size * architecture.n_pixels
        n_at_once = _n_threads("inter") or joblib.cpu_count()
        for_cores = max(1, min(n_at_once, batch_pixels // _MIN_PART_PIXELS))
    return min(max(for_memory, for_cores), _MAX_PARTS)


def _settings() -> Any:
    from skvae.network.backend import tf  # noqa: PLC0415  takes seconds

    return tf.config.threading


def _n_threads(kind: str) -> int:
    """Number of threads within ("intra") or between ("inter") operations, or 0."""
    getter = getattr(_settings(), f"get_{kind}_op_parallelism_threads")
    variable = os.environ.get(f"TF_NUM_{kind.upper()}OP_THREADS", "")
    return getter() or (int(variable) if variable.isdecimal() else 0)
