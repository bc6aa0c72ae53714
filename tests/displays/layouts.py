"""Images in different layouts and units, and tiles of a plotted grid."""

import numpy as np
from helpers import TINY

from skvae import ConvVAE

RNG = np.random.default_rng(0)

# X and the shape (height, width, channels) of one image.
LAYOUTS = {
    "grey": (RNG.random((40, 6, 9)), (6, 9, 1)),
    "grey rows": (RNG.random((40, 64), np.float32), (8, 8, 1)),
    "colour": (RNG.integers(0, 256, (40, 7, 5, 3), np.uint8), (7, 5, 3)),
    "two channels": (RNG.normal(50, 9, (40, 6, 6, 2)), (6, 6, 2)),
    "strips": (RNG.normal(0, 9, (40, 30)), (1, 30, 1)),
    "bool": (RNG.random((40, 8, 8)) < 0.5, (8, 8, 1)),
}


def fit_with_latent_dim(latent_dim, X):
    return ConvVAE(**{**TINY, "latent_dim": latent_dim}).fit(X)


def get_tile(grid, row, column, shape, gap_y=1, gap_x=1):
    """Cut the tile in that row and column out of a plotted grid."""
    top, left = row * (shape[0] + gap_y), column * (shape[1] + gap_x)
    return grid[top : top + shape[0], left : left + shape[1]]
