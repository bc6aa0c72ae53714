"""Whether TensorFlow has started in this process.

It starts when it first computes something. From then on, its threads stay as they are.
"""

from __future__ import annotations

from typing import Any


def has_started(tensorflow: Any) -> bool:
    """Return whether the module `tensorflow` has started."""
    threading = tensorflow.config.threading
    n_threads = threading.get_inter_op_parallelism_threads()
    try:
        threading.set_inter_op_parallelism_threads(n_threads + 1)
    except RuntimeError:
        return True
    threading.set_inter_op_parallelism_threads(n_threads)
    return False
