"""Layouts of X: rows of pixels, grey images or images with channels.

The network takes images of shape (n, H, W, C) for every layout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from skvae.exceptions import warn_user

_LAYOUT_NAMES = {
    2: "rows of pixels (n, H*W*C)",
    3: "grey images (n, H, W)",
    4: "images (n, H, W, C)",
}

# Rows of 3 k^2 columns may be colour images of k x k pixels. Smallest k that warns.
_MIN_COLOUR_SIDE = 8

# Rows of k^2 + 1 columns, k at least this, may be square images and a label.
_MIN_SIDE_WITH_LABEL = 5


@dataclass(frozen=True)
class ImageLayout:
    """Layout of the caller's images, and their conversion to shape (n, H, W, C).

    Attributes
    ----------
    image_shape : (int, int, int)
        Height, width and channels of one image.
    caller_shape : tuple of int
        Shape of one image in the caller's arrays: (H*W*C,), (H, W) or (H, W, C).
    """

    image_shape: tuple[int, int, int]
    caller_shape: tuple[int, ...]

    @property
    def n_pixels(self) -> int:
        """Number of values in one image, H * W * C."""
        return math.prod(self.image_shape)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Check that an array is in this layout, or in rows of pixels.

        The number of columns is not checked, because scikit-learn does.

        Parameters
        ----------
        shape : tuple of int
            Shape of the array.

        Raises
        ------
        ValueError
            If the array is in another layout.
        """
        shape = tuple(shape)
        if shape in caller_shapes(self.image_shape) and shape[1:] != (self.n_pixels,):
            is_own = shape in (self.caller_shape, (self.n_pixels,))
            to_batch = "[None]" if is_own else f".reshape{(1, *self.caller_shape)}"
            msg = f"X is one image, of shape {shape}. Reshape your data: X{to_batch}."
            raise ValueError(msg)
        if len(shape) != 2 and shape[1:] != self.caller_shape:
            own = ", ".join(map(str, self.caller_shape))
            or_own = f" or array of shape (n, {own})" if self.caller_shape[1:] else ""
            msg = (
                f"X has shape {shape}, but the estimator was fitted on "
                f"{_LAYOUT_NAMES[len(self.caller_shape) + 1]}. "
                f"Expected 2D array of shape (n, {self.n_pixels}){or_own}. "
                f"{self._advice(shape)}"
            )
            raise ValueError(msg.rstrip())

    def _advice(self, shape: tuple[int, ...]) -> str:
        """Advice for an array in another layout; empty if its pixels are unknown."""
        height, width, channels = self.image_shape
        if len(shape) < 2:
            return "Reshape your data: X.reshape(1, -1) if it is one image."
        if shape[1:] == (channels, height, width) and channels > 1:
            return "Move the channels to the last axis: X.transpose(0, 2, 3, 1)."
        lengths = [n for n in shape[1:] if n > 1]
        if lengths == [n for n in self.image_shape if n > 1]:
            return f"Reshape your data: X.reshape{(-1, *self.caller_shape)}."
        return ""

    def to_rows(self, array: np.ndarray) -> np.ndarray:
        """Reshape an array in this layout, or rows, to rows (n, H*W*C), as a view."""
        self.check_shape(array.shape)
        return array.reshape(len(array), math.prod(array.shape[1:]))

    def to_images(self, rows: np.ndarray) -> np.ndarray:
        """Reshape rows (n, H*W*C) to images (n, H, W, C), as a view."""
        return rows.reshape(len(rows), *self.image_shape)


