"""Pictures in a folder, read as an array of images."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

_SUFFIXES = {".png", ".jpg", ".jpeg"}

# What Pillow raises on broken files, and on what cameras note in them.
_BROKEN = (
    AttributeError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)


def read_pictures(
    folder: Path, size: tuple[int, int], *, is_grey: bool
) -> tuple[np.ndarray, dict[Path, str]]:
    """Read the PNG and JPEG files in a folder and those below it.

    Parameters
    ----------
    folder : Path
    size : (height, width)
        What each picture is resized to, whatever its proportions.
    is_grey : bool
        Whether to read colours as grey.

    Returns
    -------
    images : (n, height, width, 1 or 3) of uint8
        In the order of their paths.
    unreadable : dict of Path to str
        Files that are left out, and why.

    Raises
    ------
    ValueError
        If there is no file that can be read.
    """
    paths = sorted(path for path in folder.rglob("*") if _is_picture(path))
    height, width = size
    images = np.empty((len(paths), height, width, 1 if is_grey else 3), np.uint8)
    n_images, unreadable = 0, {}
    for path in paths:
        try:
            with Image.open(path) as picture:
                pixels = _pixels(picture, size, "L" if is_grey else "RGB")
        except _BROKEN as error:
            unreadable[path] = str(error)
        else:
            images[n_images] = pixels.reshape(images.shape[1:])
            n_images += 1
    if not n_images:
        msg = (
            f"{folder} has no PNG or JPEG file that can be read, of {len(paths)} that "
            f"are called so."
        )
        raise ValueError(msg)
    return images[:n_images], unreadable


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def _pixels(picture: Image.Image, size: tuple[int, int], mode: str) -> np.ndarray:
    height, width = size
    # Cameras note which way is up instead of turning the pixels.
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # 16 bits, which Pillow would clip to 8
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.has_transparency_data:  # as on white paper
        paper = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(paper, upright.convert("RGBA"))
    return np.asarray(upright.convert(mode).resize((width, height)))
