"""Keras with TensorFlow, needed for training and Keras models only.

Modules that use Keras or TensorFlow import them from here. No other module does, so
that a fitted estimator works without them.
"""

from __future__ import annotations

import os

if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    msg = (
        "skvae runs on Keras's TensorFlow backend, but the environment variable "
        f"KERAS_BACKEND is {os.environ['KERAS_BACKEND']!r}. Unset it, or set it to "
        "'tensorflow'."
    )
    raise ImportError(msg)

try:
    import keras
    import tensorflow as tf
except ModuleNotFoundError as error:
    if error.name not in ("keras", "tensorflow"):
        raise
    msg = (
        "Fitting a ConvVAE and to_keras require TensorFlow and Keras: pip install "
        f"tensorflow keras. ({error})"
    )
    raise ImportError(msg) from error

if keras.backend.backend() != "tensorflow":
    msg = (
        "skvae runs on Keras's TensorFlow backend, but Keras was loaded with "
        f"{keras.backend.backend()!r}. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is first imported."
    )
    raise ImportError(msg)

__all__ = ["keras", "tf"]
