"""Display of images and their reconstructions."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils import check_consistent_length, check_random_state, check_scalar
from sklearn.utils.random import sample_without_replacement

from skvae.data.arrays import as_array, take_rows
from skvae.displays.common import check_estimator
from skvae.displays.image_grid import (
    arrange_in_rows,
    choose_n_cols,
    gap_size,
    height_to_width,
    is_strip,
    join_tiles,
    plot_image,
    to_tiles,
)
from skvae.estimator import ConvVAE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Number of values that are compared at a time to find the worst reconstructions.
_CHUNK_VALUES = 2**22


class ReconstructionDisplay:
    """Images, each above its reconstruction.

    Use `from_estimator` to create a display. All parameters are stored as attributes.

    Parameters
    ----------
    images : ndarray of shape (n, H, W, C)
    reconstructions : ndarray of shape (n, H, W, C)
        Decoded latents of the images.
    value_range : (float, float)
        Values that are plotted as black and white.
    indices : ndarray of shape (n,), default=None
        Row of X for each image.
    errors : ndarray of shape (n,), default=None
        Mean squared error of each reconstruction.

    Attributes
    ----------
    im_ : matplotlib AxesImage
        The grid as one image.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Notes
    -----
    Images with three channels are plotted as red, green and blue, with four as red,
    green, blue and alpha. For any other number of channels their mean is plotted.
    Strips, images of one pixel's height or width, are plotted as bands.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import ConvVAE, ReconstructionDisplay
    >>> images = load_digits().images
    >>> vae = ConvVAE(latent_dim=8, hidden_layers=2, epochs=2, random_state=0)
    >>> vae = vae.fit(images)
    >>> display = ReconstructionDisplay.from_estimator(vae, images, select="worst")
    >>> display.indices.shape, display.reconstructions.shape
    ((10,), (10, 8, 8, 1))
    >>> display.figure_.savefig("worst.png")
    """

    def __init__(
        self,
        images: np.ndarray,
        reconstructions: np.ndarray,
        *,
        value_range: tuple[float, float],
        indices: np.ndarray | None = None,
        errors: np.ndarray | None = None,
    ) -> None:
        self.images = images
        self.reconstructions = reconstructions
        self.value_range = value_range
        self.indices = indices
        self.errors = errors

    def plot(
        self,
        ax: Any = None,
        *,
        n_cols: int | None = None,
        cmap: Any = "gray",
        im_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Plot the images above their reconstructions.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. If None, a new figure is created.
        n_cols : int, default=None
            Number of columns. If None, it is chosen so that the grid is about three
            quarters as high as wide.
        cmap : str or matplotlib Colormap, default="gray"
            Colormap of images that have neither three nor four channels.
        im_kwargs : dict, default=None
            Additional keyword arguments passed to matplotlib's `imshow`.

        Returns
        -------
        display : ReconstructionDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        # (n, 2, H, W, C)
        tiles = to_tiles(np.stack([self.images, self.reconstructions], axis=1))
        _, _, height, width, _ = tiles.shape
        gap_y, gap_x = gap_size(height), gap_size(width)
        n_cols = choose_n_cols(n_cols, len(tiles), 2 * height_to_width(self.images))
        pairs = join_tiles(tiles[:, :, np.newaxis], gap_y, gap_x)
        self.im_ = plot_image(
            type(self).__name__,
            ax,
            join_tiles(arrange_in_rows(pairs, n_cols), 3 * gap_y, gap_x),
            value_range=self.value_range,
            is_stretched=is_strip(self.images),
            cmap=cmap,
            im_kwargs=im_kwargs,
        )
        self.ax_ = self.im_.axes
        self.ax_.set_xlabel("original over decoded")
        self.figure_ = self.ax_.figure
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: ConvVAE,
        X: ArrayLike,
        *,
        select: str = "random",
        n_samples: int = 10,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
        n_cols: int | None = None,
        cmap: Any = "gray",
        im_kwargs: Mapping[str, Any] | None = None,
    ) -> Self:
        """Encode and decode images, and plot them above their reconstructions.

        Parameters
        ----------
        estimator : ConvVAE
            Fitted estimator.
        X : array-like of shape (n, H*W*C) or in the layout that `fit` was given
            Images in the units that `fit` was given. Of an out-of-core array,
            "random" reads the plotted images only.
        select : {"random", "worst"}, default="random"
            Rows of X to plot. "random" draws rows without replacement, in ascending
            order. "worst" takes those with the highest mean squared error, the highest
            first.
        n_samples : int, default=10
            Number of images. If X has fewer, all are plotted.
        random_state : int, RandomState instance or None, default=None
            Seed of the random rows. None draws other rows in each call.
        ax, n_cols, cmap, im_kwargs
            See `plot`.

        Returns
        -------
        display : ReconstructionDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator is not a ConvVAE.
        ValueError
            If the estimator is not fitted, if `select` is invalid, or for the reasons
            given in `ConvVAE.transform`.
        """
        check_estimator(cls.__name__, estimator)
        n_samples = check_scalar(n_samples, "n_samples", Integral, min_val=1)
        if select not in ("random", "worst"):
            msg = f"select must be 'random' or 'worst', got {select!r}."
            raise ValueError(msg)
        array = as_array(X)
        check_consistent_length(array)  # a scalar has no length
        n_samples = min(n_samples, array.shape[0])
        if select == "random":
            indices = _random_rows(array.shape[0], n_samples, random_state)
        else:
            errors = _reconstruction_errors(estimator, array)
            indices = np.argsort(-errors, kind="stable")[:n_samples]
        rows = take_rows(array, indices)
        decoded = estimator.inverse_transform(np.asarray(estimator.transform(rows)))
        images, reconstructions = (
            np.asarray(each).reshape(-1, *estimator.input_shape_)
            for each in (rows, decoded)
        )
        display = cls(
            images,
            reconstructions,
            value_range=estimator.value_range_,
            indices=indices,
            errors=_mean_squared_error(images, reconstructions),
        )
        return display.plot(ax, n_cols=n_cols, cmap=cmap, im_kwargs=im_kwargs)


def _random_rows(
    n: int, n_samples: int, random_state: int | np.random.RandomState | None
) -> np.ndarray:
    """Draw rows without replacement, in ascending order."""
    # For None scikit-learn would use, and change, numpy's global random state.
    rng = np.random.RandomState() if random_state is None else random_state
    rows = sample_without_replacement(
        n, n_samples, random_state=check_random_state(rng)
    )
    return np.sort(rows)


def _reconstruction_errors(estimator: ConvVAE, X: Any) -> np.ndarray:
    """Mean squared error of each row of X, computed in chunks."""
    Z = np.asarray(estimator.transform(X))
    length = max(1, _CHUNK_VALUES // estimator.n_features_in_)
    parts = [slice(start, start + length) for start in range(0, len(Z), length)]
    return np.concatenate(
        [
            _mean_squared_error(
                np.asarray(take_rows(X, part)), estimator.inverse_transform(Z[part])
            )
            for part in parts
        ]
    )


def _mean_squared_error(images: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Mean squared error of each image, in float64."""
    differences = images.reshape(len(images), -1) - decoded.reshape(
        len(decoded), -1
    ).astype(np.float64)
    return np.mean(differences**2, axis=1)
