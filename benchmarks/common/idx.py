"""Reader of the files of MNIST and of data sets in its format."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def read_images_and_labels(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Read images (n, H, W), as uint8, and labels (n,).

    `part` is "train" or "t10k", with which the names of the files begin. They may be
    compressed by gzip.
    """
    images, labels = (_read(folder, f"{part}-{kind}") for kind in ("images", "labels"))
    return images, labels


def _read(folder: Path, name: str) -> np.ndarray:
    paths = sorted(folder.glob(f"{name}*"))
    if not paths:
        msg = f"{folder} has no file {name}-idx*-ubyte."
        raise FileNotFoundError(msg)
    content = paths[0].read_bytes()
    if paths[0].suffix == ".gz":
        content = gzip.decompress(content)
    n_axes = content[3]
    shape = np.frombuffer(content, ">i4", n_axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)
