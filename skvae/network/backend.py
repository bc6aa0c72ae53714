"""Keras with TensorFlow, needed for training and Keras models only.

Modules that use Keras or TensorFlow import them from here. No other module does, so
that a fitted estimator works without them.
"""

from __future__ import annotations

import os
import platform
import sys

from skvae.startup import has_started, n_os_threads

# TensorFlow reads it when it is loaded. By itself it uses oneDNN, which computes
# convolutions faster, on some processors only.
_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
_has_choice = (
    platform.machine() in {"AMD64", "x86_64"}
    and "tensorflow" not in sys.modules
    and _ONEDNN not in os.environ
)

if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    msg = (
        "skvae runs on Keras's TensorFlow backend, but the environment variable "
        f"KERAS_BACKEND is {os.environ['KERAS_BACKEND']!r}. Unset it, or set it to "
        "'tensorflow'."
    )
    raise ImportError(msg)

if _has_choice:
    os.environ[_ONEDNN] = "1"
try:
    import keras
    import tensorflow as tf
except ModuleNotFoundError as error:
    if error.name not in ("keras", "tensorflow"):
        raise
    msg = (
        "Fitting a ConvVAE, to_keras and configure_threads require TensorFlow and "
        "Keras: pip install "
        f"tensorflow keras. ({error})"
    )
    raise ImportError(msg) from error
finally:
    if _has_choice:
        del os.environ[_ONEDNN]

if keras.backend.backend() != "tensorflow":
    msg = (
        "skvae runs on Keras's TensorFlow backend, but Keras was loaded with "
        f"{keras.backend.backend()!r}. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is first imported."
    )
    raise ImportError(msg)

# The threads that share the work of one operation are the same for the context and all
# sessions of a process, unless this variable is 1 when TensorFlow makes its first
# device.
_SEPARATE_POOLS = "TF_OVERRIDE_GLOBAL_THREADPOOL"


def _separate_pools() -> bool:
    """Let sessions have threads of their own; return whether they do.

    The context has as many threads as without this, for each of its devices.
    """
    if _SEPARATE_POOLS in os.environ or has_started(tf):
        return False
    v1 = tf.compat.v1
    n_threads = 8  # more than a session starts beside those of its operations
    config = v1.ConfigProto(
        # No GPU, so that the session does not allocate its memory.
        device_count={"GPU": 0},
        intra_op_parallelism_threads=n_threads,
        inter_op_parallelism_threads=1,
        use_per_session_threads=True,
    )
    before = n_os_threads()
    os.environ[_SEPARATE_POOLS] = "1"
    try:
        session = v1.Session(graph=tf.Graph(), config=config)  # makes a device
    finally:
        del os.environ[_SEPARATE_POOLS]
    after = n_os_threads()
    session.close()
    # Too late if TensorFlow has made a device before, as its list_local_devices does.
    return before == 0 or after - before >= n_threads


# Sessions can have one thread per operation, while the context has the host's threads.
SESSIONS_HAVE_THREADS = _separate_pools()

__all__ = ["SESSIONS_HAVE_THREADS", "keras", "tf"]
