"""Reader for folders of pictures, in the formats that Pillow reads."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from skvae.exceptions import warn_user

# Errors that Pillow raises for broken files and broken Exif data.
_READ_ERRORS = (
    AttributeError,
    OSError,
    RuntimeError,  # NotImplementedError, too
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)

# Different reasons that are shown if no file can be read.
_N_REASONS = 3

# An 8-bit value times this is the 16-bit value of the same brightness.
_FROM_8_TO_16_BITS = 257


def read_pictures(
    folder: str | os.PathLike[str], size: tuple[int, int], *, is_grey: bool
) -> tuple[np.ndarray, dict[Path, str]]:
    """Read the pictures in a folder and its subfolders.

    Pictures are turned as their Exif data say, and transparent pixels are white. Of an
    animated picture the first frame is read. Hidden files are ignored.

    Parameters
    ----------
    folder : str or path-like
    size : (int, int)
        Height and width. Pictures are resized without keeping their proportions.
    is_grey : bool
        If True, convert pictures to grey.

    Returns
    -------
    images : ndarray of shape (n, height, width, 1 or 3), uint8 or uint16
        Images, sorted by path. If one of them is a grey picture of 16 bits, all are
        uint16, and the values of pictures of 8 bits are multiplied by 257.
    left_out : dict of Path to str
        Reasons why other files are not read, by path.

    Raises
    ------
    NotADirectoryError
        If `folder` is not a folder.
    ValueError
        If no file can be read.

    Warns
    -----
    UserWarning
        If pictures have 16-bit colours, of which Pillow reads the upper 8 bits.

    See Also
    --------
    picture_paths : Files of the images.

    Examples
    --------
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skvae.data.pictures import read_pictures
    >>> Path("photos").mkdir()
    >>> Image.new("RGB", (200, 150), "red").save("photos/red.png")
    >>> images, left_out = read_pictures("photos", (48, 64), is_grey=False)
    >>> images.shape, left_out
    ((1, 48, 64, 3), {})
    """
    paths = picture_paths(folder)
    height, width = size
    images = np.empty((len(paths), height, width, 1 if is_grey else 3), np.uint8)
    n_images, n_reduced, left_out = 0, 0, {}
    for path in paths:
        try:
            with Image.open(path) as picture:
                n_reduced += _has_deep_colours(picture)
                pixels = _pixels(picture, size, "L" if is_grey else "RGB")
        except UnidentifiedImageError:
            left_out[path] = "not a picture that Pillow reads"
        except _READ_ERRORS as error:
            left_out[path] = str(error) or type(error).__name__
        else:
            if pixels.dtype != images.dtype:
                images, pixels = _to_16_bits(images), _to_16_bits(pixels)
            images[n_images] = pixels  # grey is broadcast to colours
            n_images += 1
    if not n_images:
        msg = f"{folder} has no picture that can be read, out of {len(paths)} files."
        reasons = list(dict.fromkeys(left_out.values()))[:_N_REASONS]
        raise ValueError(" ".join([msg, *(f"Reason: {reason}." for reason in reasons)]))
    if n_reduced:
        warn_user(
            f"{n_reduced} pictures have colours of 16 bits, of which Pillow reads the "
            f"upper 8. Read them with another library if they use the lower ones."
        )
    return images[:n_images], left_out


def picture_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """List the files that `read_pictures` reads or leaves out.

    Parameters
    ----------
    folder : str or path-like

    Returns
    -------
    paths : list of Path
        In the order of the images that `read_pictures` returns.

    Raises
    ------
    NotADirectoryError
        If `folder` is not a folder.

    Examples
    --------
    Without the files that are left out, row i of the images is that of path i:

    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skvae.data.pictures import picture_paths, read_pictures
    >>> Path("photos").mkdir()
    >>> Image.new("RGB", (200, 150), "red").save("photos/red.png")
    >>> _ = Path("photos/notes.txt").write_text("not a picture")
    >>> images, left_out = read_pictures("photos", (48, 64), is_grey=False)
    >>> [path.name for path in picture_paths("photos") if path not in left_out]
    ['red.png']
    """
    folder = Path(folder)
    if not folder.is_dir():
        msg = f"{folder} is not a folder."
        raise NotADirectoryError(msg)
    return sorted(path for path in folder.rglob("*") if _is_wanted(path, folder))


def _is_wanted(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return path.is_file() and not any(part.startswith(".") for part in parts)


def _has_deep_colours(picture: Image.Image) -> bool:
    """Return whether Pillow converts the picture's colours from 16 to 8 bits."""
    tiles = getattr(picture, "tile", [])
    # BGR;16 is 5 or 6 bits of each colour.
    is_deep = any(";16" in str(tile) and "BGR" not in str(tile) for tile in tiles)
    return picture.mode[0] not in "IF" and is_deep


def _pixels(picture: Image.Image, size: tuple[int, int], mode: str) -> np.ndarray:
    """Pixels of shape (height, width, channels), in uint8 or uint16."""
    height, width = size
    # Cameras store the orientation as Exif data and do not rotate the pixels.
    upright = ImageOps.exif_transpose(picture)
    if upright.mode[0] in "IF":
        # Pillow would clip these values to 8 bits.
        grey = Image.fromarray(_grey_of_16_bits(upright).astype(np.float32))
        resized = np.asarray(grey.resize((width, height), Image.Resampling.BICUBIC))
        return np.rint(resized.clip(0, 2**16 - 1)).astype(np.uint16)[..., np.newaxis]
    if upright.has_transparency_data:
        paper = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(paper, upright.convert("RGBA"))
    resized = np.asarray(upright.convert(mode).resize((width, height)))
    return resized.reshape(height, width, -1)


def _grey_of_16_bits(picture: Image.Image) -> np.ndarray:
    """Values of a grey picture of more than 8 bits.

    Raises
    ------
    ValueError
        If they are not integers of 16 bits.
    """
    values = np.asarray(picture)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() >= 2**16:
        msg = (
            f"values of dtype {values.dtype} from {values.min():g} to "
            f"{values.max():g}; read it as an array with another library"
        )
        raise ValueError(msg)
    return values


def _to_16_bits(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint16:
        return pixels
    return pixels.astype(np.uint16) * _FROM_8_TO_16_BITS
