"""Value range: the interval of pixel values that is scaled to [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np

from skvae.data.storage import StoredImages, chunks

# "auto" takes the range of the dtype if the data fill at least this part of it.
_MIN_FILLED = 0.25


def value_limits(images: np.ndarray | StoredImages) -> tuple[float, float]:
    """Smallest and largest value of images (n, H, W, C), read in chunks."""
    low, high = math.inf, -math.inf
    for part in chunks(images):
        smallest, largest = float(part.min()), float(part.max())
        if math.isnan(smallest):
            check_finite(part)
        low, high = min(low, smallest), max(high, largest)
    return low, high


def check_finite(images: np.ndarray) -> None:
    """Check that images are finite, in case that scikit-learn's validation is off.

    Raises
    ------
    ValueError
        If they are not.
    """
    if not np.isfinite(images).all():
        msg = "X contains NaN or infinity. Replace these values."
        raise ValueError(msg)


def auto_value_range(
    images: np.ndarray | StoredImages, sample: np.ndarray
) -> tuple[float, float]:
    """Value range (low, high) for ``value_range="auto"``.

    0 to 255 for uint8, and 0 to 1 for bool and for floats within this interval, unless
    the data fill less than a quarter of it; otherwise the minimum and maximum of the
    data. If they are equal, high is one unit above low.

    Parameters
    ----------
    images : array-like of shape (n, H, W, C)
    sample : ndarray of shape (n_sample, H, W, C)
        Some of them. If they fill the range of uint8, no others are read.
    """
    if images.dtype == np.uint8:
        low, high = value_limits(sample)
        if low == high or high - low >= _MIN_FILLED * 255.0:
            return 0.0, 255.0
    low, high = value_limits(images)
    if images.dtype == np.uint8 and high - low >= _MIN_FILLED * 255.0:
        return 0.0, 255.0
    is_within_0_and_1 = low >= 0.0 and high <= 1.0
    is_filled = low == high or high - low >= _MIN_FILLED
    if images.dtype.kind in "bf" and is_within_0_and_1 and is_filled:
        return 0.0, 1.0
    if low == high:
        # Beyond 2**53 neighbouring float64 numbers are more than one unit apart.
        high = low + max(1.0, float(np.spacing(abs(low))))
    return parse_value_range((low, high))


def parse_value_range(value_range: Sequence[float]) -> tuple[float, float]:
    """Validate a value range and return (low, high) as floats.

    Raises
    ------
    ValueError
        If it is not an interval, or if float32, the dtype of decoded images, cannot
        represent or resolve it.
    """
    limits = np.finfo(np.float32)
    if len(value_range) == 2 and all(isinstance(end, Real) for end in value_range):
        try:
            low, high = map(float, value_range)
        except OverflowError:  # an int beyond float64
            low = high = math.nan
        width = high - low
        is_resolved = width >= float(limits.tiny)
        if is_resolved and max(-low, high, width) <= float(limits.max):
            return low, high
    msg = (
        f"The value range must be (low, high) with low < high, finite and distinct in "
        f"float32, got {value_range!r}. Set another value_range, or scale the data."
    )
    raise ValueError(msg)


def to_network_units(
    images: np.ndarray, value_range: tuple[float, float], *, is_clipped: bool
) -> np.ndarray:
    """Scale images from the caller's units to the network's, as float32.

    Parameters
    ----------
    images : ndarray of shape (n, H, W, C)
        In the caller's units and dtype.
    value_range : (float, float)
        Interval of pixel values that is scaled to [0, 1].
    is_clipped : bool
        If True, values outside of the interval are clipped.

    Returns
    -------
    ndarray of shape (n, H, W, C), float32
    """
    low, high = value_range
    images = to_graph_dtype(images)
    # float64 is scaled before it is cast, to keep small differences at a large offset.
    working = np.float64 if images.dtype == np.float64 else np.float32
    if (low, high) != (0.0, 1.0):
        with np.errstate(over="ignore", invalid="ignore"):
            images = np.subtract(images, low, dtype=working)
            images /= working(high - low)
    with np.errstate(over="ignore"):
        images = np.ascontiguousarray(images, np.float32)
    return np.clip(images, 0.0, 1.0) if is_clipped else images


def to_graph_dtype(array: np.ndarray) -> np.ndarray:
    """Convert an array to uint8, float32 or float64, the dtypes that graphs accept.

    Integers of 32 or more bits become float64, because float32 would round them.
    """
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b" or array.dtype == np.uint8:
        return array.view(np.uint8) if kind == "b" else array
    if size <= 2 or (kind == "f" and size == 4):
        return array.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):  # an infinity is rejected later
        return array.astype(np.float64, copy=False)
