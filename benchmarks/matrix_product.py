"""How fast TensorFlow multiplies matrices here: a bound on what any network reaches."""

from __future__ import annotations

import tensorflow as tf
from timing import seconds_a_call

_SIZE = 2048


class MatrixProduct:
    """Products of two square float32 matrices, on all threads."""

    def __init__(self) -> None:
        self._matrix = tf.random.stateless_normal((_SIZE, _SIZE), (0, 0))

    def rate(self) -> float:
        """Floating-point operations a second; a multiply-add is two of them."""
        seconds = seconds_a_call(lambda: tf.matmul(self._matrix, self._matrix).numpy())
        return 2 * _SIZE**3 / seconds
