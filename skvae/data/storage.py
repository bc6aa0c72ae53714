"""Out-of-core arrays, read in chunks. Needs numpy only.

An array needs `shape`, a numpy `dtype` and slicing: memory maps, h5py datasets, zarr
and dask arrays have them. Reads are runs of neighbouring rows, which files return
fastest, and each chunk is validated when it is read.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

# Maximum size of a chunk, unless a single image is larger.
_CHUNK_BYTES = 2**20


# A sample of the images has at most about this many bytes, in so many runs.
_SAMPLE_BYTES = 2**20
_N_RUNS = 16


class ReadingStopped(Exception):  # noqa: N818  no error, and seen by no user
    """Raised where images are read that are not wanted any more."""


class StoredArray(Protocol):
    """Interface of an out-of-core array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, followed by the shape of one row."""

    @property
    def dtype(self) -> np.dtype:
        """Data type, as a numpy dtype."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Read a slice of rows as an array."""


def chunk_length(images: np.ndarray | StoredImages) -> int:
    """Number of images in a chunk of an array of shape (n, H, W, C)."""
    return max(1, _CHUNK_BYTES // image_bytes(images))


def image_bytes(images: np.ndarray | StoredImages) -> int:
    """Size of one image in bytes."""
    return images.dtype.itemsize * math.prod(images.shape[1:])


def chunks(images: np.ndarray | StoredImages) -> Iterator[np.ndarray]:
    """Read images (n, H, W, C) in chunks."""
    length = chunk_length(images)
    for start in range(0, len(images), length):
        yield images[start : start + length]


def sample_images(images: np.ndarray | StoredImages) -> np.ndarray:
    """Runs of neighbouring images from all over the data."""
    n_run = max(1, _SAMPLE_BYTES // _N_RUNS // image_bytes(images))
    if isinstance(images, StoredImages):
        n_run = min(n_run, chunk_length(images))
    last = len(images) - n_run
    if last < _N_RUNS * n_run:
        starts = np.arange(0, len(images), n_run)
    else:
        starts = np.linspace(0, last, _N_RUNS).astype(int)
    return np.concatenate([images[start : start + n_run] for start in starts])


def is_stored(X: Any) -> bool:
    """Check if X is out-of-core: a memory map, or a foreign array of numpy dtype."""
    if isinstance(X, np.ndarray):
        return _memory_map(X) is not None
    # Excludes data frames, which have no dtype, and sparse matrices.
    is_sliceable = hasattr(X, "__getitem__") and not hasattr(X, "tocsr")
    return is_sliceable and isinstance(getattr(X, "dtype", None), np.dtype)


class StoredImages:
    """Out-of-core images of shape (n, H, W, C), read by slice or index array.

    Errors raised while reading have a note with the row numbers.

    Parameters
    ----------
    array : array-like with shape, dtype and slicing
        Images in the caller's layout.
    to_images : callable
        Validates a chunk in the caller's layout and reshapes it to (n, H, W, C).
    image_shape : (H, W, C)
        Shape of one image.
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
        # Some storages do not support concurrent reads.
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
        """Read the rows of an index array.

        Parameters
        ----------
        key : ndarray of int of shape (n_rows,)
        is_wanted : callable
            Called before each chunk. Returns False to stop reading.

        Returns
        -------
        ndarray of shape (n_rows, H, W, C)

        Raises
        ------
        ReadingStopped
            If `is_wanted` returns False.
        """
        images = np.empty((len(key), *self.shape[1:]), self.dtype)
        for places in self._by_chunk(key):
            if not is_wanted():
                raise ReadingStopped
            rows = key[places]
            start = int(rows.min())
            images[places] = self._read(start, int(rows.max()) + 1, rows - start)
        return images

    def _by_chunk(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the positions of each chunk's rows in an index array."""
        if len(rows) == 0:
            return
        chunks = rows // chunk_length(self)
        places = np.argsort(chunks, kind="stable")
        ends = np.flatnonzero(np.diff(chunks[places])) + 1
        yield from np.split(places, ends)

    def _read(
        self, start: int, stop: int, places: np.ndarray | None = None
    ) -> np.ndarray:
        """Read a run of rows, or only those at some places in it.

        The slice of a memory map is lazy: its other rows are not read from disk.
        """
        try:
            check_file(self._array)
            with self._lock:
                run = self._array[start:stop]
                n_rows = len(run)
                if places is not None and n_rows == stop - start:
                    run = run[places]
                # The conversion of a dask array would drop its mask.
                computed = run.compute() if hasattr(run, "compute") else run
                rows = np.asanyarray(computed)
            if np.ma.is_masked(rows):
                msg = "X has masked values. Replace them before they are read."
                raise ValueError(msg)  # noqa: TRY301
            rows = np.asarray(rows)
            if n_rows != stop - start or rows.dtype != self.dtype:
                msg = (
                    f"Expected {stop - start} rows of dtype {self.dtype}, got {n_rows} "
                    f"of {rows.dtype}. The data behind X has changed."
                )
                raise ValueError(msg)  # noqa: TRY301  gets the note below, too
            return self._to_images(rows)
        except Exception as error:
            error.add_note(f"while reading rows {start} to {stop - 1} of X")
            raise


class Selection:
    """Selected rows of images (n, H, W, C), read when they are sliced.

    Parameters
    ----------
    images : ndarray, StoredImages or Selection of shape (n, H, W, C)
    rows : ndarray of int of shape (n_rows,), or range with step 1
    is_wanted : callable
        Called before each read. Returns False to stop reading.
    """

    def __init__(
        self,
        images: np.ndarray | StoredImages | Selection,
        rows: np.ndarray | range,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._images = images
        self._rows = rows
        self._is_wanted = is_wanted

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a part of the selected rows.

        Raises
        ------
        ReadingStopped
            If they are not wanted any more.
        """
        if not self._is_wanted():
            raise ReadingStopped
        rows = self._rows[key]
        if isinstance(rows, range):
            return self._images[rows.start : rows.stop]
        return self._images[rows]


def check_file(array: Any) -> None:
    """Check that the file of a memory map, or of a view of one, is not truncated.

    Access beyond the end of a truncated file would kill the process.

    Parameters
    ----------
    array : array-like
        Anything but a memory map or a view of one passes.

    Raises
    ------
    OSError
        If the file is shorter than when it was opened.
    """
    memory_map = _memory_map(array)
    if memory_map is None:
        return
    mapped: Any = memory_map
    while isinstance(mapped, np.ndarray):
        mapped = mapped.base
    if not isinstance(mapped, mmap.mmap):
        return
    # A map starts at a page boundary.
    start = memory_map.offset - memory_map.offset % mmap.ALLOCATIONGRANULARITY
    if mapped.size() < start + len(mapped):
        msg = f"The file {memory_map.filename} is shorter than when it was opened."
        raise OSError(msg)


def _memory_map(array: Any) -> np.memmap | None:
    """Return the memory map that an array is, or is a view of, else None."""
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return array if isinstance(array, np.memmap) else None
