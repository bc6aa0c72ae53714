"""Validation of X and of output arrays."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data

from skvae.data.layout import ImageLayout
from skvae.data.storage import StoredImages, is_stored
from skvae.exceptions import naming


def with_shape(X: Any, name: str = "X") -> Any:
    """X itself if it has a shape, else the array of its nested lists.

    Raises
    ------
    ValueError
        If they are ragged, if the shape is not known, or if values are masked.
    """
    if hasattr(X, "shape"):
        if not isinstance(X.shape, tuple) or not all(
            isinstance(length, Integral) for length in X.shape
        ):
            msg = (
                f"{name} has the shape {X.shape!r}, expected a tuple of ints. A dask "
                f"array's compute_chunk_sizes() finds them."
            )
            raise ValueError(msg)
        if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
            msg = f"{name} has masked values. Replace them: {name}.filled(value)."
            raise ValueError(msg)
        return X
    try:
        return np.asarray(X)
    except ValueError as error:
        msg = f"{name} is ragged: its rows have different shapes. Make them equal."
        raise ValueError(msg) from error


def read_images(
    estimator: BaseEstimator,
    X: Any,
    layout: ImageLayout,
    *,
    reset: bool,
    name: str = "X",
) -> np.ndarray | StoredImages:
    """Validate X and return it as images (n, H, W, C) in its own dtype.

    scikit-learn validates rows of pixels, whatever the layout, so that feature names,
    the number of features and error messages are its own. Out-of-core arrays are
    validated as they are read.
    """
    with naming(name):
        X = with_shape(X, name)
        if is_stored(X):
            return _open_images(estimator, X, layout, reset=reset, name=name)
        rows = X if len(X.shape) == 2 else layout.to_rows(np.asarray(X))
        rows = validate_data(estimator, rows, reset=reset)
        check_numeric(rows.dtype, name)
        return layout.to_images(rows)


def _open_images(
    estimator: BaseEstimator, X: Any, layout: ImageLayout, *, reset: bool, name: str
) -> StoredImages:
    """Validate shape and dtype of stored images now, and their values when read."""
    layout.check_shape(X.shape)
    check_numeric(X.dtype, name)
    n_images, *caller_shape = X.shape
    stand_in = np.broadcast_to(
        np.zeros((), X.dtype), (n_images, math.prod(caller_shape))
    )
    # Without images or pixels, for scikit-learn to say so.
    validate_data(estimator, stand_in, reset=reset, skip_check_array=stand_in.size > 0)

    def to_images(part: np.ndarray) -> np.ndarray:
        rows = layout.to_rows(part)
        with naming(name):
            rows = check_array(rows, input_name=name, estimator=estimator)
        return layout.to_images(rows)

    return StoredImages(X, to_images, layout.image_shape)


def check_numeric(dtype: np.dtype, name: str) -> None:
    """Check that a dtype is bool, integer or float."""
    if dtype.kind not in "buif":
        msg = f"{name} must be numeric, got dtype {dtype}."
        raise ValueError(msg)


def check_out(out: Any, shape: tuple[int, ...], source: Any) -> None:
    """Check that an array can hold results of that shape.

    It must not share memory with the input, which is read while results are written.
    """
    if out is None:
        return
    dtype = getattr(out, "dtype", None)
    if dtype not in (np.float32, np.float64):
        msg = f"out must be an array of float32 or float64, got dtype {dtype}."
        raise TypeError(msg)
    if out.shape != shape:
        msg = f"out must have the result's shape {shape}, got {out.shape}."
        raise ValueError(msg)
    if not isinstance(out, np.ndarray):
        return
    if not out.flags.writeable:
        msg = "out is read-only. Give an array that can be written to."
        raise ValueError(msg)
    if isinstance(source, np.ndarray) and np.shares_memory(out, source):
        msg = "out shares memory with the input. Give another array."
        raise ValueError(msg)
