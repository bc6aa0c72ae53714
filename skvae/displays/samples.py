"""Sampled images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from skvae.displays.checks import check_estimator
from skvae.displays.mosaic import (
    gap,
    height_by_width,
    is_strip,
    join,
    n_columns,
    show,
    to_tiles,
    wrap,
)
from skvae.estimator import ConvVAE


class SampleDisplay:
    """Grid of sampled images.

    Make it with `from_estimator`. All parameters are kept as attributes.

    Parameters
    ----------
    images : ndarray of shape (n, H, W, C)
        Images to show, row by row.
    value_range : (float, float)
        Values that are drawn black and white.

    Attributes
    ----------
    im_ : matplotlib AxesImage
        All images as one picture.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Notes
    -----
    Images with three channels are drawn in colour, with four as red, green, blue and
    alpha; of any other number the mean is drawn in grey. For others give a part of the
    channels: ``SampleDisplay(display.images[..., :3], value_range=...).plot()``.

    Strips, images of one pixel's height or width, are drawn as bands.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import ConvVAE, SampleDisplay
    >>> images = load_digits().images
    >>> vae = ConvVAE(latent_dim=8, hidden_layers=2, epochs=2, random_state=0)
    >>> display = SampleDisplay.from_estimator(vae.fit(images), n_samples=24)
    >>> display.images.shape
    (24, 8, 8, 1)
    >>> display.figure_.savefig("samples.png")
    """

    def __init__(self, images: np.ndarray, *, value_range: tuple[float, float]) -> None:
        self.images = images
        self.value_range = value_range

    def plot(
        self,
        ax: Any = None,
        *,
        n_cols: int | None = None,
        cmap: Any = "gray",
        im_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the images.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw in. None makes a new figure.
        n_cols : int, default=None
            Images side by side. None takes as many as make the picture three quarters
            as high as wide.
        cmap : str or matplotlib Colormap, default="gray"
            Colours of images that are not drawn in their own.
        im_kwargs : dict, default=None
            Further arguments of matplotlib's `imshow`.

        Returns
        -------
        display : SampleDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        tiles = to_tiles(self.images)
        _, height, width, _ = tiles.shape
        n_cols = n_columns(n_cols, len(tiles), height_by_width(self.images))
        self.im_ = show(
            type(self).__name__,
            ax,
            join(wrap(tiles, n_cols), gap(height), gap(width)),
            value_range=self.value_range,
            is_stretched=is_strip(self.images),
            cmap=cmap,
            im_kwargs=im_kwargs,
        )
        self.ax_ = self.im_.axes
        self.figure_ = self.ax_.figure
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: ConvVAE,
        *,
        n_samples: int = 64,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
        n_cols: int | None = None,
        cmap: Any = "gray",
        im_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Sample images and draw them.

        Parameters
        ----------
        estimator : ConvVAE
            Fitted.
        n_samples : int, default=64
            Number of images.
        random_state : int, RandomState instance or None, default=None
            As in `ConvVAE.sample`: None takes the estimator's.
        ax, n_cols, cmap, im_kwargs
            As in `plot`.

        Returns
        -------
        display : SampleDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        TypeError
            If the estimator is no ConvVAE.
        ValueError
            If it is not fitted, or as `ConvVAE.sample`.
        """
        check_estimator(cls.__name__, estimator)
        images = estimator.sample(n_samples, random_state)
        display = cls(
            images.reshape(-1, *estimator.input_shape_),
            value_range=estimator.value_range_,
        )
        return display.plot(ax, n_cols=n_cols, cmap=cmap, im_kwargs=im_kwargs)
