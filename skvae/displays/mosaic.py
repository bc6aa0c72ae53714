"""Many images as one picture: tiles in rows and columns, with gaps between them.

A tile is an image (H, W, C) in the caller's units. NaN is where nothing is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_scalar

from skvae.displays.axes import axes_for

if TYPE_CHECKING:
    from matplotlib.image import AxesImage

# Height by width of what tiles are arranged to fill: matplotlib's figures.
_FIGURE_RATIO = 3 / 4

# A strip, whose one row or column of pixels would be hard to see, is drawn at most so
# many times as long as wide.
_STRIP_RATIO = 8

# A wider one would take much memory, and looks the same.
_MAX_STRIP_WIDTH = 16


def is_strip(images: np.ndarray) -> bool:
    """Whether images (..., H, W, C) are single rows or columns of pixels."""
    return min(images.shape[-3:-1]) == 1


def height_by_width(images: np.ndarray) -> float:
    """Shape in which each of the images (..., H, W, C) is drawn."""
    height, width = images.shape[-3:-1]
    if is_strip(images):
        return float(np.clip(height / width, 1 / _STRIP_RATIO, _STRIP_RATIO))
    return height / width


def to_tiles(images: np.ndarray) -> np.ndarray:
    """Images (..., H, W, C) as floats, and strips wider than their pixels."""
    tiles = images.astype(np.result_type(images, np.float32))
    if is_strip(images):
        height, width = images.shape[-3:-1]
        n_repeats = min(max(height, width) // _STRIP_RATIO + 1, _MAX_STRIP_WIDTH)
        tiles = tiles.repeat(n_repeats, axis=-3 if height == 1 else -2)
    return tiles


def n_columns(n_cols: int | None, n_tiles: int, ratio: float) -> int:
    """As many columns as are wanted, or as tiles of that height by width fill a figure.

    Raises
    ------
    TypeError, ValueError
        If `n_cols` is no positive integer.
    """
    if n_cols is not None:
        return int(check_scalar(n_cols, "n_cols", Integral, min_val=1))
    n_cols = round(math.sqrt(n_tiles * ratio / _FIGURE_RATIO))
    n_rows = math.ceil(n_tiles / min(max(n_cols, 1), n_tiles))
    return math.ceil(n_tiles / n_rows)


def wrap(tiles: np.ndarray, n_cols: int) -> np.ndarray:
    """(n, H, W, C) -> (n_rows, n_cols, H, W, C), row by row, the last with NaN."""
    missing = [(0, -len(tiles) % n_cols), (0, 0), (0, 0), (0, 0)]
    padded = np.pad(tiles, missing, constant_values=np.nan)
    return padded.reshape(-1, n_cols, *tiles.shape[1:])


def gap(size: int) -> int:
    """Pixels between tiles of that height or width."""
    return max(1, size // 12)


def join(tiles: np.ndarray, gap_y: int, gap_x: int) -> np.ndarray:
    """(..., n_rows, n_cols, H, W, C) -> pictures (..., height, width, C)."""
    gaps = [*[(0, 0)] * (tiles.ndim - 3), (0, gap_y), (0, gap_x), (0, 0)]
    # (..., n_rows, n_cols, H + gap_y, W + gap_x, C)
    padded = np.pad(tiles, gaps, constant_values=np.nan)
    *leading, n_rows, n_cols, height, width, channels = padded.shape
    pictures = padded.swapaxes(-4, -3).reshape(
        *leading, n_rows * height, n_cols * width, channels
    )
    return pictures[..., :-gap_y, :-gap_x, :]


def centres(n_tiles: int, size: int, gap: int) -> np.ndarray:
    """Where the tiles in a row or column of a picture have their centres."""
    return np.arange(n_tiles) * (size + gap) + (size - 1) / 2


def show(
    display: str,
    ax: Any,
    picture: np.ndarray,
    *,
    value_range: tuple[float, float],
    is_stretched: bool,
    cmap: Any,
    im_kwargs: Mapping[str, Any] | None,
) -> AxesImage:
    """Draw a picture (height, width, C), without ticks.

    Three channels are red, green and blue, four have an alpha, too; of any other number
    the mean is drawn.
    """
    height, width, n_channels = picture.shape
    axes = axes_for(display, ax, None if is_stretched else height / width)
    low, high = value_range
    settings: dict[str, Any] = {"aspect": "auto" if is_stretched else "equal"}
    if n_channels in (3, 4):
        pixels = np.ones((height, width, 4), picture.dtype)
        pixels[..., :n_channels] = np.clip((picture - low) / (high - low), 0, 1)
        pixels[np.isnan(picture[..., 0])] = (1, 1, 1, 0)
    else:
        pixels = picture.mean(axis=-1)
        settings |= {"cmap": cmap, "vmin": low, "vmax": high}
    im = axes.imshow(pixels, **{**settings, **(im_kwargs or {})})
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return im
