"""Folders of PNG and JPEG files."""

import numpy as np
from PIL import Image


def write_pictures(folder, n_images=20):
    """Write files of several sizes, formats and modes to a folder and a subfolder."""
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n_images):
        shape = [(10, 13, 3), (30, 8, 3), (9, 9)][i % 3]
        image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
        image.save(folder / ("more" * (i % 2)) / f"{i:02}.{['png', 'JPG'][i % 2]}")
