"""Rate of matrix products in TensorFlow, an upper bound for networks."""

from __future__ import annotations

import tensorflow as tf

from benchmarks.common.measurement import seconds_per_call

_SIZE = 2048


class MatrixProduct:
    """Product of two square float32 matrices, on all threads."""

    def __init__(self) -> None:
        self._matrix = tf.random.stateless_normal((_SIZE, _SIZE), (0, 0))

    def rate(self) -> float:
        """Measure floating-point operations per second; a multiply-add is two."""
        seconds = seconds_per_call(
            lambda: tf.matmul(self._matrix, self._matrix).numpy()
        )
        return 2 * _SIZE**3 / seconds
