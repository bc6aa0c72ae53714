"""Threads that compute a training step.

By default, TensorFlow splits each operation among all cores. With one thread per
operation, several operations run in parallel on parts of a batch, and threads do not
wait for each other after each operation: up to twice as fast. It is a setting of the
process, so training has it in a session of its own where it can.
"""

from __future__ import annotations

import contextlib
import math
import os
from numbers import Integral
from typing import Any, NamedTuple

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
    side by side, which is faster for most networks. It does so without this call, in a
    session of TensorFlow of its own, with exceptions that the user guide lists under
    "Speed and threads". This call sets the number of cores, too.

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


def limit_worker() -> None:
    """Limit a worker process of joblib or Dask to the cores assigned to it.

    joblib and Dask set OMP_NUM_THREADS, which TensorFlow does not read: each of n
    workers would start threads for all cores. What the user has set stays.
    """
    n_threads = n_worker_cores()
    if n_threads is None:
        return
    with contextlib.suppress(RuntimeError):  # TensorFlow has started
        if not _n_threads("intra"):
            _settings().set_intra_op_parallelism_threads(1)
        if not _n_threads("inter"):
            _settings().set_inter_op_parallelism_threads(n_threads)


class Split(NamedTuple):
    """Parts of a batch that are computed side by side, and threads for them.

    Parameters
    ----------
    n_parts : int
    n_session_threads : int
        Threads of a session, one per operation; 0 for TensorFlow's context.
    """

    n_parts: int
    n_session_threads: int


def split_of_batch(
    architecture: Architecture, batch_size: int, *, can_use_session: bool
) -> Split:
    """Choose parts and threads for the batches of a fit.

    Parameters
    ----------
    architecture : Architecture
    batch_size : int
    can_use_session : bool
        False if devices or strategies exclude a session.
    """
    batch_pixels = batch_size * architecture.n_pixels
    for_pixels = max(1, batch_pixels // _MIN_PART_PIXELS)
    n_set = max(0, _n_threads("inter"))
    n_threads = n_set or n_cores()
    # Of many cores, the parts would occupy less than half.
    leaves_cores = n_threads > 2 * _MAX_PARTS and for_pixels > _MAX_PARTS
    is_session = (
        can_use_session
        and _sessions_have_threads()
        and not n_set
        and not _n_threads("intra")
        and not leaves_cores
    )
    has_one_each = is_session or _n_threads("intra") == 1
    for_cores = min(n_threads, for_pixels) if has_one_each else 1
    at_once = max(1, _LAYER_BYTES // (4 * architecture.largest_layer))
    for_memory = math.ceil(batch_size / at_once)
    n_parts = min(max(for_memory, for_cores), _MAX_PARTS)
    return Split(n_parts, n_threads if is_session else 0)


def _sessions_have_threads() -> bool:
    from skvae.network import backend  # noqa: PLC0415  takes seconds

    return backend.SESSIONS_HAVE_THREADS


def _settings() -> Any:
    from skvae.network.backend import tf  # noqa: PLC0415  takes seconds

    return tf.config.threading


def _n_threads(kind: str) -> int:
    """Number of threads within ("intra") or between ("inter") operations, or 0."""
    getter = getattr(_settings(), f"get_{kind}_op_parallelism_threads")
    variable = os.environ.get(f"TF_NUM_{kind.upper()}OP_THREADS", "")
    return getter() or (int(variable) if variable.isdecimal() else 0)