def caller_shapes(image_shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """Shapes of one image in each layout.

    Parameters
    ----------
    image_shape : (int, int, int)
        Height, width and channels of one image.

    Returns
    -------
    list of tuple of int
        (H*W*C,), (H, W, C) and, for one channel, (H, W).
    """
    height, width, channels = image_shape
    shapes: list[tuple[int, ...]] = [(math.prod(image_shape),), image_shape]
    return [*shapes, (height, width)] if channels == 1 else shapes


def infer_layout(
    shape: tuple[int, ...], image_shape: tuple[int, int, int] | None
) -> ImageLayout:
    """Infer the layout of X from its shape.

    Parameters
    ----------
    shape : tuple of int
        Shape of X: (n, n_columns), (n, H, W) or (n, H, W, C).
    image_shape : (int, int, int) or None
        Height, width and channels, if the caller has set `input_shape`. Without it,
        rows are square grey images if the number of columns is a square number, else
        strips of 1 x n_columns pixels.

    Returns
    -------
    ImageLayout

    Raises
    ------
    ValueError
        If X has no supported layout or contradicts `image_shape`.
    """
    if len(shape) not in _LAYOUT_NAMES:
        msg = (
            f"Expected 2D array of {_LAYOUT_NAMES[2]}, 3D array of {_LAYOUT_NAMES[3]} "
            f"or 4D array of {_LAYOUT_NAMES[4]}, got {len(shape)}D array of shape "
            f"{shape} instead. Reshape your data: X.reshape(1, -1) if it is one image."
        )
        raise ValueError(msg)
    caller_shape = tuple(map(int, shape[1:]))  # may be numpy integers
    if image_shape is None:
        _warn_of_one_image(shape)
        return ImageLayout(_guess_image_shape(caller_shape), caller_shape)
    if len(shape) == 2:
        _warn_of_planes(image_shape)
    n_pixels = math.prod(image_shape)
    if caller_shape != (n_pixels,) and (*caller_shape, 1)[:3] != image_shape:
        msg = (
            f"X of shape {tuple(shape)} does not match input_shape: (height, width, "
            f"channels) = {image_shape}. Expected images of this shape, or rows of "
            f"{n_pixels} columns."
        )
        raise ValueError(msg)
    return ImageLayout(image_shape, caller_shape)


def parse_input_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """Validate `input_shape` and return height, width and channels.

    Parameters
    ----------
    input_shape : (H, W) or (H, W, C)

    Returns
    -------
    (int, int, int)

    Raises
    ------
    ValueError
        If `input_shape` is not two or three integers of at least 1.
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
    """Guess the shape (H, W, C) of one image of X; warn if it is ambiguous."""
    if len(caller_shape) > 1:
        height, width, channels = (*caller_shape, 1)[:3]
        if len(caller_shape) == 3:
            _warn_of_channels(height, width, channels)
        return height, width, channels
    (n_columns,) = caller_shape
    side = math.isqrt(n_columns)
    if side**2 == n_columns:
        return side, side, 1
    as_strips = (
        f"X has {n_columns} columns and is read as strips of 1 x {n_columns} pixels."
    )
    to_confirm = f"for strips, set input_shape=(1, {n_columns}) to confirm it."
    if side >= _MIN_SIDE_WITH_LABEL and n_columns == side**2 + 1:
        warn_user(
            f"{as_strips} If one of them is a label and the others are images of "
            f"{side} x {side} pixels, remove it; {to_confirm}"
        )
    side = math.isqrt(n_columns // 3)
    if n_columns == 3 * side**2 + 1 and side >= _MIN_COLOUR_SIDE:
        warn_user(
            f"{as_strips} If one of them is a label and the others are colour images "
            f"of {side} x {side} pixels, remove it; {to_confirm}"
        )
    if 3 * side**2 == n_columns and side >= _MIN_COLOUR_SIDE:
        warn_user(
            f"{as_strips} For colour images of {side} x {side} pixels, set "
            f"input_shape=({side}, {side}, 3), or pass "
            f"{_from_planes(3, side, side)} if each row has one colour plane after "
            f"the other; {to_confirm}"
        )
    return 1, n_columns, 1


def _warn_of_one_image(shape: tuple[int, ...]) -> None:
    """Warn if X may be one colour image in place of many grey ones."""
    is_colour = len(shape) == 3 and shape[2] in (3, 4)
    if is_colour and min(shape[:2]) >= _MIN_COLOUR_SIDE:
        warn_user(
            f"X of shape {tuple(shape)} is read as {shape[0]} grey images of "
            f"{shape[1]} x {shape[2]} pixels. For one colour image, pass X[None]; for "
            f"grey images, set input_shape={tuple(shape[1:])} to confirm it."
        )


def _warn_of_channels(height: int, width: int, channels: int) -> None:
    """Warn if the last axis of X may not be that of its channels."""
    as_images = (
        f"X is read as images of {height} x {width} pixels with {channels} channels."
    )
    shape = (height, width, channels)
    if height in (1, 3, 4) and channels > 4:
        warn_user(
            f"{as_images} If its channels come first, pass X.transpose(0, 2, 3, 1); "
            f"if they come last, set input_shape={shape} to confirm it."
        )
    elif channels > 4 and channels >= min(height, width):
        warn_user(
            f"{as_images} If they are volumes, ConvVAE does not convolve along their "
            f"last axis: pass their slices as images. If they are channels, set "
            f"input_shape={shape} to confirm it."
        )


def _warn_of_planes(image_shape: tuple[int, int, int]) -> None:
    """Warn if `input_shape`, for rows of pixels, may have its channels first."""
    height, width, channels = image_shape
    if height in (1, 3, 4) and channels > 4:
        warn_user(
            f"Rows of X are read as images of {height} x {width} pixels with "
            f"{channels} channels. If each row has one colour plane after the other, "
            f"pass {_from_planes(height, width, channels)} without input_shape. To "
            f"confirm input_shape, pass X.reshape(-1, {height}, {width}, {channels})."
        )


def _from_planes(channels: int, height: int, width: int) -> str:
    return f"X.reshape(-1, {channels}, {height}, {width}).transpose(0, 2, 3, 1)"
