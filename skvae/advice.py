"""Parameters to try first, by the size and the number of the images.

The first three are those from which benchmarks/choices starts at 8 x 8, 32 x 32 and
64 x 64 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# With fewer images, an epoch has only some steps of 64 images.
_MIN_LARGE_BATCH = 300


def first_parameters(
    image_shape: tuple[int, int, int], n_images: int
) -> dict[str, int | bool]:
    """Choose the parameters of ConvVAE to try first.

    Parameters
    ----------
    image_shape : (int, int, int)
        Height, width and channels of one image.
    n_images : int
        Number of training images.

    Returns
    -------
    dict of str to int or bool
        Values of `latent_dim`, `filters`, `hidden_layers`, `batch_size` and
        `early_stopping`.
    """
    # Each layer halves the sides: two pixels remain of 8, and four of 32 and 64.
    size = max(image_shape[:2])
    if size <= 16:
        latent_dim, filters, hidden_layers = 8, 32, 2
    elif size <= 32:
        latent_dim, filters, hidden_layers = 16, 16, 3
    else:
        latent_dim, filters, hidden_layers = 32, 16, 4
    return {
        "latent_dim": latent_dim,
        "filters": filters,
        "hidden_layers": hidden_layers,
        "batch_size": 64 if n_images >= _MIN_LARGE_BATCH else 16,
        "early_stopping": True,
    }


def advice(
    image_shape: tuple[int, int, int],
    n_images: int,
    parameters: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> str | None:
    """Name parameters to try, if all of them have their default values.

    Parameters
    ----------
    image_shape : (int, int, int)
        Height, width and channels of one image.
    n_images : int
        Number of training images.
    parameters, defaults : mapping of str to object
        Parameters of the estimator, and their default values.

    Returns
    -------
    str or None
        A sentence, or None if there is nothing to try.
    """
    to_try = first_parameters(image_shape, n_images)
    changes = [
        f"{name}={value}" for name, value in to_try.items() if value != defaults[name]
    ]
    if not changes or any(parameters[name] != defaults[name] for name in to_try):
        return None
    height, width, _ = image_shape
    return (
        f"For {n_images:,} images of {height} x {width} pixels, try "
        f"{', '.join(changes)}."
    )
