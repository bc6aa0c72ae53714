"""Images that stay where they are stored, and are read in parts. numpy alone.

Anything with `shape`, numpy's `dtype` and slicing will do: memory maps, h5py datasets,
zarr and dask arrays. Only runs of neighbouring rows are read, which is what files give
quickly, and each is validated as it comes.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any, Protocol

import numpy as np

# Rows that are read together have at most about this many bytes.
_CHUNK_BYTES = 2**20


class StoredArray(Protocol):
    """What an array has to have to be read in parts."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, and the shape of one."""

    @property
    def dtype(self) -> np.dtype:
        """numpy's, not a library's own."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Rows as an array."""


def chunk_length(images: np.ndarray | StoredImages) -> int:
    """How many images of an array (n, H, W, C) to read together."""
    return max(1, _CHUNK_BYTES // image_bytes(images))


def image_bytes(images: np.ndarray | StoredImages) -> int:
    """How many bytes one image has."""
    return images.dtype.itemsize * math.prod(images.shape[1:])


def is_stored(X: Any) -> bool:
    """Whether X is read in parts: a memory map, or what only looks like an array."""
    if isinstance(X, np.ndarray):
        return _memory_map(X) is not None
    # Neither tables nor sparse matrices.
    is_sliceable = hasattr(X, "__getitem__") and not hasattr(X, "tocsr")
    return is_sliceable and isinstance(getattr(X, "dtype", None), np.dtype)


class StoredImages:
    """Stored images as an array (n, H, W, C) that slices and index arrays read from.

    What goes wrong while rows are read has a note that names them.

    Parameters
    ----------
    array : array-like with shape, dtype and slicing
        Images in the caller's layout.
    to_images : callable
        Validates images in the caller's layout and brings them to (n, H, W, C).
    image_shape : (H, W, C)
    """

    def __init__(
        self,
        array: StoredArray,
        to_images: Callable[[np.ndarray], np.ndarray],
        image_shape: tuple[int, ...],
    ) -> None:
        self._array = array
        self._to_images = to_images
        self.shape = (int(array.shape[0]), *image_shape)
        self.dtype = array.dtype
        # Not every storage can be read by two threads of a call at a time.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """Read a run of rows, or the rows of an index array in any order."""
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self))
            return self._read(start, stop)
        return self.gather(key)

    def gather(
        self, key: np.ndarray, is_wanted: Callable[[], bool] = lambda: True
    ) -> np.ndarray:
        """Read the rows of an index array, as long as they are wanted.

        Raises
        ------
        CancelledError
            If they are wanted no more.
        """
        images = np.empty((len(key), *self.shape[1:]), self.dtype)
        for places in self._by_chunk(key):
            if not is_wanted():
                raise CancelledError
            rows = key[places]
            start = int(rows.min())
            images[places] = self._read(start, int(rows.max()) + 1, rows - start)
        return images

    def _by_chunk(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Places in an index array of the rows that are read together."""
        if len(rows) == 0:
            return
        chunks = rows // chunk_length(self)
        places = np.argsort(chunks, kind="stable")
        ends = np.flatnonzero(np.diff(chunks[places])) + 1
        yield from np.split(places, ends)

    def _read(
        self, start: int, stop: int, places: np.ndarray | None = None
    ) -> np.ndarray:
        """Read a run of rows, or of these only some.

        A slice of a memory map reads nothing yet: there, no other rows are touched.
        """
        try:
            check_file(self._array)
            with self._lock:
                run = self._array[start:stop]
                n_rows = len(run)
                if places is not None and n_rows == stop - start:
                    run = run[places]
                rows = np.asarray(run)
            if n_rows != stop - start or rows.dtype != self.dtype:
                msg = (
                    f"Got {n_rows} rows of {rows.dtype} where {stop - start} of "
                    f"{self.dtype} were expected. What X is read from has changed."
                )
                raise ValueError(msg)  # noqa: TRY301  the note below is for it, too
            return self._to_images(rows)
        except Exception as error:
            error.add_note(f"raised while rows {start} to {stop - 1} of X were read")
            raise


class Selection:
    """Some rows of images (n, H, W, C) as an array that is gathered where it is sliced.

    Parameters
    ----------
    images : ndarray, StoredImages or Selection
    rows : (n_rows,) of int, or range of neighbours
    """

    def __init__(
        self, images: np.ndarray | StoredImages | Selection, rows: np.ndarray | range
    ) -> None:
        self._images = images
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Gather a part of the rows."""
        rows = self._rows[key]
        if isinstance(rows, range):
            return self._images[rows.start : rows.stop]
        return self._images[rows]


def check_file(array: Any) -> None:
    """See that the file behind a memory map, or a view of one, is whole.

    Reading or writing beyond the end of a file that was cut off ends the process.

    Raises
    ------
    OSError
        If it is shorter than it was.
    """
    memory_map = _memory_map(array)
    if memory_map is None:
        return
    mapped: Any = memory_map
    while isinstance(mapped, np.ndarray):
        mapped = mapped.base
    if not isinstance(mapped, mmap.mmap):
        return
    # A map starts where a page does.
    start = memory_map.offset - memory_map.offset % mmap.ALLOCATIONGRANULARITY
    if mapped.size() < start + len(mapped):
        msg = f"The file {memory_map.filename} is shorter than when it was opened."
        raise OSError(msg)


def _memory_map(array: Any) -> np.memmap | None:
    """The memory map that an array is, or is a view of."""
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return array if isinstance(array, np.memmap) else None
