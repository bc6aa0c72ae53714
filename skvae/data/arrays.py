"""Conversion to arrays of what callers have: tensors, lists, Series of images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from numbers import Integral, Number
from typing import Any

import numpy as np

from skvae.data.storage import is_stored


def as_array(X: Any, name: str = "X") -> Any:
    """Convert to a numpy array, except tables, sparse matrices and out-of-core arrays.

    Parameters
    ----------
    X : object
        An array, a tensor of TensorFlow, PyTorch, JAX or anything else with
        `__array__`, nested lists, or a sequence of images of one shape. DataFrames
        and scipy's sparse matrices are returned as they are, for scikit-learn to
        validate, and so are out-of-core arrays.
    name : str, default="X"
        Name of the argument, for error messages.

    Returns
    -------
    array-like with `shape` and `dtype`

    Raises
    ------
    ValueError
        If images have different shapes, if values are masked, or if the shape is
        unknown.
    TypeError
        If X is of a kind that is no array, such as a path or a tf.data.Dataset.
    """
    if isinstance(X, type):
        raise TypeError(_not_an_array(X, name))
    if _is_series(X):
        X = X.to_numpy()
    if isinstance(X, np.ndarray):
        _check_unmasked(X, name)
        is_sequence = X.ndim == 1 and X.dtype == object and len(X) > 0
        return _stacked(list(X), name) if is_sequence else _in_own_dtype(X)
    if _is_table(X) or _is_sparse(X, name):
        return X
    # Tensors are in memory, also those that look like out-of-core arrays.
    if hasattr(X, "__dlpack__") or (hasattr(X, "__array__") and not is_stored(X)):
        return _converted(X, name)
    if hasattr(X, "shape") and not callable(X.shape):
        _check_shape(X, name)
        return X
    return _from_sequence(X, name)


def _converted(X: Any, name: str) -> np.ndarray:
    """Convert what has `__array__` or, without it, `__dlpack__`."""
    try:
        array = np.asanyarray(X) if hasattr(X, "__array__") else np.from_dlpack(X)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        msg = (
            f"{name} is a {_type_name(X)} that cannot be converted to a numpy array: "
            f"{error} Convert it first, to float32 for instance."
        )
        raise TypeError(msg) from error
    _check_unmasked(array, name)
    return _in_own_dtype(np.asarray(array))


def _in_own_dtype(array: np.ndarray) -> np.ndarray:
    """Convert bfloat16, which is no dtype of numpy's own, to float32."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _stacked(images: list[Any], name: str) -> np.ndarray:
    """Stack images of one shape."""
    shapes = {np.shape(image) for image in images}
    if len(shapes) > 1:
        msg = (
            f"{name} has images of different shapes: "
            f"{', '.join(map(str, sorted(shapes)[:3]))}. Resize them to one shape and "
            f"stack them: np.stack(images)."
        )
        raise ValueError(msg)
    for image in images:
        _check_unmasked(image, name)
    return np.stack([np.asarray(image) for image in images])


def _from_sequence(X: Any, name: str) -> np.ndarray:
    """Convert nested lists, or a sequence of arrays."""
    if isinstance(X, Number):
        return np.asarray(X)  # for scikit-learn to reject
    if not isinstance(X, Sequence) or isinstance(X, str | bytes):
        raise TypeError(_not_an_array(X, name))
    if len(X) > 0 and isinstance(X[0], str | bytes | os.PathLike):
        raise TypeError(_not_an_array(X[0], f"{name}[0]", "an image"))
    if any(hasattr(each, "__array__") for each in X):
        return _stacked([as_array(each, name) for each in X], name)
    if isinstance(X, list | tuple) and any(map(_has_arrays, X)):
        return _stacked([_from_sequence(each, name) for each in X], name)
    try:
        return np.asarray(X)
    except ValueError as error:
        msg = f"{name} is ragged: its rows have different shapes. Make them equal."
        raise ValueError(msg) from error


def _has_arrays(X: Any) -> bool:
    """Return whether X is a list that has arrays in it, at any depth."""
    if not isinstance(X, list | tuple) or not X:
        return False
    return hasattr(X[0], "__array__") or any(map(_has_arrays, X))


def _check_unmasked(X: Any, name: str) -> None:
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        msg = f"{name} has masked values. Replace them: {name}.filled(value)."
        raise ValueError(msg)


def _check_shape(X: Any, name: str) -> None:
    if not isinstance(X.shape, tuple) or not all(
        isinstance(length, Integral) for length in X.shape
    ):
        advice = "Convert it to a dense array of images of one shape."
        if hasattr(X, "compute_chunk_sizes"):
            advice = "compute_chunk_sizes() computes it."
        msg = (
            f"{name} is a {_type_name(X)} of shape {X.shape!r}, expected an array "
            f"whose shape is a tuple of ints. {advice}"
        )
        raise ValueError(msg)


def _not_an_array(X: Any, name: str, expected: str = "an array of images") -> str:
    what = f"{name} must be {expected}, got a {_type_name(X)}."
    if isinstance(X, str | bytes | os.PathLike):
        return f"{what} Read the file first, with np.load for instance."
    if isinstance(X, Mapping | Set):
        return f"{what} Pass one of its arrays, or np.stack(list of images)."
    return (
        f"{what} Pass an array, for instance np.stack(images), or call partial_fit "
        f"on its batches."
    )


def _type_name(X: Any) -> str:
    module = type(X).__module__.partition(".")[0]
    name = type(X).__name__
    if isinstance(X, type):
        return f"class {X.__name__}"
    return name if module == "builtins" else f"{module} {name}"


def _is_series(X: Any) -> bool:
    return hasattr(X, "to_numpy") and hasattr(X, "name") and not hasattr(X, "columns")


def _is_table(X: Any) -> bool:
    return any(hasattr(X, name) for name in ("iloc", "columns", "__dataframe__"))


def _is_sparse(X: Any, name: str) -> bool:
    is_sparse = hasattr(X, "tocsr") or hasattr(X, "tocoo")
    if is_sparse and len(X.shape) != 2:
        msg = (
            f"{name} is a sparse array of {len(X.shape)} axes, expected a dense one. "
            f"Use {name}.toarray()."
        )
        raise TypeError(msg)
    return is_sparse
