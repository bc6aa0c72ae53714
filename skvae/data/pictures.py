"""Reader for folders of PNG and JPEG files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

_SUFFIXES = {".png", ".jpg", ".jpeg"}

# Errors that Pillow raises for broken files and broken Exif data.
_READ_ERRORS = (
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
    """Read the PNG and JPEG files in a folder and its subfolders.

    Parameters
    ----------
    folder : Path
    size : (int, int)
        Height and width. Pictures are resized without keeping their proportions.
    is_grey : bool
        If True, convert pictures to grey.

    Returns
    -------
    images : ndarray of shape (n, height, width, 1 or 3), uint8
        Images, sorted by path.
    unreadable : dict of Path to str
        Error messages of the files that cannot be read, by path.

    Raises
    ------
    ValueError
        If no file can be read.
    """
    paths = sorted(path for path in folder.rglob("*") if _is_picture(path))
    height, width = size
    images = np.empty((len(paths), height, width, 1 if is_grey else 3), np.uint8)
    n_images, unreadable = 0, {}
    for path in paths:
        try:
            with Image.open(path) as picture:
                pixels = _pixels(picture, size, "L" if is_grey else "RGB")
        except _READ_ERRORS as error:
            unreadable[path] = str(error)
        else:
            images[n_images] = pixels.reshape(images.shape[1:])
            n_images += 1
    if not n_images:
        msg = (
            f"{folder} has no readable PNG or JPEG file, out of {len(paths)} with such "
            f"names."
        )
        raise ValueError(msg)
    return images[:n_images], unreadable


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def _pixels(picture: Image.Image, size: tuple[int, int], mode: str) -> np.ndarray:
    height, width = size
    # Cameras store the orientation as Exif data and do not rotate the pixels.
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # 16 bits, which Pillow clips to 8
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        # Transparent pixels are white.
        paper = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(paper, upright.convert("RGBA"))
    return np.asarray(upright.convert(mode).resize((width, height)))
