"""Value range: the interval of pixel values that the network sees as [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np

from skvae.data.storage import StoredImages, chunk_length


def value_limits(images: np.ndarray | StoredImages) -> tuple[float, float]:
    """Smallest and largest value of images (n, H, W, C), read in parts."""
    length = chunk_length(images)
    low, high = math.inf, -math.inf
    for start in range(0, len(images), length):
        part = images[start : start + length]
        low, high = min(low, float(part.min())), max(high, float(part.max()))
    return low, high


def auto_value_range(images: np.ndarray | StoredImages) -> tuple[float, float]:
    """The interval (low, high) that ``value_range="auto"`` stands for.

    0-255 for uint8; 0-1 for bool and for floats that lie in it; else the data's own
    minimum and maximum, and a unit above the minimum if they are equal.
    """
    if images.dtype == np.uint8:
        return 0.0, 255.0
    low, high = value_limits(images)
    if images.dtype.kind in "bf" and low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    if low == high:
        # Beyond 2**53 the next float64 is more than a unit away.
        high = low + max(1.0, float(np.spacing(abs(low))))
    return parse_value_range((low, high))


def parse_value_range(value_range: Sequence[float]) -> tuple[float, float]:
    """Low and high as floats.

    Raises
    ------
    ValueError
        If they are no interval, or one that float32, in which images come back,
        cannot hold or resolve.
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
        f"The value range must be (low, high) with low < high, both numbers that "
        f"float32 can hold and tell apart, got {value_range!r}. Set another "
        f"value_range, or scale the data."
    )
    raise ValueError(msg)


def to_network_units(
    images: np.ndarray, value_range: tuple[float, float], *, is_clipped: bool
) -> np.ndarray:
    """Bring images from the caller's units and dtype to the network's, float32.

    Parameters
    ----------
    images : (n, H, W, C)
    value_range : (low, high)
        The interval of pixel values that becomes [0, 1].
    is_clipped : bool
        Whether values outside of it become 0 and 1.
    """
    low, high = value_range
    images = to_graph_dtype(images)
    # float64 is scaled before it is cast, so that small differences at a large offset
    # survive.
    working = np.float64 if images.dtype == np.float64 else np.float32
    if (low, high) != (0.0, 1.0):
        with np.errstate(over="ignore", invalid="ignore"):
            images = np.subtract(images, low, dtype=working)
            images /= working(high - low)
    with np.errstate(over="ignore"):
        images = np.ascontiguousarray(images, np.float32)
    return np.clip(images, 0.0, 1.0) if is_clipped else images


def to_graph_dtype(array: np.ndarray) -> np.ndarray:
    """The same values as uint8, float32 or float64: graphs are traced for these three.

    Only float64 can hold what 32-bit integers and wider types hold.
    """
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b" or array.dtype == np.uint8:
        return array.view(np.uint8) if kind == "b" else array
    if size <= 2 or (kind == "f" and size == 4):
        return array.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):  # a longdouble that is refused as an infinity
        return array.astype(np.float64, copy=False)
