"""Grid of images, plotted as one image.

The cells of a grid are tiles: arrays of shape (H, W, C) in the caller's units. Gaps and
empty cells are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_scalar

from skvae.displays.common import get_axes

if TYPE_CHECKING:
    from matplotlib.image import AxesImage

# Height to width of matplotlib's default figure.
_FIGURE_RATIO = 3 / 4

# Maximum length to width of a plotted strip. One row of pixels is hardly visible.
_STRIP_RATIO = 8

# Maximum number of times that a strip is repeated, to save memory.
_MAX_STRIP_REPEATS = 16


def is_strip(images: np.ndarray) -> bool:
    """Check if images (..., H, W, C) are strips, one pixel high or wide."""
    return min(images.shape[-3:-1]) == 1


def height_to_width(images: np.ndarray) -> float:
    """Ratio at which each of the images (..., H, W, C) is plotted."""
    height, width = images.shape[-3:-1]
    if is_strip(images):
        return float(np.clip(height / width, 1 / _STRIP_RATIO, _STRIP_RATIO))
    return height / width


def to_tiles(images: np.ndarray) -> np.ndarray:
    """Convert images (..., H, W, C) to float, and widen strips by repetition."""
    tiles = images.astype(np.result_type(images, np.float32))
    if is_strip(images):
        height, width = images.shape[-3:-1]
        n_repeats = min(max(height, width) // _STRIP_RATIO + 1, _MAX_STRIP_REPEATS)
        tiles = tiles.repeat(n_repeats, axis=-3 if height == 1 else -2)
    return tiles


def choose_n_cols(n_cols: int | None, n_tiles: int, ratio: float) -> int:
    """Validate the number of columns, or choose one that fills a figure.

    Parameters
    ----------
    n_cols : int or None
        Number of columns. None chooses it.
    n_tiles : int
        Number of tiles in the grid.
    ratio : float
        Height to width of a tile.

    Raises
    ------
    TypeError, ValueError
        If `n_cols` is not a positive integer.
    """
    if n_cols is not None:
        return int(check_scalar(n_cols, "n_cols", Integral, min_val=1))
    n_cols = round(math.sqrt(n_tiles * ratio / _FIGURE_RATIO))
    n_rows = math.ceil(n_tiles / min(max(n_cols, 1), n_tiles))
    return math.ceil(n_tiles / n_rows)


def arrange_in_rows(tiles: np.ndarray, n_cols: int) -> np.ndarray:
    """Arrange tiles (n, H, W, C) in a grid (n_rows, n_cols, H, W, C), row by row."""
    missing = [(0, -len(tiles) % n_cols), (0, 0), (0, 0), (0, 0)]
    padded = np.pad(tiles, missing, constant_values=np.nan)
    return padded.reshape(-1, n_cols, *tiles.shape[1:])


def gap_size(tile_size: int) -> int:
    """Number of pixels between two tiles of that height or width."""
    return max(1, tile_size // 12)


def join_tiles(tiles: np.ndarray, gap_y: int, gap_x: int) -> np.ndarray:
    """Join grids (..., n_rows, n_cols, H, W, C) to images (..., height, width, C)."""
    gaps = [*[(0, 0)] * (tiles.ndim - 3), (0, gap_y), (0, gap_x), (0, 0)]
    # (..., n_rows, n_cols, H + gap_y, W + gap_x, C)
    padded = np.pad(tiles, gaps, constant_values=np.nan)
    *leading, n_rows, n_cols, height, width, channels = padded.shape
    joined = padded.swapaxes(-4, -3).reshape(
        *leading, n_rows * height, n_cols * width, channels
    )
    return joined[..., :-gap_y, :-gap_x, :]


def tile_centres(n_tiles: int, tile_size: int, gap: int) -> np.ndarray:
    """Pixel positions of the tiles' centres in a row or column of the grid."""
    return np.arange(n_tiles) * (tile_size + gap) + (tile_size - 1) / 2


def plot_image(
    display: str,
    ax: Any,
    image: np.ndarray,
    *,
    value_range: tuple[float, float],
    is_stretched: bool,
    cmap: Any,
    im_kwargs: Mapping[str, Any] | None,
) -> AxesImage:
    """Plot an image (height, width, C) without ticks.

    Three channels are plotted as red, green and blue, four as red, green, blue and
    alpha. For any other number of channels their mean is plotted with `cmap`.

    Parameters
    ----------
    display : str
        Class name of the display, for error messages.
    ax : matplotlib Axes or None
        None creates a new figure.
    image : ndarray of shape (height, width, C)
        NaN is transparent.
    value_range : (float, float)
        Values of the lower and upper end of the colours.
    is_stretched : bool
        True fills the axes, False keeps pixels square.
    cmap : str or matplotlib Colormap
    im_kwargs : dict or None
        Additional keyword arguments of `imshow`.

    Returns
    -------
    matplotlib AxesImage
    """
    height, width, n_channels = image.shape
    ax = get_axes(display, ax, None if is_stretched else height / width)
    low, high = value_range
    settings: dict[str, Any] = {"aspect": "auto" if is_stretched else "equal"}
    if n_channels in (3, 4):
        pixels = np.ones((height, width, 4), image.dtype)
        pixels[..., :n_channels] = np.clip((image - low) / (high - low), 0, 1)
        pixels[np.isnan(image[..., 0])] = (1, 1, 1, 0)
    else:
        pixels = image.mean(axis=-1)
        settings |= {"cmap": cmap, "vmin": low, "vmax": high}
    im = ax.imshow(pixels, **{**settings, **(im_kwargs or {})})
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return im
