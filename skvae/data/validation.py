"""Validation of X and of output arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data

from skvae.data.arrays import as_array
from skvae.data.layout import ImageLayout
from skvae.data.storage import StoredImages, is_stored
from skvae.exceptions import naming


def read_images(
    estimator: BaseEstimator,
    X: Any,
    layout: ImageLayout,
    *,
    reset: bool,
    name: str = "X",
) -> np.ndarray | StoredImages:
    """Validate X and reshape it to images (n, H, W, C).

    scikit-learn validates X as rows of pixels, so that feature names, the number of
    features and error messages follow its conventions. The values of out-of-core arrays
    are validated when they are read.

    Parameters
    ----------
    estimator : BaseEstimator
        Stores or provides the feature attributes.
    X : array-like or out-of-core array
    layout : ImageLayout
        Expected layout of X.
    reset : bool
        If True, set `n_features_in_` and `feature_names_in_`, else compare X with them.
    name : str, default="X"
        Name of the argument in error messages.

    Returns
    -------
    ndarray or StoredImages of shape (n, H, W, C)
        In the dtype of X.
    """
    with naming(name):
        X = as_array(X, name)
        if is_stored(X):
            return _open_images(estimator, X, layout, reset=reset, name=name)
        layout.check_shape(tuple(X.shape))
        rows = X if len(X.shape) == 2 else layout.to_rows(np.asarray(X))
        rows = validate_data(estimator, rows, reset=reset)
        check_numeric(rows.dtype, name)
        return layout.to_images(rows)


def _open_images(
    estimator: BaseEstimator, X: Any, layout: ImageLayout, *, reset: bool, name: str
) -> StoredImages:
    """Validate shape and dtype of an out-of-core array now, its values when read."""
    layout.check_shape(X.shape)
    check_numeric(X.dtype, name)
    n_images, *caller_shape = X.shape
    stand_in = np.broadcast_to(
        np.zeros((), X.dtype), (n_images, math.prod(caller_shape))
    )
    # For scikit-learn's error if there are no samples or no features.
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
    """Validate the argument `out` of a method.

    It must not share memory with the input, which is read while results are written.

    Parameters
    ----------
    out : array-like or None
    shape : tuple of int
        Shape of the results.
    source : array-like
        Input of the method.
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
        msg = "out is read-only. Pass a writeable array."
        raise ValueError(msg)
    if isinstance(source, np.ndarray) and np.shares_memory(out, source):
        msg = "out shares memory with the input. Pass another array."
        raise ValueError(msg)
