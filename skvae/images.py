"""Images as callers have them: layout, units and dtype. numpy alone.

The network sees (n, H, W, C) in units where [0, 1] is the value range. Callers have
rows of pixels, grey images or images with channels, in units and dtypes of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from skvae.exceptions import warn_user
from skvae.storage import StoredImages, chunk_length

_LAYOUT_NAMES = {
    2: "rows of pixels (n, H*W*C)",
    3: "grey images (n, H, W)",
    4: "images (n, H, W, C)",
}

# Rows of 3 k^2 columns, k at least this, are suspected to be colour images.
_MIN_COLOUR_SIDE = 8


@dataclass(frozen=True)
class ImageLayout:
    """How a caller lays out images, and the way there and back.

    Attributes
    ----------
    image_shape : (height, width, channels)
    caller_shape : tuple of int
        Shape of one image in the caller's arrays: (H*W*C,), (H, W) or (H, W, C).
    """

    image_shape: tuple[int, int, int]
    caller_shape: tuple[int, ...]

    @property
    def n_pixels(self) -> int:
        """Number of values in one image: height x width x channels."""
        return math.prod(self.image_shape)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """See that an array of that shape is in this layout, or rows of pixels.

        A wrong number of columns passes, for scikit-learn to report.

        Raises
        ------
        ValueError
            If the array is in another layout.
        """
        if len(shape) != 2 and tuple(shape[1:]) != self.caller_shape:
            own = ", ".join(map(str, self.caller_shape))
            or_own = f" or array of shape (n, {own})" if self.caller_shape[1:] else ""
            msg = (
                f"Got X of shape {tuple(shape)} where "
                f"{_LAYOUT_NAMES[len(self.caller_shape) + 1]} were given to fit. "
                f"Expected 2D array of shape (n, {self.n_pixels}){or_own}. "
                f"Reshape your data if it is such images: X.reshape(-1, {own})."
            )
            raise ValueError(msg)

    def to_rows(self, array: np.ndarray) -> np.ndarray:
        """Array in this layout, or rows of pixels, -> (n, H*W*C), a view."""
        self.check_shape(array.shape)
        return array.reshape(len(array), math.prod(array.shape[1:]))

    def to_images(self, rows: np.ndarray) -> np.ndarray:
        """(n, H*W*C) -> (n, H, W, C), a view."""
        return rows.reshape(len(rows), *self.image_shape)


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


def caller_shapes(image_shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """Shapes that one image of that (height, width, channels) may come in."""
    height, width, channels = image_shape
    shapes: list[tuple[int, ...]] = [(math.prod(image_shape),), image_shape]
    return [*shapes, (height, width)] if channels == 1 else shapes


def infer_layout(
    shape: tuple[int, ...], image_shape: tuple[int, int, int] | None
) -> ImageLayout:
    """Find the layout of an array of that shape.

    Parameters
    ----------
    shape : tuple of int
        (n, n_columns), (n, H, W) or (n, H, W, C).
    image_shape : (H, W, C) or None
        What the caller says of the images. Rows without it are square grey images
        if the number of columns is a square, else strips of 1 x n_columns.

    Raises
    ------
    ValueError
        If the shape is no layout or contradicts `image_shape`.
    """
    if len(shape) not in _LAYOUT_NAMES:
        msg = (
            f"Expected 2D array of {_LAYOUT_NAMES[2]}, 3D array of {_LAYOUT_NAMES[3]} "
            f"or 4D array of {_LAYOUT_NAMES[4]}, got {len(shape)}D array of shape "
            f"{shape} instead. Reshape your data: X.reshape(1, -1) if it is one image."
        )
        raise ValueError(msg)
    caller_shape = tuple(map(int, shape[1:]))  # a storage's own may be of numpy's
    if image_shape is None:
        return ImageLayout(_guess_image_shape(caller_shape), caller_shape)
    n_pixels = math.prod(image_shape)
    if caller_shape != (n_pixels,) and (*caller_shape, 1)[:3] != image_shape:
        msg = (
            f"input_shape says images of (height, width, channels) = {image_shape}, "
            f"which does not fit X of shape {tuple(shape)}. Give such images, rows of "
            f"{n_pixels} columns, or another input_shape."
        )
        raise ValueError(msg)
    return ImageLayout(image_shape, caller_shape)


def parse_input_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """Height, width and channels from (H, W) or (H, W, C).

    Raises
    ------
    ValueError
        If it is not two or three integers of at least 1.
    """
    if len(input_shape) not in (2, 3) or not all(
        isinstance(size, Integral) and size >= 1 for size in input_shape
    ):
        msg = (
            f"input_shape must be (height, width) or (height, width, channels), "
            f"integers of at least 1, got {input_shape!r}."
        )
        raise ValueError(msg)
    height, width, channels = (*map(int, input_shape), 1)[:3]
    return height, width, channels


def _guess_image_shape(caller_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Image shape behind one image of the caller's, with a warning where in doubt."""
    if len(caller_shape) > 1:
        height, width, channels = (*caller_shape, 1)[:3]
        if len(caller_shape) == 3 and height in (1, 3, 4) and channels > 4:
            warn_user(
                f"X is taken for images of {height} x {width} pixels with {channels} "
                f"channels. If its channels come first, give X.transpose(0, 2, 3, 1); "
                f"if they come last, set input_shape={caller_shape} to confirm it.",
            )
        return height, width, channels
    (n_columns,) = caller_shape
    side = math.isqrt(n_columns)
    if side**2 == n_columns:
        return side, side, 1
    side = math.isqrt(n_columns // 3)
    if 3 * side**2 == n_columns and side >= _MIN_COLOUR_SIDE:
        warn_user(
            f"X has {n_columns} columns, taken for strips of 1 x {n_columns} pixels. "
            f"If they are colour images of {side} x {side} pixels, set "
            f"input_shape=({side}, {side}, 3); if they are strips, set "
            f"input_shape=(1, {n_columns}) to confirm it.",
        )
    return 1, n_columns, 1


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
